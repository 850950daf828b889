"""Streams that are made anew, on a real broker."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from twisted.internet.defer import Deferred, DeferredQueue
from twisted.trial.unittest import TestCase

from amqprouter.amqp.channel import Channel
from amqprouter.amqp.connection import Connection
from amqprouter.amqp.event_reader import EventReader
from amqprouter.amqp.link import BrokerLink, connect_once
from amqprouter.amqp.publisher import Publisher
from amqprouter.amqp.targets import EventsTarget
from amqprouter.amqp.topology import Topology
from amqprouter.core.counters import Counters
from amqprouter.core.event import Event
from amqprouter.core.message import Message
from amqprouter.core.properties import Properties, encode_properties
from amqprouter.core.settlement import AckLedger, Settlement
from amqprouter.settings import BrokerSettings, EventsSettings, IngressSettings, TopologySettings
from tests.support.process import reactor, until
from tests.support.rabbitmq import missing
from tests.support.servers import Vhost, with_vhost

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
    timeout = 120

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
            told.put((event.offset, event.key, live))

        async with with_vhost() as vhost, publishing(vhost) as (publisher, channel):
            declared = topology()
            stream = declared.names.events
            target = EventsTarget(publisher, stream, Counters())
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
