"""What a user of a connection is going to do a little later."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, FirstError, gatherResults

from amqprouter.amqp.connection import Connection
from amqprouter.clock import Clock
from amqprouter.errors import AmqprouterError

T = TypeVar("T")


class DelayedCalls:
    """Coroutine functions to be run after a while; none is planned twice with the same arguments.

    What one cannot mend, a new connection will: when it fails, the connection that there was is given up.

    :param connection: gives the one that is used now. :param failed: is told why one is given up.
    """

    def __init__(
        self, clock: Clock, connection: Callable[[], Connection | None], failed: Callable[[AmqprouterError], None]
    ) -> None:
        self._clock = clock
        self._connection = connection
        self._failed = failed
        self._timers: dict[object, Any] = {}
        self._stopped = False

    def __len__(self) -> int:
        return len(self._timers)

    def later(self, delay: float, action: Callable[..., Any], *arguments: Any) -> None:
        """Run it after so many seconds."""
        call = action, arguments
        if self._stopped or call in self._timers:
            return

        def run() -> None:
            del self._timers[call]
            Deferred.fromCoroutine(self._run(action, arguments))

        self._timers[call] = self._clock.callLater(delay, run)

    async def _run(self, action: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        connection = self._connection()
        try:
            await action(*arguments)
        except AmqprouterError as error:
            if connection is not None and not connection.closed:
                self._failed(error)
                connection.fail(error)

    def forget(self) -> None:
        """Do nothing of it."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def stop(self) -> None:
        """Do nothing of it, and take no more calls."""
        self._stopped = True
        self.forget()


async def at_once(tasks: Iterable[Coroutine[Deferred[Any], Any, T] | Deferred[T]]) -> list[T]:
    """Run them side by side; returns what they return when all are done.

    :raises Exception: what the first that failed did; the others go on.
    """
    try:
        return await gatherResults(
            [each if isinstance(each, Deferred) else Deferred.fromCoroutine(each) for each in tasks], consumeErrors=True
        )
    except FirstError as error:
        raise error.subFailure.value from None  # type: ignore[misc]  # a failure always has one
