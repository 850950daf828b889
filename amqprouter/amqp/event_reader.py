"""Reading the event stream: every gateway reads all of it, and the offset of an event is its id everywhere.

RabbitMQ streams over AMQP 0-9-1 (https://www.rabbitmq.com/docs/streams#consuming): a consumer names where it starts
(``x-stream-offset``), must set a prefetch and acknowledge, and finds each event's offset in a header of that name. A
nack or reject would close the connection (540), so nothing is ever refused here: an event that cannot be read is logged
and skipped.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone

from twisted.logger import Logger

from amqprouter.amqp.channel import Channel
from amqprouter.amqp.connection import Connection
from amqprouter.core.event import KEY_HEADER, Event
from amqprouter.core.properties import Properties
from amqprouter.core.wire import Delivery, encode_ack
from amqprouter.errors import BrokerUnavailable

PREFETCH = 1000
"""Events under way. They are acknowledged as soon as they come: this only keeps the pipe full over a slow link."""
LOOK_BACK = 300.0
"""Seconds of history that a gateway reads at its start, so that subscribers can resume across its restart."""

_OFFSET = b"x-stream-offset"


class EventReader:
    """Hands every event of the stream to `publish`, in order; `wall_clock` is seconds since 1970.

    `publish` is told, as its second argument, whether the event is live: not so while the reader catches up at its
    first start, with events that were published before it.
    """

    log = Logger()

    def __init__(self, stream: str, publish: Callable[[Event, bool], None], wall_clock: Callable[[], float]) -> None:
        self._stream = stream
        self._publish = publish
        self._wall_clock = wall_clock
        self._next: int | None = None
        self._history_until = 0

    async def attach(self, connection: Connection) -> None:
        """Read over this connection from now on, going on where the last one ended.

        :raises BrokerRefused: the broker refuses the consumer. :raises BrokerUnavailable: the connection is lost.
        """
        channel = await connection.open_channel()
        await channel.basic_qos(prefetch_count=PREFETCH)
        channel.on_deliveries = lambda deliveries: self._received(channel, deliveries)
        # Whatever ends this consumer, a new connection reads on from the next offset.
        channel.on_closed = connection.fail
        channel.on_cancelled = lambda tag: connection.fail(BrokerUnavailable(f"the broker cancelled {tag}"))
        start: int | datetime
        if self._next is not None:
            start = self._next
        else:
            self._history_until = int(self._wall_clock())
            start = datetime.fromtimestamp(self._history_until - LOOK_BACK, timezone.utc)
        await channel.basic_consume(
            queue=self._stream, consumer_tag=f"amqprouter:{self._stream}", arguments={"x-stream-offset": start}
        )

    def _received(self, channel: Channel, deliveries: list[Delivery]) -> None:
        for delivery in deliveries:
            properties = Properties(delivery.properties)
            event = self._event(delivery, properties)
            if event is not None and (self._next is None or event.offset >= self._next):
                # A stream starts at the chunk that holds the offset asked for, hence the comparison.
                self._next = event.offset + 1
                self._publish(event, (properties.timestamp or 0) >= self._history_until)
        channel.write(encode_ack(channel.id, deliveries[-1].delivery_tag, True))

    def _event(self, delivery: Delivery, properties: Properties) -> Event | None:
        try:
            offset, key = properties.header(_OFFSET), properties.header(KEY_HEADER)
        except ValueError as error:
            self.log.warn("Skipping an event with malformed properties: {error}", error=str(error))
            return None
        if isinstance(offset, int) and isinstance(key, str):
            return Event(offset, key, delivery.body)
        self.log.warn(
            "Skipping a stream message without {header}: something else publishes to {stream}",
            header=KEY_HEADER.decode(),
            stream=self._stream,
        )
        return None
