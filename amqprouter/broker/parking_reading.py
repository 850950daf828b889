"""Reading the stream of parking queues over one connection: from its end, as far as need be, and then what comes.

Theory of operation. A consumer that starts at ``last`` is told, with its first delivery, an offset near the end.
Reading begins `LOOK_BACK` before that, goes on to a mark that was appended since, and follows the stream from then on.
Nearly always there is a snapshot in what was read, and nothing in front of it is needed. Otherwise what is in front is
read too: from the offset that the snapshot names, or in blocks that grow, until a snapshot is found, or the beginning.

Offsets have gaps (the broker's own entries), and a consumer that asks for what retention has taken away is given what
there is, without a word. So that the beginning has been read is only believed of the offset that ``first`` begins with.

Every piece of history that comes is progress, from which the time limit of the connection counts anew: how long a
history without snapshots takes is not to be said beforehand, but one that comes to a halt is noticed in time.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from amqprouter.amqp.connection import Connection
from amqprouter.amqp.consumer import Consumer
from amqprouter.amqp.properties import Properties
from amqprouter.amqp.wire import Delivery
from amqprouter.broker.parking_records import Mark, ParkingHistory, ParkingRecord, SnapshotPart, read_record
from amqprouter.errors import BrokerRefused, BrokerUnavailable

PREFETCH = 5000
"""Records under way, half a megabyte. Read are 76,000 a second with it, on an idle machine, and 55,000 with 1000."""
ACK_EVERY = PREFETCH // 4
"""Records of a block after which they are acknowledged: for a stream an ack is nothing but leave to send more."""
SNAPSHOT_AFTER = 2000
"""Offsets after which there is to be a snapshot: less than a tenth of a second's reading."""
LOOK_BACK = 2 * SNAPSHOT_AFTER
"""Offsets before the end at which reading begins: as far as the last snapshot, and what came while it was written."""
GROWTH = 4
"""How much larger each block is than the one behind it: a long history without a snapshot takes few questions."""
TELL_EVERY = 5.0
"""Seconds between two lines in the log that say how far the reading is."""

_OFFSET = b"x-stream-offset"


class ParkingReading:
    """Reads into `history`.

    :param came: is told of each record behind what `past` has read, and whether it makes a better snapshot complete.
    """

    log = Logger()

    def __init__(
        self,
        connection: Connection,
        stream: str,
        mark: str,
        came: Callable[[ParkingRecord | Mark | SnapshotPart, bool], None],
    ) -> None:
        self.history = ParkingHistory()
        self.records = 0
        """How many were read."""
        self.progress = ""
        """How far the reading is, while it takes long."""
        self._connection = connection
        self._stream = stream
        self._mark = mark
        self._came = came
        self._marked: Deferred[None] = Deferred()
        self._consumers: list[Consumer] = []  # that began
        self._is_past = False
        self._began = self._told_at = connection.clock.seconds()

    @property
    def is_over(self) -> bool:
        """Whether nothing comes any more."""
        return self._connection.closed

    async def past(self, append_mark: Callable[[], Awaitable[None]]) -> None:
        """Read all that was known before this was called; what comes afterwards is followed.

        :raises BrokerRefused: the broker refuses a consumer; then none is left. :raises BrokerUnavailable: the
            connection is lost.
        """
        try:
            await self._read_past(append_mark)
        except BrokerRefused:
            if not self._connection.closed:
                await self._leave()
            raise

    async def _leave(self) -> None:
        for consumer in self._consumers:
            if not consumer.channel.closed:
                await consumer.shut()

    async def _read_past(self, append_mark: Callable[[], Awaitable[None]]) -> None:
        # The mark is behind what "last" gives, which is asked for before; and an empty stream gives the mark.
        start = max(0, await self._offset_at("last", append_mark) - LOOK_BACK)
        await self._consume(start, PREFETCH, self._received, self._marked)
        await self._marked
        size = LOOK_BACK
        while not self._is_enough(start):
            first = await self._offset_at("first")
            if first >= start:
                break
            size *= GROWTH
            end, start = start, self._start_before(start, first, size)
            await self._read_block(start, end, first)
        self._finish()

    def _is_enough(self, start: int) -> bool:
        """Whether nothing in front of this offset is needed."""
        snapshot = self.history.snapshot_next
        return start == 0 or (snapshot is not None and snapshot >= start)

    def _start_before(self, end: int, first: int, size: int) -> int:
        snapshot = self.history.snapshot_next
        return max(first, end - size if snapshot is None else snapshot)

    def _finish(self) -> None:
        self._is_past, self.progress = True, ""
        self.log.info(
            "Read which devices have parking queues: {records} records, in {seconds:.2f} s",
            records=self.records,
            seconds=self._connection.clock.seconds() - self._began,
        )

    # Consumers.

    async def _consume(
        self,
        start: int | str,
        prefetch: int,
        received: Callable[[Consumer, list[Delivery]], None],
        awaited: Deferred[Any],
    ) -> Consumer:
        """Consume on a channel of its own; whatever ends it once it is there ends the connection, and a new one reads
        again."""

        def ended(error: Exception) -> None:
            if not awaited.called:
                awaited.errback(error)
            self._connection.fail(error)

        channel = await self._connection.open_channel()
        consumer = Consumer(self._connection, channel, prefetch, received, ended)
        tag = f"amqprouter:{self._stream}:{channel.id}"
        await consumer.start(self._stream, tag=tag, arguments={"x-stream-offset": start})
        self._consumers.append(consumer)
        return consumer

    async def _offset_at(self, where: str, meanwhile: Callable[[], Awaitable[None]] | None = None) -> int:
        """The offset that is delivered first to a consumer that starts there; waits for one in an empty stream."""
        answer: Deferred[int] = Deferred()

        def received(_: Consumer, deliveries: list[Delivery]) -> None:
            if answer.called:
                return
            offset = _offset(deliveries[0])
            if offset < 0:
                reason = f"{self._stream} is no stream: delete it, and it is declared as one"
                answer.errback(BrokerUnavailable(reason))
            else:
                answer.callback(offset)

        consumer = await self._consume(where, 1, received, answer)
        try:
            if meanwhile is not None:
                await meanwhile()
        except Exception:
            answer.addErrback(_known)
            raise
        offset = await answer
        await consumer.shut()
        return offset

    def _received(self, consumer: Consumer, deliveries: list[Delivery]) -> None:
        """From the end on."""
        for delivery in deliveries:
            self._take(_offset(delivery), delivery)
        consumer.acknowledge(deliveries[-1].delivery_tag)
        if not self._is_past:
            self._connection.progress()

    async def _read_block(self, start: int, end: int, first: int) -> None:
        """What is in front of it, up to what was read already."""
        done: Deferred[None] = Deferred()
        unacked = 0

        def received(consumer: Consumer, deliveries: list[Delivery]) -> None:
            nonlocal unacked
            if done.called:
                return
            offset = end
            for delivery in deliveries:
                offset = _offset(delivery)
                if offset >= end:
                    done.callback(None)
                    return
                self._take(offset, delivery)
            unacked += len(deliveries)
            if unacked >= ACK_EVERY:
                consumer.acknowledge(deliveries[-1].delivery_tag)
                unacked = 0
            self._connection.progress()
            self._tell(max(0, end - offset) + max(0, start - first))

        self._tell(end - first)
        consumer = await self._consume(start, PREFETCH, received, done)
        await done
        await consumer.shut()

    def _tell(self, left: int) -> None:
        """Say how far the reading is, now and then."""
        now = self._connection.clock.seconds()
        if self.progress and now < self._told_at + TELL_EVERY:
            return
        self._told_at = now
        self.progress = (
            f"reading which devices have parking queues, from {self._stream}: {self.records} records so far, "
            f"{left} more at most"
        )
        self.log.info("No messages are taken yet: {story}", story=self.progress)

    # Records.

    def _take(self, offset: int, delivery: Delivery) -> None:
        self.records += 1
        try:
            record = read_record(delivery.body)
        except ValueError as error:
            self.log.warn("Skipping a record of {stream}: {error}", stream=self._stream, error=str(error))
            return
        is_news = self.history.add(offset, record)
        if self._is_past:
            self._came(record, is_news)
        elif isinstance(record, Mark) and record.name == self._mark and not self._marked.called:
            self._marked.callback(None)


def _known(_: object) -> None:
    """Nobody waits for it: who would have was told already."""


def _offset(delivery: Delivery) -> int:
    """A delivery's place in the stream; -1 when it did not come out of one."""
    offset = Properties(delivery.properties).header(_OFFSET)
    return offset if isinstance(offset, int) else -1
