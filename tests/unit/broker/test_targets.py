"""Targets on the broker answer for each message once."""

from __future__ import annotations

import json

from amqprouter.amqp.ack_ledger import AckLedger
from amqprouter.amqp.properties import Properties, encode_properties
from amqprouter.amqp.publisher import Publisher
from amqprouter.broker.outgoing import Outgoing
from amqprouter.broker.targets import EventsTarget, ExchangeTarget
from amqprouter.counters import Counters
from amqprouter.pipeline.message import Message
from amqprouter.pipeline.settlement import Settlement
from amqprouter.testing.gate import OpenGate
from tests.unit.amqp.harness import BrokerTestCase


class TargetTestCase(BrokerTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.counters = Counters()
        self.publisher = Publisher(self.clock, self.counters, max_attempts=1, random=lambda: 1.0)
        self.finished: list[list[str]] = []
        self.run_now(self.publisher.attach(self.connected()))

    def settlement(self, properties: bytes = b"\x00\x00", key: bytes = b"dev1.up", body: bytes = b"1") -> Settlement:
        message = Message("dev1", "up", body, Properties(properties), exchange=b"devices", routing_key=key)
        return Settlement(message, 1, AckLedger(), lambda settled: self.finished.append(list(settled.refusals)))


class ExchangeTargetTests(TargetTestCase):
    def deliver(self, settlement: Settlement, routing_key: str = "") -> None:
        target = ExchangeTarget(self.publisher, "work", routing_key, Outgoing("x-secret"))
        target.deliver(settlement.message, settlement)
        target.flush()

    def test_own_key_or_the_routes(self) -> None:
        self.deliver(self.settlement())
        self.deliver(self.settlement(), "fixed")
        self.assertEqual(
            [(one.exchange, one.routing_key, one.body) for one in self.broker.published],
            [("work", "dev1.up", b"1"), ("work", "fixed", b"1")],
        )
        self.assertEqual(self.finished, [[], []])

    def test_malformed_properties(self) -> None:
        self.deliver(self.settlement(b"\x20\x00"))
        self.assertEqual(self.finished, [["malformed-properties"]])

    def test_unencodable(self) -> None:
        """A key over 255 bytes, or properties that no longer fit in a frame, are that message's own trouble."""
        self.deliver(self.settlement(key=b"k" * 256))
        self.deliver(self.settlement(encode_properties(headers={"a": "b" * 131_040})))
        self.deliver(self.settlement())
        self.assertEqual(self.finished[2], [])
        for refusals in self.finished[:2]:
            self.assertTrue(refusals[0].startswith("unencodable: "), refusals)

    def test_returned(self) -> None:
        self.broker.confirming = False
        self.deliver(self.settlement())
        self.broker.send_back(self.broker.published[0])
        self.broker.ack(1)
        self.assertEqual(self.finished, [["unroutable: NO_ROUTE"]])


class EventsTargetTests(TargetTestCase):
    def deliver(self, settlement: Settlement) -> None:
        target = EventsTarget(self.publisher, "events", self.counters, wall_clock=lambda: 1_800_000_000.5)
        target.use_gate(OpenGate())
        target.deliver(settlement.message, settlement)
        target.flush()

    def test_an_event(self) -> None:
        self.deliver(self.settlement(body=b'{"a": 1}'))
        (published,) = self.broker.published
        self.assertEqual((published.exchange, published.routing_key), ("", "events"))
        event = json.loads(published.body)
        self.assertEqual((event["device"], event["topic"], event["body"]), ("dev1", "up", {"a": 1}))
        self.assertEqual(Properties(published.properties).headers, {"x-amqprouter-key": "dev1.up"})
        # Readers take what is older than their start for old news; a message may have waited since before it.
        self.assertEqual(Properties(published.properties).timestamp, 1_800_000_000)
        self.assertEqual((self.finished, self.counters.events_published), ([[]], 1))

    def test_malformed_properties(self) -> None:
        self.deliver(self.settlement(b"\x20\x00"))
        self.assertEqual((self.finished, self.counters.events_published), ([["malformed-properties"]], 0))

    def test_refused(self) -> None:
        self.broker.confirming = False
        self.deliver(self.settlement())
        self.broker.send_back(self.broker.published[0])
        self.broker.ack(1)
        self.assertEqual((len(self.finished[0]), self.counters.events_published), (1, 0))
