"""What all resources share: which methods they take, and who they answer to."""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.web import http
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from amqprouter.errors import CheckerUnavailable, TooManyGuesses
from amqprouter.identity import Identity
from amqprouter.web.cors import Cors
from amqprouter.web.login import Login
from amqprouter.web.request import TOO_MANY_REQUESTS, RouterRequest, reply_error


class Leaf(Resource):
    """A resource at one path. Subclasses answer in `respond`."""

    isLeaf = True
    methods: Iterable[bytes] = (b"GET", b"HEAD")
    cors: Cors | None = None
    """Which other sites' scripts may read the answers; it answers OPTIONS, which is then one of `methods`."""

    def __init__(self) -> None:
        super().__init__()

    def render(self, request: RouterRequest) -> int:
        """Called by twisted.web."""
        if self.cors is not None:
            self.cors.mark(request)
        if request.method not in self.methods:
            request.setHeader(b"Allow", b", ".join(self.methods))
            return reply_error(request, http.NOT_ALLOWED, "method not allowed")
        if request.method == b"OPTIONS" and self.cors is not None:
            return self.cors.answer_options(request)
        return self.respond(request)

    def respond(self, request: RouterRequest) -> int:
        """Answer a request of a method that is in `methods`; returns what `reply` does."""
        raise NotImplementedError


class Missing(Leaf):
    """What is not there."""

    def render(self, request: RouterRequest) -> int:
        """Whatever the method."""
        return reply_error(request, http.NOT_FOUND, "not found")


class MemberLeaf(Leaf):
    """A leaf for users only. Subclasses answer in `respond_to`."""

    _log = Logger()

    def __init__(self, login: Login) -> None:
        super().__init__()
        self._login = login

    def respond(self, request: RouterRequest) -> int:
        """Find out who asks, then answer."""
        Deferred.fromCoroutine(self._admit(request)).addErrback(request.processingFailed)
        return NOT_DONE_YET

    async def _admit(self, request: RouterRequest) -> None:
        try:
            user = await self._login.user(request)
        except CheckerUnavailable as error:
            self._log.error("nobody can log in: the checker of users does not answer: {error}", error=str(error))
            if not request.gone:
                reply_error(request, http.SERVICE_UNAVAILABLE, "logins cannot be checked now, try again later")
            return
        except TooManyGuesses as error:
            # Nobody is asked, so this tells nothing of the name or the password.
            if not request.gone:
                request.setHeader(b"Retry-After", b"%d" % max(1, ceil(error.retry_after)))
                reply_error(request, TOO_MANY_REQUESTS, "too many wrong passwords, try again later")
            return
        if request.gone:
            return
        if user is None:
            # One answer for everything that is wrong, so that it tells nothing about which names exist.
            request.setHeader(b"WWW-Authenticate", b'Basic realm="amqprouter", charset="UTF-8"')
            reply_error(request, http.UNAUTHORIZED, "login needed")
            return
        request.member = user.name
        self.respond_to(request, user)

    def respond_to(self, request: RouterRequest, user: Identity) -> None:
        """Answer `user`."""
        raise NotImplementedError
