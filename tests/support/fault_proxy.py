"""A TCP proxy that misbehaves on demand: what a bad network does to a connection, for tests.

House rules. It knows bytes and no protocol. It keeps TCP's back-pressure: who does not read here is not read from
there. A fault lasts until `FaultProxy.normal` (or, for a single connection, until its end).

Theory of operation. Each accepted client is a `Link` to the target and has two lanes, one for each direction. A `Lane`
is a queue of chunks: while all is normal a chunk passes at once, otherwise it waits for its time (delay) or its turn
(slices; with both, the delay is the first slice's). Slices leave one for each turn of the reactor, since the transport
would send what is written in one turn in one piece. A black hole lets not even the end of the connection pass, and once
it has swallowed anything it stays one, for a stream with a hole in it is something that TCP never delivers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IPushProducer
from twisted.internet.protocol import ClientFactory, Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from tests.support.process import reactor as _reactor

HIGH_WATER = 65_536
"""Bytes in a lane beyond which its source is not read: what Twisted reads at once, so there is twice that at most."""
BEFORE_RESET = 0.01
"""Seconds between the last byte and the reset that follows it: an abort discards what is not yet sent."""
OPENING = 4096
"""Bytes kept of what a client says first: enough for an AMQP handshake's client properties."""


@dataclass(frozen=True)
class Conditions:
    """What a lane does to what passes."""

    black_hole: bool = False
    delay: float = 0.0
    """Seconds."""
    slice: int = 0
    """Bytes in one write; 0 for as they come."""


@implementer(IPushProducer)
class Lane:
    """One direction of a connection: from `source` to `sink`, both transports."""

    def __init__(self, clock: Any, source: Any, sink: Any, conditions: Conditions, reset: Callable[[], None]) -> None:
        """`reset` cuts the whole connection."""
        self.conditions = conditions
        self.carried = 0
        """Bytes written to the sink so far."""
        self.swallowed = 0
        self._clock = clock
        self._source = source
        self._sink = sink
        self._reset = reset
        self._queue: deque[bytes] = deque()
        self._queued = 0
        self._timers: set[Any] = set()
        self._stepping = False
        self._left: int | None = None  # bytes before the reset
        self._was_reset: Deferred[None] | None = None
        self._sink_full = False
        self._paused = False
        self._ending: Callable[[], None] | None = None

    # Faults.

    def black_hole(self) -> None:
        """Swallow everything; the connection stays open."""
        self.conditions = replace(self.conditions, black_hole=True)

    def delay(self, seconds: float) -> None:
        """Hold each chunk back so long; their order stays."""
        self.conditions = replace(self.conditions, delay=seconds)

    def slice(self, size: int) -> None:
        """Write at most `size` bytes at a time."""
        self.conditions = replace(self.conditions, slice=size)

    def reset_after(self, count: int) -> Deferred[None]:
        """Reset the connection, both ways, once `count` more bytes have passed; fires when that is done.

        It also fires when the connection ends before.
        """
        self._left = count
        self._was_reset = Deferred()
        if not count:
            self._later(0, self._reset)
        return self._was_reset

    def normal(self) -> None:
        """No more faults, except that a black hole which swallowed anything stays one."""
        self.conditions = Conditions()
        self._left = None

    # Bytes.

    @property
    def _is_black_hole(self) -> bool:
        return self.conditions.black_hole or self.swallowed > 0

    def take(self, data: bytes) -> None:
        """Bytes have come from the source."""
        if self._is_black_hole:
            self.swallowed += len(data)
            return
        self._queue.append(data)
        self._queued += len(data)
        # Who came earlier goes earlier: as many calls as chunks, each for the foremost.
        if self.conditions.delay or self._timers:
            self._later(self.conditions.delay, self._send_foremost)
        else:
            self._send_foremost()
        self._regulate()

    def _send_foremost(self) -> None:
        if self._stepping:
            return  # slices are under way, and go on to the end of the queue
        if self.conditions.slice:
            self._step()
        elif self._queue:
            self._write(self._queue.popleft())

    def _step(self) -> None:
        """Write one slice, and the next one in the next turn."""
        if not self._queue:
            self._stepping = False
            self._ended()
            return
        self._stepping = True
        size = self.conditions.slice or self._queued
        chunk = self._queue.popleft()
        if len(chunk) > size:
            self._queue.appendleft(chunk[size:])
        self._write(chunk[:size])
        self._later(0, self._step)

    def _write(self, data: bytes) -> None:
        self._queued -= len(data)
        if self._left is not None:
            if not self._left:
                return  # the reset is on its way
            data = data[: self._left]
            self._left -= len(data)
            if not self._left:
                self._later(BEFORE_RESET, self._reset)
        self.carried += len(data)
        self._sink.write(data)
        self._regulate()
        self._ended()

    def _later(self, delay: float, action: Callable[[], None]) -> None:
        def run() -> None:
            self._timers.discard(timer)
            action()

        timer = self._clock.callLater(delay, run)
        self._timers.add(timer)

    # The end.

    def end(self, close: Callable[[], None]) -> None:
        """The source has ended: `close` the sink behind what is under way; never, where that is a black hole."""
        if not self._is_black_hole:
            self._ending = close
            self._ended()

    def _ended(self) -> None:
        if self._ending is not None and not self._queue:
            close, self._ending = self._ending, None
            close()

    def stop(self) -> None:
        """The connection is over."""
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        self._queue.clear()
        if self._was_reset is not None:
            done, self._was_reset = self._was_reset, None
            done.callback(None)

    # Back-pressure: a push producer for the sink.

    def _regulate(self) -> None:
        pause = self._sink_full or self._queued > HIGH_WATER
        if pause != self._paused:
            self._paused = pause
            (self._source.pauseProducing if pause else self._source.resumeProducing)()

    def pauseProducing(self) -> None:
        self._sink_full = True
        self._regulate()

    def resumeProducing(self) -> None:
        self._sink_full = False
        self._regulate()

    def stopProducing(self) -> None:
        """The sink is lost, which the link hears as well."""


class _End(Protocol):
    """One of the two sockets of a link."""

    transport: Any

    def __init__(self, link: Link) -> None:
        self.link = link
        self.lane: Lane | None = None
        self.lost = False

    def dataReceived(self, data: bytes) -> None:
        if self.lane is not None:
            if self is self.link.client and len(self.link.opening) < OPENING:
                self.link.opening += data[:OPENING]
            self.lane.take(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = True
        self.link.lost(self)


class _Server(_End):
    def connectionMade(self) -> None:
        self.link.complete(self)


class _ServerFactory(ClientFactory):
    noisy = False

    def __init__(self, link: Link) -> None:
        self._link = link

    def buildProtocol(self, addr: IAddress | None) -> _Server:
        return _Server(self._link)

    def clientConnectionFailed(self, connector: object, reason: Failure) -> None:
        self._link.incomplete()


class Link:
    """One client's connection through the proxy."""

    to_server: Lane
    to_client: Lane

    def __init__(self, proxy: FaultProxy) -> None:
        self.opening = b""
        """The first bytes that the client said."""
        self.client = _Client(self)
        self.ends: list[_End] = [self.client]
        self.lanes: list[Lane] = []
        """Both, once the target has answered."""
        self._connecting = True
        self._proxy = proxy

    def accepted(self) -> None:
        """The client is there: connect to the target."""
        self.client.transport.pauseProducing()
        self._proxy.links.append(self)
        self._proxy.reactor.connectTCP("127.0.0.1", self._proxy.target_port, _ServerFactory(self))

    def complete(self, server: _Server) -> None:
        """The target is there as well."""
        self._connecting = False
        self.ends.append(server)
        if self.client.lost:
            server.transport.abortConnection()
            return
        client, clock, conditions = self.client.transport, self._proxy.reactor, self._proxy.conditions
        self.to_server = Lane(clock, client, server.transport, conditions, self.reset)
        self.to_client = Lane(clock, server.transport, client, conditions, self.reset)
        self.lanes = [self.to_server, self.to_client]
        self.client.lane, server.lane = self.lanes
        server.transport.registerProducer(self.to_server, True)
        client.registerProducer(self.to_client, True)
        for end in self.ends:
            end.transport.setTcpNoDelay(True)
        client.resumeProducing()

    def incomplete(self) -> None:
        """The target does not answer: neither do we."""
        self._connecting = False
        if self.client.lost:
            self._proxy.ended(self)
        else:
            self.reset()

    def reset(self) -> None:
        """RST to both sides."""
        for end in self.ends:
            if not end.lost:
                end.transport.abortConnection()

    def lost(self, end: _End) -> None:
        """One side is gone: close the other, behind what is still on its way."""
        others = [other for other in self.ends if not other.lost]
        if others and end.lane is not None:
            (other,) = others
            other.transport.unregisterProducer()
            end.lane.end(other.transport.loseConnection)
        elif not others and not self._connecting:
            self._proxy.ended(self)
            for lane in self.lanes:
                lane.stop()  # last, for it tells who waits for a reset


class _Client(_End):
    def connectionMade(self) -> None:
        self.link.accepted()


class _Accepting(Factory):
    noisy = False

    def __init__(self, proxy: FaultProxy) -> None:
        self._proxy = proxy

    def buildProtocol(self, addr: IAddress | None) -> _Client:
        return Link(self._proxy).client


class FaultProxy:
    """Forwards a loopback port of its own to `target_port`; use it with ``async with``.

    Faults called here count for all connections, those to come as well; `link` finds a single one.
    """

    def __init__(self, target_port: int, reactor: Any = _reactor) -> None:
        self.target_port = target_port
        self.reactor = reactor
        self.port = 0
        """Where it listens."""
        self.links: list[Link] = []
        """The open connections."""
        self.conditions = Conditions()
        """What new connections get."""
        self._listener: Any = None
        self._waiting: list[Deferred[None]] = []

    async def __aenter__(self) -> FaultProxy:
        self.accept()
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.refuse()
        self.reset()
        if self.links:
            gone: Deferred[None] = Deferred()
            self._waiting.append(gone)
            await gone

    def ended(self, link: Link) -> None:
        """A link calls this at its end."""
        self.links.remove(link)
        if not self.links:
            waiting, self._waiting = self._waiting, []
            for gone in waiting:
                gone.callback(None)

    def uri_of(self, uri: str) -> str:
        """The same URI with the proxy's address in it."""
        parts = urlsplit(uri)
        user, at, _ = parts.netloc.rpartition("@")
        return parts._replace(netloc=f"{user}{at}127.0.0.1:{self.port}").geturl()

    def link(self, opening: bytes) -> Link:
        """The open connection whose client said this among its first words, such as its connection name.

        :raises LookupError: there is no such connection, or more than one.
        """
        found = [link for link in self.links if opening in link.opening]
        if len(found) != 1:
            raise LookupError(f"{len(found)} connections through the proxy said {opening!r}")
        return found[0]

    # Faults.

    def black_hole(self) -> None:
        """Swallow everything, both ways."""
        self._set(replace(self.conditions, black_hole=True))

    def delay(self, seconds: float) -> None:
        """Hold everything back so long, each way."""
        self._set(replace(self.conditions, delay=seconds))

    def slice(self, size: int) -> None:
        """Pass everything on in writes of at most `size` bytes."""
        self._set(replace(self.conditions, slice=size))

    def normal(self) -> None:
        """No more faults; connections that lost bytes in a black hole stay in it."""
        self.conditions = Conditions()
        for link in self.links:
            for lane in link.lanes:
                lane.normal()
        self.accept()

    def reset(self) -> None:
        """RST on all open connections."""
        for link in list(self.links):
            link.reset()

    async def refuse(self) -> None:
        """Take no new connections, as a server that is down; the open ones stay (see `reset`)."""
        if self._listener is not None:
            listener, self._listener = self._listener, None
            await listener.stopListening()

    def accept(self) -> None:
        """Take new connections, at the same port as ever."""
        if self._listener is None:
            self._listener = self.reactor.listenTCP(self.port, _Accepting(self), interface="127.0.0.1")
            self.port = self._listener.getHost().port

    def _set(self, conditions: Conditions) -> None:
        self.conditions = conditions
        for link in self.links:
            for lane in link.lanes:
                lane.conditions = conditions
