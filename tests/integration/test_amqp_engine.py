"""The AMQP adapters against a real RabbitMQ: what the unit tests' broker in memory stands for."""

from __future__ import annotations

import struct
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, DeferredQueue
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from amqprouter.amqp.ack_ledger import AckLedger
from amqprouter.amqp.channel import Channel
from amqprouter.amqp.connection import PREFERRED_FRAME_MAX, Connection
from amqprouter.amqp.link import BrokerLink, connect_once
from amqprouter.amqp.properties import Properties, encode_properties
from amqprouter.amqp.publisher import Publisher
from amqprouter.amqp.wire import Delivery, encode_ack, encode_nack, encode_reject
from amqprouter.broker.event_stream import QUIET, EventReader
from amqprouter.broker.ingress import Ingress
from amqprouter.broker.outgoing import Outgoing
from amqprouter.broker.targets import EventsTarget, ExchangeTarget
from amqprouter.broker.topology import Topology
from amqprouter.counters import Counters
from amqprouter.errors import BrokerRefused, TopologyClash
from amqprouter.events.event import Event
from amqprouter.pipeline.message import Message
from amqprouter.pipeline.settlement import Settlement
from amqprouter.settings import BrokerSettings, EventsSettings, IngressSettings, TopologySettings
from amqprouter.testing.amqp import rewritten
from amqprouter.testing.gate import OpenGate
from tests.support.process import reactor, until
from tests.support.rabbitmq import VERSION, PrivateRabbitMQ, missing
from tests.support.servers import Vhost, with_vhost

EVERY_TYPE = {
    "t": b"\x01",
    "b": b"\xff",
    "B": b"\xff",
    "s": b"\xff\xfe",
    "u": b"\xff\xfe",
    "I": b"\xff" * 4,
    "i": b"\xff" * 4,
    "l": b"\xff" * 8,
    "f": b"\x3f\x80\x00\x00",
    "d": b"\x40\x04" + bytes(6),
    "D": b"\x02\x00\x00\x04\xd2",
    "S": b"\x00\x00\x00\x03\xe2\x82\xac",
    "A": b"\x00\x00\x00\x06" + b"B\x01" + b"V" + b"t\x00" + b"V",
    "T": b"\x00\x00\x00\x00\x5f\x00\x00\x00",
    "F": b"\x00\x00\x00\x08" + b"\x01ax\x00\x00\x00\x01\xff",
    "V": b"",
    "x": b"\x00\x00\x00\x02\x00\xff",
}
"""A value of each type that RabbitMQ 3.10 takes (``L`` came later), as bytes behind its letter."""
TABLE = b"".join(b"\x01" + letter.encode() + letter.encode() + value for letter, value in EVERY_TYPE.items())
HEADERS = b"\x20\x00" + struct.pack(">I", len(TABLE)) + TABLE
"""Properties with a header of each type and nothing else."""
DELIVERED = rewritten(HEADERS) if VERSION >= (4, 0) else HEADERS
"""As they come out of a queue: RabbitMQ 4 sorts them by name."""
LONG_NAME = "é" * (104 if VERSION >= (4, 0) else 120)
"""Of an exchange that is not there. 3.10 cuts its own text, in which it says so, at 255 bytes; 4.x fails at cutting one
that is not ASCII (541 internal error, which ends the connection), so with this name the text just fits."""
REDELIVERED: dict[str, dict[str, object]] = {
    "classic": {},
    "quorum": {"x-acquired-count": 1} if VERSION >= (4, 3) else {"x-delivery-count": 1},
}
"""Headers that are added to what comes again after a nack: from 4.3 on such a return is none that counts."""


class Answer:
    """A receipt to wait for."""

    def __init__(self) -> None:
        self.said: Deferred[str] = Deferred()

    def delivered(self) -> None:
        self.said.callback("delivered")

    def refused(self, reason: str) -> None:
        self.said.callback(f"refused: {reason}")


@asynccontextmanager
async def connected(uri: str) -> AsyncIterator[Connection]:
    """A connection of the test's own."""
    connection = await connect_once(reactor, BrokerSettings(uri=uri), "test")
    try:
        yield connection
    finally:
        await connection.shut()


@asynccontextmanager
async def publishing(connection: Connection, max_attempts: int = 2) -> AsyncIterator[Publisher]:
    publisher = Publisher(reactor, Counters(), max_attempts=max_attempts, random=lambda: 0.0)
    await publisher.attach(connection)
    try:
        yield publisher
    finally:
        publisher.stop()


async def consume(channel: Channel, queue: str) -> DeferredQueue[Delivery]:
    """Deliveries from a queue, one by one; acks are the caller's."""
    inbox: DeferredQueue[Delivery] = DeferredQueue()

    def take(batch: list[Delivery]) -> None:
        for delivery in batch:
            inbox.put(delivery)

    channel.on_deliveries = take
    await channel.basic_qos(prefetch_count=10)
    await channel.basic_consume(queue=queue, consumer_tag=f"test:{queue}")
    return inbox


def topology(shards: int = 2, queue_type: str = "classic") -> Topology:
    return Topology(TopologySettings(queue_type=queue_type), IngressSettings(shards=shards), EventsSettings())


class EngineTestCase(TestCase):
    skip = missing or None
    timeout = 120

    def publish(self, publisher: Publisher, exchange: str, key: str, properties: bytes, body: bytes) -> Deferred[str]:
        answer = Answer()
        publisher.publish(exchange.encode(), key.encode(), properties, body, answer)
        publisher.flush()
        return answer.said


class TopologyTests(EngineTestCase):
    async def test_idempotent(self) -> None:
        """Twice over, with each type of queue; another type is a clash that names both."""
        for queue_type, other in (("quorum", "classic"), ("classic", "quorum")):
            async with with_vhost() as vhost, connected(vhost.uri) as connection:
                for _ in range(2):
                    declared = topology(queue_type=queue_type)
                    await declared.declare(connection)
                    await declared.declare_events(connection)
                queues = await vhost.list_queues()
                names = declared.names
                self.assertEqual(
                    set(queues),
                    {
                        names.ingress,
                        *names.shards,
                        names.unrouted,
                        names.rejected,
                        names.dead_letters,
                        names.replay,
                        names.events,
                    },
                )
                with self.assertRaises(TopologyClash) as raised:
                    await topology(queue_type=other).declare(connection)
                story = str(raised.exception)
                self.assertIn(f"'x-queue-type': '{other}'", story)
                self.assertIn("inequivalent arg 'x-queue-type'", story)
                self.assertFalse(connection.closed)

    async def test_refused(self) -> None:
        """Wrong password, wrong vhost: the broker's own words."""
        async with with_vhost() as vhost:
            for uri, code in (
                (vhost.broker.uri_for(vhost.name, "guest", "wrong"), 403),
                (vhost.broker.uri_for(vhost.name, "nobody", "guest"), 403),
                (vhost.broker.uri_for("no-such-vhost"), 530),
            ):
                with self.assertRaises(BrokerRefused) as raised:
                    await connect_once(reactor, BrokerSettings(uri=uri), "test")
                self.assertEqual(raised.exception.code, code)


class MessageTests(EngineTestCase):
    async def test_every_header_type(self) -> None:
        """Bytes intact there, back again over a return, redelivered with a count, and dead-lettered with a history."""
        for queue_type in ("classic", "quorum"):
            async with with_vhost() as vhost, connected(vhost.uri) as connection, publishing(connection) as publisher:
                channel, dead = await connection.open_channel(), await connection.open_channel()
                arguments = {
                    "x-queue-type": queue_type,
                    "x-dead-letter-exchange": "",
                    "x-dead-letter-routing-key": "dead",
                }
                await channel.queue_declare(queue="q", durable=True, arguments=arguments)
                await channel.queue_declare(queue="dead", durable=True)
                inbox, deaths = await consume(channel, "q"), await consume(dead, "dead")

                self.assertEqual(await self.publish(publisher, "", "q", HEADERS, b"body"), "delivered")
                first = await inbox.get()
                self.assertEqual((first.properties, first.body, first.redelivered), (DELIVERED, b"body", False))
                headers = Properties(first.properties).headers
                self.assertEqual(set(headers), set(EVERY_TYPE))

                channel.write(encode_nack(channel.id, first.delivery_tag, False, True))
                again = await inbox.get()
                self.assertTrue(again.redelivered)
                self.assertEqual(Properties(again.properties).headers, headers | REDELIVERED[queue_type])

                channel.write(encode_reject(channel.id, again.delivery_tag, False))
                last = await deaths.get()
                properties = Properties(last.properties)
                history: Any = properties.headers["x-death"]
                told = [(death["queue"], death["count"], death["reason"]) for death in history]
                self.assertEqual(told, [("q", 1, "rejected")])
                passed = Properties(properties.spliced(0, frozenset((b"x-death",)), b""))
                self.assertEqual(passed.headers["F"], {"a": b"\xff"})
                dead.write(encode_ack(dead.id, last.delivery_tag, False))

                said = await self.publish(publisher, "", "no-such-queue", HEADERS, b"returned")
                self.assertEqual(said, "refused: unroutable: NO_ROUTE")
                self.assertFalse(connection.closed)

    async def test_bodies(self) -> None:
        """Multi-byte text, nothing, around a frame's size, and 10 MiB."""
        frame = PREFERRED_FRAME_MAX
        sizes = (1, frame - 9, frame - 8, frame - 7, frame, frame + 1, 2 * (frame - 8), 10 * 1024 * 1024)
        bodies = ["ünïcödé €".encode() * 1000, b"", *(b"\xce\x01" * (size // 2) + b"x" * (size % 2) for size in sizes)]
        async with with_vhost() as vhost, connected(vhost.uri) as connection, publishing(connection) as publisher:
            channel = await connection.open_channel()
            await channel.queue_declare(queue="q", durable=True)
            inbox = await consume(channel, "q")
            answers = [
                self.publish(publisher, "", "q", encode_properties(message_id=sha256(body).hexdigest()), body)
                for body in bodies
            ]
            for body in bodies:
                delivery = await inbox.get()
                self.assertEqual(len(delivery.body), len(body))
                self.assertEqual(sha256(delivery.body).hexdigest(), Properties(delivery.properties).message_id)
                channel.write(encode_ack(channel.id, delivery.delivery_tag, False))
            self.assertEqual([await answer for answer in answers], ["delivered"] * len(bodies))

    async def test_one_message_closes_the_channel(self) -> None:
        """A bad expiration is answered by 406, which names nobody: that message is refused, the others arrive once."""
        bad = b"\x01\x00\x03abc"
        async with with_vhost() as vhost, connected(vhost.uri) as connection, publishing(connection) as publisher:
            channel = await connection.open_channel()
            await channel.queue_declare(queue="q", durable=True)
            answers = [self.publish(publisher, "", "q", p, b"") for p in (b"\x00\x00", bad, b"\x00\x00", b"\x00\x00")]
            said = [await answer for answer in answers]
            self.assertEqual([said[0], *said[2:]], ["delivered"] * 3)
            self.assertIn("refused: 406 PRECONDITION_FAILED", said[1])
            self.assertEqual(await self.publish(publisher, "", "q", b"\x00\x00", b""), "delivered")
            self.assertFalse(connection.closed)

    async def test_missing_exchanges(self) -> None:
        """Their messages wait until they are there, be the name ever so long; others go on meanwhile."""
        async with with_vhost() as vhost, connected(vhost.uri) as connection, publishing(connection) as publisher:
            channel = await connection.open_channel()
            exchanges = ("there", "missing", LONG_NAME, "there")
            await channel.queue_declare(queue="q")

            async def declare(exchange: str) -> None:
                await channel.exchange_declare(exchange=exchange, exchange_type="fanout")
                await channel.queue_bind(queue="q", exchange=exchange)

            await declare("there")
            said: DeferredQueue[bytes] = DeferredQueue()
            for exchange in exchanges:
                message = Message("dev1", "up", exchange.encode(), Properties(), routing_key=b"dev1.up")
                target = ExchangeTarget(publisher, exchange, "", Outgoing("x-secret"))
                target.deliver(message, Settlement(message, 1, AckLedger(), lambda s: said.put(s.message.body)))
                target.flush()
            self.assertEqual([await said.get(), await said.get()], [b"there"] * 2)
            self.assertEqual(publisher.outstanding, 2)
            for exchange in exchanges[1:3]:
                await declare(exchange)
            self.assertEqual({await said.get(), await said.get()}, {e.encode() for e in exchanges[1:3]})
            self.assertFalse(connection.closed)

    async def test_events(self) -> None:
        """What is published to the stream is read from it, and read on after a loss, each event once."""
        async with with_vhost() as vhost, connected(vhost.uri) as connection, publishing(connection) as publisher:
            declared = topology()
            await declared.declare_events(connection)
            inbox: DeferredQueue[Event] = DeferredQueue()
            reader = EventReader(declared.names.events, lambda event, live: inbox.put(event), reactor.seconds)
            target = EventsTarget(publisher, declared.names.events, Counters(), wall_clock=reactor.seconds)
            target.use_gate(OpenGate())

            def tell(number: int) -> None:
                message = Message("dev1", f"t{number}", b"{}", Properties(), received_at=reactor.seconds())
                target.deliver(message, Settlement(message, 1, AckLedger(), lambda _: None))
                target.flush()

            async with connected(vhost.uri) as first:
                await reader.attach(first)
                tell(0)
                tell(1)
                events = [await inbox.get(), await inbox.get()]
            async with connected(vhost.uri) as second:
                tell(2)
                await reader.attach(second)
                events.append(await inbox.get())
                tell(3)
                events.append(await inbox.get())
            self.assertEqual([event.topics[0] for event in events], ["dev1.t0", "dev1.t1", "dev1.t2", "dev1.t3"])
            self.assertEqual([event.offset for event in events], [0, 1, 2, 3])

    async def test_a_reader_whose_clock_is_ahead(self) -> None:
        """What was there when it began is history and what comes afterwards is news, whatever its clock says."""
        async with with_vhost() as vhost, connected(vhost.uri) as connection, publishing(connection) as publisher:
            declared = topology()
            await declared.declare_events(connection)
            inbox: DeferredQueue[tuple[int, bool]] = DeferredQueue()
            caught_up: DeferredQueue[int | None] = DeferredQueue()
            target = EventsTarget(publisher, declared.names.events, Counters(), wall_clock=time.time)
            target.use_gate(OpenGate())

            def tell(*numbers: int) -> None:
                for number in numbers:
                    message = Message("dev1", f"t{number}", b"{}", Properties(), received_at=time.time())
                    target.deliver(message, Settlement(message, 1, AckLedger(), lambda _: None))
                target.flush()

            def reader() -> EventReader:
                return EventReader(
                    declared.names.events,
                    lambda event, live: inbox.put((event.offset, live)),
                    lambda: time.time() + 10,
                    caught_up=caught_up.put,
                )

            tell(*range(300))
            while publisher.outstanding:
                await deferLater(reactor, 0.01)
            began = reactor.seconds()
            async with connected(vhost.uri) as first:
                await reader().attach(first)
                self.assertEqual([await inbox.get() for _ in range(300)], [(n, False) for n in range(300)])
                self.assertEqual(await caught_up.get(), 299)
                self.assertLess(reactor.seconds() - began, QUIET)  # the broker said so: it did not wait in vain
                tell(300)
                self.assertEqual(await inbox.get(), (300, True))


class ComingBackTests(EngineTestCase):
    """A link with an `Ingress` on it."""

    @asynccontextmanager
    async def ingress(
        self, vhost: Vhost, declared: Topology, queues: tuple[str, ...] = (), receive: Callable[..., Any] | None = None
    ) -> AsyncIterator[tuple[BrokerLink, Ingress]]:
        ingress = Ingress(reactor, declared, queues, 10, receive or (lambda deliveries, ledger: None))

        async def prepare(connection: Connection) -> None:
            await declared.declare(connection)
            await ingress.attach(connection)

        link = BrokerLink(
            reactor,
            BrokerSettings(uri=vhost.uri),
            "consume",
            prepare,
            clock=reactor,
            counters=Counters(),
            random=lambda: 0.2,
        )
        link.startService()
        try:
            await self.ready(link, ingress)
            yield link, ingress
        finally:
            await ingress.stop()
            await link.close()

    async def ready(self, link: BrokerLink, ingress: Ingress, seconds: float = 15) -> None:
        async def is_ready() -> bool:
            return not link.problem() and not ingress.problem()

        await until(is_ready, what="the link is up and consumes", timeout=seconds)

    async def consumers(self, vhost: Vhost, expected: dict[str, int], seconds: float = 10) -> None:
        async def as_expected() -> bool:
            found = await vhost.list_queues("consumers")
            return {name: found.get(name, 0) for name in expected} == expected

        await until(as_expected, what=f"consumers are {expected}", timeout=seconds)

    async def test_connections_closed_by_the_operator(self) -> None:
        """Over and over; in the end each queue has one consumer."""
        async with with_vhost() as vhost:
            declared = topology()
            async with self.ingress(vhost, declared) as (link, ingress):
                for _ in range(3):
                    before = link.connection
                    await vhost.broker.ctl("close_all_connections", "-p", vhost.name, "--", "test")
                    await until(self.replaced(link, before), what="there is a new connection", timeout=15)
                    await self.ready(link, ingress)
                await self.consumers(vhost, dict.fromkeys((declared.names.ingress, *declared.names.shards), 1))
            await self.consumers(vhost, dict.fromkeys((declared.names.ingress, *declared.names.shards), 0))

    def replaced(self, link: BrokerLink, before: Connection | None) -> Callable[[], Any]:
        async def is_replaced() -> bool:
            return link.connection is not None and link.connection is not before

        return is_replaced

    async def test_queues_deleted(self) -> None:
        """Our own is declared and consumed from again; the operator's once it is back; all on the same connection."""
        mine, yours = "ventil (süd)", "yours"
        bodies: DeferredQueue[bytes] = DeferredQueue()

        def receive(deliveries: list[Delivery], ledger: AckLedger) -> None:
            for delivery in deliveries:
                bodies.put(delivery.body)
                ledger.settle(delivery.delivery_tag)
            ledger.flush()

        async with with_vhost() as vhost, connected(vhost.uri) as other, publishing(other) as publisher:
            channel = await other.open_channel()
            for queue in (mine, yours):
                await channel.queue_declare(queue=queue, durable=True)
            declared = topology()
            async with self.ingress(vhost, declared, (mine, yours), receive) as (link, ingress):
                connection = link.connection
                for queue in (mine, yours, declared.names.shards[0]):
                    await channel.queue_delete(queue=queue)
                await self.consumers(vhost, {declared.names.shards[0]: 1})
                for queue in (mine, yours):
                    await channel.queue_declare(queue=queue, durable=True)
                await self.consumers(vhost, {mine: 1, yours: 1}, seconds=15)
                await self.ready(link, ingress)
                for queue in (mine, yours, declared.names.shards[0]):
                    await self.publish(publisher, "", queue, b"\x00\x00", queue.encode())
                    self.assertEqual(await bodies.get(), queue.encode())
                self.assertIs(link.connection, connection)

    async def test_a_channel_closed_by_the_broker(self) -> None:
        """An ack of a tag that does not exist is answered by 406: the connection stays, consumption goes on."""
        async with with_vhost() as vhost:
            declared = topology()
            async with self.ingress(vhost, declared) as (link, ingress):
                connection = link.connection
                assert connection is not None
                number = next(n for n, c in connection.channels.items() if c.on_deliveries is not None)
                connection.write(encode_ack(number, 4711, False))

                async def closed() -> bool:
                    return bool(ingress.problem())

                await until(closed, what="the channel is closed", timeout=5)
                await self.ready(link, ingress)
                self.assertIs(link.connection, connection)
                await self.consumers(vhost, dict.fromkeys((declared.names.ingress, *declared.names.shards), 1))


class AlarmTests(EngineTestCase):
    async def test_memory_alarm(self) -> None:
        """It is noticed, named, waited for, and over when it is over."""
        async with (
            PrivateRabbitMQ(Path(self.mktemp())) as broker,
            connected(broker.uri) as connection,
            publishing(connection) as publisher,
        ):
            channel = await connection.open_channel()
            await channel.queue_declare(queue="q", durable=True)
            await broker.ctl("set_vm_memory_high_watermark", "absolute", "1MB")
            said = self.publish(publisher, "", "q", b"\x00\x00", b"1")

            async def blocked() -> bool:
                return bool(connection.blocked)

            async def unblocked() -> bool:
                return not connection.blocked

            await until(blocked, what="the alarm is noticed", timeout=10)
            self.assertEqual(connection.blocked, "low on memory")
            self.assertFalse(said.called)
            await broker.ctl("set_vm_memory_high_watermark", "0.4")
            await until(unblocked, what="the alarm is over", timeout=10)
            self.assertEqual(await said, "delivered")
            self.assertFalse(connection.closed)
