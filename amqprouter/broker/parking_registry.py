"""Which devices have parking queues: a small stream that all gateways write and read.

AMQP 0-9-1 cannot list queues, so their names must be kept where a restarted gateway, or another one, finds them. Each
record says that a parking queue is used, before its first message is parked, or that it was empty and was left; a
parking queue's last record counts. Streams forget their oldest, so parking queues that stay in use are named again,
once in `ANNOUNCE_EVERY`.

Theory of operation. At each connection the stream is read, up to a mark that the reader itself appended to it,
confirmed: what is before the mark is all that was known when it connected. `learned` is told of each device's parking
queue that is used then, and afterwards of each record that another gateway appends. A record that cannot be read is
logged and skipped. Parking queues of targets are in it as well, for `amqprouter.broker.left_parking`.

A start must not take longer for a long history. So a gateway that reads that `SNAPSHOT_AFTER` offsets have gone by
since the last snapshot, or that it is a day old while parking queues are in use, writes one:
`amqprouter.broker.parking_records` says what is in it, and `amqprouter.broker.parking_reading` how it is found. It does
so after a while drawn at random, so that mostly one of several gateways does; when all do, nothing is wrong. What one
leaves half written when it dies is no snapshot, and the others' time comes. While nothing is parked, nothing is
written.

A history of earlier releases, which write no snapshots, is read whole, once, before the ingress starts: for what is
parked is older than what comes. Then it is followed by a snapshot. Earlier releases may run beside this one, and after
it: they take snapshots for the marks of others, and go on reading everything.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from amqprouter.amqp.connection import Connection
from amqprouter.amqp.declare import Declarer
from amqprouter.amqp.delayed_calls import DelayedCalls, at_once
from amqprouter.amqp.properties import encode_properties
from amqprouter.amqp.publisher import Publisher
from amqprouter.broker.parking_reading import SNAPSHOT_AFTER, ParkingReading
from amqprouter.broker.parking_records import OTHER, Mark, ParkingRecord, SnapshotPart, snapshot_records
from amqprouter.clock import Clock
from amqprouter.errors import AmqprouterError, TopologyClash

MAX_AGE = 7 * 86400
"""Seconds that records are kept at least: a parking queue is found for so long after all gateways have gone."""
ANNOUNCE_EVERY = 86400.0
"""Seconds after which a parking queue in use is named again, by a record and in a snapshot, long before it is
forgotten."""
SEGMENT_BYTES = 1_000_000
"""Of the stream's files: retention removes whole ones."""
SNAPSHOT_WITHIN = 10.0
"""Seconds in which a snapshot that is due is written: long enough that others mostly see it before their moment."""
REVIEW_EVERY = 3600.0
"""Seconds between two looks at how old the last snapshot is."""


class ParkingRegistry:
    """Reads and writes the stream. `gateway` tells one process from all others.

    :param learned: is told of a parking queue, and whether it is used.
    :param wall_clock: seconds since 1970.
    """

    log = Logger()

    def __init__(
        self,
        clock: Clock,
        publisher: Publisher,
        stream: str,
        gateway: str,
        learned: Callable[[str, bool], None],
        *,
        random: Callable[[], float],
        wall_clock: Callable[[], float],
    ) -> None:
        self._publisher = publisher
        self._stream = stream
        self._gateway = gateway
        self._learned = learned
        self._random = random
        self._wall_clock = wall_clock
        self._delayed = DelayedCalls(clock, lambda: None, lambda error: None)
        self._marks = 0
        self._snapshots = 0
        self._is_writing = False
        self._ours: set[str] = set()  # we said that they are used, and nobody has said otherwise since
        self._under_way: dict[str, Deferred[None]] = {}  # by parking queue: the latest record
        self._reading: ParkingReading | None = None

    @property
    def records_read(self) -> int:
        """Records that were read over the present connection, or the last one."""
        return 0 if self._reading is None else self._reading.records

    @property
    def others(self) -> set[str]:
        """The parking queues in use that are no devices', as of the latest record that came, without `OTHER`."""
        used = () if self._reading is None else self._reading.history.parking_queues()
        return {name.removeprefix(OTHER) for name in used if name.startswith(OTHER)}

    @property
    def snapshot_end(self) -> int:
        """The offset behind the last snapshot that is known; 0 while none is."""
        return 0 if self._reading is None else self._reading.history.snapshot_end

    def problem(self) -> str:
        """How far the reading at a start is, while it takes long; else empty."""
        return "" if self._reading is None else self._reading.progress

    async def attach(self, connection: Connection) -> None:
        """Read all that is known, and what comes from now on.

        :raises BrokerRefused: the broker refuses the stream. :raises BrokerUnavailable: the connection is lost.
        """
        self._delayed.forget()
        await self._declare(connection)
        self._marks += 1
        mark = f"{self._gateway}.{self._marks}"
        before, reading = self._reading, ParkingReading(connection, self._stream, mark, self._came)
        self._reading = reading
        try:
            await reading.past(lambda: self._append({"mark": mark}))
        except Exception:
            self._reading = before
            raise
        parking_queues = reading.history.parking_queues()
        for parking_queue in parking_queues:
            self._tell(parking_queue, True)
        missing = self._ours - parking_queues
        if before is not None and reading.history.next < before.history.next:
            missing |= (
                before.history.parking_queues() - parking_queues
            )  # the stream was made anew, without what was known
        await at_once(self.announce(parking_queue, True) for parking_queue in missing)
        reading.history.prune()
        self._see_how_far()
        self._delayed.later(self._moment(), self._review)

    async def announce(self, name: str, used: bool) -> None:
        """Append a record; returns when the broker has it. A name that begins with `OTHER` is no device's.

        The last record counts, so one parking queue's go one after the other: the publisher may have to send one again.
        """
        (self._ours.add if used else self._ours.discard)(name)
        before, done = self._under_way.get(name), Deferred[None]()
        self._under_way[name] = done
        try:
            if before is not None:
                await before
            said = {"used": used, "by": self._gateway}
            if name.startswith(OTHER):
                await self._append({"mark": f"{self._gateway}.other", "other": name.removeprefix(OTHER), **said})
            else:
                await self._append({"lot": name, **said})
        finally:
            if self._under_way[name] is done:
                del self._under_way[name]
            done.callback(None)

    def leave(self, name: str) -> None:
        """A parking queue is another gateway's from now on, to say of that it is used and that it is not."""
        self._ours.discard(name)

    def stop(self) -> None:
        """Write nothing of its own accord any more."""
        self._delayed.stop()

    async def _append(self, record: dict[str, object]) -> None:
        properties = encode_properties(content_type="application/json")
        await self._publisher.send("", self._stream, properties, json.dumps(record).encode())

    async def _declare(self, connection: Connection) -> None:
        arguments: dict[str, Any] = {
            "x-queue-type": "stream",
            "x-max-age": f"{MAX_AGE}s",
            "x-stream-max-segment-size-bytes": SEGMENT_BYTES,
        }
        declarer = Declarer(connection, "it is used as it is")
        try:
            await declarer.queue(self._stream, arguments)
        except TopologyClash as clash:
            self.log.warn("Using {stream} as it is: {reason}", stream=self._stream, reason=str(clash))
            return
        await declarer.shut()

    def _came(self, record: ParkingRecord | Mark | SnapshotPart, completes: bool) -> None:
        """Somebody appended a record; `completes` tells that a snapshot is there that is better than all before it."""
        if isinstance(record, ParkingRecord) and record.by != self._gateway:
            if not record.used:
                self._ours.discard(record.parking_queue)
            self._tell(record.parking_queue, record.used)
        if completes and self._reading is not None:
            self._reading.history.prune()
        self._see_how_far()

    def _tell(self, parking_queue: str, used: bool) -> None:
        if not parking_queue.startswith(OTHER):
            self._learned(parking_queue, used)

    # Snapshots.

    def _moment(self) -> float:
        return SNAPSHOT_WITHIN * (0.1 + 0.9 * self._random())

    @property
    def _is_far(self) -> bool:
        """Whether a start would have much to read."""
        assert self._reading is not None
        history = self._reading.history
        return history.next - history.snapshot_end >= SNAPSHOT_AFTER

    def _see_how_far(self) -> None:
        if self._is_far:
            self._delayed.later(self._moment(), self._snapshot_if_far)

    async def _snapshot_if_far(self) -> None:
        if self._is_far:  # nobody else has written one
            await self._write_snapshot()

    async def _review(self) -> None:
        """Retention takes snapshots too: there is to be one of the last day as long as it says anything."""
        self._delayed.later(REVIEW_EVERY, self._review)
        assert self._reading is not None
        history = self._reading.history
        if abs(self._wall_clock() - history.snapshot_at) >= ANNOUNCE_EVERY and history.parking_queues():
            await self._write_snapshot()

    async def _write_snapshot(self) -> None:
        if self._is_writing or self._reading is None or self._reading.is_over:
            return
        self._snapshots += 1
        history = self._reading.history
        name = f"{self._gateway}.{self._snapshots}"
        records = snapshot_records(name, history.next, self._wall_clock(), history.parking_queues())
        self._is_writing = True
        try:
            await at_once(self._append(record) for record in records)
        except AmqprouterError as error:
            self.log.warn(
                "Cannot write a snapshot of the parking queues into {stream}: {error}; the next start reads more",
                stream=self._stream,
                error=str(error),
            )
        finally:
            self._is_writing = False
