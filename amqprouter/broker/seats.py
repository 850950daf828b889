"""How several gateways know of each other: each takes a seat at the broker.

A seat is a queue that nothing is sent to, with an exclusive consumer (basic.consume, ``exclusive``), which the broker
grants to one connection at a time and takes back the moment that connection is gone. Looking is declaring the queue
again: the answer counts its consumers. So there is nothing to configure and nothing to agree on, and a gateway that
died has left its seat without having to say so.

A seat whose node is down cannot be looked at: the broker refuses the declaration (404), or, from RabbitMQ 4.0 on, gives
no answer until that node is back. Then nothing more is asked.

There are as many seats as shards. Whoever finds no free one has no shards either, and takes the first that falls free.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from amqprouter.amqp.connection import Connection
from amqprouter.amqp.declare import NOT_FOUND, Declarer
from amqprouter.errors import BrokerRefused

ANSWER_WITHIN = 3.0
"""Seconds in which the broker has said how many consumers a seat has: it does in milliseconds."""
_ACCESS_REFUSED = 403
_SEAT = {"x-queue-type": "classic"}
"""Quorum queues know no exclusive consumers."""


@dataclass(frozen=True)
class Place:
    """Ours among the gateways that are there."""

    rank: int | None
    """How many have a lower seat; None without a seat."""
    gateways: int

    def owns(self, shard: int) -> bool:
        """Whether the shard of this number is ours."""
        return self.rank is not None and shard % self.gateways == self.rank


class Seats:
    """The seats of one configuration, over one connection at a time."""

    def __init__(self, prefix: str, count: int) -> None:
        self.queues = tuple(f"{prefix}.seat.{number}" for number in range(count))
        self._connection: Connection | None = None
        self._declarer: Declarer | None = None
        self._mine: int | None = None
        self._unanswered = ""  # the seat about which there is no answer yet

    async def look(self, connection: Connection) -> Place:
        """Where we are; takes a seat if we have none.

        :raises BrokerRefused: the broker does not let us declare or consume, or a seat's node is down.
        :raises TopologyClash: there is another queue in a seat's place.
        :raises BrokerUnavailable: the connection is lost.
        """
        if connection is not self._connection:
            self._connection, self._mine, self._unanswered = connection, None, ""
            self._declarer = Declarer(connection, "delete it on the broker, or choose another [topology] prefix")
        taken = set()
        for number, queue in enumerate(self.queues):
            if await self._consumers(connection, queue):
                taken.add(number)
        if self._mine not in taken:
            self._mine = None
            for number in sorted(set(range(len(self.queues))) - taken):
                taken.add(number)
                if await self._take(connection, self.queues[number]):
                    self._mine = number
                    break
        rank = None if self._mine is None else len([number for number in taken if number < self._mine])
        return Place(rank, max(1, len(taken)))

    async def _consumers(self, connection: Connection, queue: str) -> int:
        if self._unanswered:
            raise _no_answer(self._unanswered)
        answer: Deferred[int] = Deferred()
        timer = connection.clock.callLater(ANSWER_WITHIN, self._late, queue, answer)
        # Not cancelled when it is late: what the channel answers in the end would be taken for another answer.
        Deferred.fromCoroutine(self._ask(queue)).addBoth(self._answered, timer, answer)
        return await answer

    def _late(self, queue: str, answer: Deferred[int]) -> None:
        self._unanswered = queue
        answer.errback(_no_answer(queue))

    def _answered(self, outcome: int | Failure, timer: Any, answer: Deferred[int]) -> None:
        if timer.active():
            timer.cancel()
            answer.callback(outcome)  # a Failure makes it an errback
        else:
            self._unanswered = ""

    async def _ask(self, queue: str) -> int:
        assert self._declarer is not None
        found = await self._declarer.queue(queue, _SEAT, auto_delete=True)
        return found.consumers

    async def _take(self, connection: Connection, queue: str) -> bool:
        """Whether we got it; somebody may have been faster."""
        channel = await connection.open_channel()  # of its own, for a refusal closes it
        try:
            await channel.basic_consume(queue=queue, consumer_tag=queue, no_ack=True, exclusive=True)
        except BrokerRefused as error:
            if error.code == _ACCESS_REFUSED:
                return False
            raise
        return True


def _no_answer(queue: str) -> BrokerRefused:
    return BrokerRefused(NOT_FOUND, f"no answer about queue {queue!r} within {ANSWER_WITHIN:g} s: is its node down?")
