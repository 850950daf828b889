"""A request to the site and its answer: safe defaults in every response, one line in the log, and never a traceback."""

from __future__ import annotations

import json
from io import BytesIO
from typing import NamedTuple

from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure
from twisted.web import http
from twisted.web.server import NOT_DONE_YET, Request

from amqprouter.net import TrustedProxies

JSON = b"application/json"
TOO_MANY_REQUESTS = 429
"""RFC 6585; twisted.web has no name for it."""

_HEADERS = {
    b"Server": b"amqprouter",
    b"Content-Security-Policy": b"default-src 'none'; frame-ancestors 'none'",
    b"Cross-Origin-Resource-Policy": b"same-origin",
    b"Referrer-Policy": b"no-referrer",
    b"X-Content-Type-Options": b"nosniff",
    b"X-Frame-Options": b"DENY",
}
"""In every response; a resource may replace them."""

_POLLED = (b"/healthz", b"/readyz", b"/metrics", b"/status")
"""Asked for every few seconds by machines: their log lines are for debugging only."""


_access_log = Logger()


class Grant(NamedTuple):
    """What somebody was let in by, where that can end.

    `token` is empty for a password; `good_until` is until when it is good, in seconds since 1970. `ends` is by the
    clock of the site, where a checker said for how long. `version` is that of the user's password, where that can be
    told (`amqprouter.interfaces`)."""

    token: bytes
    good_until: float | None = None
    ends: float | None = None
    version: str | None = None


class RouterRequest(Request):
    """A request, from its headers to its line in the log."""

    _log = Logger()
    defaultContentType = b"text/plain; charset=utf-8"

    member = ""
    """The user's name, once known."""
    grant: Grant | None = None
    """What the user was let in by, if that can end."""
    gone = False
    """Whether the client has disconnected: there is nobody left to answer."""
    proxies = TrustedProxies()
    """Whose word about the client's address counts; nobody's, unless the site says otherwise."""
    started = 0.0
    """When the request was complete, in seconds of the site's reactor."""

    @property
    def shown_path(self) -> bytes:
        """The path as the log may have it."""
        return self.path

    @property
    def client_host(self) -> str:
        """The address that the request comes from, as trusted proxies say; empty when it came by a UNIX socket."""
        peer = getattr(self.getClientAddress(), "host", "")
        forwarded_for = self.requestHeaders.getRawHeaders("X-Forwarded-For", [])
        return self.proxies.client(peer, forwarded_for)

    def prepare(self, now: float) -> None:
        """Set the headers that every response has; `now` is when the request was complete, in seconds."""
        self.started = now
        for name, value in _HEADERS.items():
            self.setHeader(name, value)

    def gotLength(self, length: int | None) -> None:
        """Keep the body in memory, of whatever length: the channel bounds it, and a full /tmp is no reason to fail."""
        self.content = BytesIO()

    def abort(self) -> None:
        """Break the connection off, unsent data and all."""
        self.transport.abortConnection()  # type: ignore[union-attr]  # TCP and TLS have it, the interface does not

    def connectionLost(self, reason: Failure) -> None:
        """The client is gone before the end of the response."""
        self.gone = True
        if self.startedWriting and self.site is not None:
            self.site.log(self)
        super().connectionLost(reason)

    def log_line(self, now: float) -> None:
        """Write the access log's line. It has no query, no headers and no body: they may hold secrets."""
        log_access(
            self.client_host, self.member, self.method, self.shown_path, self.code, self.sentLength, now - self.started
        )

    def processingFailed(self, reason: Failure) -> Failure | None:
        """Something broke: the log gets the traceback, the client gets none."""
        self._log.failure("a request to {path!r} failed", failure=reason, path=self.shown_path)
        if self.gone or self.finished:
            return None
        if self.startedWriting:
            self.abort()
            return None
        body = json.dumps({"error": "internal error"}).encode()
        self.setResponseCode(http.INTERNAL_SERVER_ERROR)
        self.setHeader(b"Content-Type", b"application/json")
        self.setHeader(b"Content-Length", b"%d" % len(body))
        self.write(body)
        self.finish()
        return None


def reply(request: RouterRequest, body: bytes, content_type: bytes, status: int = http.OK) -> int:
    """Answer with this body and be done; returns what `Resource.render` must return."""
    request.setResponseCode(status)
    request.setHeader(b"Content-Type", content_type)
    request.setHeader(b"Content-Length", b"%d" % len(body))
    request.write(body)  # which leaves the body out for HEAD
    request.finish()
    return NOT_DONE_YET


def reply_json(request: RouterRequest, value: object, status: int = http.OK) -> int:
    """Answer with a JSON document that nobody may cache."""
    request.setHeader(b"Cache-Control", b"no-store")
    return reply(request, json.dumps(value).encode(), JSON, status)


def reply_error(request: RouterRequest, status: int, problem: str) -> int:
    """Answer with ``{"error": problem}``."""
    return reply_json(request, {"error": problem}, status)


def log_access(
    peer: str, member: str, method: bytes, path: bytes, status: int, bytes_sent: int, seconds: float
) -> None:
    """The line of the access log for one request."""
    level = LogLevel.debug if path in _POLLED and status < http.BAD_REQUEST else LogLevel.info
    _access_log.emit(
        level,
        "{peer} {member} {method} {path} {status} {bytes_sent} B {seconds:.3f} s",
        peer=peer or "-",
        member=member or "-",
        method=method.decode("ascii", "replace"),  # twisted.web lets only printable ASCII through
        path=path.decode("ascii", "replace")[:200],
        status=status,
        bytes_sent=bytes_sent,
        seconds=seconds,
    )


def accepts(request: RouterRequest, content_type: bytes) -> bool:
    """Whether the header ``Accept`` allows this type; it does when it is not there. The closest range in it counts."""
    raw = b",".join(request.requestHeaders.getRawHeaders(b"Accept", []))
    if not raw.strip():
        return True
    quality: dict[bytes, bool] = {}
    for part in raw.lower().split(b","):
        name, *parameters = (piece.strip() for piece in part.split(b";"))
        zero = any(each.startswith(b"q=") and not each[2:].strip(b"0.") for each in parameters)
        quality[name] = not zero
    kind = content_type.partition(b"/")[0] + b"/*"
    return next((quality[each] for each in (content_type, kind, b"*/*") if each in quality), False)


def refuse_unacceptable(request: RouterRequest, *content_types: bytes) -> bool:
    """Answer 406 unless one of these types is accepted; whether it did."""
    if any(accepts(request, each) for each in content_types):
        return False
    reply_error(request, http.NOT_ACCEPTABLE, f"there is only {content_types[0].decode()} here")
    return True
