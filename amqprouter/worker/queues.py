"""A worker's queues: the work, the failed jobs, and those that wait for their next try.

RabbitMQ lets messages of one queue expire in order only, so that one with a long delay would hold up those behind it:
hence a queue for each delay (https://www.rabbitmq.com/docs/ttl#per-message-ttl-caveats), whose messages fall back into
the work queue when their time is over.

A job that ends its worker, the whole program, comes back to the work queue when the connection is gone; where that is
a quorum queue, the broker puts it into the failed jobs after so many returns. That queue has a limit too, for people
look into it, and RabbitMQ 4 would drop what they gave back 20 times.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from amqprouter.amqp.connection import Connection
from amqprouter.amqp.declare import AT_LEAST_ONCE, MANY_RETURNS, Declarer, OlderQueues, dead_lettering, queue_state
from amqprouter.errors import BrokerRefused, TopologyClash

DELAYS = (1, 5, 30, 120, 600)
"""Seconds before the second, third… try. A service that restarts is back within the first two, one that somebody has to
mend within the last ones; later tries wait as long as the last."""
_REMEDY = "delete it, or choose other delays or another queue type"


@dataclass(frozen=True)
class WorkQueues:
    """The names, and their declaration."""

    work: str
    queue_type: str = "quorum"
    delays: tuple[int, ...] = DELAYS
    older: OlderQueues = field(default_factory=OlderQueues, repr=False, compare=False)

    @property
    def failed(self) -> str:
        return f"{self.work}.failed"

    def retry(self, attempt: int) -> str:
        """Where a job waits that has failed for this time, counted from 1."""
        return self._retry(self.delays[min(attempt, len(self.delays)) - 1])

    @property
    def last_retry(self) -> str:
        """Where a job waits the longest."""
        return self._retry(self.delays[-1])

    def _retry(self, delay: int) -> str:
        return f"{self.work}.retry.{delay}s"

    async def declare(self, connection: Connection) -> None:
        """Declare all of them; the work queue only if it does not exist, for it may be somebody else's.

        :raises TopologyClash: one exists with other properties. :raises BrokerRefused: we may not.
        """
        declarer, older = Declarer(connection, _REMEDY), []
        kind = {"x-queue-type": self.queue_type}
        limit, many = {}, {}
        if self.queue_type == "quorum":
            # A job that ends its worker, again and again, is one that failed.
            limit, many = dead_lettering("", self.failed), {"x-delivery-limit": MANY_RETURNS}
        if (await declarer.queue(self.failed, kind | many, new=many)).is_older:
            older.append(self.failed)
        self.older.found(connection, older, self.failed, many)
        if await queue_state(connection, self.work) is None:
            await declarer.queue(self.work, kind | limit)
        elif connection.server.at_least(4) and await self._is_older(declarer, kind, limit):
            self.older.found(connection, [self.work], self.work, limit)
        for delay in self.delays:
            # What comes back to these too often falls into the work queue before its time: they need no limit.
            arguments: dict[str, Any] = kind | {
                "x-message-ttl": delay * 1000,
                "x-dead-letter-exchange": "",
                "x-dead-letter-routing-key": self.work,
            }
            if self.queue_type == "quorum":
                arguments |= AT_LEAST_ONCE  # kept until the work queue has it
            await declarer.queue(self._retry(delay), arguments)
        await declarer.shut()

    async def _is_older(self, declarer: Declarer, kind: dict[str, Any], limit: dict[str, Any]) -> bool:
        """Whether the work queue, which exists, is one that an earlier release of ours declared."""
        try:
            return (await declarer.queue(self.work, kind | limit, new=limit)).is_older
        except (TopologyClash, BrokerRefused):
            return False  # somebody else's, who knows better; or we may only use it
