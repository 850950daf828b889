"""Sees to it that no delivery is unacknowledged for as long as the broker's consumer timeout.

The broker closes a channel on which a delivery is not acknowledged in time (30 minutes, unless configured otherwise),
with all that is under way there: https://www.rabbitmq.com/docs/consumers#acknowledgement-timeout. So every delivery has
an age, and long before that whoever holds it lets go: it is parked in the broker, or goes back into the parking queue
that it came out of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from twisted.application.service import Service

from amqprouter.amqp.ack_ledger import OVERDUE, AckLedger
from amqprouter.clock import Clock
from amqprouter.pipeline.ports import IHoldsDeliveries

CHECKS = 10
"""In so much time: an age is known to a tenth of it."""


class Overdue(Service):
    """Has `holders` let go of what is overdue, of the deliveries in `ledgers`.

    :param clock: provides ``seconds`` and ``callLater``.
    :param timeout: seconds; 0 when the broker waits for ever.
    """

    def __init__(
        self,
        clock: Clock,
        timeout: float,
        ledgers: Callable[[], Iterable[AckLedger]],
        holders: Sequence[IHoldsDeliveries],
    ) -> None:
        self._clock = clock
        self._most = timeout * OVERDUE
        self._ledgers = ledgers
        self._holders = holders
        self._next: Any = None

    @property
    def oldest(self) -> float:
        """Seconds that the oldest unacknowledged delivery has been so, by the last look; 0 when there is none."""
        moments = [ledger.oldest for ledger in self._ledgers()]
        return max((self._clock.seconds() - moment for moment in moments if moment is not None), default=0.0)

    def startService(self) -> None:
        super().startService()  # type: ignore[no-untyped-call]
        if self._most:
            self._check()

    def stopService(self) -> None:
        super().stopService()  # type: ignore[no-untyped-call]
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def _check(self) -> None:
        self._next = self._clock.callLater(self._most / CHECKS, self._check)
        now = self._clock.seconds()
        overdue = [ledger.age(now, self._most) for ledger in self._ledgers()]
        if any(overdue):
            for holder in self._holders:
                holder.release_overdue()
