"""Server-sent events, against a receiver written from the standard's own steps."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from amqprouter.events import sse
from amqprouter.events.event import Event


def receive(stream: bytes) -> list[tuple[str, str, str]]:
    """What an EventSource dispatches: (type, data, last id), by the standard's "interpret an event stream"."""
    dispatched = []
    data: list[str] = []
    event_type = last_id = ""
    for line in re.split("\r\n|\r|\n", stream.decode("utf-8", "replace"))[:-1]:
        if not line:
            if data:
                dispatched.append((event_type or "message", "\n".join(data), last_id))
            data, event_type = [], ""
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            data.append(value)
        elif name == "event":
            event_type = value
        elif name == "id" and "\0" not in value:
            last_id = value
    return dispatched


class EncodeTests(SynchronousTestCase):
    def test_bytes(self) -> None:
        self.assertEqual(sse.encode(Event(7, ("d.t",), b"{}")), b"id: 7\ndata: {}\n\n")
        self.assertEqual(sse.encode(Event(7, ("d.t",), b"{}", type="gap")), b"id: 7\nevent: gap\ndata: {}\n\n")
        whole = Event(7, ("d.t",), b"{}", type="t", retry=1500, id="urn:x")
        self.assertEqual(sse.encode(whole), b"id: urn:x\nevent: t\nretry: 1500\ndata: {}\n\n")

    def test_all_line_ends_split(self) -> None:
        encoded = sse.encode_fields(b"a\r\nb\rc\nd\n\ne")
        self.assertEqual(receive(encoded), [("message", "a\nb\nc\nd\n\ne", "")])

    def test_leading_spaces_and_colons_survive(self) -> None:
        self.assertEqual(receive(sse.encode_fields(b"  : x")), [("message", "  : x", "")])

    def test_fields_cannot_be_forged(self) -> None:
        for bad in ("a\nb", "a\rb", "a\0b", "\n"):
            with self.assertRaises(ValueError):
                sse.encode_fields(b"", id=bad)
            with self.assertRaises(ValueError):
                sse.encode(Event(1, ("k",), b"", type=bad))
            with self.assertRaises(ValueError):
                sse.comment(bad)

    @given(st.text(alphabet=st.characters(exclude_categories=["Cs"])), st.integers(0, 2**64 - 1))
    def test_whatever_the_data_one_event_arrives(self, text: str, offset: int) -> None:
        encoded = sse.comment("x") + sse.encode(Event(offset, ("k",), text.encode())) + sse.HEARTBEAT
        self.assertEqual(receive(encoded), [("message", re.sub("\r\n|\r", "\n", text), str(offset))])

    def test_comments_and_retry_dispatch_nothing(self) -> None:
        self.assertEqual(sse.retry(2.5), b"retry: 2500\n")
        self.assertEqual(receive(sse.retry(2.5) + sse.comment("hello") + sse.HEARTBEAT), [])

    def test_no_blank_line_but_behind_an_event(self) -> None:
        """Some receivers make an event of each, an empty one where there is no data."""
        for encoded in (sse.retry(2.5), sse.comment("hello"), sse.HEARTBEAT):
            self.assertTrue(encoded.endswith(b"\n"))
            self.assertNotIn(b"\n\n", encoded)


class LastEventIdTests(SynchronousTestCase):
    def test_good(self) -> None:
        self.assertIsNone(sse.parse_last_event_id(""))
        self.assertEqual(sse.parse_last_event_id("0"), 0)
        self.assertEqual(sse.parse_last_event_id(str(2**64 - 1)), 2**64 - 1)

    def test_bad(self) -> None:
        for text in ("-1", "1.0", "x", " 1", "1\n", "٣", "1" * 21, "urn:uuid:1"):
            with self.assertRaises(ValueError, msg=text):
                sse.parse_last_event_id(text)
