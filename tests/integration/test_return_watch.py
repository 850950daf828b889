"""What RabbitMQ says of the dead-letter exchanges of queues that are not ours."""

from __future__ import annotations

from typing import Any

from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import TestCase

from amqprouter.amqp.ack_ledger import AckLedger
from amqprouter.amqp.declare import queue_state
from amqprouter.amqp.link import connect_once
from amqprouter.amqp.properties import encode_properties
from amqprouter.amqp.publisher import Publisher
from amqprouter.amqp.quorum_check import ReturnWatch
from amqprouter.amqp.wire import Delivery, encode_nack
from amqprouter.broker.ingress import Ingress
from amqprouter.broker.topology import Topology
from amqprouter.counters import Counters
from amqprouter.settings import BrokerSettings, EventsSettings, IngressSettings, TopologySettings
from tests.support.process import reactor, until
from tests.support.rabbitmq import missing
from tests.support.servers import with_vhost

QUORUM = {"x-queue-type": "quorum"}
QUEUES: dict[str, dict[str, Any]] = {
    "classic": {},
    "limited": QUORUM | {"x-delivery-limit": 5, "x-single-active-consumer": True},
    "bare": QUORUM,
    "with": QUORUM | {"x-dead-letter-exchange": "dead", "x-dead-letter-strategy": "at-least-once"},
}


class ReturnWatchTests(TestCase):
    skip = missing or None
    timeout = 60

    async def test_each_kind_of_queue(self) -> None:
        """Every message is given back once; there is a warning for the quorum queues that have no such exchange."""
        events: list[LogEvent] = []
        globalLogPublisher.addObserver(events.append)  # type: ignore[arg-type]
        self.addCleanup(globalLogPublisher.removeObserver, events.append)  # type: ignore[arg-type]
        came: dict[bytes, int] = {}

        def receive(deliveries: list[Delivery], ledger: AckLedger) -> None:
            for delivery in deliveries:
                came[delivery.routing_key] = came.get(delivery.routing_key, 0) + 1
                if not delivery.redelivered:
                    channel = connection.channels[delivery.channel]
                    channel.write(encode_nack(delivery.channel, delivery.delivery_tag, False, True))

        async with with_vhost() as vhost:
            connection = await connect_once(reactor, BrokerSettings(uri=vhost.uri), "test")
            channel = await connection.open_channel()
            for queue, arguments in QUEUES.items():
                overflow = {"x-overflow": "reject-publish"} if "x-dead-letter-exchange" in arguments else {}
                await channel.queue_declare(queue=queue, durable=True, arguments=arguments | overflow)
            topology = Topology(TopologySettings(queue_type="classic"), IngressSettings(), EventsSettings())
            await topology.declare(connection)
            publisher = Publisher(reactor, Counters(), max_attempts=2, random=lambda: 0.0)
            await publisher.attach(connection)
            for queue in QUEUES:
                await publisher.send("", queue, encode_properties(message_id="1"), b"body")
            ingress = Ingress(reactor, topology, tuple(QUEUES), 10, receive)
            await ingress.attach(connection)

            def warned() -> set[str]:
                return {event["queue"] for event in events if "dead-letter exchange" in str(formatEvent(event))}

            async def all_said() -> bool:
                return set(came.values()) == {2} and len(came) == len(QUEUES) and len(warned()) >= 2

            await until(all_said, what="every message came twice, and two warnings", timeout=20)
            self.assertEqual(warned(), {"limited", "bare"})
            self.assertFalse(connection.closed)
            await ingress.stop()
            publisher.stop()
            await connection.shut()

    async def test_a_queue_that_is_gone(self) -> None:
        """The question does not make it."""
        async with with_vhost() as vhost:
            connection = await connect_once(reactor, BrokerSettings(uri=vhost.uri), "test")
            await ReturnWatch(["gone"])._ask(connection, "gone")
            self.assertIsNone(await queue_state(connection, "gone"))
            self.assertFalse(connection.closed)
            await connection.shut()
