"""Message properties: read lazily, spliced byte for byte, and against pamqp."""

from __future__ import annotations

from datetime import datetime, timezone
from hashlib import blake2s
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from pamqp import commands, header
from twisted.trial.unittest import SynchronousTestCase

from amqprouter.amqp import field_table
from amqprouter.amqp.properties import NAMES, Front, Properties, encode_properties, flag_mask
from amqprouter.errors import Unencodable
from tests.fuzz.fuzz_wire import check_properties

TEXT = st.text(min_size=1, max_size=63)
STRINGS = [name for name in NAMES if name not in ("headers", "delivery_mode", "priority", "timestamp")]
HEADERS: st.SearchStrategy[dict[str, Any]] = st.dictionaries(
    st.text(max_size=31), st.text(max_size=20) | st.integers(0, 2**31 - 1) | st.booleans(), min_size=1, max_size=4
)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    **{name: TEXT for name in STRINGS if name != "cluster_id"},  # pamqp's takes only the empty one
    "headers": HEADERS,
    "delivery_mode": st.sampled_from([1, 2]),
    "priority": st.integers(0, 255),
    "timestamp": st.integers(0, 2**32 - 1).map(lambda seconds: datetime.fromtimestamp(seconds, timezone.utc)),
}
ANY: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries({}, optional=VALUES)

_PAMQPS = {"type": "message_type"}


def by_pamqp(values: dict[str, Any]) -> bytes:
    """The bytes of these properties, from the flags on."""
    renamed = {_PAMQPS.get(name, name): value for name, value in values.items()}
    return bytes(header.ContentHeader(0, 0, commands.Basic.Properties(**renamed)).marshal()[12:])


def read_by_pamqp(raw: bytes) -> dict[str, Any]:
    """What pamqp reads in these bytes."""
    head = header.ContentHeader()
    head.unmarshal(b"\x00\x3c\x00\x00" + bytes(8) + raw)
    ours = {name: ours for ours, name in _PAMQPS.items()}
    return {ours.get(name, name): value for name, value in head.properties if value is not None and value != ""}


class ReadingTests(SynchronousTestCase):
    @given(ANY)
    @settings(max_examples=150, deadline=None)
    def test_every_reader(self, values: dict[str, Any]) -> None:
        raw = by_pamqp(values)
        properties = Properties(raw)
        for name in STRINGS:
            self.assertEqual(properties.text(name), values.get(name))
            text = values.get(name)
            self.assertEqual(properties.raw_text(name), None if text is None else text.encode())
        self.assertEqual(properties.content_type, values.get("content_type"))
        self.assertEqual(properties.message_id, values.get("message_id"))
        sent = values.get("timestamp")
        self.assertEqual(properties.timestamp, None if sent is None else int(sent.timestamp()))
        headers = values.get("headers", {})
        self.assertEqual(properties.headers, headers)
        self.assertEqual(properties.header_count(), len(headers))
        for name, value in headers.items():
            self.assertEqual(properties.header(name.encode()), value)
            expected = value.encode() if isinstance(value, str) else b""
            self.assertEqual(properties.raw_header(name.encode()), expected)
        self.assertIsNone(properties.header(b"not there"))
        self.assertIsNone(properties.raw_header(b"not there"))

    def test_none_at_all(self) -> None:
        self.assertEqual(Properties().headers, {})
        self.assertIsNone(Properties().message_id)
        self.assertEqual(Properties().spliced(0xFFFF, frozenset(), b""), b"\x00\x00")

    def test_text_that_is_not_utf_8(self) -> None:
        """It is shown escaped, so that two different ones never look the same by accident of a replacement."""
        raw = b"\x00\x80\x02\xffa"
        self.assertEqual(Properties(raw).message_id, "\\xffa")
        self.assertEqual(Properties(raw).raw_text("message_id"), b"\xffa")

    def test_malformed(self) -> None:
        good = by_pamqp({"content_type": "a", "headers": {"k": "v"}, "delivery_mode": 2, "timestamp": None})
        for name, raw in {
            "nothing": b"",
            "half the flags": b"\x80",
            "continued flags": b"\x80\x01\x01a",
            "unused flag": b"\x80\x02\x01a",
            "more behind": good + b"\x00",
            "truncated": good[:-1],
            "truncated table length": b"\x20\x00\x00\x00",
            "table runs past the end": b"\x20\x00\x00\x00\x00\x09\x01aV",
            "string runs past the end": b"\x80\x00\x05abc",
            "truncated timestamp": b"\x00\x40\x00",
        }.items():
            with self.subTest(name):
                self.assertRaises(ValueError, Properties(raw).spans)
                self.assertRaises(ValueError, getattr, Properties(raw), "headers")
                self.assertRaises(ValueError, getattr, Properties(raw), "timestamp")
                self.assertRaises(ValueError, Properties(raw).header, b"k")
                self.assertRaises(ValueError, Properties(raw).raw_header, b"k")
                self.assertRaises(ValueError, Properties(raw).text, "message_id")
                self.assertRaises(ValueError, Properties(raw).spliced, 0, frozenset((b"k",)), b"")

    @given(ANY)
    @settings(max_examples=200, deadline=None)
    def test_id_and_time_of_a_known_front(self, values: dict[str, Any]) -> None:
        properties = Properties(by_pamqp(values))
        found = Front(properties, blake2s(key=b"k")).id_and_time(properties.raw)
        self.assertEqual(found, (properties.raw_text("message_id") or b"", properties.timestamp))

    @given(st.binary(max_size=80))
    @settings(max_examples=200, deadline=None)
    def test_noise(self, raw: bytes) -> None:
        check_properties(raw)

    @given(ANY, st.data())
    @settings(max_examples=150, deadline=None)
    def test_damage(self, values: dict[str, Any], data: st.DataObject) -> None:
        raw = bytearray(by_pamqp(values))
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
        check_properties(bytes(raw))


class SplicingTests(SynchronousTestCase):
    @given(ANY, st.sets(st.sampled_from(NAMES)), HEADERS, st.data())
    @settings(max_examples=200, deadline=None)
    def test_the_rest_stays(
        self, values: dict[str, Any], drop: set[str], added: dict[str, Any], data: st.DataObject
    ) -> None:
        """What is neither dropped nor added is there, in the same bytes; ``headers`` goes by header, not as a whole."""
        raw = by_pamqp(values)
        mine: dict[str, Any] = values.get("headers", {})
        dropped = data.draw(st.sets(st.sampled_from(sorted(mine)))) if mine else set()
        add = {name: value for name, value in added.items() if name not in mine}
        entries = b"".join(field_table.encode_entry(name, value) for name, value in add.items())
        drop.discard("headers")
        spliced = Properties(raw).spliced(flag_mask(*drop), frozenset(n.encode() for n in dropped), entries)

        kept = {name: value for name, value in values.items() if name not in drop}
        kept["headers"] = {n: v for n, v in mine.items() if n not in dropped} | add
        if not kept["headers"]:
            del kept["headers"]
        self.assertEqual(read_by_pamqp(spliced), kept)
        before, after = Properties(raw), Properties(spliced)
        for index, (start, end) in before.spans().items():
            name = NAMES[index]
            if name != "headers" and name not in drop:
                there = after.spans()[index]
                self.assertEqual(spliced[slice(*there)], raw[start:end])

    def test_types_that_we_would_write_otherwise(self) -> None:
        """A header that stays keeps its type letter, even one that no decoder of ours need know the meaning of."""
        content = b"\x01as\x00\x01" + b"\x04goneV" + b"\x01bf\x3f\x80\x00\x00" + b"\x01ci\xff\xff\xff\xff"
        raw = b"\x20\x00" + len(content).to_bytes(4, "big") + content
        kept = content.replace(b"\x04goneV", b"") + b"\x01zV"
        spliced = Properties(raw).spliced(0, frozenset((b"gone",)), b"\x01zV")
        self.assertEqual(spliced, b"\x20\x00" + len(kept).to_bytes(4, "big") + kept)

    def test_nothing_to_do_changes_nothing(self) -> None:
        raw = by_pamqp({"headers": {"a": 1}, "message_id": "1", "content_type": "t"})
        self.assertEqual(Properties(raw).spliced(flag_mask("user_id"), frozenset((b"gone",)), b""), raw)

    def test_every_copy_of_a_dropped_header_goes(self) -> None:
        content = b"\x01aV" * 3 + b"\x01bV"
        raw = b"\x20\x00" + len(content).to_bytes(4, "big") + content
        self.assertEqual(Properties(raw).spliced(0, frozenset((b"a",)), b""), b"\x20\x00\x00\x00\x00\x03\x01bV")

    def test_the_first_of_one_name_counts_for_every_reader(self) -> None:
        content = b"\x01aS\x00\x00\x00\x011" + b"\x01aS\x00\x00\x00\x012"
        properties = Properties(b"\x20\x00" + len(content).to_bytes(4, "big") + content)
        self.assertEqual(
            (properties.header(b"a"), properties.raw_header(b"a"), properties.headers), ("1", b"1", {"a": "1"})
        )


class EncodingTests(SynchronousTestCase):
    @given(
        st.fixed_dictionaries(
            {},
            optional={
                "content_type": TEXT,
                "headers": HEADERS,
                "delivery_mode": st.sampled_from([1, 2]),
                "message_id": TEXT,
                "correlation_id": TEXT,
                "timestamp": st.integers(0, 2**32 - 1),
                "type": TEXT,
                "user_id": TEXT,
                "app_id": TEXT,
            },
        )
    )
    @settings(max_examples=100, deadline=None)
    def test_pamqp_reads_it(self, values: dict[str, Any]) -> None:
        expected = {"delivery_mode": 2} | values
        if "timestamp" in values:
            expected["timestamp"] = datetime.fromtimestamp(values["timestamp"], timezone.utc)
        self.assertEqual(read_by_pamqp(encode_properties(**values)), expected)

    def test_bad_values(self) -> None:
        self.assertRaises(ValueError, encode_properties, message_id="é" * 128)
        self.assertRaises(Unencodable, encode_properties, headers={"a": 2**64})
        self.assertRaises(Unencodable, encode_properties, headers={"a" * 256: None})
