"""Quorum queues of the operator's own that would lose messages: those without a dead-letter exchange.

A quorum queue counts how often a message was given back, and has a limit, 20 in RabbitMQ 4: what goes beyond is put
into the queue's dead-letter exchange, and without one it is gone. The daemon's own queues have one. Of others AMQP does
not tell what they were declared with, so this asks as late as it can: when a message has come back, with the count that
only quorum queues give it. The question is a declaration that cannot be meant, at which the broker names the
difference. It closes the channel that asked, and leaves a line in the broker's log.
"""

from __future__ import annotations

from collections.abc import Iterable

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from amqprouter.amqp.connection import Connection
from amqprouter.core.properties import Properties
from amqprouter.core.wire import Delivery
from amqprouter.errors import BrokerRefused, BrokerUnavailable

_COUNT = b"x-delivery-count"
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
            if Properties(delivery.properties).header(_COUNT) is None:
                return
        except ValueError:
            return
        self._unknown.discard(queue)
        Deferred.fromCoroutine(self._ask(connection, queue))

    async def _ask(self, connection: Connection, queue: str) -> None:
        try:
            channel = await connection.open_channel()
            await channel.queue_declare(queue=queue, durable=True, arguments={"x-dead-letter-exchange": _NO_EXCHANGE})
            await channel.shut()  # unheard of: whoever it is has no objection
        except BrokerRefused as error:
            if "inequivalent arg 'x-dead-letter-exchange'" in error.text and "current is none" in error.text:
                self.log.warn(
                    "Messages come back to the quorum queue {queue}, which has no dead-letter exchange unless a policy "
                    "names one: without, the broker drops what comes back more often than its delivery limit. Declare "
                    "it with x-dead-letter-exchange, or set a policy",
                    queue=queue,
                )
        except BrokerUnavailable:
            self._unknown.add(queue)
