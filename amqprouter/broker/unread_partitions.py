"""Partitions that their gateway does not read, although it is there.

Each gateway that others see has its part of the partitions. But it may be one that knows nothing of them: of an earlier
version, while all are upgraded in turn, or one that works on everything by itself (``[ingress] repartition = no``),
while that is changed. What is passed to its partitions would wait until it is restarted. So another gateway stands in:
it consumes from them until their own does, which the single active consumer makes wait for the hand-over.

Theory of operation. A queue in which messages wait and from which nobody consumes is unread. An answer of no messages
and no consumers may be no answer at all (`amqprouter.amqp.declare.Found`) and moves nobody. So that not all stand in at
once, each waits for as many looks more as it sits behind the gateway whose partition it is.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from twisted.logger import Logger

from amqprouter.amqp.connection import Connection
from amqprouter.amqp.declare import Found, queue_state
from amqprouter.errors import BrokerRefused


class UnreadPartitions:
    """Which of the partitions that are others' are to be read here nevertheless."""

    log = Logger()

    def __init__(self, queues: Sequence[str]) -> None:
        self._queues = tuple(queues)
        self._unread: dict[int, int] = {}  # by partition: at how many looks in a row it was unread

    async def look(
        self, connection: Connection, rank: int | None, gateways: int, others: Collection[int], ours: Collection[int]
    ) -> set[int]:
        """The numbers of those that are to be consumed from; call it at each look at the gateways.

        :param rank: where we sit among the gateways; None without a seat. :param others: the partitions that are not
            ours. :param ours: those of them that are consumed from here already.
        :raises BrokerUnavailable: the connection is lost.
        """
        self._unread = {number: looks for number, looks in self._unread.items() if number in others}
        standing_in = set()
        for number in others:
            found = await self._found(connection, self._queues[number])
            if number in ours:
                if found is not None and found.consumers <= 1:
                    standing_in.add(number)
                continue
            if found is None or not found.messages or found.consumers:
                self._unread.pop(number, None)
                continue
            looks = self._unread[number] = self._unread.get(number, 0) + 1
            if looks > (gateways if rank is None else (rank - number) % gateways):
                del self._unread[number]
                standing_in.add(number)
                self.log.warn(
                    "{count} messages wait in {queue}, and the gateway that is to read it does not: reading it here. "
                    "Is it of an earlier version, or has it [ingress] repartition = no?",
                    count=found.messages,
                    queue=self._queues[number],
                )
        return standing_in

    @staticmethod
    async def _found(connection: Connection, queue: str) -> Found | None:
        try:
            return await queue_state(connection, queue)
        except BrokerRefused:
            if connection.closed:
                raise
            return None  # nobody may look, or its node is down: who reads it will tell
