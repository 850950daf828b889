"""Messages with a priority are told of where the broker goes by it."""

from __future__ import annotations

from pamqp import commands, header
from twisted.logger import capturedLogs, formatEvent

from amqprouter.amqp.ack_ledger import AckLedger
from amqprouter.amqp.wire import Delivery
from amqprouter.broker.ingress import Ingress
from amqprouter.broker.topology import Topology
from amqprouter.counters import Counters
from amqprouter.settings import EventsSettings, IngressSettings, TopologySettings
from tests.unit.amqp.harness import BrokerTestCase

QUEUE = "amqprouter.ingress"


def with_priority(priority: int | None) -> bytes:
    values = commands.Basic.Properties(priority=priority, content_type="t", message_id="m")
    return bytes(header.ContentHeader(0, 0, values).marshal()[12:])


class PriorityWatchTests(BrokerTestCase):
    def told(self, version: str, queue_type: str, *priorities: int | None) -> tuple[int, list[str]]:
        """What is counted and logged of messages with these priorities."""
        counters = Counters()
        self.broker.version = version
        topology = Topology(TopologySettings(), IngressSettings(shards=1, queue_type=queue_type), EventsSettings())
        ingress = Ingress(self.clock, topology, (), 100, self.receive, counters=counters)
        with capturedLogs() as logs:
            self.run_now(ingress.attach(self.connected()))
            for priority in priorities:
                self.broker.deliver_raw(QUEUE, with_priority(priority), b"", routing_key="dev\x1b.up")
        return counters.with_priority, [formatEvent(event) for event in logs]

    def receive(self, deliveries: list[Delivery], ledger: AckLedger) -> None:
        """It does not matter here."""

    def test_where_the_broker_goes_by_it(self) -> None:
        for version in ("4.0.5", "4.3.6"):
            count, (warning,) = self.told(version, "quorum", None, 0, None, 9, 4)
            self.assertEqual(count, 3)
            for words in (r"'dev\x1b.up'", f"RabbitMQ {version}", "[ingress] queue_type = classic"):
                self.assertIn(words, warning)

    def test_where_it_does_not(self) -> None:
        for version, queue_type in (("3.13.7", "quorum"), ("4.3.6", "classic"), ("", "quorum")):
            self.assertEqual(self.told(version, queue_type, 9), (0, []))

    def test_none_has_one(self) -> None:
        self.assertEqual(self.told("4.3.6", "quorum", None, None), (0, []))
