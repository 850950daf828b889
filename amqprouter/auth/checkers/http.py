"""The ``http:`` and ``https:`` checkers: an auth service that speaks RabbitMQ's auth-backend-http.

House rules. Only an answer that is understood counts, with status 200 or 201 as RabbitMQ has it; whatever else happens
is `CheckerUnavailable`. No redirect is followed: the secret is for this service and no other. Neither secrets nor
answers are quoted anywhere.

Theory of operation. At most ``connections`` questions are with the service at a time; more wait for their turn, and are
bounded by who asks (`amqprouter.auth.answers`). The connections persist. One that the service dropped while it was idle
is noticed only when it is used, so a request that was cut off without any answer is sent once more, over a new one: a
question changes nothing, so it may be asked twice. All that has ``timeout`` seconds. A `CircuitBreaker` keeps everybody
from asking a service that does not answer.
"""

from __future__ import annotations

import random as chance
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import ICredentials
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.error import ConnectingCancelledError, ConnectionClosed
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.ssl import Certificate, trustRootFromCertificates
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web import http
from twisted.web.client import (
    Agent,
    BrowserLikePolicyForHTTPS,
    HTTPConnectionPool,
    RequestTransmissionFailed,
    ResponseDone,
    ResponseNeverReceived,
)
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from zope.interface import implementer

from amqprouter.auth.asking import FairSemaphore
from amqprouter.auth.auth_file import read_auth_file
from amqprouter.auth.checkers.http_answer import read_answer
from amqprouter.auth.checkers.http_options import HttpOptions
from amqprouter.auth.circuit_breaker import CircuitBreaker
from amqprouter.errors import AuthFileError, CheckerNotAsked, CheckerUnavailable
from amqprouter.identity import Identity
from amqprouter.interfaces import IConnects, IDeviceSecret, IReloadable, IUserPassword, IUsesReactor

MAX_ANSWER = 65_536
"""Bytes of an answer; one word or a small object is expected."""
IDLE_SECONDS = 60
"""How long a connection without work is kept: many services close theirs after 60 to 75 s."""
LOOPBACK = ("localhost", "127.", "[::1]")


@implementer(ICredentialsChecker, IReloadable, IUsesReactor, IConnects)
class HttpChecker:
    """Asks the service that `options` describe.

    :param random: gives numbers from 0 to 1, for the pauses of the circuit breaker.
    :raises AuthFileError: a file that the options name cannot be used.
    """

    credentialInterfaces = (IDeviceSecret, IUserPassword)
    log = Logger()

    def __init__(self, options: HttpOptions, random: Callable[[], float] = chance.random) -> None:
        self._options = options
        self._breaker = CircuitBreaker(random)
        self._turns = FairSemaphore(options.connections)
        self._reactor: Any = None
        self._agent: IAgent | None = None
        self._fresh_agent: IAgent | None = None
        self._pool: HTTPConnectionPool | None = None
        self._read()

    def use_reactor(self, reactor: Any) -> None:
        policy = BrowserLikePolicyForHTTPS(self._trust)
        limit = self._options.timeout
        self._pool = HTTPConnectionPool(reactor, persistent=True)
        self._pool.maxPersistentPerHost = self._options.connections
        self._pool.cachedConnectionTimeout = IDLE_SECONDS
        self._pool.retryAutomatically = False  # it would not retry a POST
        self.use_agents(reactor, Agent(reactor, policy, limit, pool=self._pool), Agent(reactor, policy, limit))
        if self._options.url.startswith("http://") and not self._options.url[7:].startswith(LOOPBACK):
            self.log.warn(
                "{url} is not encrypted: whoever is between can read the secrets, and answer; use https",
                url=self._options.url.partition("?")[0],
            )

    def use_agents(self, reactor: Any, agent: IAgent, fresh_agent: IAgent) -> None:
        """Make requests by `agent`, and by `fresh_agent` those for which an old connection will not do."""
        self._reactor, self._agent, self._fresh_agent = reactor, agent, fresh_agent

    def reload(self) -> None:
        """Read the files again; new authorities count from the next start on."""
        self._read()

    def close(self) -> Deferred[None] | None:
        return None if self._pool is None else self._pool.closeCachedConnections()

    # Twisted annotates avatar ids as bytes; names are text here.
    def requestAvatarId(self, credentials: ICredentials) -> Deferred[str | Identity]:  # type: ignore[override]
        """What the service says of the name, once it has allowed it.

        :raises UnauthorizedLogin: (by the Deferred) it says no.
        :raises NotKnown: (by the Deferred) it does not know the name.
        :raises CheckerNotAsked: (by the Deferred) it has not been answering, and is left alone.
        :raises CheckerUnavailable: (by the Deferred) it gives no answer that can be used.
        """
        if IDeviceSecret.providedBy(credentials):
            name, secret = credentials.device_id, credentials.secret
        elif IUserPassword.providedBy(credentials):
            name, secret = credentials.username, credentials.password
        else:
            raise TypeError(f"{type(credentials).__name__} is neither a device's secret nor a user's password")
        return self._turns.run(lambda: Deferred.fromCoroutine(self._ask(name, secret)))

    def _read(self) -> None:
        """:raises AuthFileError: a file cannot be used."""
        path = self._options.authorization_file
        authorization = read_auth_file(path, secret=True).partition("\n")[0].strip() if path else ""
        if path and not (authorization and authorization.isascii() and authorization.isprintable()):
            raise AuthFileError([f"{path}: the first line is no value of a header, such as: Bearer 3f9a…"])
        self._authorization = authorization
        self._trust = None
        if self._options.ca_file:
            self._trust = trustRootFromCertificates(_authorities(self._options.ca_file))

    async def _ask(self, name: str, secret: bytes) -> str | Identity:
        breaker, clock = self._breaker, self._reactor
        if not breaker.may_ask(clock.seconds()):
            raise CheckerNotAsked("the service has not been answering; it is left alone for a while")
        try:
            asking = Deferred.fromCoroutine(self._question(name, secret))
            said = await asking.addTimeout(self._options.timeout, clock)
        except UnauthorizedLogin:
            breaker.answered()
            raise
        except BaseException as error:
            breaker.failed(name, clock.seconds())
            raise self._unavailable(error) from error
        breaker.answered()
        return said

    async def _question(self, name: str, secret: bytes) -> str | Identity:
        """
        :raises UnauthorizedLogin: the service says no.
        :raises Exception: all kinds, when it gives no answer that can be used.
        """
        fields: list[tuple[str, str | bytes]] = [
            ("username", name.encode("utf-8", "surrogatepass")),
            ("password", secret),
        ]
        if self._options.vhost:
            fields.append(("vhost", self._options.vhost))
        response, body = await self._request(urlencode(fields).encode())
        if response.code not in (http.OK, http.CREATED):
            raise CheckerUnavailable(f"the service answers with status {response.code}")
        content_type = (response.headers.getRawHeaders(b"content-type") or [b""])[-1]
        return read_answer(name, content_type.decode("latin-1"), body)

    async def _request(self, form: bytes) -> tuple[IResponse, bytes]:
        try:
            return await self._send(self._agent, form)
        except Exception as error:
            if not _dropped(error):
                raise
        return await self._send(self._fresh_agent, form)

    async def _send(self, agent: IAgent | None, form: bytes) -> tuple[IResponse, bytes]:
        assert agent is not None, "use_reactor was not called"
        url = self._options.url.encode()
        headers = Headers({b"User-Agent": [b"amqprouter"], b"Accept": [b"text/plain, application/json"]})
        if self._authorization:
            headers.setRawHeaders(b"Authorization", [self._authorization.encode()])
        if self._options.method == "get":
            join = b"&" if b"?" in url else b"?"
            response = await agent.request(b"GET", url + join + form, headers)
        else:
            headers.setRawHeaders(b"Content-Type", [b"application/x-www-form-urlencoded"])
            response = await agent.request(b"POST", url, headers, _Form(form))
        body = _Body()
        response.deliverBody(body)
        return response, await body.finished

    def _unavailable(self, error: BaseException) -> CheckerUnavailable:
        """The operator's words for what went wrong."""
        if isinstance(error, CheckerUnavailable):
            return error
        errors = _causes(error)
        if any(isinstance(one, (DeferredTimeout, CancelledError, ConnectingCancelledError)) for one in errors):
            return CheckerUnavailable(f"no answer from the service within {self._options.timeout:g} s")
        text = ", ".join(dict.fromkeys(str(one) or type(one).__name__ for one in errors))
        return CheckerUnavailable(f"the service cannot be asked: {text}")


def _causes(error: BaseException) -> list[BaseException]:
    """What twisted.web wraps up in an error of its own, or the error."""
    return [reason.value for reason in getattr(error, "reasons", None) or []] or [error]


def _dropped(error: Exception) -> bool:
    """Whether a request was cut off without an answer, as one is over a connection that the service has closed."""
    unanswered = isinstance(error, (RequestTransmissionFailed, ResponseNeverReceived))
    return unanswered and all(isinstance(one, ConnectionClosed) for one in _causes(error))


def _authorities(path: str) -> list[Certificate]:
    """
    :raises AuthFileError: the file holds no certificates.
    """
    blocks = read_auth_file(path, secret=False).split("-----BEGIN CERTIFICATE-----")[1:]
    try:
        certificates = [Certificate.loadPEM(f"-----BEGIN CERTIFICATE-----{block}".encode()) for block in blocks]
    except Exception as error:  # pyOpenSSL's own, which has no text
        raise AuthFileError([f"{path}: a broken PEM certificate"]) from error
    if not certificates:
        raise AuthFileError([f"{path}: no PEM certificate in it"])
    return certificates


@implementer(IBodyProducer)
class _Form:
    """The body of a POST."""

    def __init__(self, form: bytes) -> None:
        self._form = form
        self.length = len(form)

    def startProducing(self, consumer: Any) -> Deferred[None]:
        consumer.write(self._form)
        done: Deferred[None] = Deferred()
        done.callback(None)
        return done

    def stopProducing(self) -> None: ...

    def pauseProducing(self) -> None: ...

    def resumeProducing(self) -> None: ...


class _Body(Protocol):
    """Takes in a body, up to `MAX_ANSWER` bytes; `finished` fires with it. Cancelling that ends the connection."""

    def __init__(self) -> None:
        self.finished: Deferred[bytes] = Deferred(lambda _: self._end())
        self._content = b""

    def dataReceived(self, data: bytes) -> None:
        self._content += data
        if len(self._content) > MAX_ANSWER and not self.finished.called:
            self._end()
            self.finished.errback(CheckerUnavailable(f"the service's answer has over {MAX_ANSWER} bytes"))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.finished.called:
            return
        if reason.check(ResponseDone, PotentialDataLoss):  # the second: ended by closing, as HTTP/1.0 servers do
            self.finished.callback(self._content)
        else:
            self.finished.errback(CheckerUnavailable("the service's answer was cut off"))

    def _end(self) -> None:
        assert self.transport is not None
        self.transport.loseConnection()
