"""Where a stream ends at the moment.

AMQP 0-9-1 tells a stream's length nowhere (a passive declare says 0 messages, in RabbitMQ 3.10), but a consumer may
begin with the last chunk (``x-stream-offset: last``, https://www.rabbitmq.com/docs/streams#consuming). The broker's
channel delivers what it has of that chunk in one go, so all of it is here when another answer comes on that channel.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred

from amqprouter.amqp.channel import Channel
from amqprouter.amqp.connection import Connection
from amqprouter.amqp.consumer import Consumer
from amqprouter.amqp.properties import Properties
from amqprouter.amqp.wire import Delivery

_OFFSET = b"x-stream-offset"
_PREFETCH = 1000
"""Messages of the last chunk that are looked at; chunks are larger only where thousands come in a millisecond."""


def offset_of(delivery: Delivery) -> int | None:
    """A delivery's offset in its stream; None where it says none."""
    try:
        offset = Properties(delivery.properties).header(_OFFSET)
    except ValueError:
        return None
    return offset if isinstance(offset, int) else None


class StreamEnd:
    """Asks once; `found` is called with the offset of the latest message: soon, or, while there is none in the stream,
    when there is. It is not called when the connection ends before, or the question is taken back."""

    def __init__(self, connection: Connection, stream: str, found: Callable[[int], None]) -> None:
        self._connection = connection
        self._stream = stream
        self._found = found
        self._latest: int | None = None
        self._consumer: Consumer | None = None
        self._is_over = False
        self._tag = f"amqprouter:end:{stream}"

    async def ask(self) -> None:
        """Begin to; whatever ends the consumer ends the connection.

        :raises BrokerRefused: the broker refuses the consumer. :raises BrokerUnavailable: the connection is lost.
        """
        channel = await self._connection.open_channel()
        consumer = Consumer(self._connection, channel, _PREFETCH, self._received)
        await consumer.start(self._stream, tag=self._tag, arguments={"x-stream-offset": "last"})
        self._consumer = consumer
        if self._is_over:
            self._close()

    def stop(self) -> None:
        """Take the question back, unless it is answered: nobody is to wait for the first message of an empty stream."""
        if not self._is_over and self._latest is None:
            self._is_over = True
            self._close()

    def _close(self) -> None:
        if self._consumer is not None and self._connection.end is None:
            closing = Deferred.fromCoroutine(self._settle(self._consumer.channel))
            closing.addErrback(lambda failure: None)  # the connection ended

    def _received(self, consumer: Consumer, deliveries: list[Delivery]) -> None:
        if self._connection.end is not None or self._is_over:
            return
        asked = self._latest is not None
        for delivery in deliveries:
            offset = offset_of(delivery)
            if offset is not None and (self._latest is None or offset > self._latest):
                self._latest = offset
        if self._latest is not None and not asked:
            settling = Deferred.fromCoroutine(self._settle(consumer.channel))
            settling.addErrback(lambda failure: None)  # the connection ended

    async def _settle(self, channel: Channel) -> None:
        # RabbitMQ 3.10 goes on counting a stream's consumer whose channel is closed without a word to it.
        await channel.basic_cancel(consumer_tag=self._tag)
        latest = self._latest
        await channel.shut()
        if latest is not None and self._connection.end is None:
            self._found(latest)
