"""What the tests of the AMQP adapters share: a broker in memory, a clock, and coroutines run to their end."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from amqprouter.amqp.channel import Channel
from amqprouter.amqp.connection import Connection
from amqprouter.testing.amqp import HANDSHAKE, MemoryBroker

T = TypeVar("T")


class BrokerTestCase(SynchronousTestCase):
    """Has `clock` and `broker`."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.broker = MemoryBroker(self.clock)

    def start(self, coroutine: Coroutine[Deferred[Any], Any, T]) -> Deferred[T]:
        return Deferred.fromCoroutine(coroutine)

    def run_now(self, coroutine: Coroutine[Deferred[Any], Any, T]) -> T:
        """What a coroutine that need not wait returns."""
        result: T = self.successResultOf(self.start(coroutine))
        return result

    def failed(self, coroutine: Coroutine[Deferred[Any], Any, Any], *errors: type[Exception]) -> Any:
        """The exception that a coroutine ends with without waiting."""
        return self.failureResultOf(self.start(coroutine), *errors).value

    def connected(self) -> Connection:
        connection = self.broker.connect(HANDSHAKE)
        self.run_now(connection.open())
        return connection

    def channel(self, connection: Connection) -> Channel:
        return self.run_now(connection.open_channel())

    def turn(self) -> None:
        """What waits for the reactor's next turn happens."""
        self.clock.advance(0)

    def pass_time(self, seconds: float, step: float = 1.0) -> None:
        """Time goes by in steps, so that what is due in between happens when it is due."""
        while seconds > 0:
            self.clock.advance(min(step, seconds))
            seconds -= step
