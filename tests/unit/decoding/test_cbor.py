"""CBOR: what each of its values becomes, and what is refused before it takes time."""

from __future__ import annotations

import contextlib
import itertools
import math
import time
from datetime import datetime, timezone
from decimal import Decimal
from typing import Any

import cbor2
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from amqprouter.decoding.cbor import MAX_ANY_KEYS, make
from amqprouter.decoding.json_text import MAX_VALUES
from amqprouter.errors import Undecodable
from amqprouter.interfaces import BodyInfo

INFO = BodyInfo("dev1", "up.x", "dev1.up.x", None, 1.0)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=15,
)


def decoded(body: bytes, max_values: int = MAX_VALUES) -> Any:
    made: Any = make("cbor", max_values).decode(body, INFO)
    return made.value


class CborTestCase(SynchronousTestCase):
    def reason(self, body: bytes | str, **options: Any) -> str:
        raw = bytes.fromhex(body) if isinstance(body, str) else body
        with self.assertRaises(Undecodable, msg=body) as caught:
            decoded(raw, **options)
        return str(caught.exception.reason)


class ValueTests(CborTestCase):
    @given(values)
    def test_what_json_has_too(self, value: Any) -> None:
        self.assertEqual(repr(decoded(cbor2.dumps(value))), repr(value))

    def test_by_rule(self) -> None:
        when = datetime(2025, 4, 16, 19, 7, 44, tzinfo=timezone.utc)
        for body, expected in (
            ("1bffffffffffffffff", Decimal(2**64 - 1)),
            ("3bffffffffffffffff", Decimal(-(2**64))),
            ("c249010000000000000000", Decimal(2**64)),
            ("c349010000000000000000", Decimal(-(2**64) - 1)),
            ("c24105", 5),
            ("c1 1a 68000000", when),
            ("c0 74 323032352d30342d31365431393a30373a34345a", when),
            ("d8 64 19 4000", "2014-11-10"),
            ("d9 03ec 6a 323032362d30312d3031", "2026-01-01"),
            ("c4 82 21 19 6ab3", Decimal("273.15")),
            ("c5 82 20 03", Decimal("1.5")),
            ("f7", None),
            ("82 f7 01", [None, 1]),
            ("d825 50 00000000000000000000000000000007", "00000000-0000-0000-0000-000000000007"),
            ("d834 44 7f000001", "127.0.0.1"),
            ("d820 61 61", "a"),  # a tag that only says what the text is
            ("d812 81 a1 61 61 80", [{"a": []}]),  # inside of a tag cbor2's types are immutable
            ("d9d9f7 a1 61 61 81 a0", {"a": [{}]}),
            ("81 d9d9f7 a1 61 61 80", [{"a": []}]),
            ("9f 01 ff", [1]),
            ("5f 41 01 41 02 ff", b"\1\2"),
        ):
            made = decoded(bytes.fromhex(body))
            self.assertEqual((made, type(made)), (expected, type(expected)), body)

    def test_keys_that_are_no_text(self) -> None:
        self.assertEqual(
            decoded(bytes.fromhex("a4 01 00 20 01 f6 02 f9 3e00 03")), {"1": 0, "-1": 1, "null": 2, "1.5": 3}
        )
        self.assertEqual(decoded(bytes.fromhex("a1 f5 00")), {"true": 0})
        for body in ("a1 41 61 00", "a1 80 00", "a1 81 01 00", "a1 a0 00"):
            self.assertEqual(self.reason(body), "bad-key")
        self.assertEqual(self.reason("a2 01 00 61 31 00"), "bad-key")  # 1 and "1"
        self.assertEqual(self.reason("a2 01 00 f5 00"), "bad-cbor")  # 1 and true are one key to cbor2

    def test_floats_keep_what_they_are(self) -> None:
        self.assertTrue(math.isnan(decoded(bytes.fromhex("f97e00"))))
        self.assertEqual(math.copysign(1, decoded(bytes.fromhex("f98000"))), -1)


class RefusalTests(CborTestCase):
    def test_by_rule(self) -> None:
        for body, reason in (
            ("", "bad-cbor"),
            ("ff", "bad-cbor"),
            ("1c", "bad-cbor"),
            ("01 02", "bad-cbor"),
            ("62 61", "bad-cbor"),
            ("62 ffff", "bad-cbor"),
            ("a2 61 61 01 61 61 02", "bad-cbor"),
            ("bb ffffffffffffffff", "bad-cbor"),
            ("9b 0000010000000000 00", "bad-cbor"),
            ("c1 fb 7ff8000000000000", "bad-cbor"),
            ("c1 1b ffffffffffffffff", "bad-cbor"),
            ("c0 61 61", "bad-cbor"),
            ("c2 61 61", "bad-cbor"),
            ("d8 64 1b 7fffffffffffffff", "bad-cbor"),
            ("c4 82 1b 7fffffffffffffff 01", "bad-cbor"),
            ("c4 82 1a 000fffff 01", "number-too-large"),
            ("c5 82 1a 3fffffff 01", "bad-cbor"),
            ("c2 51 01" + "00" * 16, "integer-too-large"),
            ("c2 50 ff" + "00" * 15, "integer-too-large"),
            ("d8 1e 82 01 02", "no-such-value"),
            ("d8 23 61 61", "no-such-value"),
            ("d8 24 61 61", "no-such-value"),
            ("d9 0102 81 01", "no-such-value"),
            ("d9 a7f8 82 01 02", "no-such-value"),
            ("d8 1c 81 01", "no-such-value"),
            ("d8 1c 81 d8 1d 00", "no-such-value"),
            ("d9 0100 81 61 61", "no-such-value"),
            ("e0", "no-such-value"),
            ("f8 ff", "no-such-value"),
        ):
            self.assertEqual(self.reason(body), reason, body)

    def test_depth(self) -> None:
        self.assertIsInstance(decoded(b"\x81" * 64 + b"\x00"), list)
        self.assertIn(self.reason(b"\x81" * 65 + b"\x00"), ("bad-cbor", "too-deep"))
        self.assertEqual(self.reason(b"\x81" * 70_000), "bad-cbor")

    @given(st.binary(max_size=40))
    def test_anything_is_a_value_or_refused(self, body: bytes) -> None:
        with contextlib.suppress(Undecodable):
            decoded(body)


class WorkTests(CborTestCase):
    def quick(self, body: bytes, reason: str) -> None:
        begun = time.process_time()
        self.assertEqual(self.reason(body), reason)
        self.assertLess(time.process_time() - begun, 1.0)  # the slow ones take 7 s and more

    def test_many_values(self) -> None:
        self.assertEqual(self.reason(b"\x9a\x00\x04\x93\xe0" + bytes(300_000)), "too-many-values")
        self.assertEqual(self.reason(b"\x9a\x00\x01\x86\xa0" + b"\x80" * 100_000), "too-many-values")
        self.assertEqual(self.reason(b"\x98\x64" + bytes(100), max_values=50), "too-many-values")
        text = b"\x7a\x00\x03\xd0\x90" + b"x" * 250_000
        self.assertEqual(len(decoded(text)), 250_000)

    def test_keys_with_one_hash(self) -> None:
        """In Python -1 and -2 have the same hash, and so have all tuples of them."""
        keys = [b"\x8d" + bytes(key) for key in itertools.product((0x20, 0x21), repeat=13)]
        self.quick(b"\xb9\x20\x00" + b"".join(key + b"\x00" for key in keys), "bad-cbor")
        few = keys[: MAX_ANY_KEYS // 20]
        self.quick(b"\xb9" + len(few).to_bytes(2, "big") + b"".join(key + b"\x00" for key in few), "bad-key")

    def test_long_integers(self) -> None:
        long = b"\xc2\x5a\x00\x03\x00\x00" + b"\xff" * 0x30000
        self.quick(long, "integer-too-large")
        self.quick(b"\xc4\x82\x00" + long, "integer-too-large")
        self.quick(b"\xd8\x1e\x82" + long + b"\x01", "integer-too-large")
