"""Quarantined messages arrive, with the reason, and without their properties if need be."""

from __future__ import annotations

from typing import Any

from amqprouter.amqp.ack_ledger import AckLedger
from amqprouter.amqp.properties import Properties, encode_properties
from amqprouter.amqp.publisher import RETRY_MAX
from amqprouter.broker.outgoing import Outgoing
from amqprouter.broker.quarantine import BrokerQuarantine
from amqprouter.broker.topology import Names
from amqprouter.counters import Counters
from amqprouter.pipeline.message import Message
from amqprouter.pipeline.settlement import Settlement
from amqprouter.settings import IngressSettings, LimitsSettings, TopologySettings
from tests.unit.amqp.harness import BrokerTestCase

PREFETCH = 40


class QuarantineTests(BrokerTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.counters = Counters()
        self.make()
        self.finished: list[list[str]] = []
        self.connection = self.connected()
        self.run_now(self.quarantine.attach(self.connection))

    def make(self, **limits: Any) -> None:
        """A quarantine with these options of ``[limits]``."""
        self.quarantine = BrokerQuarantine(
            Names.of(TopologySettings(), IngressSettings()),
            Outgoing("x-secret"),
            lambda: 0.0,
            clock=self.clock,
            counters=self.counters,
            prefetch=PREFETCH,
            limits=LimitsSettings(**limits),
            random=lambda: 1.0,
            wake=self.wake,
        )

    def wake(self) -> None:
        self.clock.callLater(0, self.quarantine.flush)

    def settlement(self, properties: bytes = b"\x00\x00", key: bytes = b"dev1.up") -> Settlement:
        message = Message("dev1", "up", b"body", Properties(properties), exchange=b"devices", routing_key=key)
        return Settlement(message, 1, AckLedger(), lambda settled: self.finished.append(list(settled.refusals)))

    def reject(self, settlement: Settlement) -> None:
        self.quarantine.reject(settlement.message, "not-allowed", settlement)
        self.quarantine.flush()

    def test_rejected(self) -> None:
        self.reject(self.settlement(encode_properties(message_id="m")))
        (published,) = self.broker.published
        self.assertEqual((published.exchange, published.routing_key), ("amqprouter.rejected", "dev1.up"))
        self.assertEqual(published.body, b"body")
        properties = Properties(published.properties)
        self.assertEqual((properties.message_id, properties.headers["x-amqprouter-reason"]), ("m", "not-allowed"))
        self.assertEqual(self.finished, [[]])

    def test_dead_lettered(self) -> None:
        settlement = self.settlement()
        self.quarantine.dead_letter(settlement.message, "no-route", settlement)
        self.assertEqual(self.finished, [])
        self.quarantine.flush()
        self.assertEqual([one.exchange for one in self.broker.published], ["amqprouter.dead-letter"])
        self.assertEqual(self.finished, [[]])

    def test_it_must_arrive(self) -> None:
        self.broker.missing_exchanges = {"amqprouter.rejected"}
        self.reject(self.settlement())
        self.pass_time(10 * RETRY_MAX)
        self.assertEqual(self.finished, [])
        self.broker.missing_exchanges.clear()
        self.pass_time(2 * RETRY_MAX)
        self.assertEqual(self.finished, [[]])

    def test_properties_that_do_not_fit(self) -> None:
        """They filled their frame, and our headers make it too large: the body goes, with the reason."""
        big = encode_properties(headers={"big": "x" * 131_000})
        self.reject(self.settlement(big))
        (published,) = self.broker.published
        self.assertEqual(published.body, b"body")
        self.assertEqual(
            set(Properties(published.properties).headers),
            {"x-amqprouter-reason", "x-amqprouter-at", "x-amqprouter-device"},
        )
        self.assertEqual(self.finished, [[]])

    def test_a_key_that_grew(self) -> None:
        """A device id and a topic may together be longer than a routing key."""
        self.reject(self.settlement(key=b"k" * 300))
        self.assertEqual([one.routing_key for one in self.broker.published], ["k" * 255])
        self.assertEqual(self.finished, [[]])
