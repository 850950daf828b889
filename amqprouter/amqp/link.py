"""A long-lived connection to the broker: opened, prepared, kept, and opened again after any loss.

Theory of operation. Twisted's `ClientService` holds the state machine; a link gives it what is AMQP's: the handshake,
then the owner's `prepare` (topology, channels, consumers), all within one time limit. Only when `prepare` has succeeded
does the link count as up. The delay before the next try is drawn from the whole interval up to an exponentially growing
ceiling ("full jitter"), so that a fleet of gateways does not come back in step; the ceiling falls back to its start
only once a connection has lasted a while, so that one which is refused right after its handshake is not retried hot.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, cast

from twisted.application.internet import ClientService
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from amqprouter.amqp.address import endpoint_for, handshake_for
from amqprouter.amqp.connection import Connection, ConnectionFactory
from amqprouter.core.counters import Counters
from amqprouter.errors import AmqprouterError, BrokerUnavailable
from amqprouter.interfaces import IReadiness
from amqprouter.settings import BrokerSettings

FIRST_DELAY = 0.5
"""Seconds; ceiling of the first delay. A broker that restarts is back in a few seconds."""
STABLE = 10.0
"""Seconds that a connection must last before the next loss starts from `FIRST_DELAY` again."""

Prepare = Callable[[Connection], Coroutine[Deferred[Any], Any, None]]


@implementer(IReadiness)
class BrokerLink(Service):
    """One of the daemon's connections, named by its purpose (``consume``, ``publish``, ``events``)."""

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        settings: BrokerSettings,
        purpose: str,
        prepare: Prepare,
        *,
        clock: Any,
        counters: Counters,
        random: Callable[[], float],
    ) -> None:
        self.name = f"broker-{purpose}"
        self.connection: Connection | None = None
        """The connection while it is up and prepared."""
        self._clock = clock
        self._settings = settings
        self._purpose = purpose
        self._prepare_owner = prepare
        self._counters = counters
        self._random = random
        self._attempt = 0
        self._up_since = 0.0
        self._was_up = False
        self._problem = "not connected yet"
        factory = ConnectionFactory(lambda: handshake_for(settings, purpose), clock)
        self._client = ClientService(
            _FreshEndpoint(reactor, settings),
            factory,
            retryPolicy=self._delay,
            clock=clock,
            prepareConnection=self._prepare,
        )

    def problem(self) -> str:
        """Why the link is down, or the broker's reason for not taking publishes; empty when all is well."""
        if self.connection is not None and self.connection.blocked:
            return f"the broker takes no publishes: {self.connection.blocked}"
        return self._problem

    def startService(self) -> None:
        super().startService()  # type: ignore[no-untyped-call]
        self._client.startService()

    async def close(self) -> None:
        """Close in good order and stay closed."""
        super().stopService()  # type: ignore[no-untyped-call]
        if self.connection is not None:
            await self.connection.shut()
        await self._client.stopService()

    def stopService(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self.close())

    def _delay(self, failures: int) -> float:
        """Seconds until the next try."""
        ceiling = min(self._settings.reconnect_max, FIRST_DELAY * 2 ** min(self._attempt, 16))
        self._attempt += 1
        return float(self._random() * ceiling)

    def _prepare(self, protocol: Any) -> Deferred[None]:
        return Deferred.fromCoroutine(self._open(protocol))

    async def _open(self, connection: Connection) -> None:
        limit = self._settings.connect_timeout
        late = BrokerUnavailable(f"the connection was not ready for use within {limit:g} s")
        timer = self._clock.callLater(limit, connection.fail, late)
        try:
            await connection.open()
            await self._prepare_owner(connection)
        except Exception as error:
            self._failed(connection.end or error)
            connection.fail(error)
            raise
        finally:
            if timer.active():
                timer.cancel()
        self._up_since = self._clock.seconds()
        self.connection, self._problem = connection, ""
        if self._was_up:
            self._counters.reconnects += 1
        self._was_up = True
        self.log.info("Connected to the broker to {purpose}", purpose=self._purpose)
        connection.disconnected.wait().addCallback(self._lost, connection)

    def _failed(self, error: Exception) -> None:
        self._problem = f"{error}"
        if isinstance(error, AmqprouterError):
            self.log.error("Cannot use the broker to {purpose}: {error}", purpose=self._purpose, error=str(error))
        else:
            self.log.failure("Cannot use the broker to {purpose}", Failure(error), purpose=self._purpose)

    def _lost(self, _: object, connection: Connection) -> None:
        self.connection = None
        self._problem = str(connection.end)
        if self._clock.seconds() - self._up_since >= STABLE:
            self._attempt = 0
        if self.running:
            self.log.warn(
                "Lost the broker connection to {purpose}: {reason}", purpose=self._purpose, reason=str(connection.end)
            )


@implementer(IStreamClientEndpoint)
class _FreshEndpoint:
    """Makes the real endpoint anew for every attempt, so that renewed certificates count."""

    log = Logger()

    def __init__(self, reactor: Any, settings: BrokerSettings) -> None:
        self._reactor = reactor
        self._settings = settings

    def connect(self, protocolFactory: Any) -> Deferred[Any]:
        async def connect() -> Any:
            try:
                return await endpoint_for(self._reactor, self._settings).connect(protocolFactory)
            except Exception as error:
                self.log.warn("Cannot reach the broker: {error}", error=str(error) or type(error).__name__)
                raise

        return Deferred.fromCoroutine(connect())


async def connect_once(reactor: Any, settings: BrokerSettings, purpose: str) -> Connection:
    """A single connection, for a command that ends soon.

    :raises BrokerUnavailable: it cannot be reached. :raises BrokerRefused: it does not let us in.
    """
    factory = ConnectionFactory(lambda: handshake_for(settings, purpose), reactor)
    try:
        connection: Any = await endpoint_for(reactor, settings).connect(factory)
    except Exception as error:
        raise BrokerUnavailable(f"cannot reach the broker: {error}") from error
    await connection.open()
    return cast(Connection, connection)
