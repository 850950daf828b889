"""What the fuzzer does to messages, with hypothesis as the source of inputs."""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from amqprouter.amqp import field_table
from amqprouter.amqp.field_table import FieldValue
from amqprouter.errors import Unencodable
from tests.fuzz.fuzz_messages import MAX_VALUES, check_body, check_headers, check_selector, one_input

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text("ab.$%25\0") | st.text(), inner),
    max_leaves=20,
)
pieces = st.sampled_from(
    ["{", "}", "[", "]", ",", ":", '"a"', '"$"', '"%25."', "1", "-0.5e9", "9" * 20, "9" * 4400, "NaN", " ", '"\\ud800"']
)
headers = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.text()
    | st.binary()
    | st.decimals("-1", "1", places=3),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=20), inner),
    max_leaves=10,
)


class FuzzedMessageTests(SynchronousTestCase):
    @settings(deadline=None, max_examples=50)
    @given(st.binary(max_size=300))
    def test_noise(self, data: bytes) -> None:
        one_input(data)

    @settings(deadline=None, max_examples=50)
    @given(values, st.integers(0, 3), st.data())
    def test_bodies(self, value: object, damages: int, data: st.DataObject) -> None:
        body = bytearray(json.dumps(value, ensure_ascii=data.draw(st.booleans())).encode("utf-8", "surrogatepass"))
        for _ in range(damages):
            body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
        check_body(bytes(body))

    @settings(deadline=None, max_examples=50)
    @given(st.lists(pieces, max_size=20), st.integers(1, 60))
    def test_bodies_of_pieces(self, several: list[str], times: int) -> None:
        check_body(("".join(several) * times).encode())

    def test_bodies_about_the_bound(self) -> None:
        for unit, weighs in ((b"1", 1), (b"{}", 4), (b"[]", 4)):
            for count in range(MAX_VALUES // weighs - 2, MAX_VALUES // weighs + 2):
                check_body(b"[" + b",".join([unit] * count) + b"]")

    @settings(deadline=None, max_examples=50)
    @given(st.dictionaries(st.text(max_size=20) | st.sampled_from(["h", "CC", "x-death"]), headers), st.data())
    def test_headers(self, table: dict[str, FieldValue], data: st.DataObject) -> None:
        try:
            raw = bytearray(field_table.encode(table)[4:])
        except Unencodable:
            return
        for _ in range(data.draw(st.integers(0, 2)) if raw else 0):
            raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
        check_headers(bytes(raw))

    def test_headers_of_many_values(self) -> None:
        for value in (b"V", b"t\x01", b"A\0\0\0\0", b"F\0\0\0\0", b"D\x05\0\0\0\x01", b"S\0\0\0\x01\xff"):
            content = value * (32_000 // len(value))
            check_headers(b"\x01hA" + len(content).to_bytes(4, "big") + content)
        check_headers(b"\0V" * 16_000)

    @settings(deadline=None, max_examples=50)
    @given(st.lists(st.sampled_from(["{a}", "{/a*}", "{?b,c}", "{", "}", "%2f", "x", "/", "\n", "*", "é"])))
    def test_selectors(self, several: list[str]) -> None:
        check_selector("".join(several).encode())
