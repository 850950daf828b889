"""What a device's priority does to the order of its messages, by the broker's version and the type of the queue."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from amqprouter.amqp.link import connect_once
from amqprouter.amqp.properties import encode_properties, with_values
from amqprouter.amqp.publisher import Publisher
from amqprouter.counters import Counters
from amqprouter.settings import BrokerSettings
from tests.support.fault_bed import declare_copies
from tests.support.gateway import SECRET, Fleet, Gateway, drain_queue
from tests.support.gateway_case import GatewayTestCase
from tests.support.mongo import TestDatabase
from tests.support.process import reactor
from tests.support.rabbitmq import VERSION, missing
from tests.support.servers import Vhost

PRIORITIES = (None, 0, 9, None, 4, 5, 3, 255, None, 31, 32, 1)
AS_SENT = list(range(len(PRIORITIES)))
if VERSION >= (4, 3):
    BY_QUORUM = [7, 9, 10, 2, 5, 0, 3, 4, 8, 6, 11, 1]  # strictly; over 31 counts as 31
elif VERSION >= (4,):
    BY_QUORUM = [2, 5, 0, 7, 9, 1, 10, 3, 4, 6, 8, 11]  # two of over 4 for one of the others
else:
    BY_QUORUM = AS_SENT
COUNTED = sum(priority is not None for priority in PRIORITIES)


async def publish_all(uri: str) -> None:
    connection = await connect_once(reactor, BrokerSettings(uri=uri), "test")
    publisher = Publisher(reactor, Counters(), max_attempts=2, random=lambda: 0.0)
    await publisher.attach(connection)
    for number, priority in enumerate(PRIORITIES):
        properties = encode_properties(headers={"x-device-secret": SECRET})
        if priority is not None:
            properties = with_values(properties, {"priority": bytes((priority,))})
        await publisher.send("devices", "dev1.up.a", properties, b"%d" % number)
    publisher.stop()
    await connection.shut()


class PriorityTests(GatewayTestCase):
    skip = missing or None

    def run_through(self, queue_type: str, expected: list[int], counted: int) -> Deferred[None]:
        """Messages that wait when the gateway starts; they are then taken from the broker one by one at first."""

        async def test(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            connection = await connect_once(reactor, BrokerSettings(uri=vhost.uri), "test")
            channel = await connection.open_channel()
            await declare_copies(channel, name="out")
            await connection.shut()
            await gateway.start()
            await gateway.stop()
            await publish_all(vhost.uri)
            await gateway.start()
            out = await drain_queue(vhost.uri, "out", len(PRIORITIES))
            self.assertEqual([int(delivery.body) for delivery in out], expected)
            self.assertEqual(await gateway.metric("with_priority_total"), counted)
            warnings = (gateway.folder / "daemon.log").read_text().count("Messages come with a priority")
            self.assertEqual(warnings, bool(counted))

        return self.run_with(
            test,
            start=False,
            topology={"queue_type": "quorum"},
            ingress={"queue_type": queue_type},
            route_all={"targets": "exchange:out"},
        )

    def test_quorum_queues(self) -> Deferred[None]:
        return self.run_through("quorum", BY_QUORUM, COUNTED if VERSION >= (4,) else 0)

    def test_classic_queues(self) -> Deferred[None]:
        """The way out: the order is that of sending on every version."""
        return self.run_through("classic", AS_SENT, 0)
