"""JSON bodies are read strictly."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from amqprouter.errors import Unstorable
from amqprouter.pipeline.json_text import MAX_DEPTH
from amqprouter.storage.json_body import decode
from amqprouter.storage.keys import unescaped

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def with_keys_unescaped(value: object) -> object:
    if isinstance(value, dict):
        return {unescaped(key): with_keys_unescaped(inner) for key, inner in value.items()}
    return [with_keys_unescaped(inner) for inner in value] if isinstance(value, list) else value


class JsonBodyTests(SynchronousTestCase):
    def assertRefused(self, body: bytes, reason: str = "bad-json") -> None:
        with self.assertRaises(Unstorable, msg=repr(body[:60])) as caught:
            decode(body, max_values=10_000_000)
        self.assertEqual(caught.exception.reason, reason)

    @given(values)
    def test_whatever_json_says_comes_back(self, value: object) -> None:
        self.assertEqual(with_keys_unescaped(decode(json.dumps(value).encode())), value)
        self.assertEqual(with_keys_unescaped(decode(json.dumps(value, ensure_ascii=False).encode())), value)

    def test_what_is_not_strict_json(self) -> None:
        for body in (
            b"",
            b"{",
            b'{"a":1} x',
            b"{'a':1}",
            b'{"a":1,}',
            b"NaN",
            b'{"a":Infinity}',
            b"[-Infinity]",
            b'{"a":1,"a":2}',
            b'{"a":1,"\\u0061":2}',
            b'{"x":[{"a":1,"a":1}]}',
            b'{"a":"\xff"}',
            b'\xef\xbb\xbf{"a":1}',
            '{"a":1}'.encode("utf-16"),
            b'{"a":"\n"}',
            b"9" * 5000,
        ):
            self.assertRefused(body)

    def test_numbers_beyond_a_double(self) -> None:
        for body in (b"1e400", b"-1e400", b"[1E309]", b'{"a":{"b":1.8e308}}', b"9" * 400 + b".0", b"[1e0400]"):
            self.assertRefused(body, "number-too-large")
        self.assertEqual(decode(b"[1.7e308,-1e-400,1e1]"), [1.7e308, -0.0, 10.0])

    def test_nesting_up_to_the_bound(self) -> None:
        for opening, closing in ((b"[", b"]"), (b'{"a":', b"}")):
            middle = b"1" if opening != b"[" else b""
            self.assertTrue(decode(opening * MAX_DEPTH + middle + closing * MAX_DEPTH))
            for depth in (MAX_DEPTH + 1, 500, 200_000):
                self.assertRefused(opening * depth + middle + closing * depth, "json-too-deep")

    def test_what_would_take_too_long(self) -> None:
        for body in (b"[" + b"{}," * 100 + b"1]", b"[" + b"1," * 400 + b"1]", b'{"a":1' + b',"b":2' * 100 + b"}"):
            with self.assertRaises(Unstorable) as caught:
                decode(body, max_values=400)
            self.assertEqual(caught.exception.reason, "too-many-values")
        self.assertEqual(len(decode(b"[" + b"1," * 390 + b"1]", max_values=400)), 391)  # type: ignore[arg-type]

    def test_many_brackets_beside_one_another_are_not_deep(self) -> None:
        body = b"[" + b",".join([b"[{}]"] * 500) + b"]"
        self.assertEqual(decode(body), [[{}]] * 500)

    def test_keys_are_escaped_at_every_level(self) -> None:
        self.assertEqual(decode(b'[{"$where":{"a.b":1,"\\u0000":"a.b"}}]'), [{"%24where": {"a%2Eb": 1, "%00": "a.b"}}])
