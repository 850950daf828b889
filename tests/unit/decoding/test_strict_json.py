"""Strict JSON: the fast way and the slow one say the same."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from amqprouter.decoding import strict_json
from amqprouter.decoding.json_text import MAX_DEPTH
from amqprouter.decoding.strict_json import parse, parse_guessing
from amqprouter.errors import Undecodable

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text('a":\\{}[],é\ud800 ', max_size=4)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text('ab:"\\', max_size=2), inner, max_size=4),
    max_leaves=20,
)


def mutated(text: bytes, place: int, change: bytes) -> bytes:
    place %= len(text) + 1
    return text[:place] + change + text[place + len(change) // 2 :]


bodies = (
    values.map(lambda value: json.dumps(value).encode())
    | st.builds(
        mutated,
        values.map(lambda value: json.dumps(value).encode()),
        st.integers(0, 400),
        st.sampled_from(
            [b'"', b":", b",", b"{", b"}", b"[", b"]", b"1e400", b"NaN", b"\xff", b"99", b'{"a":1,"a":2}', b"\0"]
        ),
    )
    | st.binary(max_size=10)
)


def outcome(read: Any, body: bytes) -> Any:
    try:
        return repr(read(body))
    except Undecodable as problem:
        return problem.reason


class StrictTests(SynchronousTestCase):
    def reason(self, body: bytes, **options: Any) -> str:
        with self.assertRaises(Undecodable) as caught:
            parse(body, **options)
        return str(caught.exception.reason)

    @given(bodies)
    @example(b'{"a":":","a":1}')
    @example(b'{"a":{"b":1,"b":2}}')
    @example(b"[18446744073709551616]")
    @example(b'{"t":"12:30:00"}')
    def test_the_fast_way_is_the_slow_way(self, body: bytes) -> None:
        slow = outcome(strict_json._parse_slowly, body)
        self.assertEqual(outcome(parse, body), slow)
        guessed = outcome(parse_guessing, body)
        self.assertEqual(guessed[:1] in "bnijt", slow[:1] in "bnijt")

    def test_usual_bodies_go_the_fast_way(self) -> None:
        self.patch(strict_json, "_parse", None)
        for body in (b'{"t":21.5,"unit":"C","n":[1,2,{"x":null}]}', b"[]", b"7", b'{"a.b":1,"$c":{"%":2}}'):
            self.assertEqual(parse(body), json.loads(body))

    def test_refusals(self) -> None:
        for body, reason in (
            (b"", "bad-json"),
            (b'{"a":1,"a":2}', "bad-json"),
            (b"[NaN]", "bad-json"),
            (b"[-Infinity]", "bad-json"),
            (b"\xef\xbb\xbf{}", "bad-json"),
            (b"{}\0", "bad-json"),
            (b"{}\n{}", "bad-json"),
            ('{"a":"é"}'.encode("latin-1"), "bad-json"),
            (b"9" * 5000, "bad-json"),
            (b"9223372036854775808", "integer-too-large"),
            (b"-9223372036854775809", "integer-too-large"),
            (b"[1e309]", "number-too-large"),
            (b'["\\udfff"]', "bad-text"),
            (b'{"\\uD800":1}', "bad-text"),
            (b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), "json-too-deep"),
            (b"[" * 100_000, "json-too-deep"),
            (b"[" + b"{}," * 100_000 + b"1]", "too-many-values"),
        ):
            self.assertEqual(self.reason(body), reason, body[:40])
        self.assertEqual(self.reason(b"[1,2,3]", max_values=5), "too-many-values")

    def test_bounds(self) -> None:
        for body in (
            b"9223372036854775807",
            b"-9223372036854775808",
            b"1.7976931348623157e308",
            b"1234567890123456789",
        ):
            self.assertEqual(parse(body), json.loads(body))
        deep: Any = parse(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH)
        for _ in range(MAX_DEPTH - 1):
            (deep,) = deep
        self.assertEqual(deep, [])
