"""The broker's consumer timeout: what the broker is told of it, and what it does to a consumer.

House rules. Up to RabbitMQ 4.2 a delivery that is not acknowledged in time closes its channel (406), at a tick of once
a minute; how long that is, only the broker knows. From 4.3 it ends the consumer of a quorum queue, to the moment, and
the channel stays; a consumer may say how long it wants to be waited for (``x-consumer-timeout``, milliseconds), and is
told what ``[ingress] consumer_timeout`` says, so that the two cannot disagree. Classic queues and streams have no
consumer timeout any more there, and refuse the argument.

A consumer that RabbitMQ 4.3 has ended so is still one: it gets nothing, its tag stays taken, and it comes back to life
once all that came too late is acknowledged. So its end is to be answered with a basic.cancel, and then it may be
started again under the same tag (`amqprouter.amqp.consumer`). Under another tag it may not: a delivery of a consumer
that is cancelled and that times out closes the channel.
"""

from __future__ import annotations

from typing import Any

from amqprouter.amqp.channel import Channel
from amqprouter.amqp.connection import Connection
from amqprouter.amqp.declare import PRECONDITION_FAILED, queue_state
from amqprouter.errors import BrokerRefused

ARGUMENT = "x-consumer-timeout"
NEVER = 365 * 86400.0
"""Seconds that stand for a broker that has no consumer timeout; 0 would end a consumer with its first delivery."""
_QUORUM = "quorum"
_OTHER_TYPE = "of queue type"
"""In the broker's words when a queue does not know an argument at all, rather than its value."""


def keeps_channels(connection: Connection) -> bool:
    """Whether a consumer timeout ends a consumer and not its channel."""
    return connection.server.at_least(4, 3)


class ConsumerTimeout:
    """What is asked for: `seconds`, 0 for never; `queue_type` is that of the queues whose type is not asked."""

    def __init__(self, seconds: float, queue_type: str) -> None:
        self._arguments = {ARGUMENT: int((seconds or NEVER) * 1000)}
        self._is_quorum = queue_type == _QUORUM
        self._asked: dict[str, bool] = {}  # by queue whose type is: whether it is a quorum queue

    async def ask(self, connection: Connection, queue: str) -> bool:
        """Find out about a queue whose type is somebody else's choice; False when it does not exist.

        The question is an argument that no queue can take, so nothing is ever consumed for it. It is asked once, for it
        leaves a line in the broker's log.

        :raises BrokerRefused: :raises BrokerUnavailable: as `Channel.invoke`.
        """
        if await queue_state(connection, queue) is None:
            self._asked.pop(queue, None)  # it may be made anew as another
            return False
        if queue not in self._asked and keeps_channels(connection):
            await self._ask(connection, queue)
        return True

    async def _ask(self, connection: Connection, queue: str) -> None:
        channel = await connection.open_channel()
        try:
            await channel.basic_consume(queue=queue, consumer_tag=queue[:200], arguments={ARGUMENT: "?"})
        except BrokerRefused as error:
            if error.code == PRECONDITION_FAILED and ARGUMENT in error.text:
                self._asked[queue] = _OTHER_TYPE not in error.text
            return
        self._asked[queue] = False
        await channel.shut()

    def arguments(self, connection: Connection, queue: str) -> dict[str, Any]:
        """The arguments for a consumer of this queue."""
        return self._arguments if keeps_channels(connection) and self._asked.get(queue, self._is_quorum) else {}

    async def consume(self, connection: Connection, channel: Channel, queue: str, tag: str) -> None:
        """Consume from this queue, on a channel of this connection.

        :raises BrokerRefused: :raises BrokerUnavailable: as `Channel.invoke`.
        """
        arguments = self.arguments(connection, queue)
        try:
            await channel.basic_consume(queue=queue, consumer_tag=tag, arguments=arguments)
        except BrokerRefused as error:
            self._refused(queue, error)
            raise

    def _refused(self, queue: str, error: BrokerRefused) -> None:
        """If it was for this argument, that is left out from now on: for all queues whose type is not asked, of which
        there may be thousands. For one of them is of another type than the configuration says, and is used as it is."""
        if error.code != PRECONDITION_FAILED or ARGUMENT not in error.text:
            return
        if queue in self._asked:
            self._asked[queue] = False
        else:
            self._is_quorum = False
