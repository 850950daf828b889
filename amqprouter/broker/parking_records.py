"""Which parking queues are in use, from the records that gateways left in a stream. Pure.

Records are JSON objects. ``lot``, ``used`` and ``by`` say that a gateway uses a parking queue, or found it empty and
left it; a parking queue's last record counts. ``mark`` is nothing but a place in the stream. A mark that has a
``snapshot`` is a part of one::

    {"mark": "…", "snapshot": {"id": "…", "next": 5012, "part": 0, "parts": 2, "at": 1700000000.0, "lots": ["dev1", …]}}

A mark that has ``other`` says of a parking queue that is no device's what ``used`` and ``by`` say of a device's, and a
snapshot has these in ``others`` of its first part. In here their names begin with `OTHER`, to be apart from devices.

All parts of an id together say which parking queues were in use by all records in front of the offset ``next``, so that
nothing in front of it need be read. Releases without snapshots take the parts for other gateways' marks, and so do not
notice; nor do they of other parking queues.

House rules. A parking queue in use is never forgotten; one too many is harmless, for whoever looks finds it empty. So a
snapshot counts only once all its parts are there, whoever wrote it, and a record that was read and says that a parking
queue is used counts until one behind it says otherwise. Records may be read in any order: the end of the stream is read
first.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from math import isfinite
from typing import Any

OTHER = "\0"
"""What the name of a parking queue begins with that is no device's: no device's name can."""
PART_LOTS = 1000
"""Parking queues in one part: at 255 bytes each, the longest that devices' names may be, far below any limit of a
message."""


@dataclass(frozen=True)
class ParkingRecord:
    """A parking queue is used, or was left."""

    parking_queue: str
    used: bool
    by: object


@dataclass(frozen=True)
class Mark:
    """A place in the stream."""

    name: object


@dataclass(frozen=True)
class SnapshotPart:
    """Some of the parking queues in use; `at` is in seconds since 1970."""

    id: str
    next: int
    part: int
    parts: int
    at: float
    parking_queues: tuple[str, ...]


def read_record(body: bytes) -> ParkingRecord | Mark | SnapshotPart:
    """What a message of the stream says.

    :raises ValueError: it is no record.
    """
    try:
        record = json.loads(body)
        if "mark" not in record:
            return ParkingRecord(_text(record["lot"]), bool(record["used"]), record["by"])
        if "other" in record:
            return ParkingRecord(OTHER + _text(record["other"]), bool(record["used"]), record["by"])
        snapshot = record.get("snapshot")
        return Mark(record["mark"]) if snapshot is None else _part(snapshot)
    except (TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(f"not a record: {error!r}") from None


def _part(snapshot: Any) -> SnapshotPart:
    others = (OTHER + _text(name) for name in snapshot.get("others", ()))
    parking_queues = (*map(_text, snapshot["lots"]), *others)
    after, part, parts = (_number(snapshot[name]) for name in ("next", "part", "parts"))
    if part >= parts:
        raise ValueError(f"part {part} of {parts}")
    at = float(snapshot["at"])
    if not isfinite(at):
        raise ValueError(f"at {at}")
    return SnapshotPart(_text(snapshot["id"]), after, part, parts, at, parking_queues)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    value.encode()  # JSON may have what no queue's name can
    return value


def _number(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise TypeError(value)
    return value


def snapshot_records(id: str, next: int, at: float, parking_queues: Collection[str]) -> list[dict[str, object]]:
    """The records that tell these parking queues, one at least."""
    names = sorted(name for name in parking_queues if not name.startswith(OTHER))
    others = sorted(name.removeprefix(OTHER) for name in parking_queues if name.startswith(OTHER))
    shares = [names[start : start + PART_LOTS] for start in range(0, len(names), PART_LOTS)] or [[]]
    parts = [
        {"id": id, "next": next, "part": part, "parts": len(shares), "at": at, "lots": share}
        for part, share in enumerate(shares)
    ]
    if others:  # a few: one for each target there ever was
        parts[0]["others"] = others
    return [{"mark": f"{id}.snapshot", "snapshot": part} for part in parts]


class ParkingHistory:
    """What was read so far. Offsets are the stream's."""

    def __init__(self) -> None:
        self.next = 0
        """The offset behind the last record that was read."""
        self.snapshot_next: int | None = None
        """What the best complete snapshot stands for: all that is in front of this offset. None while there is none."""
        self.snapshot_end = 0
        """The offset behind the last part of it that came."""
        self.snapshot_at = 0.0
        """When it was taken, in seconds since 1970."""
        self._snapshot: frozenset[str] = frozenset()
        self._last: dict[str, tuple[int, bool]] = {}  # by parking queue: its last record
        self._parts: dict[tuple[str, int, int], dict[int, SnapshotPart]] = {}  # of incomplete snapshots

    def add(self, offset: int, record: ParkingRecord | Mark | SnapshotPart) -> bool:
        """Take a record that was read; whether it makes a snapshot complete that is better than the one there was."""
        self.next = max(self.next, offset + 1)
        if isinstance(record, ParkingRecord):
            last = self._last.get(record.parking_queue)
            if last is None or last[0] < offset:
                self._last[record.parking_queue] = offset, record.used
        elif isinstance(record, SnapshotPart) and self._is_news(offset, record):
            key = record.id, record.next, record.parts
            parts = self._parts.setdefault(key, {})
            parts[record.part] = record
            if len(parts) == record.parts:
                self.snapshot_end = offset + 1
                self._complete(
                    record, frozenset(parking_queue for part in parts.values() for parking_queue in part.parking_queues)
                )
                return True
        return False

    def _is_news(self, offset: int, part: SnapshotPart) -> bool:
        """Whether it can be better; what tells of offsets behind itself was written for another stream of this name."""
        return part.next <= offset and (self.snapshot_next is None or part.next > self.snapshot_next)

    def _complete(self, part: SnapshotPart, parking_queues: frozenset[str]) -> None:
        self.snapshot_next, self.snapshot_at, self._snapshot = part.next, part.at, parking_queues
        self._parts = {key: parts for key, parts in self._parts.items() if key[1] > part.next}

    def parking_queues(self) -> set[str]:
        """Those in use."""
        since = self.snapshot_next or 0
        last = self._last
        used = {parking_queue for parking_queue, (_, is_used) in last.items() if is_used}
        return used.union(
            parking_queue
            for parking_queue in self._snapshot
            if parking_queue not in last or last[parking_queue][0] < since
        )

    def prune(self) -> None:
        """Forget what the snapshot says as well; no record in front of it may be added afterwards."""
        since = self.snapshot_next or 0
        self._last = {
            parking_queue: (offset, used)
            for parking_queue, (offset, used) in self._last.items()
            if offset >= since or (used and parking_queue not in self._snapshot)
        }
