"""The soak's own connections: devices that publish with confirms, the target's reader, a subscriber to the events.

House rules. Each is opened again whenever it is lost, for as long as the soak lasts, whatever the reason: the broker is
what is tried here. What a sender could not get confirmed it writes again, in order, with the same message id, as a
device with a memory of its own would; how often is counted, for a message that was published twice may arrive twice.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from amqprouter.amqp.channel import Channel
from amqprouter.amqp.connection import Connection
from amqprouter.amqp.link import connect_once
from amqprouter.amqp.properties import Properties
from amqprouter.amqp.wire import Confirm, Delivery, encode_ack, encode_publish
from amqprouter.settings import BrokerSettings
from benchmarks.soak_ledger import Arrival, Duty, Sent, digest
from tests.support.process import reactor

RETRY = 0.5
"""Seconds between two attempts to connect."""
MOST_UNCONFIRMED = 4000
"""Messages that a sender keeps; its devices make none while there are as many."""
REFUSED_AGAIN = 1.0
"""Seconds until a message that the broker did not take (basic.nack) is published again."""
READ_AHEAD = 50
"""Deliveries that the reader may hold: so many are out of the queue while it reads nothing, and its limit fills."""


class Kept:
    """A connection with one channel, opened again whenever it is lost, from `start` to `close`."""

    def __init__(self, uri: str, purpose: str) -> None:
        self._settings = BrokerSettings(uri=uri, heartbeat=10, connect_timeout=10)
        self._purpose = purpose
        self._going = True
        self._pausing: Deferred[None] | None = None
        self._keeping: Deferred[None] | None = None
        self.connection: Connection | None = None
        self.channel: Channel | None = None

    def start(self) -> None:
        """Connect, and stay connected."""
        self._keeping = Deferred.fromCoroutine(self._keep())

    async def close(self) -> None:
        self._going = False
        if self.connection is not None:
            await self.connection.shut()
        if self._pausing is not None:
            self._pausing.cancel()
        if self._keeping is not None:
            await self._keeping

    async def prepare(self, channel: Channel) -> None:
        """Make a new channel ready."""

    def unprepare(self) -> None:
        """The channel is lost."""

    async def _keep(self) -> None:
        while self._going:
            connection = None
            try:
                connection = await connect_once(reactor, self._settings, self._purpose)
                channel = await connection.open_channel()
                channel.on_closed = connection.fail
                await self.prepare(channel)
                self.connection, self.channel = connection, channel
                self.ready(channel)
                await connection.disconnected.wait()
            except Exception:  # refused, full, in the midst of a restart: it is tried again, whatever it is
                if connection is not None and not connection.closed:
                    connection.transport.abortConnection()
            self.connection = self.channel = None
            self.unprepare()
            if self._going:
                self._pausing = deferLater(reactor, RETRY)
                self._pausing.addErrback(lambda _: None)  # cancelled
                await self._pausing

    def ready(self, channel: Channel) -> None:
        """The channel is up and prepared."""


Publish = tuple[bytes, bytes, bytes, bytes]
"""Exchange, routing key, properties, body."""


class Sender(Kept):
    """Publishes with confirms, again and again until there is one."""

    def __init__(self, uri: str, purpose: str, sent: dict[str, Sent]) -> None:
        super().__init__(uri, purpose)
        self._sent = sent
        self._unconfirmed: dict[str, Publish] = {}
        self._tags: dict[int, str] = {}
        self._last_tag = 0
        self.nacks = 0

    @property
    def unconfirmed(self) -> int:
        """Messages that the broker has not confirmed, but for those that nobody is to have: whom they were for may be
        full of the like."""
        return sum(self._sent[name].duty is not Duty.REFUSED for name in self._unconfirmed)

    @property
    def full(self) -> bool:
        """Whether devices have to wait until something is confirmed."""
        return len(self._unconfirmed) >= MOST_UNCONFIRMED

    def publish(self, name: str, publish: Publish) -> None:
        """Publish a message that is in the ledger under this id; it is kept until it is confirmed."""
        self._unconfirmed[name] = publish
        if self.channel is not None:
            self._write(name)

    def _write(self, name: str) -> None:
        channel, connection = self.channel, self.connection
        if channel is None or connection is None or name not in self._unconfirmed:
            return
        exchange, key, properties, body = self._unconfirmed[name]
        self._last_tag += 1
        self._tags[self._last_tag] = name
        self._sent[name].published += 1
        channel.write(
            encode_publish(channel.id, exchange, key, properties, body, connection.frame_max, mandatory=False)
        )

    async def prepare(self, channel: Channel) -> None:
        await channel.confirm_select()
        channel.on_confirm = self._confirm

    def ready(self, channel: Channel) -> None:
        for name in list(self._unconfirmed):
            self._write(name)

    def unprepare(self) -> None:
        self._tags.clear()
        self._last_tag = 0

    def _confirm(self, confirm: Confirm) -> None:
        tags = [confirm.delivery_tag]
        if confirm.multiple:
            tags = [tag for tag in self._tags if tag <= confirm.delivery_tag]
        for tag in tags:
            name = self._tags.pop(tag, None)
            if name is None:
                continue
            if confirm.acked:
                self._sent[name].confirmed = True
                self._unconfirmed.pop(name, None)
            else:
                self.nacks += 1
                reactor.callLater(REFUSED_AGAIN, self._write, name)


class TargetReader(Kept):
    """Reads the target's queue, and keeps what came."""

    def __init__(self, uri: str, queue: str) -> None:
        super().__init__(uri, "soak reader")
        self.arrived: dict[str, Arrival] = {}
        self.on_arrival: Callable[[str], None] = lambda name: None
        self._queue = queue
        self._paused = False
        self._owed = 0

    async def prepare(self, channel: Channel) -> None:
        self._owed = 0
        channel.on_deliveries = self._take
        await channel.basic_qos(prefetch_count=READ_AHEAD)
        await channel.basic_consume(queue=self._queue, consumer_tag="soak")

    def pause(self) -> None:
        """Acknowledge nothing, so that no more comes than `READ_AHEAD`."""
        self._paused = True

    def resume(self) -> None:
        self._paused = False
        if self.channel is not None and self._owed:
            self.channel.write(encode_ack(self.channel.id, self._owed, True))
            self._owed = 0

    def _take(self, deliveries: list[Delivery]) -> None:
        now = reactor.seconds()
        for delivery in deliveries:
            properties = Properties(delivery.properties)
            name = properties.message_id or ""
            arrival = self.arrived.get(name)
            if arrival is None:
                arrival = self.arrived[name] = Arrival(now, headers=properties.headers)
                self.on_arrival(name)
            elif not delivery.redelivered:  # else it is our own connection that was lost
                arrival.again.append(now)
            arrival.digests.add(digest(delivery.body))
        self._owed = deliveries[-1].delivery_tag
        if not self._paused:
            self.resume()


class _Stream(Protocol):
    """One response of ``/events``, read as it comes."""

    def __init__(self, subscriber: Subscriber, request: bytes) -> None:
        self._subscriber, self._request = subscriber, request
        self._rest = b""
        self._event: dict[bytes, bytes] = {}

    def connectionMade(self) -> None:
        transport: Any = self.transport
        transport.setTcpKeepAlive(True)
        transport.write(self._request)

    def dataReceived(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            # What belongs to HTTP, its header and the sizes of its chunks, is no field of an event.
            name, _, value = line.rstrip(b"\r").partition(b":")
            if line in (b"", b"\r"):
                event, self._event = self._event, {}
                if event:
                    self._subscriber.take(event)
            elif name in (b"id", b"event", b"data"):
                self._event[name] = value.removeprefix(b" ")
            elif line.startswith(b"HTTP/1.1 200 "):
                self._subscriber.answered()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._subscriber.lost()


class Subscriber:
    """Follows ``/events``, and resumes behind the last one whenever the stream has ended."""

    def __init__(self, port: int, authorization: str) -> None:
        self.seen: set[str] = set()
        self.gaps: list[str] = []
        """The reasons that it was told."""
        self.backwards = 0
        """Events whose id is not greater than the one before."""
        self.streams = 0
        """How often it was let in."""
        self._port = port
        self._authorization = authorization
        self._last: bytes = b""
        self._stream: _Stream | None = None
        self._going = True

    def start(self) -> None:
        resume = b"Last-Event-ID: %b\r\n" % self._last if self._last else b""
        head = f"GET /events HTTP/1.1\r\nHost: soak\r\nAuthorization: {self._authorization}\r\n".encode()
        factory = Factory()
        factory.protocol = lambda: _Stream(self, head + resume + b"\r\n")
        connecting = TCP4ClientEndpoint(reactor, "127.0.0.1", self._port, timeout=5).connect(factory)
        connecting.addCallbacks(self._connected, lambda _: self.lost())

    def _connected(self, stream: Any) -> None:
        self._stream = stream

    def answered(self) -> None:
        """A stream begins: what is published from now on comes."""
        self.streams += 1

    def take(self, event: dict[bytes, bytes]) -> None:
        if event.get(b"event") == b"gap":
            self.gaps.append(str(json.loads(event[b"data"])["reason"]))
        elif b"event" not in event and b"data" in event:
            told = json.loads(event[b"data"])
            self.seen.add(str(told.get("message_id")))
            place = event.get(b"id", b"")
            if self._last.isdigit() and place.isdigit() and int(place) <= int(self._last):
                self.backwards += 1
        self._last = event.get(b"id", self._last)

    def lost(self) -> None:
        self._stream = None
        if self._going:
            reactor.callLater(RETRY, self._again)

    def _again(self) -> None:
        if self._going:
            self.start()

    def close(self) -> None:
        self._going = False
        if self._stream is not None:
            transport: Any = self._stream.transport
            transport.abortConnection()
