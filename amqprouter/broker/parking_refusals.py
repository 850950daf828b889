"""The parking queues whose queues the broker refuses: told of once, and asked for again.

House rules. One line in the log when the broker begins to refuse, and one when it refuses none any more, however many
parking queues and messages there are; `problem` names them for as long as it lasts. The cause is mostly the same for
all, a limit of the virtual host or a right that the account lacks. So they are asked for in turn, no more than `TRIES`
that are refused at a time, with pauses that double up to `LONGEST_PAUSE`; once one is granted, all others are asked for
at once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from twisted.logger import Logger

from amqprouter.amqp.delayed_calls import DelayedCalls
from amqprouter.broker.parking_queue import ParkingQueue
from amqprouter.clock import Backoff

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 5.0
"""Seconds between two times that refused queues are asked for: an operator who lifts a limit sees it heal."""
_BACKOFF = Backoff(FIRST_PAUSE, LONGEST_PAUSE, random=None)
TRIES = 3
"""Refusals at a time: one parking queue of its own that can't be had does not keep all others waiting."""
FULL_AGAIN = 60.0
"""Seconds without a message turned away by a queue after which the next one is news."""
_NAMED = 3
"""Parking queues that `problem` names; of others, how many."""


class ParkingRefusals:
    """Of one kind of parking queues.

    :param policy: what becomes of messages meanwhile, for the operator.
    :param seconds: the time now, from a clock that never goes back.
    :param make: asks for a parking queue once more; it is in here again, or not, when that returns.
    """

    log = Logger()

    def __init__(
        self,
        policy: str,
        delayed: DelayedCalls,
        seconds: Callable[[], float],
        make: Callable[[ParkingQueue], Awaitable[None]],
    ) -> None:
        self._policy = policy
        self._delayed = delayed
        self._seconds = seconds
        self._make = make
        self._parking_queues: dict[ParkingQueue, None] = {}  # in the order in which they are to be asked for
        self._asked = 0  # how often, since one was granted
        self._told = False
        self._full_at = -FULL_AGAIN

    def refused(self, parking_queue: ParkingQueue, reason: str) -> None:
        """The broker refuses a parking queue."""
        if not self._told:
            self._told = True
            self.log.error(
                "Cannot use parking queue {queue}: {reason}. This and others like it are asked for again; meanwhile "
                "{policy}",
                queue=parking_queue.queue,
                reason=reason,
                policy=self._policy,
            )
        self._parking_queues.pop(parking_queue, None)
        self._parking_queues[parking_queue] = None
        parking_queue.refuse(reason)
        self.ask_later()

    def granted(self, parking_queue: ParkingQueue) -> None:
        """The broker lets us have a parking queue."""
        if parking_queue.refusal:
            self._parking_queues.pop(parking_queue, None)
            parking_queue.allowed()
        if self._told and not self._parking_queues:
            self._told, self._asked = False, 0
            self.log.info("The broker lets us have all parking queues again")

    def forget(self, parking_queue: ParkingQueue) -> None:
        """Nobody needs it any more."""
        self._parking_queues.pop(parking_queue, None)

    def ask_later(self) -> None:
        """Ask for them again after a while; also when what was planned is forgotten."""
        if self._parking_queues:
            self._delayed.later(_BACKOFF.pause(self._asked), self._ask_again)

    async def _ask_again(self) -> None:
        self._asked += 1
        left = TRIES
        for parking_queue in list(self._parking_queues):
            if parking_queue in self._parking_queues:
                await self._make(parking_queue)
                if not parking_queue.refusal:
                    self._asked = 0
                    continue
                left -= 1
                if not left:
                    break
        self.ask_later()

    def full(self, parking_queue: ParkingQueue, reason: str) -> None:
        """A parking queue is there and took a message not."""
        now = self._seconds()
        if now >= self._full_at + FULL_AGAIN:
            self.log.warn(
                "Parking queue {queue} takes no more: {reason}. By a policy of the broker's it may hold less than was "
                "configured. What it, or another one, does not take is not kept: {policy}",
                queue=parking_queue.queue,
                reason=reason,
                policy=self._policy,
            )
        self._full_at = now

    @staticmethod
    def problem(parking_queues: list[ParkingQueue]) -> str:
        """Those of these parking queues that take no messages."""
        problems = [
            f"{parking_queue.queue}: {problem}"
            for parking_queue, problem in ((parking_queue, parking_queue.problem) for parking_queue in parking_queues)
            if problem
        ]
        return "; ".join(problems[:_NAMED]) + (f"; and {len(problems) - _NAMED} more" if problems[_NAMED:] else "")
