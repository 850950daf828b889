"""The broker permissions in docs/deployment.rst are enough for the daemon, and not more than it needs."""

from __future__ import annotations

import re
from pathlib import Path

import pika
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from amqprouter.amqp.ack_ledger import AckLedger
from amqprouter.amqp.link import connect_once
from amqprouter.amqp.properties import Properties
from amqprouter.amqp.publisher import Publisher
from amqprouter.broker.parking import Parking
from amqprouter.broker.topology import Names, Topology
from amqprouter.counters import Counters
from amqprouter.pipeline.message import Message
from amqprouter.pipeline.settlement import Settlement
from amqprouter.settings import BrokerSettings, EventsSettings, IngressSettings, TopologySettings
from tests.support.process import reactor
from tests.support.rabbitmq import missing
from tests.support.servers import Vhost, with_vhost

GUIDE = Path(__file__).parents[2] / "docs/deployment.rst"
NAMES = Names.of(TopologySettings(), IngressSettings())


def _documented(user: str) -> list[str]:
    """The three patterns that the guide gives an account: configure, write, read."""
    call = re.search(rf"set_permissions -p plant {user}((?:[\s\\]+'[^']+')+)", GUIDE.read_text())
    assert call is not None, f"{GUIDE} sets no permissions for {user}"
    return re.findall(r"'([^']+)'", call[1])


async def _account(vhost: Vhost, user: str) -> str:
    """Make an account as the guide says; its URI."""
    await vhost.broker.add_user(user, "secret")
    configure, write, read = _documented(user)
    await vhost.broker.set_permissions(user, vhost.name, configure=configure, write=write, read=read)
    return vhost.broker.uri_for(vhost.name, user, "secret")


async def _declare(uri: str) -> None:
    """All that the daemon declares."""
    connection = await connect_once(reactor, BrokerSettings(uri=uri), "test")
    topology = Topology(TopologySettings(), IngressSettings(), EventsSettings())
    await topology.declare(connection)
    await topology.declare_events(connection)
    await connection.shut()


def _publish(uri: str, exchange: str, key: str) -> None:
    connection = pika.BlockingConnection(pika.URLParameters(uri))
    try:
        channel = connection.channel()
        channel.confirm_delivery()
        channel.basic_publish(exchange, key, b"{}", mandatory=True)
    finally:
        if connection.is_open:
            connection.close()


class DocumentedPermissionsTests(TestCase):
    skip = missing or None
    timeout = 120

    async def test_the_daemon(self) -> None:
        """It declares everything, publishes where it must, reads what it reads, and gets at nothing else."""
        async with with_vhost() as vhost:
            uri = await _account(vhost, "gateway")
            await _declare(uri)
            for exchange, key in [
                ("", NAMES.events),
                (NAMES.by_id, "meter-17"),
                (NAMES.rejected, ""),
                (NAMES.dead_letter, ""),
                (NAMES.replay, "meter-17.reading"),
            ]:
                await deferToThread(_publish, uri, exchange, key)
            await self._park(uri)
            await deferToThread(self._read, uri)
            with self.assertRaisesRegex(pika.exceptions.ChannelClosedByBroker, "ACCESS_REFUSED"):
                await deferToThread(_publish, uri, "amq.topic", "x")

    async def _park(self, uri: str) -> None:
        """A message goes into a parking queue that is made for it, and comes out of it."""
        publishing = await connect_once(reactor, BrokerSettings(uri=uri), "test publisher")
        consuming = await connect_once(reactor, BrokerSettings(uri=uri), "test consumer")
        counters, settled = Counters(), Deferred[Settlement]()
        publisher = Publisher(reactor, counters, max_attempts=1, random=lambda: 0.5)
        await publisher.attach(publishing)
        parking = Parking(
            reactor,
            publisher,
            counters,
            prefix=TopologySettings().prefix,
            queue_type=TopologySettings().queue_type,
            max_parked=10,
            account="gateway",
            random=lambda: 0.5,
            wake=publisher.flush,
            finish=settled.callback,
        )
        parking_queue = parking.parking_queue("target", "exchange:alarms", prefetch=1)
        parking_queue.use(lambda message, settlement: settlement.delivered(), lambda: None)
        await parking.attach(consuming)
        message = Message("meter-17", "reading", b"{}", Properties(), routing_key=b"meter-17.reading")
        parking_queue.park(message, Settlement(message, 1, AckLedger(), lambda _: None))
        self.assertEqual((await settled).message.key, "meter-17.reading")
        parking.stop()
        for connection in (publishing, consuming):
            await connection.shut()
        publisher.stop()

    def _read(self, uri: str) -> None:
        connection = pika.BlockingConnection(pika.URLParameters(uri))
        channel = connection.channel()
        for queue in (NAMES.ingress, *NAMES.shards, NAMES.events, NAMES.replay, NAMES.rejected, NAMES.dead_letters):
            channel.basic_qos(prefetch_count=1)
            channel.basic_consume(queue, lambda *delivery: None)
        connection.close()

    async def test_a_device(self) -> None:
        """It publishes under its own id on the devices exchange, and does nothing else."""
        async with with_vhost() as vhost:
            await _declare(vhost.uri)
            uri = await _account(vhost, "meter-17")
            topics = re.search(
                r"set_topic_permissions -p plant meter-17 devices '([^']+)' '([^']+)'", GUIDE.read_text()
            )
            assert topics is not None
            await vhost.broker.ctl(
                "set_topic_permissions", "-p", vhost.name, "meter-17", "devices", topics[1], topics[2]
            )
            await deferToThread(_publish, uri, NAMES.devices, "meter-17.reading")
            for exchange, key in [(NAMES.devices, "meter-18.reading"), (NAMES.rejected, ""), ("", NAMES.events)]:
                with self.assertRaisesRegex(pika.exceptions.ChannelClosedByBroker, "ACCESS_REFUSED"):
                    await deferToThread(_publish, uri, exchange, key)
