"""A step in preparing a connection that the broker may refuse without the others being any worse for it.

House rules. What all messages need is prepared by `amqprouter.amqp.link.BrokerLink`, and without it there is no
connection. Something that only some need, such as the queue of workers' answers, must not take the rest along: its
refusal is told of, by `problem` and once in the log, and it is tried again over the same connection, for as long as
that lasts, with pauses that double up to `LONGEST_PAUSE`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from zope.interface import implementer

from amqprouter.amqp.connection import Connection
from amqprouter.clock import Backoff, Clock
from amqprouter.errors import AmqprouterError, BrokerRefused, TopologyClash
from amqprouter.interfaces import IReadiness

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 5.0
"""Seconds before the step is tried again: an operator who lifts a limit, or grants a right, sees it heal."""
_BACKOFF = Backoff(FIRST_PAUSE, LONGEST_PAUSE, random=None)


@implementer(IReadiness)
class OptionalStep:
    """Prepares each connection by `step`, which may be called again after it was refused.

    :param name: of what is prepared, for the operator.
    :param cost: what does not work without it, likewise.
    """

    log = Logger()

    def __init__(self, clock: Clock, name: str, cost: str, step: Callable[[Connection], Awaitable[None]]) -> None:
        self.name = name
        self._clock = clock
        self._cost = cost
        self._step = step
        self._refusal = ""

    def problem(self) -> str:
        """See `IReadiness`."""
        return f"{self._refusal} ({self._cost})" if self._refusal else ""

    async def attach(self, connection: Connection) -> None:
        """Prepare this connection.

        :raises BrokerUnavailable: it is lost. :raises BrokerRefused: the refusal has ended it.
        """
        await self._try(connection, 0)

    async def _try(self, connection: Connection, failures: int) -> None:
        try:
            await self._step(connection)
        except (BrokerRefused, TopologyClash) as error:
            if connection.closed:
                raise
            if not self._refusal:
                self.log.error(
                    "Cannot use {name}: {reason}; {cost}. It is tried again",
                    name=self.name,
                    reason=str(error),
                    cost=self._cost,
                )
            self._refusal = str(error)
            self._clock.callLater(_BACKOFF.pause(failures), self._again, connection, failures + 1)
        else:
            if self._refusal:
                self.log.info("{name} can be used again", name=self.name)
            self._refusal = ""

    def _again(self, connection: Connection, failures: int) -> None:
        if not connection.closed:
            Deferred.fromCoroutine(self._tried_again(connection, failures))

    async def _tried_again(self, connection: Connection, failures: int) -> None:
        try:
            await self._try(connection, failures)
        except AmqprouterError as error:
            connection.fail(error)  # a new connection takes it from there
