"""``POST /commands/<device>/<topic words>``: a user sends a command to a device."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from urllib.parse import unquote_to_bytes
from uuid import UUID

from twisted.internet.defer import Deferred
from twisted.web import http

from amqprouter.commands.command import Command, Fate, Outcome
from amqprouter.identity import Identity, reserved_sender
from amqprouter.web.cors import Cors
from amqprouter.web.leaf import MemberLeaf
from amqprouter.web.login import Login
from amqprouter.web.request import TOO_MANY_REQUESTS, RouterRequest, reply_error, reply_json

PREFIX = b"/commands/"
_STATUS = {
    Fate.SENT: http.ACCEPTED,
    Fate.BAD: http.BAD_REQUEST,
    Fate.FORBIDDEN: http.FORBIDDEN,
    Fate.LIMITED: TOO_MANY_REQUESTS,
    Fate.FULL: TOO_MANY_REQUESTS,
    Fate.UNDELIVERABLE: http.NOT_FOUND,
    Fate.UNAVAILABLE: http.SERVICE_UNAVAILABLE,
}

Submit = Callable[[Identity, Command], "Deferred[Outcome]"]


class CommandLeaf(MemberLeaf):
    """Answers when the command is in the device's queue, or it is known why it is not.

    A browser adds a login that it remembers to whatever a page of any site has it send, so a request that tells of a
    foreign origin is refused unless it is one of `origins`.

    :param max_body: bytes of a command. :param wall_clock: seconds since 1970.
    """

    methods = (b"POST",)

    def __init__(
        self,
        login: Login,
        submit: Submit,
        max_body: int,
        origins: Collection[str],
        wall_clock: Callable[[], float],
        random_id: Callable[[], UUID],
    ) -> None:
        super().__init__(login)
        self.max_body = max_body
        self._submit = submit
        self._cors = Cors(origins, self.methods)
        self._wall_clock = wall_clock
        self._random_id = random_id

    def respond(self, request: RouterRequest) -> int:
        """Look where the request comes from, then at who sends it."""
        if request.getHeader(b"Origin") is not None and not self._cors.trusts(request):
            return reply_error(request, http.FORBIDDEN, "not from a page of this origin")
        return super().respond(request)

    def respond_to(self, request: RouterRequest, user: Identity) -> None:
        """Take the command, and answer when its outcome is known."""
        try:
            device, *words = (unquote_to_bytes(part).decode() for part in request.path[len(PREFIX) :].split(b"/"))
            content_type = (request.getHeader(b"Content-Type") or b"").decode()
        except UnicodeDecodeError:
            reply_error(request, http.BAD_REQUEST, "the path and the content type must be UTF-8")
            return
        if reserved_sender(user.name):
            reply_error(
                request,
                http.FORBIDDEN,
                "such a name is for the broker's accounts or for work, not for users",
            )
            return
        command = Command(
            device,
            ".".join(words),
            id=str(self._random_id()),
            sender=user.name,
            body=request.content.read() if request.content else b"",
            content_type=content_type,
            at=self._wall_clock(),
        )
        answering = self._submit(user, command).addCallback(self._answer, request, command)
        answering.addErrback(request.processingFailed)

    @staticmethod
    def _answer(outcome: Outcome, request: RouterRequest, command: Command) -> None:
        if request.gone:
            return
        if outcome.retry_after:
            request.setHeader(b"Retry-After", b"%d" % max(1, math.ceil(outcome.retry_after)))
        if outcome.fate is Fate.SENT:
            told = {"id": command.id, "device": command.device, "topic": command.topic}
            reply_json(request, told, http.ACCEPTED)
        else:
            reply_error(request, _STATUS[outcome.fate], outcome.reason)
