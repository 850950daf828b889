"""The HTTP/1.1 channel for small forms: one POST a connection."""

from __future__ import annotations

from twisted.python.failure import Failure
from twisted.web.http import LENGTH_REQUIRED, REQUEST_ENTITY_TOO_LARGE, HTTPChannel, Request

from amqprouter.web.channel import GuardedChannel

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
