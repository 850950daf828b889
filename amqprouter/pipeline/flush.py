"""When the pipeline flushes: at the end of each batch, soon after something was answered, and when something is due.

Made before all that may ask for a flush (gates, parking, quarantine), which take its `wake`, and before the pipeline,
which says what a flush does. Acks are written at the end of each, so that one frame answers for many deliveries.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

from amqprouter.amqp.ack_ledger import AckLedger
from amqprouter.clock import Clock


def _nothing() -> None:
    """Until there is a pipeline."""


def _none() -> int:
    return 0


class Flush:
    """Calls what `use` was given. `clock` provides ``seconds`` and ``callLater``."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._turn: Callable[[], None] = _nothing
        self._write: Callable[[], None] = _nothing
        self._under_way: Callable[[], int] = _none
        self.ledgers: set[AckLedger] = set()
        """Those in which something was settled since the last flush."""
        self.is_near = False
        """Whether the reactor's next turn begins with a flush."""
        self._due_call: Any = None
        self._due_at = 0.0
        self._stopping = False
        self._idle: list[Deferred[None]] = []

    def use(self, turn: Callable[[], None], write: Callable[[], None], under_way: Callable[[], int]) -> None:
        """What a flush is for. Told afterwards, since all that asks for a flush is made before the pipeline is.

        :param turn: called before a flush that `wake` asked for: a new turn of the reactor.
        :param write: lets the next messages go, and has what was put together written.
        :param under_way: tells how many messages are not answered for.
        """
        self._turn, self._write, self._under_way = turn, write, under_way

    def wake(self) -> None:
        """Flush in the reactor's next turn: something was answered."""
        if not self.is_near:
            self.is_near = True
            self._clock.callLater(0, self._woken)

    def _woken(self) -> None:
        self.is_near = False
        self._turn()
        self.flush()

    def at(self, due: float) -> None:
        """Flush at this moment of the clock, for something that is due by the passing of time."""
        call = self._due_call
        if call is not None and call.active():
            if self._due_at <= due:
                return
            call.cancel()
        self._due_at = due
        self._due_call = self._clock.callLater(max(0.0, due - self._clock.seconds()), self.flush)

    def flush(self) -> None:
        """Have everything written, and write the acks that are due."""
        self._write()
        if self.ledgers:
            self._acknowledge()
        if self._idle and not self._under_way():
            idle, self._idle = self._idle, []
            for waiter in idle:
                waiter.callback(None)

    def _acknowledge(self) -> None:
        now = None if self._stopping else self._clock.seconds()
        ledgers, self.ledgers = self.ledgers, set()
        for ledger in ledgers:
            due = ledger.flush(now)
            if due is not None:
                self.ledgers.add(ledger)
                self.at(due)

    def drain(self) -> Deferred[None]:
        """Hold back no ack from now on; fires when nothing is under way."""
        self._stopping = True
        if self._due_call is not None and self._due_call.active():
            self._due_call.cancel()
        done: Deferred[None] = Deferred()
        self._idle.append(done)
        self.wake()
        return done
