"""The endpoint that RabbitMQ asks about devices: rabbitmq_auth_backend_http's other side.

The broker posts forms to ``/SECRET/user``, ``/SECRET/vhost``, ``/SECRET/resource`` and ``/SECRET/topic``; the plugin
can send no header, so the shared secret is part of the path. It takes a 200 with ``allow`` or ``deny`` for an answer
and everything else, another status above all, for an error, which it treats as a refusal. So:

- allow and deny are 200. Behind a deny RabbitMQ 4.3 and later take a reason, and older ones break on one (the channel
  or connection that asks crashes): so it stands there only while we are connected to a broker that can read it. Of a
  login it says nothing that tells a wrong password from an unknown name. For the other questions the broker logs a
  reason together with the URL: where the secret is in that, none is given; the log here has it;
- a checker that cannot say, or not in time, is 503; what breaks is 500: either way the device is refused for now;
- a form that cannot be read, or has a field twice, is 400, and a wrong path 404, with or without the right secret.

A field that is absent differs from one that is empty: a question about a user without a password is about somebody
whom the broker knows by a certificate, one with an empty password is about somebody who left it out.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from functools import partial
from urllib.parse import parse_qsl

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Protocol
from twisted.logger import Logger
from twisted.web import http
from twisted.web.resource import IResource
from twisted.web.server import NOT_DONE_YET, Site

from amqprouter.auth.broker_access import BrokerAccess, Fields
from amqprouter.counters import Counters
from amqprouter.errors import CheckerUnavailable
from amqprouter.identity import Verdict
from amqprouter.web.channel import PostChannel
from amqprouter.web.leaf import Leaf
from amqprouter.web.request import RouterRequest, reply, reply_error

ANSWER_LIMIT = 5.0
"""Seconds until a question is answered with 503. Below the ten that RabbitMQ gives a client for its handshake
(``handshake_timeout``) and the fifteen that the plugin waits (``auth_http.request_timeout``): whoever gives up first
should be the one who can say why."""

MAX_CONNECTIONS = 1000
"""Questions at once; one more is hung up on, and the plugin asks thrice more before it refuses the device."""

MAX_FIELDS = 32
"""Fields of a form. The plugin sends ten at most, and those that other versions may add."""

LOGIN_DENIED = b"deny name and password are not those of a device; the log of amqprouter has more"
"""The same for all: who tries out names must not learn which ones there are."""
MAX_REASON = 160
"""Characters of a reason. The broker adds some of its own, and has 255 bytes for all (AMQP 0-9-1, section 1.4.2.9)."""
_NO_PASSWORD = "none"
"""What RabbitMQ 3.12 to 4.0 send for the password of an MQTT client that has nothing but a certificate."""

AskSecret = Callable[[str, bytes], Awaitable[Verdict]]
"""(device id, secret) → whether they belong together.

:raises CheckerUnavailable: nobody can tell at the moment.
"""


class BrokerRequest(RouterRequest):
    """One question. Its path is never logged: it may hold the secret."""

    shown_path = b"(broker auth)"

    def __repr__(self) -> str:
        return f"<BrokerRequest at {id(self):#x}>"

    def log_line(self, now: float) -> None:
        """None: what is denied or goes wrong has a line of its own."""


class BrokerAuthLeaf(Leaf):
    """Answers all questions.

    :param secret: the first part of the path, from the plugin's configuration; empty for none.
    :param external: whether to allow users without a password, whom the broker knows by a certificate.
    :param takes_reasons: whether the broker that we are connected to can read a reason behind ``deny``.
    """

    _log = Logger()

    def __init__(
        self,
        secret: bytes,
        access: BrokerAccess,
        ask_secret: AskSecret,
        *,
        external: bool,
        takes_reasons: Callable[[], bool],
        counters: Counters,
        reactor: IReactorTime,
    ) -> None:
        super().__init__()
        self._prefix = b"/%b/" % secret if secret else b"/"
        self._access = access
        self._ask_secret = ask_secret
        self._external = external
        self._takes_reasons = takes_reasons
        self._counts = counters.broker_auth
        self._reactor = reactor
        self._questions: dict[bytes, Callable[[Fields], Awaitable[str]]] = {
            b"user": self._user,
            b"vhost": partial(self._at_once, access.may_enter),
            b"resource": partial(self._at_once, access.may_touch),
            b"topic": partial(self._at_once, access.may_use_key),
        }

    def render(self, request: RouterRequest) -> int:
        """Called by twisted.web."""
        if request.method == b"POST":
            return self.respond(request)
        request.setHeader(b"Allow", b"POST")
        problem = "only POST is served here: set auth_http.http_method = post in rabbitmq.conf"
        self._log.error("the broker asks by a method that would put passwords into URLs; {problem}", problem=problem)
        return reply_error(request, http.NOT_ALLOWED, problem)

    def respond(self, request: RouterRequest) -> int:
        """Find out what is asked, and answer."""
        prefix, question = request.path[: len(self._prefix)], request.path[len(self._prefix) :]
        if not hmac.compare_digest(prefix, self._prefix) or question not in self._questions:
            self._counts["path deny"] += 1
            self._log.warn(
                "a question from {peer} under a path that is none of the broker's; compare the URLs in rabbitmq.conf "
                "with [broker_auth] secret_file",
                peer=request.client_host or "-",
            )
            return reply_error(request, http.NOT_FOUND, "not found")
        kind = question.decode("ascii")
        fields = _read_form(request)
        if fields is None:
            self._counts[f"{kind} error"] += 1
            self._log.error("the broker's question about a {kind} is no form that can be read", kind=kind)
            return reply_error(request, http.BAD_REQUEST, "not a form with each field once, in UTF-8")
        answer = Deferred.fromCoroutine(self._answer(request, kind, self._questions[question], fields))
        answer.addErrback(self._broken, request, kind)
        return NOT_DONE_YET

    async def _answer(
        self, request: RouterRequest, kind: str, question: Callable[[Fields], Awaitable[str]], fields: Fields
    ) -> None:
        asked: Deferred[str] = Deferred.fromCoroutine(question(fields))  # type: ignore[arg-type]  # they are coroutines
        try:
            refused = await asked.addTimeout(ANSWER_LIMIT, self._reactor)
        except (CheckerUnavailable, DeferredTimeout) as error:
            self._counts[f"{kind} error"] += 1
            why = f"no answer within {ANSWER_LIMIT:g} s" if isinstance(error, DeferredTimeout) else str(error)
            device = fields.get("username", "")
            self._log.error("{device!r} cannot log in to the broker: {why}", device=device, why=why)
            if not request.gone:
                reply_error(request, http.SERVICE_UNAVAILABLE, "cannot be checked now")
            return
        self._counts[f"{kind} {'deny' if refused else 'allow'}"] += 1
        if refused:
            self._log.info(
                "{device!r} is denied {what} on the broker: {why}",
                device=fields.get("username", ""),
                what=_what(kind, fields),
                why=refused,
            )
        if not request.gone:
            reply(request, self._denial(kind, refused) if refused else b"allow", b"text/plain")

    def _denial(self, kind: str, refused: str) -> bytes:
        if not self._takes_reasons():
            return b"deny"
        if kind == "user":
            return LOGIN_DENIED
        return b"deny" if self._prefix != b"/" else f"deny {refused[:MAX_REASON]}".encode()

    def _broken(self, failure: object, request: RouterRequest, kind: str) -> None:
        self._counts[f"{kind} error"] += 1
        request.processingFailed(failure)  # type: ignore[arg-type]  # it is a Failure

    async def _user(self, fields: Fields) -> str:
        """Whether this is the device; its password, where it has one, is the secret that a checker knows it by."""
        refused = self._access.who(fields)
        if refused:
            return refused
        password = fields.get("password")
        if password is None:
            return "" if self._external else "it came without a password, and [broker_auth] external is no"
        verdict = await self._ask_secret(fields["username"], password.encode())
        if verdict.allowed:
            return ""
        why = f"no checker knows it by this password ({verdict.reason})"
        if self._external and password == _NO_PASSWORD and "client_id" in fields:
            why += (
                "; of an MQTT client with a certificate and no password RabbitMQ 3.12 to 4.0 says what it says of one "
                f"with the password {_NO_PASSWORD!r}: such devices need a password, or RabbitMQ 4.1"
            )
        return why

    async def _at_once(self, rule: Callable[[Fields], str], fields: Fields) -> str:
        return rule(fields)


class _HangUp(Protocol):
    """For one connection too many. (TLS, wrapped around the site, cannot do with no protocol at all.)"""

    def connectionMade(self) -> None:
        self.transport.abortConnection()  # type: ignore[union-attr]  # TCP and TLS have it, the interface does not


class BrokerAuthSite(Site):
    """The endpoint: one leaf for all paths."""

    _log = Logger()
    protocol = PostChannel  # type: ignore[assignment]  # without the wrapper that would switch to HTTP/2
    displayTracebacks = False
    open_connections = 0
    _full = False

    def __init__(self, leaf: BrokerAuthLeaf, reactor: IReactorTime) -> None:
        self._leaf = leaf
        super().__init__(
            leaf, requestFactory=BrokerRequest, parsePOSTFormSubmission=False, timeout=ANSWER_LIMIT, reactor=reactor
        )

    def buildProtocol(self, addr: IPv4Address | IPv6Address | UNIXAddress | None) -> Protocol:  # type: ignore[override]
        """Take the connection, or hang up when there are too many."""
        full = self.open_connections >= MAX_CONNECTIONS
        if full and not self._full:
            self._log.warn("over {count} questions of the broker at once: hanging up on more", count=MAX_CONNECTIONS)
        self._full = full
        if full:
            return _HangUp()
        channel: PostChannel = super().buildProtocol(addr)
        return channel

    def getResourceFor(self, request: RouterRequest) -> IResource:
        """The leaf, whatever the path."""
        request.prepare(self.reactor.seconds())
        return self._leaf

    def log(self, request: RouterRequest) -> None:  # type: ignore[override]  # no other requests are made here
        """Nothing; see `BrokerRequest`."""

    def acceptableProtocols(self) -> list[bytes]:
        """HTTP/1.1 only."""
        return [b"http/1.1"]


def _read_form(request: RouterRequest) -> dict[str, str] | None:
    """The form's fields; None when it is none, or ambiguous."""
    try:
        pairs = parse_qsl(
            request.content.read().decode("ascii"),  # type: ignore[union-attr]  # there is a body, if an empty one
            keep_blank_values=True,
            strict_parsing=True,
            errors="strict",
            max_num_fields=MAX_FIELDS,
        )
    except ValueError:
        return None
    fields = dict(pairs)
    return fields if len(fields) == len(pairs) > 0 else None


def _what(kind: str, fields: Fields) -> str:
    """What a question is about, for the log: never the password."""
    if kind == "user":
        return "to log in"
    if kind == "vhost":
        return f"virtual host {fields.get('vhost')!r}"
    what = f"to {fields.get('permission')} {fields.get('resource')} {fields.get('name')!r}"
    return f"{what} with key {fields.get('routing_key')!r}" if kind == "topic" else what
