"""A worker's queues: the work, the failed jobs, and those that wait for their next try.

RabbitMQ lets messages of one queue expire in order only, so that one with a long delay would hold up those behind it:
hence a queue for each delay (https://www.rabbitmq.com/docs/ttl#per-message-ttl-caveats), whose messages fall back into
the work queue when their time is over.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from amqprouter.amqp.connection import Connection
from amqprouter.errors import BrokerRefused, TopologyClash

DELAYS = (1, 5, 30, 120, 600)
"""Seconds before the second, third… try. A service that restarts is back within the first two, one that somebody has to
mend within the last ones; later tries wait as long as the last."""
_PRECONDITION_FAILED = 406


@dataclass(frozen=True)
class WorkQueues:
    """The names, and their declaration."""

    work: str
    queue_type: str = "quorum"
    delays: tuple[int, ...] = DELAYS

    @property
    def failed(self) -> str:
        return f"{self.work}.failed"

    def retry(self, attempt: int) -> str:
        """Where a job waits that has failed for this time, counted from 1."""
        return self._retry(self.delays[min(attempt, len(self.delays)) - 1])

    def _retry(self, delay: int) -> str:
        return f"{self.work}.retry.{delay}s"

    async def declare(self, connection: Connection) -> None:
        """Declare all of them; the work queue only if it does not exist, for it may be somebody else's.

        :raises TopologyClash: one exists with other properties. :raises BrokerRefused: we may not.
        """
        durable = {"x-queue-type": self.queue_type}
        if not await self._exists(connection):
            await self._declare(connection, self.work, durable)
        await self._declare(connection, self.failed, durable)
        for delay in self.delays:
            arguments: dict[str, Any] = durable | {
                "x-message-ttl": delay * 1000,
                "x-dead-letter-exchange": "",
                "x-dead-letter-routing-key": self.work,
            }
            if (
                self.queue_type == "quorum"
            ):  # kept until the work queue has it; the broker insists on the overflow policy
                arguments |= {"x-dead-letter-strategy": "at-least-once", "x-overflow": "reject-publish"}
            await self._declare(connection, self._retry(delay), arguments)

    async def _exists(self, connection: Connection) -> bool:
        channel = await connection.open_channel()
        try:
            await channel.queue_declare(queue=self.work, passive=True)
        except BrokerRefused as error:
            if error.code == 404:
                return False
            raise
        await channel.shut()
        return True

    @staticmethod
    async def _declare(connection: Connection, name: str, arguments: dict[str, Any]) -> None:
        channel = await connection.open_channel()
        try:
            await channel.queue_declare(queue=name, durable=True, arguments=arguments)
        except BrokerRefused as error:
            if error.code == _PRECONDITION_FAILED:
                raise TopologyClash(
                    f"queue {name!r} exists with other properties than {arguments}: delete it, or choose other delays "
                    f"or another queue type ({error.text})"
                ) from None
            raise
        await channel.shut()
