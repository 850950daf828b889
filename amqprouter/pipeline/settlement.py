"""When a source delivery may be acknowledged: only after each of its targets has spoken.

A `Settlement` stands for one delivery: it counts the targets still to answer and, when the last has, hands itself to
its `finish` callable, the pipeline's, which dead-letters what some target refused and then marks the delivery's tag in
the ledger of its channel (`amqprouter.amqp.ack_ledger`).
"""

from __future__ import annotations

from collections.abc import Callable

from amqprouter.amqp.ack_ledger import AckLedger
from amqprouter.pipeline.message import Message


class Settlement:
    """One delivery's outstanding answers. Each target answers exactly once, with `delivered` or `refused`."""

    __slots__ = ("_finish", "_pending", "ledger", "message", "refusals", "tag")

    def __init__(self, message: Message, tag: int, ledger: AckLedger, finish: Callable[[Settlement], None]) -> None:
        self.message = message
        self.tag = tag
        self.ledger = ledger
        self.refusals: tuple[str, ...] = ()
        """The reasons of the targets that refused."""
        self._pending = 1
        self._finish = finish

    @property
    def is_overdue(self) -> bool:
        """Whether the delivery is unacknowledged for too long already."""
        return self.ledger.is_overdue(self.tag)

    def withdraw(self) -> None:
        """Nobody is going to answer: the delivery stays the broker's, unacknowledged, and comes again."""

    def expect(self, answers: int) -> None:
        """Wait for this many answers before finishing; one when it is never called."""
        self._pending = answers

    def delivered(self) -> None:
        """A target has the message for good."""
        self._pending -= 1
        if not self._pending:
            self._finish(self)

    def refused(self, reason: str) -> None:
        """A target will never take the message."""
        self.refusals = (*self.refusals, reason)
        self._pending -= 1
        if not self._pending:
            self._finish(self)
