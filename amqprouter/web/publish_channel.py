"""The HTTP/1.1 channel of a site where updates and commands may be published: at some paths, a POST may have a body."""

from __future__ import annotations

from twisted.python.failure import Failure
from twisted.web.http import SERVICE_UNAVAILABLE

from amqprouter.web.channel import GuardedChannel

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
