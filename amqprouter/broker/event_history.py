"""Reading old events of the stream again, for subscribers that resume from long ago.

Each reading is a consumer of its own on a channel of its own, on the connection that reads what is new: a stream may
have any number of consumers, each at its own place (https://www.rabbitmq.com/docs/streams#consuming).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from amqprouter.amqp.channel import Channel
from amqprouter.amqp.connection import Connection
from amqprouter.amqp.properties import Properties
from amqprouter.amqp.wire import Delivery, encode_ack
from amqprouter.broker.event_stream import stream_event
from amqprouter.errors import BrokerUnavailable
from amqprouter.events.event import LARGEST_OFFSET, Event

HISTORY_PREFETCH = 200
"""Events under way in one reading: some tens of kilobytes, so that live events hardly wait behind them."""


class EventHistory:
    """The event stream, over whichever connection `connection` gives at the moment."""

    def __init__(self, stream: str, connection: Callable[[], Connection | None]) -> None:
        self._stream = stream
        self._connection = connection

    def read(
        self, offset: int, received: Callable[[Sequence[Event]], None], failed: Callable[[Exception], None]
    ) -> StreamReading:
        """Read from this offset on, or from the oldest behind it; `failed` is called at once where nobody is there."""
        reading = StreamReading(self._stream, received, failed)
        Deferred.fromCoroutine(reading.begin(self._connection(), offset)).addErrback(reading.end)
        return reading


class StreamReading:
    """One reading; what was received is acknowledged, and so replaced by more, when `more` is called."""

    def __init__(
        self, stream: str, received: Callable[[Sequence[Event]], None], failed: Callable[[Exception], None]
    ) -> None:
        self._stream = stream
        self._received = received
        self._failed = failed
        self._channel: Channel | None = None
        self._latest_tag = 0
        self._stopped = False

    async def begin(self, connection: Connection | None, offset: int) -> None:
        """Start consuming. Whatever comes in between, no channel is left over.

        :raises BrokerUnavailable: there is no connection. :raises BrokerRefused: the broker refuses.
        :raises ValueError: no event can have this offset.
        """
        if not 0 <= offset <= LARGEST_OFFSET:
            raise ValueError(f"no event has the offset {offset}")
        if connection is None:
            raise BrokerUnavailable("there is no connection to the broker")
        channel = self._channel = await connection.open_channel()
        try:
            if not self._stopped:
                await self._consume(channel, offset)
        except BaseException:
            self._shut()
            raise
        if self._stopped:
            self._shut()

    async def _consume(self, channel: Channel, offset: int) -> None:
        await channel.basic_qos(prefetch_count=HISTORY_PREFETCH)
        channel.on_deliveries = self._deliver
        channel.on_closed = lambda error: self.end(Failure(error))
        channel.on_cancelled = lambda tag: self.end(Failure(BrokerUnavailable(f"the broker cancelled {tag}")))
        await channel.basic_consume(
            queue=self._stream, consumer_tag=f"amqprouter:history:{channel.id}", arguments={"x-stream-offset": offset}
        )

    def more(self) -> None:
        """Go on."""
        if self._channel is not None and not self._stopped:
            self._channel.write(encode_ack(self._channel.id, self._latest_tag, True))

    def stop(self) -> None:
        """Close the channel; nothing is received any more."""
        if self._stopped:
            return
        self._stopped = True
        self._shut()

    def end(self, failure: Failure) -> None:
        """It cannot go on."""
        if not self._stopped:
            self._stopped = True
            self._shut()
            self._failed(failure.value)  # type: ignore[arg-type]  # no KeyboardInterrupt comes here

    def _shut(self) -> None:
        """Close the channel, if there is one; doing so twice does no harm."""
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.on_deliveries = channel.on_closed = channel.on_cancelled = None
            Deferred.fromCoroutine(channel.shut()).addErrback(lambda failure: None)  # it is lost all the same

    def _deliver(self, deliveries: list[Delivery]) -> None:
        self._latest_tag = deliveries[-1].delivery_tag
        events = [stream_event(delivery, Properties(delivery.properties), self._stream) for delivery in deliveries]
        self._received([event for event in events if event is not None])
