"""The live page's files, as they lie in ``static/``: no build step, and nothing from anywhere else."""

from __future__ import annotations

import hashlib
from importlib import resources

from twisted.web.http import CACHED
from twisted.web.server import NOT_DONE_YET

from amqprouter.identity import Identity
from amqprouter.web.leaf import Leaf, MemberLeaf
from amqprouter.web.login import Login
from amqprouter.web.request import RouterRequest, reply

_POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    b"form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
"""The page's own files and nothing else; and what a device sends cannot become markup even if the script errs."""


_TYPES = {
    "css": b"text/css; charset=utf-8",
    "js": b"text/javascript; charset=utf-8",
    "svg": b"image/svg+xml",
}
"""Of the files that the page needs, by the ends of their names."""


class _File:
    """A packaged file that browsers may keep, but must ask about."""

    def __init__(self, name: str, content_type: bytes) -> None:
        self._content = (resources.files("amqprouter.web") / "static" / name).read_bytes()
        self._content_type = content_type
        self._etag = b'"' + hashlib.sha256(self._content).hexdigest()[:32].encode() + b'"'

    def send(self, request: RouterRequest) -> int:
        """Answer with the file, or with "you have it"."""
        request.setHeader(b"Cache-Control", b"no-cache")
        if request.setETag(self._etag) is CACHED:
            request.finish()
            return NOT_DONE_YET
        return reply(request, self._content, self._content_type)


class PageLeaf(MemberLeaf):
    """The page itself: it asks for the login, which the browser then sends with everything that the page loads."""

    def __init__(self, login: Login, link: bytes = b"") -> None:
        """`link` is the page's header of that name."""
        super().__init__(login)
        self._link = link
        self._file = _File("live.html", b"text/html; charset=utf-8")

    def respond_to(self, request: RouterRequest, user: Identity) -> None:
        """The same for everybody."""
        request.setHeader(b"Content-Security-Policy", _POLICY)
        if self._link:
            request.setHeader(b"Link", self._link)
        self._file.send(request)


class FileLeaf(Leaf):
    """A file that the page needs; there is nothing secret in it."""

    def __init__(self, name: str, content_type: bytes) -> None:
        super().__init__()
        self._file = _File(name, content_type)

    def respond(self, request: RouterRequest) -> int:
        """The file; a worker may do what its own policy allows, not its page's."""
        request.setHeader(b"Content-Security-Policy", _POLICY)
        return self._file.send(request)


def page_files() -> dict[bytes, Leaf]:
    """All files that the page needs, by path."""
    names = sorted(file.name for file in (resources.files("amqprouter.web") / "static").iterdir())
    kinds = {name: _TYPES.get(name.rpartition(".")[2]) for name in names}
    return {f"/static/{name}".encode(): FileLeaf(name, kind) for name, kind in kinds.items() if kind is not None}
