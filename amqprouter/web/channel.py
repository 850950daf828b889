"""The HTTP/1.1 channel, with what twisted.web leaves open shut.

- A request must have arrived whole within an absolute time. `HTTPChannel` starts its timeout again at every byte, so a
  client that sends one now and then holds its connection for ever; here nothing starts it again, and it runs from the
  connection, or the end of the previous response, to the last byte of the request.
- No request may have a body, unless a subclass takes one of a bounded size. What is too much is refused from its
  headers, before any of it is stored.
- A producer that registers while the transport is blocked is told so; `HTTPChannel` tells only the ones that were
  registered before, and the newcomer would write without a bound.

HTTP/2 is never spoken: `amqprouter.web.site.RouterSite` offers only HTTP/1.1, and makes this channel without the
wrapper that would switch over.
"""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.interfaces import IPushProducer
from twisted.python.failure import Failure
from twisted.web.http import (
    LENGTH_REQUIRED,
    NOT_ALLOWED,
    REQUEST_ENTITY_TOO_LARGE,
    REQUEST_URI_TOO_LONG,
    RESPONSES,
    SERVICE_UNAVAILABLE,
    HTTPChannel,
    Request,
)

_REQUEST_HEADER_FIELDS_TOO_LARGE = 431  # RFC 6585; twisted.web has no name for it


class GuardedChannel(HTTPChannel):
    """One client connection. Its attribute `timeOut`, set by the site, is the time limit for a request in seconds."""

    max_body = 0
    """Bytes of a request's body that are taken; its length must be told in advance."""

    def resetTimeout(self) -> None:
        """Called for every piece of data: the time limit is absolute, so do nothing."""

    def allHeadersReceived(self) -> None:
        """The headers are complete: go on only if no body follows, or one that is taken."""
        if self.length is not None and self.length <= self.max_body:
            super().allHeadersReceived()
        elif self.max_body:
            if self.length is None:
                self._refuse(LENGTH_REQUIRED, "the length of the body must be told")
            else:
                self._refuse(REQUEST_ENTITY_TOO_LARGE, f"the body is over {self.max_body} bytes")
        elif self._command in (b"GET", b"HEAD"):
            self._refuse(REQUEST_ENTITY_TOO_LARGE, "requests must not have a body")
        else:
            self._refuse(NOT_ALLOWED, "only GET and HEAD are served here")

    def lineLengthExceeded(self, line: bytes) -> None:
        """A line is longer than `MAX_LENGTH`: the first is the URL's, others are headers."""
        if self._receivedHeaderSize == 0:
            self._refuse(REQUEST_URI_TOO_LONG, "the URL is too long")
        else:
            self._refuse(_REQUEST_HEADER_FIELDS_TOO_LARGE, "a header is too long")

    def registerProducer(self, producer: IPushProducer, streaming: bool) -> None:
        """Pass back-pressure on to `producer`, from now on and from before."""
        super().registerProducer(producer, streaming)
        if self._waitingForTransport:
            producer.pauseProducing()

    def hand_over(self, protocol: Any) -> Any:
        """Give the connection away, in the middle of a response: `protocol` gets its data and its end from now on.

        Returns the transport. This channel and its request are of no use afterwards, and nothing holds them.
        """
        transport: Any = self.transport
        self.setTimeout(None)
        transport.unregisterProducer()
        if hasattr(transport, "wrappedProtocol"):  # a TLS connection, which is between
            transport.wrappedProtocol = protocol
        else:
            transport.protocol = protocol
        for request in self.requests:
            request.channel = None
        self.requests = []
        self._networkProducer.resumeProducing()  # a client that sends on has been paused; its end must be noticed
        self._networkProducer = None  # type: ignore[assignment]
        return transport

    def _refuse(self, status: int, problem: str) -> None:
        body = json.dumps({"error": problem}).encode()
        allow = b"Allow: GET, HEAD\r\n" if status == NOT_ALLOWED else b""
        reason = RESPONSES.get(status, b"Request Header Fields Too Large")
        assert self.transport is not None
        self.transport.write(
            b"HTTP/1.1 %d %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n%b\r\n%b"
            % (status, reason, len(body), allow, body)
        )
        self.dataReceived = _ignore  # type: ignore[method-assign]
        self.loseConnection()


def _ignore(data: bytes) -> None:
    """What a refused client still sends means nothing."""


MAX_BODY = 32_768
"""Bytes. The longest form that can be answered with yes has a name of 255 bytes, a password of 8192, which may be a
signed token, each byte written with three, and a few short fields."""


class PostChannel(GuardedChannel):
    """As `GuardedChannel`, but a body may come, within the same time limit and of at most `MAX_BODY` bytes.

    Each response ends its connection. RabbitMQ's HTTP client would queue further questions behind one that is being
    looked into, five deep, and one slow checker would hold up devices that it knows nothing of.
    """

    def connectionMade(self) -> None:
        self.factory.open_connections += 1
        super().connectionMade()

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]  # Twisted gives it no default here
        self.factory.open_connections -= 1
        super().connectionLost(reason)

    def allHeadersReceived(self) -> None:
        """The headers are complete: go on if what follows has a bearable length."""
        if self.length is None:
            self._refuse(LENGTH_REQUIRED, "a Content-Length is needed")
        elif self.length > MAX_BODY:
            self._refuse(REQUEST_ENTITY_TOO_LARGE, f"the body is over {MAX_BODY} bytes")
        else:
            HTTPChannel.allHeadersReceived(self)  # past GuardedChannel, which takes no body

    def checkPersistence(self, request: Request, version: bytes) -> bool:
        """No: see above."""
        request.responseHeaders.setRawHeaders(b"Connection", [b"close"])
        return False


MAX_UNDER_WAY = 33_554_432
"""Bytes of all bodies under way at once, a longest form of ours some dozen times. They are kept in memory, and before a
body is complete nobody knows whether its sender may publish at all."""


class PublishChannel(GuardedChannel):
    """Takes bodies as the site says: `factory.body_limit` knows the most bytes of a POST to a path, and
    `factory.bodies_under_way` counts those of all connections."""

    _counted = 0

    def allHeadersReceived(self) -> None:
        """The headers are complete: see how much may follow."""
        self.max_body = 0
        limit = self.factory.body_limit(self._path.partition(b"?")[0]) if self._command == b"POST" else 0
        if limit:
            if self.length and self.factory.bodies_under_way + self.length > MAX_UNDER_WAY:
                self._refuse(SERVICE_UNAVAILABLE, "too much is being published at once, try again later")
                return
            self.max_body = limit
            if self.length is not None and self.length <= self.max_body:
                self._counted = self.length
                self.factory.bodies_under_way += self._counted
        super().allHeadersReceived()

    def allContentReceived(self) -> None:
        """The request is complete."""
        self._uncount()
        super().allContentReceived()

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]  # Twisted gives it no default here
        """The connection is gone, perhaps in the middle of a body."""
        self._uncount()
        super().connectionLost(reason)

    def _uncount(self) -> None:
        self.factory.bodies_under_way -= self._counted
        self._counted = 0
