"""Which other sites' scripts may read an answer: those of an exact list of origins (WHATWG Fetch, "CORS protocol")."""

from __future__ import annotations

from collections.abc import Collection

from twisted.web import http

from amqprouter.web.request import RouterRequest, reply

_REMEMBER = b"600"
"""Seconds that a browser may remember a preflight's answer."""


class Cors:
    """The list, for one resource and its methods."""

    def __init__(self, origins: Collection[str], methods: Collection[bytes], exposed: bytes = b"") -> None:
        """`exposed` are the response headers, besides the usual ones, that scripts may read."""
        self._origins = frozenset(origin.encode() for origin in origins)
        self._methods = b", ".join(methods)
        self._exposed = exposed

    def mark(self, request: RouterRequest) -> None:
        """Say in the response who may read it."""
        if not self._origins:
            return
        request.setHeader(b"Vary", b"Origin")
        origin = request.getHeader(b"Origin")
        if origin in self._origins:
            request.setHeader(b"Access-Control-Allow-Origin", origin)
            request.setHeader(b"Access-Control-Allow-Credentials", b"true")
            if self._exposed:
                request.setHeader(b"Access-Control-Expose-Headers", self._exposed)
            if request.method == b"OPTIONS":
                request.setHeader(b"Access-Control-Allow-Methods", self._methods)
                request.setHeader(
                    b"Access-Control-Allow-Headers",
                    b"authorization, cache-control, content-type, last-event-id, prefer",
                )
                request.setHeader(b"Access-Control-Max-Age", _REMEMBER)

    def answer_options(self, request: RouterRequest) -> int:
        """The answer to OPTIONS, a preflight or not."""
        request.setHeader(b"Allow", self._methods)
        return reply(request, b"", b"text/plain", http.NO_CONTENT)

    def trusts(self, request: RouterRequest) -> bool:
        """Whether a request that a browser has put a cookie into comes from a page that may send it: by its Origin, or
        else its Referer, of the list or of this very host. Neither can be set by a script."""
        sent = request.getHeader(b"Origin") or _origin_of(request.getHeader(b"Referer") or b"")
        scheme, _, place = sent.partition(b"://")
        own = scheme in (b"http", b"https") and place != b"" and place == request.getHeader(b"Host")
        return own or sent in self._origins


def _origin_of(url: bytes) -> bytes:
    scheme, separator, rest = url.partition(b"://")
    return scheme + separator + rest.partition(b"/")[0].partition(b"?")[0].partition(b"#")[0]
