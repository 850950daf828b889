"""Reading the event stream: every gateway reads all of it, and the offset of an event is its id everywhere.

RabbitMQ streams over AMQP 0-9-1 (https://www.rabbitmq.com/docs/streams#consuming): a consumer names where it starts
(``x-stream-offset``), must set a prefetch and acknowledge, and finds each event's offset in a header of that name. A
nack or reject closes the connection up to RabbitMQ 3 (540) and counts as an ack since, so nothing is ever refused here:
an event that cannot be read is logged and skipped.

Theory of operation. A stream that is deleted and declared again counts from 0, and a consumer that asks for an offset
behind its end is given nothing until it has grown past it. AMQP tells neither a stream's identity nor its length (a
passive declare says 0 messages, in RabbitMQ 3.10), so a new connection asks once more for the last event that was read:
the stream is the same when that event comes again at its offset, equal. Another event there, or none for a while, means
that the stream was made anew: `restart` is called, and reading begins again. What is older than the last event read is
then not live, so that a broker which was merely slow to answer makes no flood of old events.

Each connection also begins with the question where the stream ends (`amqprouter.broker.stream_end`). Until that is read
the reader is behind, and nobody can say that an id is unknown. At the first start it tells history from news: clocks of
gateways differ, and offsets do not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timezone
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from amqprouter.amqp.connection import Connection
from amqprouter.amqp.consumer import Consumer
from amqprouter.amqp.properties import Properties
from amqprouter.amqp.wire import Delivery
from amqprouter.broker.stream_end import StreamEnd, offset_of
from amqprouter.errors import BrokerUnavailable
from amqprouter.events.event import KEY_HEADER, LARGEST_OFFSET, Event, read_event

PREFETCH = 1000
"""Events under way. They are acknowledged soon after they come: this only keeps the pipe full over a slow link."""
ACK_EVERY, ACK_WITHIN = PREFETCH // 4, 0.1
"""Events, and seconds, after which they are acknowledged. For a stream an ack is nothing but leave to send more, and
costs the broker as much for one event as for many: a tenth of its time when thousands of them come one by one."""
LOOK_BACK = 300.0
"""Seconds of history that a gateway reads at its start, so that subscribers can resume across its restart."""

QUIET = 2.0
"""Seconds without an event after which all is taken to be read: there may be none in the stream, or none of late. The
next one comes in milliseconds while there are any."""
VERIFY_WITHIN = 5.0
"""Seconds in which the last event must have come again on a new connection; it does in milliseconds."""

_OFFSET = b"x-stream-offset"
_EMPTY = -1  # the end of a stream in which nothing is

log = Logger()


def _nothing() -> None:
    """For those who need not know."""


def _ignore(latest: int | None) -> None:
    """For those who need not know where the stream ends."""


class EventReader:
    """Hands every event of the stream to `publish`, in order; `wall_clock` is seconds since 1970.

    `publish` is told, as its second argument, whether the event is live: not so while the reader catches up at its
    first start, with events that were published before it. `restart` is called before the first event of a stream that
    was made anew, whose offsets begin from 0 again. `fell_behind` is called when there may be events that were not read
    yet, and `caught_up` when there are none, with the offset of the latest that there is; None where that is unknown.
    """

    def __init__(
        self,
        stream: str,
        publish: Callable[[Event, bool], None],
        wall_clock: Callable[[], float],
        restart: Callable[[], None] = _nothing,
        fell_behind: Callable[[], None] = _nothing,
        caught_up: Callable[[int | None], None] = _ignore,
    ) -> None:
        self._stream = stream
        self._publish = publish
        self._wall_clock = wall_clock
        self._restart = restart
        self._fell_behind = fell_behind
        self._caught_up = caught_up
        self._last: Event | None = None
        self._last_properties: Properties | None = None
        self._history_until: int | None = None  # seconds since 1970: what is older is not live
        self._mark: int | None = None  # once known, instead: the latest offset of what is not live
        self._is_first_stream = True
        self._is_behind = True
        self._asking: StreamEnd | None = None  # where the stream ended when this connection began
        self._end: int | None = None  # the answer, once known
        self._read_to = _EMPTY  # the latest offset over this connection
        self._quiet: Any = None  # the timer, while behind
        self._is_throttled = False
        self._verifying: Any = None  # the timer, while the last event is awaited once more
        self._connection: Connection | None = None
        self._unacked = 0  # deliveries on the channel
        self._latest_tag = 0
        self._acknowledging: Any = None  # the timer of their ack

    async def attach(self, connection: Connection) -> None:
        """Read over this connection from now on, going on where the last one ended.

        :raises BrokerRefused: the broker refuses the consumer. :raises BrokerUnavailable: the connection is lost.
        """
        self._verified()
        self._forget_acks()  # tags live and die with their channel
        self._fall_behind()
        self._end, self._read_to = None, _EMPTY
        self._connection = connection
        consumer = Consumer(
            connection,
            await connection.open_channel(),
            PREFETCH,
            lambda consumer, deliveries: self._received(connection, consumer, deliveries),
            lambda error: self._ended(connection, error),
        )
        start: int | datetime
        if self._last is not None:
            start = self._last.offset
            self._verifying = connection.clock.callLater(VERIFY_WITHIN, self._start_over, connection)
        else:
            if self._history_until is None:
                self._history_until = int(self._wall_clock())
            start = datetime.fromtimestamp(self._history_until - LOOK_BACK, timezone.utc)
        try:
            await consumer.start(self._stream, arguments={"x-stream-offset": start})
        except Exception:
            self._verified()
            raise
        self._wait_for_quiet(connection)
        self._asking = StreamEnd(connection, self._stream, self._end_found)
        await self._asking.ask()

    def throttle(self, wait: bool) -> None:
        """Stop reading for a moment, or go on: whoever takes the events has not done with those it got."""
        self._is_throttled = wait
        if self._connection is not None:
            self._connection.pause_reading(wait)

    def _received(self, connection: Connection, consumer: Consumer, deliveries: list[Delivery]) -> None:
        if connection.end is not None:
            return  # what else came with the chunk that ended it
        for delivery in deliveries:
            properties = Properties(delivery.properties)
            event = stream_event(delivery, properties, self._stream)
            if event is None:
                continue
            last = self._last
            if last is not None and event.offset <= last.offset:
                # A stream starts at the chunk that holds the offset asked for: earlier ones may come as well.
                if event.offset == last.offset and self._verifying is not None:
                    if event != last:
                        self._start_over(connection)
                        return
                    self._verified()
                continue
            self._verified()  # one behind it: the stream is as long as it was, and retention took the last one away
            self._last, self._last_properties = event, properties
            mark = self._mark
            if mark is None:
                self._publish(event, (properties.timestamp or 0) >= (self._history_until or 0))
            else:
                self._publish(event, event.offset > mark)
        self._acknowledge_soon(connection, consumer, deliveries)
        if self._is_behind:
            self._read_to = max(self._read_to, offset_of(deliveries[-1]) or 0)
            self._wait_for_quiet(connection)
            self._see_whether_caught_up()

    def _end_found(self, end: int) -> None:
        if self._mark is None and self._is_first_stream:
            self._mark = end
        self._end = end
        self._see_whether_caught_up()

    def _see_whether_caught_up(self) -> None:
        if self._is_behind and self._end is not None and self._read_to >= self._end:
            self._catch_up()

    def _wait_for_quiet(self, connection: Connection) -> None:
        _cancel(self._quiet)
        self._quiet = connection.clock.callLater(QUIET, self._is_quiet, connection)

    def _is_quiet(self, connection: Connection) -> None:
        if self._is_throttled or self._verifying is not None:
            self._wait_for_quiet(connection)
            return
        if self._mark is None and self._is_first_stream and self._last is None:
            self._mark = _EMPTY
        if self._last is None and self._asking is not None:
            self._asking.stop()  # an empty stream gives no answer before its first message
        self._catch_up()

    def _catch_up(self) -> None:
        self._is_behind = False
        _cancel(self._quiet)
        latest = max(self._read_to, _EMPTY if self._end is None else self._end)
        self._caught_up(None if latest == _EMPTY else latest)

    def _fall_behind(self) -> None:
        self._is_behind = True
        _cancel(self._quiet)
        self._fell_behind()

    def _acknowledge_soon(self, connection: Connection, consumer: Consumer, deliveries: list[Delivery]) -> None:
        self._unacked += len(deliveries)
        self._latest_tag = deliveries[-1].delivery_tag
        if self._unacked >= ACK_EVERY:
            self._acknowledge(consumer)
        elif self._acknowledging is None:
            self._acknowledging = connection.clock.callLater(ACK_WITHIN, self._acknowledge, consumer)

    def _acknowledge(self, consumer: Consumer) -> None:
        self._forget_acks()
        consumer.acknowledge(self._latest_tag)

    def _forget_acks(self) -> None:
        self._unacked = 0
        timer, self._acknowledging = self._acknowledging, None
        _cancel(timer)

    def _start_over(self, connection: Connection) -> None:
        """The stream is another one than before."""
        self._verified()
        last = self._last_properties
        self._last, self._history_until = None, 0 if last is None else last.timestamp or 0
        self._mark, self._is_first_stream = None, False  # what came to the new one before it was noticed is news
        self._restart()
        connection.fail(BrokerUnavailable("the event stream was made anew: reading it from its start"))

    def _verified(self) -> None:
        timer, self._verifying = self._verifying, None
        _cancel(timer)

    def _ended(self, connection: Connection, error: Exception) -> None:
        """Whatever it was, a new connection reads on from the next offset."""
        self._verified()
        self._forget_acks()
        self._fall_behind()
        connection.fail(error)


def _cancel(timer: Any) -> None:
    """Stop a timer, unless there is none or it is over."""
    if timer is not None and timer.active():
        timer.cancel()


def stream_event(delivery: Delivery, properties: Properties, stream: str) -> Event | None:
    """The event that a delivery of the stream is; None for what is none, which is logged."""
    try:
        offset = properties.header(_OFFSET)
        event = read_event(offset, properties, delivery.body) if isinstance(offset, int) else None
    except ValueError as error:
        log.warn("Skipping a malformed event: {error}", error=str(error))
        return None
    if event is None:
        log.warn(
            "Skipping a stream message without {header}: something else publishes to {stream}",
            header=KEY_HEADER.decode(),
            stream=stream,
        )
    return event


HISTORY_PREFETCH = 200
"""Events under way in one reading: some tens of kilobytes, so that live events hardly wait behind them."""


class EventHistory:
    """The event stream, over whichever connection `connection` gives at the moment."""

    def __init__(self, stream: str, connection: Callable[[], Connection | None]) -> None:
        self._stream = stream
        self._connection = connection

    def read(
        self, offset: int, received: Callable[[Iterable[Event]], None], failed: Callable[[Exception], None]
    ) -> StreamReading:
        """Read from this offset on, or from the oldest behind it; `failed` is called at once where nobody is there."""
        reading = StreamReading(self._stream, received, failed)
        Deferred.fromCoroutine(reading.begin(self._connection(), offset)).addErrback(reading.end)
        return reading


class StreamReading:
    """One reading; what was received is acknowledged, and so replaced by more, when `more` is called."""

    def __init__(
        self, stream: str, received: Callable[[Iterable[Event]], None], failed: Callable[[Exception], None]
    ) -> None:
        self._stream = stream
        self._received = received
        self._failed = failed
        self._consumer: Consumer | None = None
        self._latest_tag = 0
        self._is_starting = False
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
        channel = await connection.open_channel()
        consumer = self._consumer = Consumer(
            connection, channel, HISTORY_PREFETCH, self._deliver, lambda error: self.end(Failure(error))
        )
        try:
            if not self._stopped:
                tag = f"amqprouter:history:{channel.id}"
                self._is_starting = True
                await consumer.start(self._stream, tag=tag, arguments={"x-stream-offset": offset})
        except BaseException:
            self._is_starting = False
            self._shut()
            raise
        self._is_starting = False
        if self._stopped:
            self._shut()

    def more(self) -> None:
        """Go on."""
        if self._consumer is not None and not self._stopped:
            self._consumer.acknowledge(self._latest_tag)

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
        """End the consumer, if there is one; doing so twice does no harm."""
        if self._is_starting:
            return  # what is not there yet cannot be cancelled; `begin` sees to it
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            Deferred.fromCoroutine(consumer.shut()).addErrback(lambda failure: None)  # it is lost all the same

    def _deliver(self, _: Consumer, deliveries: list[Delivery]) -> None:
        if self._stopped:
            return  # under way when it was stopped
        self._latest_tag = deliveries[-1].delivery_tag
        self._received(self._events(deliveries))

    def _events(self, deliveries: list[Delivery]) -> Iterator[Event]:
        """Decoded one by one, as they are asked for: a burst of them would keep everybody else waiting."""
        for delivery in deliveries:
            event = stream_event(delivery, Properties(delivery.properties), self._stream)
            if event is not None:
                yield event
