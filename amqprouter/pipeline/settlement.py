"""When a source delivery may be acknowledged: only after each of its targets has spoken.

A `Settlement` stands for one delivery: it counts the targets still to answer and, when the last has, hands itself to
its `finish` callable, the pipeline's, which dead-letters what some target refused and then marks the delivery's tag in
the ledger of its channel (`amqprouter.amqp.ack_ledger`). What a target answers for at once, `deliver_all` hands over
together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from amqprouter.amqp.ack_ledger import AckLedger
from amqprouter.pipeline.message import Message


class Settlement:
    """One delivery's outstanding answers. Each target answers exactly once, with `delivered` or `refused`.

    `finish_all` is for several that finish at once, each with the same `finish_all`; without, each has its `finish`.
    """

    __slots__ = ("_finish", "_finish_all", "_pending", "ledger", "message", "refusals", "tag")

    def __init__(
        self,
        message: Message,
        tag: int,
        ledger: AckLedger,
        finish: Callable[[Settlement], None],
        finish_all: Callable[[list[Settlement]], None] | None = None,
    ) -> None:
        self.message = message
        self.tag = tag
        self.ledger = ledger
        self.refusals: tuple[str, ...] = ()
        """The reasons of the targets that refused."""
        self._pending = 1
        self._finish = finish
        self._finish_all = finish_all

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


def deliver_all(settlements: Sequence[Settlement]) -> None:
    """A target has all these messages for good."""
    together: list[Settlement] = []
    append = together.append
    finish_all: Callable[[list[Settlement]], None] | None = None
    for settlement in settlements:
        pending = settlement._pending = settlement._pending - 1
        if pending:
            continue
        its_finish_all = settlement._finish_all
        if its_finish_all is not finish_all:
            if finish_all is not None and together:
                finish_all(together)
                together = []
                append = together.append
            finish_all = its_finish_all
        if finish_all is None:
            settlement._finish(settlement)
        else:
            append(settlement)
    if finish_all is not None and together:
        finish_all(together)
