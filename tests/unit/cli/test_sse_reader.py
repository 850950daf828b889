"""Reading server-sent events, whatever the chunks."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from amqprouter.cli import sse_reader
from amqprouter.cli.sse_reader import ServerSentEvent, SseReader
from amqprouter.events import sse

STREAM = (
    b": welcome\r\nretry: 2500\r\n\r\n"
    b"id: 7\r\ndata: first\r\ndata:  second\r\n\r\n"
    b"event: gap\rdata\rid:8\r\r"
    b"data: \xe2\x82\xac\nid: bad\0id\nunknown: x\n\n"
    b"id: 9\n\n"
    b"data: unfinished\n"
)
EVENTS = [
    ServerSentEvent("message", "first\n second", "7"),
    ServerSentEvent("gap", "", "8"),
    ServerSentEvent("message", "€", "8"),
]


class SseReaderTests(SynchronousTestCase):
    def test_a_stream_with_every_line_end(self) -> None:
        reader = SseReader()
        self.assertEqual(reader.feed(STREAM), EVENTS)
        self.assertEqual((reader.last_id, reader.retry), ("9", 2.5))

    @given(st.lists(st.integers(0, len(STREAM))))
    def test_chunks_make_no_difference(self, cuts: list[int]) -> None:
        reader, bounds = SseReader(), [0, *sorted(cuts), len(STREAM)]
        pieces = [STREAM[start:end] for start, end in pairwise(bounds)]
        self.assertEqual([event for piece in pieces for event in reader.feed(piece)], EVENTS)

    def test_half_an_event_does_not_move_the_place_to_resume_from(self) -> None:
        reader = SseReader("3")
        reader.feed(b"id: 4\ndata: x\n")
        self.assertEqual(reader.last_id, "3")

    @given(st.text(), st.from_regex("[^\r\n\0]*", fullmatch=True))
    def test_what_the_daemon_writes_is_read_as_it_was(self, data: str, event_id: str) -> None:
        raw = data.encode("utf-8", "replace")
        (event,) = SseReader().feed(sse.encode_fields(raw, id=event_id.encode("utf-8", "replace").decode()))
        self.assertEqual(event.data, raw.decode().replace("\r\n", "\n").replace("\r", "\n"))

    def test_an_endless_line_is_refused(self) -> None:
        self.patch(sse_reader, "MAX_LINE", 10)
        with self.assertRaises(ValueError):
            SseReader().feed(b"data: 123456789")
        reader = SseReader()
        with self.assertRaises(ValueError):
            for _ in range(20):
                reader.feed(b"data: x\nd")
                reader.feed(b"ata: y\n")
