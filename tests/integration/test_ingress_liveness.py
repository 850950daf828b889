"""Consumers that stall, messages that kill, streams that are made anew: on a real broker."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import treq
from twisted.internet.defer import Deferred, DeferredQueue
from twisted.trial.unittest import TestCase

from amqprouter.amqp.ack_ledger import AckLedger
from amqprouter.amqp.channel import Channel
from amqprouter.amqp.connection import Connection
from amqprouter.amqp.declare import DELIVERY_LIMIT
from amqprouter.amqp.link import BrokerLink, connect_once
from amqprouter.amqp.properties import Properties, encode_properties
from amqprouter.amqp.publisher import Publisher
from amqprouter.amqp.wire import Delivery
from amqprouter.broker.event_stream import EventReader
from amqprouter.broker.ingress import Ingress
from amqprouter.broker.targets import EventsTarget
from amqprouter.broker.topology import Topology
from amqprouter.counters import Counters
from amqprouter.events.event import Event
from amqprouter.pipeline.message import Message
from amqprouter.pipeline.settlement import Settlement
from amqprouter.settings import BrokerSettings, EventsSettings, IngressSettings, TopologySettings
from amqprouter.testing.gate import OpenGate
from tests.support.gateway import Fleet, Gateway
from tests.support.mongo import mongo_for_tests
from tests.support.process import reactor, until
from tests.support.rabbitmq import missing
from tests.support.servers import Vhost, with_vhost
from tests.support.sse_client import without_places

Prepare = Callable[[Connection], Awaitable[None]]


@asynccontextmanager
async def linked(vhost: Vhost, *prepare: Prepare) -> AsyncIterator[BrokerLink]:
    """A link that prepares its connections so, with almost no back-off."""

    async def prepare_all(connection: Connection) -> None:
        for step in prepare:
            await step(connection)

    settings = BrokerSettings(uri=vhost.uri)
    link = BrokerLink(reactor, settings, "test", prepare_all, clock=reactor, counters=Counters(), random=lambda: 0.01)
    link.startService()
    try:
        yield link
    finally:
        await link.close()


@asynccontextmanager
async def publishing(vhost: Vhost) -> AsyncIterator[tuple[Publisher, Channel]]:
    """A publisher and a channel of the test's own."""
    connection = await connect_once(reactor, BrokerSettings(uri=vhost.uri), "test")
    publisher = Publisher(reactor, Counters(), max_attempts=2, random=lambda: 0.0)
    await publisher.attach(connection)
    try:
        yield publisher, await connection.open_channel()
    finally:
        publisher.stop()
        await connection.shut()


class Receipt:
    """Waits for one confirm."""

    def __init__(self) -> None:
        self.said: Deferred[str] = Deferred()

    def delivered(self) -> None:
        self.said.callback("")

    def refused(self, reason: str) -> None:
        self.said.callback(reason)


class LivenessTestCase(TestCase):
    skip = missing or None
    timeout = 60

    async def publish(self, publisher: Publisher, queue: str, *bodies: bytes) -> None:
        """Put messages on a queue, confirmed."""
        receipts = []
        for body in bodies:
            receipts.append(Receipt())
            publisher.publish(b"", queue.encode(), encode_properties(delivery_mode=2), body, receipts[-1])
        publisher.flush()
        for receipt in receipts:
            self.assertEqual(await receipt.said, "")


def topology() -> Topology:
    return Topology(TopologySettings(), IngressSettings(shards=1), EventsSettings())


class StreamMadeAnewTests(LivenessTestCase):
    async def test_deleted_and_declared_again(self) -> None:
        """The reader notices, and its events come from offset 0."""
        told: DeferredQueue[Any] = DeferredQueue()

        def publish(event: Event, live: bool) -> None:
            told.put((event.offset, event.topics[0], live))

        async with with_vhost() as vhost, publishing(vhost) as (publisher, channel):
            declared = topology()
            stream = declared.names.events
            target = EventsTarget(publisher, stream, Counters(), wall_clock=reactor.seconds)
            target.use_gate(OpenGate())
            reader = EventReader(stream, publish, reactor.seconds, lambda: told.put("restart"))

            def tell(topic: str) -> None:
                message = Message("dev1", topic, b"{}", Properties(), received_at=reactor.seconds())
                target.deliver(message, Settlement(message, 1, AckLedger(), lambda _: None))
                target.flush()

            async with linked(vhost, declared.declare_events, reader.attach) as link:

                async def is_up() -> bool:
                    return not link.problem()

                await until(is_up, what="the reader is attached", timeout=15)
                for number in range(5):
                    tell(f"old{number}")
                    self.assertEqual(await told.get(), (number, f"dev1.old{number}", True))
                await channel.queue_delete(queue=stream)
                await until(is_up, what="the reader is attached again", timeout=15)
                async with linked(vhost, declared.declare_events):  # whoever publishes may be first to declare it
                    tell("new0")
                tell("new1")
                found = [await told.get() for _ in range(3)]
                self.assertEqual(found, ["restart", (0, "dev1.new0", True), (1, "dev1.new1", True)])


class StreamMadeAnewDaemonTests(LivenessTestCase):
    async def test_a_subscriber_is_told(self) -> None:
        """The whole daemon: a subscriber that stays gets a gap, then the new stream's events, and none is lost."""
        with mongo_for_tests(Path(self.mktemp())) as database:
            async with with_vhost() as vhost, publishing(vhost) as (_, channel):
                gateway = Gateway(Path(self.mktemp()), vhost.uri, database.uri, database.name)
                gateway.devices("dev1")
                fleet = Fleet(vhost.uri)
                seen = b""

                def collect(data: bytes) -> None:
                    nonlocal seen
                    seen += data

                def ids() -> list[bytes]:
                    return re.findall(rb"^(?:id|event): (\S+)$", without_places(seen), re.MULTILINE)

                async def send(*numbers: int) -> None:
                    for number in numbers:
                        fleet.send("dev1", "up.temp", b'{"n": %d}' % number)
                    await fleet.all_confirmed()

                try:
                    await gateway.start()
                    await fleet.connect()
                    response = await treq.get(f"{gateway.url}/events", auth=("ann", "ann's"), persistent=False)
                    self.assertEqual(response.code, 200)
                    stream = treq.collect(response, collect)
                    await send(0, 1, 2)
                    await until(lambda: self.seen(ids, 3), what="the events have arrived", timeout=20)
                    await channel.queue_delete(queue="amqprouter.events")
                    await send(3, 4)
                    await until(lambda: self.seen(ids, 6), what="the new stream's have arrived", timeout=30)
                    self.assertEqual(ids(), [b"0", b"1", b"2", b"gap", b"0", b"1"])
                    self.assertEqual(seen.count(b'"n": 3'), 1)
                    self.assertEqual(seen.count(b'"n": 4'), 1)
                finally:
                    await fleet.close()
                    await gateway.stop()
                await stream

    async def seen(self, ids: Callable[[], list[bytes]], count: int) -> bool:
        return len(ids()) >= count


class PoisonTests(LivenessTestCase):
    async def test_a_message_that_ends_every_connection(self) -> None:
        """It goes to the dead letters with a history; its neighbours get through."""
        bodies: list[bytes] = []

        async with with_vhost() as vhost, publishing(vhost) as (publisher, channel):
            declared = topology()
            shard, dead = declared.names.shards[0], declared.names.dead_letters
            crashes = 0

            def receive(deliveries: list[Delivery], ledger: AckLedger) -> None:
                nonlocal crashes
                for delivery in deliveries:
                    if delivery.body == b"poison":
                        crashes += 1
                        raise ValueError("poisoned")
                    bodies.append(delivery.body)
                    ledger.settle(delivery.delivery_tag)
                    ledger.flush()

            ingress = Ingress(reactor, declared, (), 512, receive)
            async with linked(vhost, declared.declare, ingress.attach):

                async def is_declared() -> bool:
                    return not ingress.problem()

                before, after = [b"%d" % n for n in range(10)], [b"%d" % n for n in range(10, 300)]
                await until(is_declared, what="the queues are there", timeout=15)
                await self.publish(publisher, shard, *before, b"poison", *after)

                async def is_through() -> bool:
                    counts = await vhost.list_queues()
                    return counts[dead] == 1 and counts[shard] == 0 and not ingress.unacked

                await until(is_through, what="the poison is a dead letter", timeout=60)
            # Some come twice: their acks were cut off with the connection.
            self.assertEqual(sorted(set(bodies), key=int), before + after)
            self.flushLoggedErrors(ValueError)
            # Fewer, where it was under way behind another message when a connection ended.
            self.assertIn(crashes, range(DELIVERY_LIMIT - 3, DELIVERY_LIMIT + 2))
            inbox: DeferredQueue[Delivery] = DeferredQueue()
            channel.on_deliveries = lambda deliveries: inbox.put(deliveries[0])
            await channel.basic_qos(prefetch_count=10)
            await channel.basic_consume(queue=dead, consumer_tag="test")
            letter = await inbox.get()
            history: Any = Properties(letter.properties).headers["x-death"]
            self.assertEqual(letter.body, b"poison")
            self.assertEqual([(death["queue"], death["reason"]) for death in history], [(shard, "delivery_limit")])


class PrefetchTests(LivenessTestCase):
    async def test_it_grows_by_steps_after_an_unclean_end(self) -> None:
        """Each message comes once more, in order, while the consumers move from channel to channel."""
        count = 1000
        got: list[bytes] = []

        async with with_vhost() as vhost, publishing(vhost) as (publisher, channel):
            declared = topology()
            shard = declared.names.shards[0]
            holding = True

            def receive(deliveries: list[Delivery], ledger: AckLedger) -> None:
                for delivery in deliveries:
                    got.append(delivery.body)
                    if not holding:
                        ledger.settle(delivery.delivery_tag)
                ledger.flush()

            ingress = Ingress(reactor, declared, (), 64, receive)
            async with linked(vhost, declared.declare, ingress.attach) as link:

                async def is_ready() -> bool:
                    return not link.problem() and not ingress.problem()

                await until(is_ready, what="it consumes", timeout=15)
                bodies = [b"%d" % number for number in range(count)]
                await self.publish(publisher, shard, *bodies)
                self.assertEqual(got, bodies[:1])
                got.clear()
                holding = False
                assert link.connection is not None
                link.connection.transport.abortConnection()

                async def is_done() -> bool:
                    return len(got) >= count and not ingress.unacked

                await until(is_done, what="everything is settled", timeout=30)
                self.assertEqual(got, bodies)
                answer = await channel.queue_declare(queue=shard, passive=True)
                self.assertEqual((answer.message_count, answer.consumer_count), (0, 1))


class WatchdogTests(LivenessTestCase):
    async def test_a_broker_that_delivers_nothing(self) -> None:
        """A consumer is cancelled behind the daemon's back: it is started again, and the messages come."""
        got: DeferredQueue[bytes] = DeferredQueue()

        def receive(deliveries: list[Delivery], ledger: AckLedger) -> None:
            for delivery in deliveries:
                got.put(delivery.body)
                ledger.settle(delivery.delivery_tag)
            ledger.flush()

        async with with_vhost() as vhost, publishing(vhost) as (publisher, _):
            declared = topology()
            shard = declared.names.shards[0]
            counters = Counters()
            ingress = Ingress(reactor, declared, (), 10, receive, watchdog=2.0, counters=counters)
            async with linked(vhost, declared.declare, ingress.attach) as link:

                async def is_ready() -> bool:
                    return not link.problem() and not ingress.problem()

                await until(is_ready, what="it consumes", timeout=15)
                await self.publish(publisher, shard, b"1")
                self.assertEqual(await got.get(), b"1")
                connection = link.connection
                assert connection is not None
                current = ingress._current
                assert current is not None
                # Not by `ConsumerChannel.cancel`: the daemon is to believe that it still consumes.
                await current.channel.basic_cancel(consumer_tag=f"amqprouter:{shard}")
                await self.publish(publisher, shard, b"2")
                self.assertEqual(await got.get(), b"2")
                self.assertEqual(counters.stalled_consumers, 1)
                await until(is_ready, what="it consumes", timeout=15)
                self.assertIs(link.connection, connection)

    async def test_a_gateway_that_stands_by(self) -> None:
        """While another one works the queue off, nobody's consumer is started again."""
        async with with_vhost() as vhost, publishing(vhost) as (publisher, _):
            declared = topology()
            shard = declared.names.shards[0]
            counters = Counters()
            received = 0
            under_way: set[object] = set()

            def slowly(deliveries: list[Delivery], ledger: AckLedger) -> None:
                nonlocal received
                received += len(deliveries)
                for delivery in deliveries:
                    ledger.settle(delivery.delivery_tag)
                under_way.add(ledger)
                reactor.callLater(0.05, acknowledge, ledger)

            def acknowledge(ledger: AckLedger) -> None:
                under_way.discard(ledger)
                ledger.flush()

            first, second = (Ingress(reactor, declared, (), 10, slowly, watchdog=2.0, counters=counters) for _ in "12")
            async with (
                linked(vhost, declared.declare, first.attach),
                linked(vhost, declared.declare, second.attach),
            ):

                async def are_ready() -> bool:
                    return not first.problem() and not second.problem()

                await until(are_ready, what="both consume", timeout=15)
                bodies = [b"%d" % number for number in range(1200)]
                await self.publish(publisher, shard, *bodies)

                async def is_done() -> bool:
                    return received >= len(bodies) and not under_way

                await until(is_done, what="everything is settled", timeout=30)
                self.assertEqual((received, counters.stalled_consumers), (len(bodies), 0))
