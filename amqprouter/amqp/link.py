"""A long-lived connection to the broker: opened, prepared, kept, and opened again after any loss.

Theory of operation. Twisted's `ClientService` holds the state machine of connecting again. It knows nothing of a
connection that ends while it is being prepared, so what it gets as its endpoint is a `_ReadyEndpoint`: one "connect"
there is the socket, the handshake and the owner's `prepare` (topology, channels, consumers), within one time limit, and
what fails on the way is closed before the attempt counts as failed. What may take long for a good reason has the limit
count anew with each piece of it that is done (`Connection.progress`). What the service then watches is a `_Presence`, a
protocol that lives as long as the ready connection does. With several hosts, all of that is tried at one after the
other, in random order, before the attempt counts as failed.

The delay before the next try is drawn from the whole interval up to an exponentially growing ceiling ("full jitter"),
so that a fleet of gateways does not come back in step; the ceiling falls back to its start only once a connection has
lasted a while, so that one which is refused right after its handshake is not retried hot.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, cast

from twisted.application.internet import ClientService
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectingCancelledError
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure
from zope.interface import implementer

from amqprouter.amqp.address import Address, addresses_for, handshake_for
from amqprouter.amqp.connection import Connection, ConnectionFactory
from amqprouter.amqp.declare import explained
from amqprouter.amqp.silence import SILENT, Silence
from amqprouter.clock import Backoff, Clock
from amqprouter.counters import Counters
from amqprouter.errors import AmqprouterError, BrokerRefused, BrokerUnavailable, TopologyClash
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
        clock: Clock,
        counters: Counters,
        random: Callable[[], float],
    ) -> None:
        self.name = f"broker-{purpose}"
        self.connection: Connection | None = None
        """The connection while it is up and prepared."""
        self._clock = clock
        self._settings = settings
        self._purpose = purpose
        self._prepare = prepare
        self._counters = counters
        self._random = random
        self._backoff = Backoff(FIRST_DELAY, settings.reconnect_max, random, chance=1)
        self._attempt = 0
        self._up_since = 0.0
        self._was_up = False
        self._problem = "not connected yet"
        self._silence: Silence | None = None
        self._client = ClientService(
            _ReadyEndpoint(self._connect),
            Factory.forProtocol(_Presence),
            retryPolicy=self._delay,
            clock=cast(IReactorTime, clock),  # it asks for no more than a `Clock` has
        )
        self._reactor = reactor

    def problem(self) -> str:
        """Why the link is down or the broker takes no publishes, or that it does not answer; empty when all is well."""
        if self.connection is not None and self.connection.blocked:
            return f"the broker takes no publishes: {self.connection.blocked}"
        return SILENT if self._silence is not None and self._silence.lasts else self._problem

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
        self._attempt += 1
        return self._backoff.pause(self._attempt - 1)

    async def _connect(self) -> Connection:
        """Connect and prepare, at the first host that lets us; whatever goes wrong, nothing is left open.

        :raises Exception: whatever went wrong; it has been logged.
        """
        try:
            connection = await _at_any_host(
                self._reactor, self._clock, self._settings, self._purpose, self._prepare, self._random
            )
        except CancelledError:  # a stop
            raise
        except Exception as error:
            self._failed(error)
            raise
        self._up_since = self._clock.seconds()
        self.connection, self._problem = connection, ""
        if self._was_up:
            self._counters.reconnects += 1
        self._was_up = True
        self.log.info("Connected to the broker: {purpose}", purpose=self._purpose)
        self._silence = Silence(connection, self._clock, self._purpose)
        self._silence.start().addErrback(
            lambda failure: self.log.failure("the watch for a broker that does not answer has stopped", failure)
        )
        connection.disconnected.wait().addCallback(self._lost, connection)
        return connection

    def _failed(self, error: Exception) -> None:
        before, self._problem = self._problem, str(error) or type(error).__name__
        if isinstance(error, AmqprouterError):
            is_news = self._problem != before  # and not the same at each try
            self.log.emit(
                LogLevel.error if is_news else LogLevel.debug,
                "Cannot use the broker ({purpose}): {error}",
                purpose=self._purpose,
                error=str(error),
            )
        else:
            self.log.failure("Cannot use the broker ({purpose})", Failure(error), purpose=self._purpose)

    def _lost(self, _: object, connection: Connection) -> None:
        self.connection = None
        if self._silence is not None:
            self._silence.stop()
            self._silence = None
        end = explained(connection.end) if isinstance(connection.end, BrokerRefused) else connection.end
        self._problem = str(end)
        if self._clock.seconds() - self._up_since >= STABLE:
            self._attempt = 0
        if self.running:
            self.log.warn(
                "Lost the broker connection ({purpose}): {reason}", purpose=self._purpose, reason=self._problem
            )


class _Presence(Protocol):
    """Stands for a ready connection with `ClientService`: made when it is ready, lost when it ends."""


@implementer(IStreamClientEndpoint)
class _ReadyEndpoint:
    """Connects by a coroutine that returns a connection ready for use."""

    def __init__(self, connect: Callable[[], Coroutine[Deferred[Any], Any, Connection]]) -> None:
        self._connect = connect

    def connect(self, protocolFactory: Any) -> Deferred[Any]:
        """Fires with a presence once the connection is ready."""
        return Deferred.fromCoroutine(self._present(protocolFactory))

    async def _present(self, factory: Any) -> Any:
        connection = await self._connect()
        presence = factory.buildProtocol(None)
        presence.makeConnection(connection.transport)
        connection.disconnected.wait().addCallback(lambda _: presence.connectionLost(Failure(connection.end)))
        return presence


async def _at_any_host(
    reactor: Any, clock: Clock, settings: BrokerSettings, purpose: str, prepare: Prepare, random: Callable[[], float]
) -> Connection:
    """A connection that is opened and prepared, to the first host where that works.

    :raises Exception: the only error, or one that tells of all; but one that is none of ours goes first, as a fault.
    """
    try:
        # Made anew for every attempt, so that renewed certificates and passwords count.
        addresses = addresses_for(reactor, settings, random)
    except Exception as error:
        raise BrokerUnavailable(f"cannot connect: {error}") from error
    errors: dict[str, Exception] = {}
    for address in addresses:
        try:
            return await _ready(address, clock, settings, purpose, prepare)
        except CancelledError:
            raise
        except Exception as error:
            errors[address.where] = error
    for problem in errors.values():
        if len(errors) == 1 or not isinstance(problem, AmqprouterError):
            raise problem
    told = [str(error) if where in str(error) else f"{where}: {error}" for where, error in errors.items()]
    raise BrokerUnavailable("; ".join(told))


async def _ready(
    address: Address, clock: Clock, settings: BrokerSettings, purpose: str, prepare: Prepare
) -> Connection:
    """A connection to this address, opened and prepared.

    :raises Exception: whatever went wrong; the connection is closed.
    """
    limit = settings.connect_timeout
    connection = await _connected(address, clock, settings, purpose)
    late = BrokerUnavailable(f"the connection was not ready for use within {limit:g} s")
    timer = clock.callLater(limit, connection.fail, late)

    def progress() -> None:
        if timer.active():
            timer.reset(limit)

    connection.on_progress = progress
    try:
        await connection.open()
        await prepare(connection)
    except Exception as error:  # a stop cancels the attempt: a CancelledError
        stopped = isinstance(error, CancelledError)
        connection.fail(BrokerUnavailable("stopping") if stopped else error)
        await connection.disconnected.wait()
        told = error if stopped else address.explained(connection, _reason(connection, error))
        if told is error:
            raise
        raise told from error
    finally:
        if timer.active():
            timer.cancel()
    return connection


def _reason(connection: Connection, error: Exception) -> Exception:
    """Why the connection was not ready: what ended it, unless the broker's refusal was put in better words since."""
    if isinstance(error, (BrokerRefused, TopologyClash)):
        return explained(error) if isinstance(error, BrokerRefused) else error
    return connection.end or error


async def _connected(address: Address, clock: Clock, settings: BrokerSettings, purpose: str) -> Connection:
    """A socket to the broker with a `Connection` on it that is yet to be opened.

    :raises BrokerUnavailable: it cannot be reached. :raises CancelledError: nobody wants it any more.
    """
    try:
        factory = ConnectionFactory(lambda: handshake_for(settings, purpose), clock)
        connection: Any = await address.endpoint.connect(factory)
    except (CancelledError, ConnectingCancelledError):
        raise CancelledError from None
    except Exception as error:
        raise BrokerUnavailable(f"cannot reach {address.where}: {str(error) or type(error).__name__}") from error
    return cast(Connection, connection)


async def connect_once(
    reactor: Any, settings: BrokerSettings, purpose: str, random: Callable[[], float] = lambda: 0.0
) -> Connection:
    """A single connection, for a command that ends soon. Hosts are tried as they stand unless `random` says otherwise.

    :raises BrokerUnavailable: it cannot be reached. :raises BrokerRefused: it does not let us in.
    """

    async def nothing(connection: Connection) -> None:
        """There is nothing to prepare."""

    return await _at_any_host(reactor, reactor, settings, purpose, nothing, random)
