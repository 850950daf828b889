"""Field tables, every type, against pamqp where it agrees with RabbitMQ; malformed ones only raise ValueError."""

from __future__ import annotations

import struct
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from pamqp import decode as pamqp_decode
from pamqp import encode as pamqp_encode
from twisted.trial.unittest import SynchronousTestCase

from amqprouter.amqp import field_table
from amqprouter.amqp.field_table import MAX_DEPTH, FieldValue
from amqprouter.errors import Unencodable

NAMES = st.text(max_size=31)  # pamqp cuts names at 128 bytes
TIMES = st.integers(0, 2**32 - 1).map(lambda seconds: datetime.fromtimestamp(seconds, timezone.utc))
DECIMALS = st.builds(lambda unscaled, scale: Decimal(unscaled).scaleb(-scale), st.integers(0, 2**31 - 1), st.just(2))
SCALARS: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.text(max_size=20),
    st.binary(max_size=20),
    TIMES,
    DECIMALS,
)


def trees(scalars: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.recursive(
        scalars,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
        max_leaves=12,
    )


VALUES = trees(SCALARS)
PAMQP_VALUES = trees(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1).filter(lambda number: not -128 <= number < 0)  # pamqp 3 fails on these
    | st.floats(width=32, allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
    | st.binary(max_size=20).map(bytearray)
    | TIMES
)
TABLES = st.dictionaries(NAMES, VALUES, max_size=5)

# One value of each type letter as it is on the wire, and what it means (RabbitMQ's errata, section 3).
EVERY_TYPE: dict[str, tuple[bytes, FieldValue]] = {
    "boolean": (b"t\x01", True),
    "signed 8": (b"b\xff", -1),
    "unsigned 8": (b"B\xff", 255),
    "signed 16": (b"s\xff\xfe", -2),
    "unsigned 16": (b"u\xff\xfe", 65534),
    "signed 32": (b"I\xff\xff\xff\xfd", -3),
    "unsigned 32": (b"i\xff\xff\xff\xfd", 2**32 - 3),
    "signed 64": (b"l" + b"\xff" * 7 + b"\xfc", -4),
    "float": (b"f\x3f\x80\x00\x00", 1.0),
    "double": (b"d\xc0\x04" + bytes(6), -2.5),
    "decimal": (b"D\x02\x00\x00\x04\xd2", Decimal("12.34")),
    "text": (b"S\x00\x00\x00\x03\xe2\x82\xac", "€"),
    "text that is not UTF-8": (b"S\x00\x00\x00\x02\xff\xfe", b"\xff\xfe"),
    "array": (b"A\x00\x00\x00\x04B\x01B\x02", [1, 2]),
    "empty array": (b"A\x00\x00\x00\x00", []),
    "time": (b"T\x00\x00\x00\x00\x5f\x00\x00\x00", datetime(2020, 7, 4, 4, 5, 20, tzinfo=timezone.utc)),
    "table": (b"F\x00\x00\x00\x07\x01aS\x00\x00\x00\x00", {"a": ""}),
    "void": (b"V", None),
    "bytes": (b"x\x00\x00\x00\x02\x00\xff", b"\x00\xff"),
}


def content(table: bytes) -> bytes:
    """A table's content without the length in front."""
    return table[4:]


def same(value: Any) -> Any:
    """A value of pamqp's as ours: it gives bytearrays for binary values."""
    if isinstance(value, dict):
        return {name: same(item) for name, item in value.items()}
    if isinstance(value, list):
        return [same(item) for item in value]
    return bytes(value) if isinstance(value, bytearray) else value


def nested(depth: int) -> bytes:
    """That many arrays, each in the one before."""
    value = b"V"
    for _ in range(depth):
        value = b"A" + struct.pack(">I", len(value)) + value
    return value


class DecodingTests(SynchronousTestCase):
    def test_every_type(self) -> None:
        """Each means what the errata say, pamqp agrees, and in a table the walk ends where the decoding does."""
        for name, (raw, meaning) in EVERY_TYPE.items():
            with self.subTest(name):
                self.assertEqual(field_table.decode_value(raw, 0, len(raw)), (meaning, len(raw)))
                self.assertEqual(same(pamqp_decode.embedded_value(raw)[1]), meaning)
                entry = b"\x04name" + raw
                self.assertEqual(field_table.entries(entry, 0, len(entry)), [entry])
                self.assertEqual(field_table.decode(entry, 0, len(entry)), {"name": meaning})
                self.assertEqual(field_table.find(entry, 0, len(entry), b"name"), 5)

    def test_where_pamqp_is_wrong(self) -> None:
        """``L`` is unsigned, decimals are signed, and times are seconds however large."""
        for raw, meaning in (
            (b"L" + b"\xff" * 8, 2**64 - 1),
            (b"D\x01\xff\xff\xff\xff", Decimal("-0.1")),
            (b"D\xff\x00\x00\x00\x01", Decimal(1).scaleb(-255)),
            (b"T" + b"\xff" * 8, 2**64 - 1),
            (b"T\x00\x00\x00\x3a\xff\xf4\x41\x7f", datetime(9999, 12, 31, 23, 59, 59, tzinfo=timezone.utc)),
        ):
            self.assertEqual(field_table.decode_value(raw, 0, len(raw)), (meaning, len(raw)))

    def test_not_a_number(self) -> None:
        raw = b"d\x7f\xf8" + bytes(6)
        value, _ = field_table.decode_value(raw, 0, len(raw))
        self.assertNotEqual(value, value)

    def test_the_first_of_one_name_counts(self) -> None:
        """As in RabbitMQ (rabbit_misc:table_lookup), and as `find` answers: nobody is told two stories."""
        raw = b"\x01aB\x01" + b"\x01aB\x02"
        self.assertEqual(field_table.decode(raw, 0, len(raw)), {"a": 1})
        self.assertEqual(field_table.find(raw, 0, len(raw), b"a"), 2)

    def test_names_that_are_not_text(self) -> None:
        raw = b"\x02\xffaV"
        self.assertEqual(field_table.decode(raw, 0, len(raw)), {"\\xffa": None})

    def test_depth(self) -> None:
        """The limit holds for what comes in, well before Python's own."""
        field_table.decode_value(nested(MAX_DEPTH), 0, len(nested(MAX_DEPTH)))
        for depth in (MAX_DEPTH + 1, 10_000):
            raw = nested(depth)
            self.assertRaises(ValueError, field_table.decode_value, raw, 0, len(raw))

    def test_malformed(self) -> None:
        for name, raw in {
            "unknown type": b"\x01aZ\x00",
            "no value": b"\x01a",
            "name runs past the end": b"\x05a",
            "only a length": b"\x00",
            "text runs past the end": b"\x01aS\x00\x00\x00\x02x",
            "huge text": b"\x01aS\xff\xff\xff\xffx",
            "truncated length": b"\x01aS\x00\x00",
            "truncated integer": b"\x01al\x00",
            "array item runs past its array": b"\x01aA\x00\x00\x00\x02l\x00" + bytes(7),
            "table entry runs past its table": b"\x01aF\x00\x00\x00\x04\x01bl\x00" + bytes(7),
        }.items():
            with self.subTest(name):
                self.assertRaises(ValueError, field_table.decode, raw, 0, len(raw))

    @given(st.binary(max_size=80), st.integers(0, 5))
    @settings(max_examples=300, deadline=None)
    def test_noise(self, raw: bytes, beyond: int) -> None:
        """Whatever comes in, nothing but ValueError goes out, and nothing behind the end is looked at."""
        data = raw + bytes(beyond)
        try:
            walked = [field_table.entry_name(entry) for entry in field_table.entries(data, 0, len(raw))]
        except ValueError:
            self.assertRaises(ValueError, field_table.decode, data, 0, len(raw))
            return
        for name in walked:
            position = field_table.find(data, 0, len(raw), name)
            field_table.string_bytes(data, position, len(raw))
        try:
            decoded = field_table.decode(data, 0, len(raw))
        except ValueError:
            return  # a nested table is malformed, which a walk does not see
        self.assertEqual(set(decoded), {name.decode("utf-8", "backslashreplace") for name in walked})

    @given(TABLES, st.data())
    @settings(max_examples=150, deadline=None)
    def test_damage(self, table: dict[str, Any], data: st.DataObject) -> None:
        raw = bytearray(content(field_table.encode(table)) + b"\x01aV")
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
        cut = bytes(raw[: data.draw(st.integers(0, len(raw)))])
        try:
            field_table.decode(cut, 0, len(cut))
        except ValueError as error:
            self.assertTrue(str(error))


class EncodingTests(SynchronousTestCase):
    @given(TABLES)
    @settings(max_examples=150, deadline=None)
    def test_round_trip_and_pamqp(self, table: dict[str, Any]) -> None:
        raw = field_table.encode(table)
        self.assertEqual(field_table.decode(raw, 4, len(raw)), table)
        used, theirs = pamqp_decode.field_table(raw)
        self.assertEqual((used, same(theirs)), (len(raw), table))

    @given(st.dictionaries(NAMES, PAMQP_VALUES, max_size=5))
    @settings(max_examples=150, deadline=None)
    def test_we_read_what_pamqp_writes(self, table: dict[str, Any]) -> None:
        raw = pamqp_encode.field_table(table)
        self.assertEqual(field_table.decode(raw, 4, len(raw)), same(pamqp_decode.field_table(raw)[1]))

    @given(TABLES)
    @settings(max_examples=100, deadline=None)
    def test_a_walk_agrees_with_decoding(self, table: dict[str, Any]) -> None:
        raw = content(field_table.encode(table))
        walked = field_table.entries(raw, 0, len(raw))
        names = [field_table.entry_name(entry) for entry in walked]
        self.assertEqual([name.decode() for name in names], list(table))
        self.assertEqual(b"".join(walked), raw)
        for name, entry in zip(names, walked, strict=True):
            value = field_table.find(raw, 0, len(raw), name)
            self.assertEqual(raw[value - 1 - len(name) : value - 1 - len(name) + len(entry)], entry)
            decoded = field_table.decode_value(entry, 1 + len(name), len(entry))
            self.assertEqual(decoded, (table[name.decode()], len(entry)))

    def test_integers_take_the_smallest_type(self) -> None:
        for value, letter in ((0, b"I"), (-(2**31), b"I"), (2**31, b"l"), (-(2**63), b"l"), (2**63, b"L")):
            self.assertEqual(field_table.encode_value(value)[:1], letter)

    def test_a_time_zone_is_heeded(self) -> None:
        east = datetime(2020, 1, 1, 2, tzinfo=timezone(timedelta(hours=2)))
        self.assertEqual(field_table.encode_value(east), b"T" + struct.pack(">Q", 1577836800))

    def test_unencodable(self) -> None:
        deep: Any = None
        for _ in range(MAX_DEPTH + 1):
            deep = [deep]
        values: dict[str, Any] = {
            "too large": 2**64,
            "too small": -(2**63) - 1,
            "lone surrogate": "\ud800",
            "no AMQP type": object(),
            "a set": {1},
            "infinite decimal": Decimal("Infinity"),
            "long decimal": Decimal("12345678901"),
            "very long decimal": Decimal("1" * 5000),
            "huge decimal": Decimal("1E+999999"),
            "fine decimal": Decimal("1E-256"),
            "before 1970": datetime(1969, 12, 31, tzinfo=timezone.utc),
            "before any time zone": datetime(1, 1, 1),  # noqa: DTZ001 - naive is the point
            "deep": deep,
            "inside": {"a": [object()]},
            "a name that is not text": {1: 2},
            "a long name inside": {"é" * 128: None},
            "a name with a lone surrogate": {"\ud800": None},
        }
        for name, value in values.items():
            with self.subTest(name):
                self.assertRaises(Unencodable, field_table.encode_value, value)

    def test_what_pamqp_decodes_can_be_encoded(self) -> None:
        self.assertEqual(field_table.encode_value(bytearray(b"a")), b"x\x00\x00\x00\x01a")  # type: ignore[arg-type]
