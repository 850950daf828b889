"""Which parking queues are in use: a snapshot and what came since say the same as everything, wherever it is cut."""

from __future__ import annotations

import json
from typing import Any
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from amqprouter.broker import parking_records as parking_queue_history
from amqprouter.broker.parking_records import (
    OTHER,
    PART_LOTS,
    Mark,
    ParkingHistory,
    ParkingRecord,
    SnapshotPart,
    read_record,
    snapshot_records,
)

Stream = list[tuple[int, bytes]]

LOTS = "abcdef"
GATEWAYS = ("new1", "new2", "old")
steps = st.lists(
    st.one_of(
        st.tuples(st.just("record"), st.sampled_from(LOTS), st.booleans()),
        st.tuples(st.just("snapshot"), st.integers(0, 4), st.none()),
        st.tuples(st.just("part"), st.integers(0, 3), st.none()),
        st.tuples(st.just("gap"), st.integers(1, 3), st.none()),
        st.tuples(st.just("mark"), st.none(), st.none()),
    ),
    max_size=60,
)


def record(parking_queue: str, used: bool, by: str = "x") -> dict[str, object]:
    return {"lot": parking_queue, "used": used, "by": by}


def last_records(stream: Stream) -> set[str]:
    """The parking queues in use, as earlier releases read them."""
    known: dict[str, bool] = {}
    for _, body in stream:
        said = json.loads(body)
        if "mark" not in said:
            known[said["lot"]] = said["used"]
    return {parking_queue for parking_queue, used in known.items() if used}


def written(course: list[tuple[str, Any, Any]]) -> Stream:
    """What gateways append: two that take snapshots of what they have read so far, at their leisure, some of which stay
    incomplete, and one that takes none."""
    stream: Stream = []
    offset = 0
    pending: list[list[dict[str, object]]] = []
    for number, (what, argument, used) in enumerate(course):
        said: dict[str, object] | None = None
        if what == "record":
            said = record(argument, used, GATEWAYS[number % 3])
        elif what == "mark":
            said = {"mark": f"old.{number}"}
        elif what == "gap":
            offset += argument
        elif what == "snapshot":
            seen = stream[: max(0, len(stream) - argument)]
            after = seen[-1][0] + 1 if seen else 0
            with patch.object(parking_queue_history, "PART_LOTS", 2):
                pending.append(snapshot_records(f"{number}", after, 1.0, last_records(seen)))
        elif pending:
            parts = pending[argument % len(pending)]
            if parts:
                said = parts.pop(0)
        if said is not None:
            stream.append((offset, json.dumps(said).encode()))
            offset += 1
    return stream


def read(history: ParkingHistory, stream: Stream, start: int, end: int) -> None:
    for offset, body in stream:
        if start <= offset < end:
            history.add(offset, read_record(body))


class HistoryTests(SynchronousTestCase):
    @given(steps, st.lists(st.integers(0, 100), min_size=1, max_size=8))
    def test_from_the_end(self, course: list[tuple[str, Any, Any]], cuts: list[int]) -> None:
        """Block by block towards the beginning, until a snapshot says the rest."""
        stream = written(course)
        history = ParkingHistory()
        end = stream[-1][0] + 1 if stream else 0
        for cut in [*cuts, 0]:
            start = min(cut, end)
            if history.snapshot_next is not None:
                if history.snapshot_next >= end:
                    break
                start = history.snapshot_next
            read(history, stream, start, end)
            end = start
        self.assertEqual(history.parking_queues(), last_records(stream))

    @given(steps)
    def test_followed(self, course: list[tuple[str, Any, Any]]) -> None:
        """Record by record, what snapshots say being forgotten each time."""
        history = ParkingHistory()
        stream = written(course)
        for number, (offset, body) in enumerate(stream):
            if history.add(offset, read_record(body)):
                history.prune()
            self.assertEqual(history.parking_queues(), last_records(stream[: number + 1]))
            self.assertEqual(history.next, offset + 1)

    @given(steps, st.integers(0, 60))
    def test_after_retention(self, course: list[tuple[str, Any, Any]], first: int) -> None:
        """What is left tells at least of the parking queues that it says are in use."""
        stream = [(offset, body) for offset, body in written(course) if offset >= first]
        history = ParkingHistory()
        read(history, stream, first, 1000)
        self.assertLessEqual(last_records(stream), history.parking_queues())

    def test_parts(self) -> None:
        parking_queues = [f"device{number}" for number in range(PART_LOTS + 1)]
        records = snapshot_records("x", 7, 5.0, parking_queues)
        parts = [read_record(json.dumps(one).encode()) for one in records]
        self.assertEqual(len(parts), 2)
        history = ParkingHistory()
        self.assertEqual([history.add(8 + n, part) for n, part in enumerate(parts)], [False, True])
        self.assertEqual(
            (history.parking_queues(), history.snapshot_next, history.snapshot_at), (set(parking_queues), 7, 5.0)
        )
        self.assertEqual([history.add(10 + n, part) for n, part in enumerate(parts)], [False, False])

    def test_none_in_use(self) -> None:
        (part,) = snapshot_records("x", 7, 5.0, ())
        history = ParkingHistory()
        history.add(3, ParkingRecord("a", False, "x"))
        self.assertTrue(history.add(8, read_record(json.dumps(part).encode())))
        self.assertEqual(history.parking_queues(), set())

    def test_of_another_stream(self) -> None:
        """It was made anew, and counts from 0: what a snapshot of the old one says is in front of it never was."""
        history = ParkingHistory()
        self.assertFalse(history.add(3, SnapshotPart("x", 70, 0, 1, 5.0, ("a",))))
        self.assertEqual((history.snapshot_next, history.parking_queues()), (None, set()))

    def test_a_record_that_a_snapshot_contradicts(self) -> None:
        """One too many is harmless, one too few is not."""
        history = ParkingHistory()
        history.add(3, ParkingRecord("a", True, "x"))
        history.add(4, SnapshotPart("x", 4, 0, 1, 5.0, ("b",)))
        self.assertEqual(history.parking_queues(), {"a", "b"})
        history.prune()
        self.assertEqual(history.parking_queues(), {"a", "b"})

    def test_as_earlier_releases_read_it(self) -> None:
        """A snapshot is a mark to them, and nobody's."""
        for one in snapshot_records("x", 7, 5.0, "ab"):
            self.assertEqual(one["mark"], "x.snapshot")

    def test_those_that_are_no_devices(self) -> None:
        """Apart in what is written, for earlier releases take all lots for devices; together in what is read."""
        record = {"mark": "x", "other": "target.store:a", "used": True, "by": "x"}
        self.assertEqual(read_record(json.dumps(record).encode()), ParkingRecord(f"{OTHER}target.store:a", True, "x"))
        used = {f"{OTHER}target.store:a", *(f"dev{number:04}" for number in range(PART_LOTS + 1))}
        parts = [json.loads(json.dumps(part)) for part in snapshot_records("x", 7, 5.0, used)]
        self.assertEqual([part["snapshot"].get("others") for part in parts], [["target.store:a"], None])
        self.assertEqual([len(part["snapshot"]["lots"]) for part in parts], [PART_LOTS, 1])
        history = ParkingHistory()
        for offset, part in enumerate(parts, 8):
            history.add(offset, read_record(json.dumps(part).encode()))
        self.assertEqual(history.parking_queues(), used)
        self.assertEqual([part["mark"] for part in snapshot_records("x", 7, 5.0, [f"{OTHER}a"])], ["x.snapshot"])

    def test_no_records(self) -> None:
        part = snapshot_records("x", 7, 5.0, "ab")[0]["snapshot"]
        assert isinstance(part, dict)
        self.assertEqual(read_record(b'{"mark": null}'), Mark(None))
        for body in (
            b"?",
            b"\xff",
            b"[]",
            b"7",
            b"null",
            b'"mark"',
            b'{"lot": "a"}',
            b'{"lot": 7, "used": 1, "by": 1}',
            b'{"mark": "m", "other": 7, "used": 1, "by": 1}',
            b'{"mark": "m", "other": "a"}',
        ):
            self.assertRaises(ValueError, read_record, body)
        for wrong in (
            {"next": -1},
            {"next": "7"},
            {"part": 1},
            {"parts": True},
            {"lots": [7]},
            {"lots": None},
            {"at": "soon"},
            {"at": float("nan")},
            {"at": 10**400},
            {"id": None},
            {"others": [7]},
            {"others": None},
        ):
            body = json.dumps({"mark": "m", "snapshot": {**part, **wrong}}).encode()
            self.assertRaises(ValueError, read_record, body)
        self.assertRaises(ValueError, read_record, b'{"mark": "m", "snapshot": 7}')
