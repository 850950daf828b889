"""Quorum queues of the operator's own that would lose messages: those without a dead-letter exchange.

A quorum queue counts how often a message was given back, and may have a limit, from RabbitMQ 4 on 20 unless it was
given another: what goes beyond is put into the queue's dead-letter exchange, and without one it is gone. The daemon's
own queues have one. Of others AMQP does not tell what they were declared with, so this asks as late as it can: when a
message has come back, with a count that only quorum queues give it. The question is a declaration that cannot be meant,
at which the broker names the difference. It closes the channel that asked, and leaves a line in the broker's log.

Which returns count differs: up to RabbitMQ 4.2 every one, and ``x-delivery-count`` tells them. From 4.3 on a nack does
not, nor does a consumer timeout; ``x-acquired-count`` tells all deliveries, and ``x-delivery-count`` those that count.
From 4.0 on a message brings its counts along through a dead-letter exchange, and its first delivery behind that is
called a redelivery: so what was dead-lettered on its way says nothing of the queue that it comes from.
"""

from __future__ import annotations

from collections.abc import Iterable

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from amqprouter.amqp.connection import Connection
from amqprouter.amqp.declare import lacks
from amqprouter.amqp.properties import Properties
from amqprouter.amqp.wire import Delivery
from amqprouter.errors import BrokerUnavailable

_COUNTS = b"x-delivery-count", b"x-acquired-count"
_DEATHS = b"x-death"
_NO_EXCHANGE = 0
"""No name of an exchange: so the broker never makes a queue of the question, should the queue be gone by then."""


class ReturnWatch:
    """Warns of each of these queues once."""

    log = Logger()

    def __init__(self, queues: Iterable[str]) -> None:
        self._unknown = set(queues)

    def returned(self, queue: str, delivery: Delivery, connection: Connection) -> None:
        """A message came from this queue that had been delivered before."""
        if queue not in self._unknown:
            return
        try:
            properties = Properties(delivery.properties)
            if all(properties.header(count) is None for count in _COUNTS):
                return
            if connection.server.at_least(4) and properties.header(_DEATHS) is not None:
                return
        except ValueError:
            return
        self._unknown.discard(queue)
        Deferred.fromCoroutine(self._ask(connection, queue))

    async def _ask(self, connection: Connection, queue: str) -> None:
        try:
            if await lacks(connection, queue, "x-dead-letter-exchange", _NO_EXCHANGE):
                self.log.warn(
                    "Messages come back to the quorum queue {queue}, which has no dead-letter exchange unless a policy "
                    "names one: without, the broker drops what comes back more often than its delivery limit"
                    "{limit}. Declare it with x-dead-letter-exchange, or set a policy",
                    queue=queue,
                    limit=_limit(connection),
                )
        except BrokerUnavailable:
            self._unknown.add(queue)


def _limit(connection: Connection) -> str:
    """What there is to say of the delivery limit in this version."""
    if connection.server.at_least(4, 3):
        return ", 20 unless it has another, which counts rejections and consumers that died"
    return (
        ", 20 unless it has another, which counts every return" if connection.server.at_least(4) else ", if it has one"
    )
