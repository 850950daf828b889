"""A site that is a flat table of paths, with the guards of `channel` and the requests of `request`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from twisted.internet.interfaces import IReactorTime
from twisted.web.resource import IResource
from twisted.web.server import Site

from amqprouter.web.channel import GuardedChannel
from amqprouter.web.leaf import Leaf, Missing
from amqprouter.web.request import RouterRequest

T = TypeVar("T")


def at_path(table: Mapping[bytes, T], path: bytes) -> T | None:
    """What the table has for this path, or else for all that begin with a key of it that ends with a slash."""
    found = table.get(path)
    if found is None:  # the table is short, and paths that are not in it are few
        return next((table[key] for key in table if len(key) > 1 and key[-1:] == b"/" and path.startswith(key)), None)
    return found


class TableSite(Site):
    """`routes` has the leaf of each path as it is sent, or of all paths below one that ends with a slash.
    `request_timeout` is the seconds for a whole request."""

    protocol = GuardedChannel  # type: ignore[assignment]  # without the wrapper that would switch to HTTP/2
    displayTracebacks = False

    def __init__(self, routes: Mapping[bytes, Leaf], *, request_timeout: float, reactor: IReactorTime) -> None:
        self._missing = Missing()
        super().__init__(
            self._missing,
            requestFactory=RouterRequest,
            parsePOSTFormSubmission=False,
            timeout=request_timeout,
            reactor=reactor,
        )
        self._routes = routes

    def getResourceFor(self, request: RouterRequest) -> IResource:
        """The leaf for the path as it was sent; there are no other ways to write one."""
        request.prepare(self.reactor.seconds())
        return at_path(self._routes, request.path) or self._missing

    def log(self, request: RouterRequest) -> None:  # type: ignore[override]  # no other requests are made here
        """A request is done: write its line to the daemon's log, not to a file of its own."""
        request.log_line(self.reactor.seconds())

    def acceptableProtocols(self) -> list[bytes]:
        """HTTP/1.1 only: twisted.web would offer HTTP/2 as soon as the package h2 happens to be there."""
        return [b"http/1.1"]
