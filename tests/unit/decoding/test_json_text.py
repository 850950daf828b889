"""How much work JSON is, without reading it."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from amqprouter.decoding.json_text import COLLECTION, KEY, MAX_DEPTH, MAX_VALUES, is_deep, is_heavy, weight
from amqprouter.settings import LimitsSettings

MEGABYTE = 1 << 20
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def worked(value: object) -> int:
    """What reading a value takes: one for each, and more for keys, and for what has something in it."""
    if isinstance(value, dict):
        return 1 + sum(KEY + worked(inner) for inner in value.values()) + COLLECTION
    if isinstance(value, list):
        return 1 + sum(map(worked, value)) + COLLECTION
    return 1


def filled(unit: bytes) -> bytes:
    """A megabyte of this in an array."""
    return b"[" + b",".join([unit] * ((MEGABYTE - 2) // (len(unit) + 1))) + b"]"


class WeightTests(SynchronousTestCase):
    def test_the_limit_is_the_configuration_s(self) -> None:
        self.assertEqual(LimitsSettings().max_body_values, MAX_VALUES)

    def test_what_weighs_how_much(self) -> None:
        self.assertEqual([weight(body) for body in (b"1", b"[1,2]", b'{"a":1}', b"[{},{}]")], [1, 5, 7, 11])

    @given(values)
    def test_never_less_than_the_work(self, value: object) -> None:
        for text in (json.dumps(value), json.dumps(value, separators=(",", ":")), json.dumps(value, indent=1)):
            collections = text.count("[") + text.count("{")  # of which each but empty ones has a value without a comma
            self.assertLessEqual(worked(value), weight(text.encode()) + collections)

    def test_what_is_too_much(self) -> None:
        deep = b"[" + b",".join([b"[" * 60 + b"]" * 60] * 8000) + b"]"
        for body in (filled(b"{}"), filled(b"[]"), filled(b"1"), filled(b'{".":1}'), filled(b'{"a":{}}'), deep):
            self.assertTrue(is_heavy(body, MAX_VALUES), body[:20])

    def test_what_devices_really_send_is_not(self) -> None:
        readings = [{"t": 1_764_540_000 + n, "v": 20.5 + n / 7, "unit": "C"} for n in range(18_000)]
        times = [{"at": f"2026-11-30T12:{n % 60:02}:00Z", "v": n} for n in range(20_000)]
        for body in (json.dumps(readings), json.dumps(times), json.dumps(list(range(-80_000, 80_000)))):
            self.assertFalse(is_heavy(body.encode(), MAX_VALUES), body[:60])
        self.assertFalse(is_heavy(b'"' + b"x" * MEGABYTE + b'"', MAX_VALUES))
        self.assertFalse(is_heavy(filled(b"20.5731"), MAX_VALUES))

    def test_a_short_body_is_not_even_looked_at(self) -> None:
        class Unseen(bytes):
            def count(self, *arguments: object) -> int:
                raise AssertionError("looked at")

        self.assertFalse(is_heavy(Unseen(b"{}" * 1000), MAX_VALUES))
        self.assertRaises(AssertionError, is_heavy, Unseen(b"{}" * MEGABYTE), MAX_VALUES)


class DepthTests(SynchronousTestCase):
    def test_depth(self) -> None:
        for inner in ([], {}, [1], {"a": 1}):
            value: object = inner
            for _ in range(MAX_DEPTH - 1):
                value = [1, value]
            self.assertFalse(is_deep(value))
            self.assertTrue(is_deep([value]))
            self.assertTrue(is_deep({"a": {}, "b": value}))
        plain: tuple[object, ...] = (1, "[" * 100, [], {}, [[]] * 1000)
        for value in plain:
            self.assertFalse(is_deep(value))
