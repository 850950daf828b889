"""The connections to MongoDB: txmongo's pool, with what it leaves open closed.

Theory of operation. txmongo keeps the connections, finds the primary and connects again; commands go straight to its
protocol, as encoded bytes, so one batch costs one `Deferred` chain. Around that stand guards against what txmongo does
not do by itself:

- it drops the outcome of a login on the floor and uses the connection all the same: here a failed login ends the
  connection, is remembered as the reason, and the pool never sees it as ready;
- it waits for ever: here every command has a time limit, and one that is not answered in time ends all connections,
  for they lead to the same server, so that the next attempt gets a fresh one rather than another dead one;
- it keeps the reasons of failed connections to itself: here the latest one is kept for whoever asks;
- it leaves what it writes to the reactor, which sends 128 KiB of it in each turn, and the rest of a batch only after
  all that it has to read: here a command goes out as far as the socket takes it, and its end waits for no segment
  before it to be confirmed;
- with several hosts, one TLS name for all: here each connection verifies the host that it goes to;
- its errors quote the whole command: here what leaves is scrubbed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from bson import encode
from bson.codec_options import DEFAULT_CODEC_OPTIONS
from OpenSSL import SSL
from pymongo.errors import ConnectionFailure, PyMongoError
from service_identity import CertificateError, VerificationError
from twisted.internet import defer, ssl
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from txmongo.connection import ConnectionPool
from txmongo.protocol import BaseMessage, MongoProtocol, Msg
from zope.interface import implementer

from amqprouter.amqp.sending import send
from amqprouter.errors import AmqprouterError, StoreMisconfigured, StoreUnavailable
from amqprouter.storage.mongo_address import MongoAddress
from amqprouter.storage.mongo_reply import scrubbed

RETRY_DELAY = 1.5
"""Seconds. txmongo makes of this one value the first pause between connections, the limit for opening one, and the
limit for the first reply on it: enough for one lost SYN, which is sent again after 1 s (RFC 6298, section 2)."""
MAX_DELAY = 3.0
"""Seconds; the longest pause between connections, before jitter: a store that returns is used again within 10 s."""
MOST_ID = 2**31 - 1
"""Of a request: an int32."""


class _Protocol(MongoProtocol):  # type: ignore[misc]  # no type information there
    """One connection, which tells its link how it fares."""

    def __init__(self, link: MongoLink) -> None:
        super().__init__()
        self._link = link
        self._last_id = 0
        self.heard = False
        self._explained = False
        self.closed: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        self._link.connections.add(self)
        self.transport.setTcpNoDelay(True)
        super().connectionMade()

    def _send(self, request: BaseMessage) -> int:
        self._last_id = self._last_id % MOST_ID + 1
        send(self.transport, request.encode(self._last_id))
        return self._last_id

    def dataReceived(self, data: bytes) -> None:
        self.heard = True
        super().dataReceived(data)

    def fail(self, reason: Exception) -> None:
        self._end(StoreUnavailable(scrubbed(str(reason))))

    def _end(self, trouble: AmqprouterError) -> None:
        if not self._explained:
            self._link.report(trouble)
        self.abort()

    def abort(self) -> None:
        """End the connection now, whatever waits to be written; nobody is given it from here on."""
        self._explained = True
        if self.factory.instance is self:
            self.factory.setInstance(None)
        self.transport.abortConnection()

    def authenticate(self, database: str, username: str, password: str, mechanism: str) -> Deferred[object]:
        outcome: Deferred[object] = super().authenticate(database, username, password, mechanism)
        return outcome.addErrback(self._not_authenticated, username, database)

    def _not_authenticated(self, failure: Failure, username: str, database: str) -> Deferred[object]:
        if not failure.check(ConnectionFailure):
            # Whatever else it is: txmongo reads the reply without looking whether it is an error.
            self._end(
                StoreMisconfigured(
                    f"the server does not accept user {username!r} of database {database!r} with the password given "
                    "(SCRAM-SHA-1); see [store] and the server's log"
                )
            )
        return Deferred()  # for ever: if this fired, txmongo would use the connection

    def connectionLost(self, reason: Failure) -> None:
        self._link.connections.discard(self)
        if not self._explained:
            self._explained = True  # txmongo will also call `fail`, and know less
            tls = self._link.address.trust is not None and not self.heard
            ended = StoreUnavailable(f"the connection ended: {reason.getErrorMessage()}")
            self._link.report(_tls_trouble(reason) if tls else ended)
        super().connectionLost(reason)
        self.closed.callback(None)


def _tls_trouble(reason: Failure) -> AmqprouterError:
    error = reason.value
    if isinstance(error, SSL.Error):
        details = ", ".join(str(part[-1]) for part in (error.args[0] if error.args else ()) if part)
        return StoreMisconfigured(f"TLS with the server failed: {details or 'no reason given'}; see [store] tls_ca")
    if isinstance(error, (VerificationError, CertificateError)):
        return StoreMisconfigured(
            "TLS with the server failed: its certificate is for other hosts than [store] uri names"
        )
    return StoreUnavailable("the server hung up during the TLS handshake: does it speak TLS at this port?")


@implementer(IOpenSSLClientConnectionCreator)
class _TlsByHost:
    """Verifies on each connection the name of the host that it was opened to."""

    def __init__(self, link: MongoLink) -> None:
        self._link = link

    def clientConnectionForTLS(self, protocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        connector: Any = protocol.factory.wrappedFactory.connector
        host = self._link.name_of(connector.host)
        options: Any = ssl.optionsForClientTLS(host, trustRoot=self._link.address.trust)
        connection: SSL.Connection = options.clientConnectionForTLS(protocol)
        return connection


class MongoLink:
    """A pool of connections to the primary.

    `timeout` is in seconds and bounds each command, the wait for a connection included. The real reactor is used
    whatever `reactor` is, for txmongo imports it; `reactor` is the clock of the time limits.
    """

    _log = Logger()

    def __init__(self, address: MongoAddress, size: int, timeout: float, reactor: Any) -> None:
        self.address = address
        self.connections: set[_Protocol] = set()
        self._timeout = timeout
        self._reactor = reactor
        self._trouble: AmqprouterError = StoreUnavailable("no connection yet")
        self._waiting: list[Deferred[None]] = []  # for the first connection
        self._in_flight: set[Deferred[Any]] = set()
        self._closing = False
        self._pool = ConnectionPool(
            address.uri,
            pool_size=size,
            ssl_context_factory=None if address.trust is None else _TlsByHost(self),
            retry_delay=RETRY_DELAY,
            max_delay=MAX_DELAY,
        )
        for factory in self._pool.getprotocols():
            factory.noisy = False
            factory.protocol = partial(_Protocol, self)
            factory.clientConnectionFailed = partial(self._not_connected, factory.clientConnectionFailed)
        if address.credentials is not None:
            who = address.credentials
            self._pool.authenticate(who.database, who.username, who.password)  # kept for each connection, none is open

    def name_of(self, host: str) -> str:
        """The configured name behind a host: txmongo's pings go to the addresses that names were resolved to."""
        for factory in self._pool.getprotocols():
            if factory.instance is not None and factory.instance.transport.getPeer().host == host:
                return str(factory.connector.host)
        return host

    def problem(self) -> str:
        """Why nothing can be sent now; empty when something can."""
        if any(factory.instance is not None for factory in self._pool.getprotocols()):
            return ""
        return f"{self.address.uri}: {self._trouble}"

    def report(self, trouble: AmqprouterError) -> None:
        """A connection could not be made, or used, or any longer so."""
        if self._closing:
            return
        if str(trouble) != str(self._trouble):
            self._log.warn("MongoDB at {uri}: {trouble}", uri=self.address.uri, trouble=str(trouble))
        self._trouble = trouble
        if isinstance(trouble, StoreMisconfigured):
            self._tell_waiting(trouble)

    def _tell_waiting(self, trouble: AmqprouterError) -> None:
        waiting, self._waiting = self._waiting, []
        for deferred in waiting:
            deferred.errback(trouble)

    def _not_connected(self, then: Any, connector: object, reason: Failure) -> None:
        self.report(StoreUnavailable(f"no connection: {reason.getErrorMessage()}"))
        then(connector, reason)

    async def open(self) -> None:
        """Wait until there is a connection to the primary, and a login on it where one is asked for.

        :raises StoreMisconfigured: TLS or the login failed.
        :raises StoreUnavailable: there is none within the time limit.
        """
        ready: Deferred[None] = Deferred(self._waiting.remove)

        def connected(_: object) -> None:
            if ready in self._waiting:
                self._waiting.remove(ready)
                ready.callback(None)

        self._waiting.append(ready)
        connection: Deferred[object] = self._pool.getprotocol()
        connection.addCallbacks(connected, lambda _: None)
        try:
            await ready.addTimeout(self._timeout, self._reactor)
        except defer.TimeoutError:
            if any(not peer.heard for peer in self.connections):
                hint = "" if self.address.trust is None else "; does it speak TLS at this port?"
                self.report(StoreUnavailable(f"the server takes connections, but does not answer{hint}"))
            raise StoreUnavailable(f"{self.problem()} (waited {self._timeout:g} s)") from None
        finally:
            if not connection.called:
                connection.cancel()

    async def command(self, body: Mapping[str, Any], documents: Sequence[bytes] = ()) -> dict[str, Any]:
        """Run a command, with encoded `documents` in a sequence beside its body; the reply, which may be an error.

        :raises StoreUnavailable: there is no telling what became of it.
        """
        message = Msg(body=encode(body), payload={"documents": documents} if documents else {})
        work: Deferred[dict[str, Any]] = Deferred.fromCoroutine(self._answer_to(message))
        self._in_flight.add(work)
        try:
            return await work.addTimeout(self._timeout, self._reactor)
        except defer.TimeoutError:
            raise StoreUnavailable(f"{self.problem()} (waited {self._timeout:g} s)") from None
        except CancelledError:
            raise StoreUnavailable("the store was closed") from None
        except PyMongoError as error:
            raise StoreUnavailable(f"{self.address.uri}: {scrubbed(str(error))}") from None
        finally:
            self._in_flight.discard(work)

    async def _answer_to(self, message: Any) -> dict[str, Any]:
        connection = await self._pool.getprotocol()
        try:
            reply: dict[str, Any] = await connection.send_msg(message, DEFAULT_CODEC_OPTIONS, None, check=False)
        except CancelledError:
            self.report(StoreUnavailable("a command was not answered"))
            self._abort()
            raise
        return reply

    def _abort(self) -> None:
        for connection in list(self.connections):
            connection.abort()

    async def close(self) -> None:
        """End all connections and wait until they have ended; what is under way fails with `StoreUnavailable`."""
        self._closing = True
        self._tell_waiting(StoreUnavailable("the store was closed"))
        for deferred in list(self._in_flight):
            deferred.cancel()
        gone = self._pool.disconnect()
        closed = [connection.closed for connection in self.connections]
        self._abort()
        await gone
        await defer.gatherResults(closed)
