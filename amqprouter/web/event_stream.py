"""A connection that has become an event stream: the hub's sink on one side, the transport's protocol on the other.

Theory of operation. twisted.web's objects for a connection and a request take much memory, and writing through them
takes five calls and a trip through the reactor. A stream needs neither: once the head of the response is written, the
connection is handed over to an `EventStream`, and what was there before is gone.

On a plain TCP connection a batch goes to the socket at once, which mostly takes it: one system call for each subscriber
and turn. What it does not take is fed to the transport piece by piece, each when the one before is gone, and the
subscriber is paused meanwhile: bytes stay shared with other subscribers until then, however large. For this the stream
is the transport's pull producer: it is told whenever the transport's own buffer is empty, and that is when the socket
may be written to past it. Over TLS there is no way past the transport, so there it is a push producer and writes to
the transport.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet import tcp
from twisted.internet.interfaces import IPullProducer, IPushProducer
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from amqprouter.events import sse
from amqprouter.events.batch import Batch
from amqprouter.events.subscriber import Subscriber
from amqprouter.web.request import RouterRequest, log_access

RETRY_SECONDS = 2.0
"""Least wait before a client connects again; each is told its own, up to twice this, so that a restart of the daemon
does not bring them all back at once."""

MAX_CHATTER = 4096
"""Bytes that a client may send after its request, before it is cut: it has nothing to say."""

LINGER = 30.0
"""Seconds that a stream which was ended has for what was written: a client that reads at all takes less. One that does
not would hold its connection for ever, and nobody counts it any more."""

_PIECE = 65_536
"""Bytes that the transport gets to buffer at a time."""
_LAST_CHUNK = b"0\r\n\r\n"

log = Logger()


@implementer(IPushProducer, IPullProducer)
class EventStream:
    """One stream. Made before its subscriber; `begin` takes the connection over from the request."""

    __slots__ = (
        "_chatter",
        "_chunked",
        "_direct",
        "_lingers",
        "_path",
        "_random",
        "_reactor",
        "_rest",
        "_sent",
        "_since",
        "_socket",
        "_subscriber",
        "_transport",
    )

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        self._rest: memoryview | None = None  # what the socket did not take, and the transport does not have yet
        self._transport: Any = None
        self._lingers: Any = None  # the timer that ends it
        self._chatter = 0
        self._sent = 0

    def begin(self, request: RouterRequest, subscriber: Subscriber) -> None:
        """Write the head of the response, take over, and write what `subscriber` gets until it ends."""
        self._subscriber = subscriber
        request.write(b"")  # the head
        self._chunked = bool(request.chunked)
        self._path = request.shown_path
        site: Any = request.site
        self._since, self._reactor = request.started, site.reactor
        channel: Any = request.channel
        transport = self._transport = channel.hand_over(self)
        # What is in front of a TLS connection passes attributes on to it: only the class tells them apart.
        self._direct = isinstance(transport, tcp.Connection) and not getattr(transport, "TLS", False)
        self._socket: Any = transport.socket if self._direct else None
        transport.registerProducer(self, not self._direct)
        if self._direct:
            subscriber.pause()  # until the head, which is in the transport's buffer, is sent
        # The first bytes make the browser say "open" at once, and open the buffers of what stands between. With nothing
        # to resume from, the client learns its place at once, or it would lose what comes while it is away.
        hello = b":\n" + self._retry(RETRY_SECONDS)
        if subscriber.cursor is None and subscriber.pending is None:
            notice = subscriber.place_notice()
            hello += b"" if notice is None else notice.joined
        transport.write(self._encoded(Batch(None, hello)))
        subscriber.start()

    def _retry(self, least: float) -> bytes:
        return sse.retry(least * (1 + self._random()))

    def _encoded(self, batch: Batch) -> bytes:
        data = batch.chunk if self._chunked else batch.joined
        self._sent += len(data)
        return data

    # The hub's side.

    def write(self, batch: Batch) -> None:
        """Send; the subscriber is paused when the connection does not take all of it."""
        data = self._encoded(batch)
        if not self._direct:
            self._transport.write(data)
            return
        try:
            taken = self._socket.send(data)  # the transport's own way to it takes a quarter longer
        except BlockingIOError:
            taken = 0
        except OSError:
            self._subscriber.pause()  # the connection is lost: the reactor is about to say so
            return
        if taken < len(data):
            self._rest = memoryview(data)[taken:]
            self._subscriber.pause()
            self._feed(self._rest)

    def _feed(self, rest: memoryview) -> None:
        self._rest = rest[_PIECE:] if len(rest) > _PIECE else None
        self._transport.write(bytes(rest[:_PIECE]))

    def cut(self) -> None:
        """Too slow: what the transport still holds is not worth waiting for."""
        if self._transport is None:
            return  # it has not begun, and whoever would begin it sees that the subscriber is gone
        log.info(
            "{peer} reads events too slowly and is disconnected; it may resume",
            peer=self._subscriber.address or "-",
            member=self._subscriber.user,
        )
        self._transport.abortConnection()

    def finish(self, retry_seconds: float = 0.0) -> None:
        """End the response once what was written is sent, within `LINGER` seconds; ask the client for that much
        patience, up to twice."""
        if self._transport is None:
            return
        last = b"" if self._rest is None else bytes(self._rest)
        self._rest = None
        if retry_seconds:
            last += self._encoded(Batch(None, self._retry(retry_seconds)))
        self._transport.write(last + (_LAST_CHUNK if self._chunked else b""))
        self._transport.unregisterProducer()
        self._transport.loseConnection()
        self._lingers = self._reactor.callLater(LINGER, self._transport.abortConnection)

    # The transport's side.

    def resumeProducing(self) -> None:
        """The transport's buffer is empty."""
        if self._rest is not None:
            self._feed(self._rest)
        else:
            self._subscriber.resume()

    def pauseProducing(self) -> None:
        """The transport's buffer is full."""
        self._subscriber.pause()

    def stopProducing(self) -> None:
        """The transport is gone."""
        self._subscriber.close()

    def dataReceived(self, data: bytes) -> None:
        """The client sends something, which means nothing."""
        self._chatter += len(data)
        if self._chatter > MAX_CHATTER:
            self._transport.abortConnection()

    def connectionLost(self, reason: Failure) -> None:
        """The connection is gone."""
        if self._lingers is not None and self._lingers.active():
            self._lingers.cancel()
        self._subscriber.close()
        log_access(
            self._subscriber.address,
            self._subscriber.user,
            b"GET",
            self._path,
            200,
            self._sent,
            self._reactor.seconds() - self._since,
        )
