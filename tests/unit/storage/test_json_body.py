"""JSON bodies are read strictly."""

from __future__ import annotations

import itertools
import json
import random
import re

from bson import encode
from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from amqprouter.decoding.json_text import MAX_DEPTH
from amqprouter.errors import Unstorable
from amqprouter.storage import json_body
from amqprouter.storage.elements import elements
from amqprouter.storage.json_body import JsonBodies, decode
from amqprouter.storage.keys import unescaped
from benchmarks.store_traffic import SIZES, reading

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


NAMES = st.sampled_from([
    "a", "b", "t1", "t2", "t", "1", "-1", "", "a.b", "$a", "a$", "%2E", "50%",
    "t:1", "a:.b", "a.\\", ".:", 'q"', '":', "\\", "n\0", "é", "{",
])  # fmt: skip
TEXTS = st.sampled_from([
    "12:30", "2024-01-01T00:00:00.123+01:00", ":", '":', "a.b", ".", "}", "[", "\\", '"', "\0", "°C", "%"
])  # fmt: skip
NUMBERS = st.sampled_from([
    "0", "-0", "-0.0", "21.5", "1e5", "1E+2", "5e-324", "1e308", "1e309", "-1e400", "1" * 19, "9" * 20, "01"
])  # fmt: skip
ODD = st.sampled_from([
    "NaN", "Infinity", "-Infinity", "nul", "'a'", '"\\u003a"', '"\\u0022"', '"\\ud800"', '"\\ud83d\\ude00"', '"\\/"'
])  # fmt: skip
SPACES = st.sampled_from(["", "", " ", "\n", "\t", "\r "])


def written(name: str, is_ascii: bool) -> str:
    """A JSON text, in one of the ways in which it may be written."""
    return json.dumps(name, ensure_ascii=is_ascii)


texts = st.builds(written, TEXTS | st.text(max_size=8), st.booleans())
scalars = (
    NUMBERS | texts | st.sampled_from(["true", "false", "null"]) | st.floats().map(repr) | st.integers().map(str) | ODD
)


def _array(values: list[str], space: str) -> str:
    return f"[{space}{f'{space},'.join(values)}{space}]"


def _written_object(fields: list[tuple[str, str]], space: str) -> str:
    return f"{{{f',{space}'.join(f'{name}{space}:{space}{value}' for name, value in fields)}}}"


NUMERALS = st.text("0123456789-", max_size=3).map(str.encode)
names = st.builds(written, NAMES | st.text(max_size=3), st.booleans())
bodies = st.recursive(
    scalars,
    lambda inner: (
        st.builds(_array, st.lists(inner, max_size=4), SPACES)
        | st.builds(_written_object, st.lists(st.tuples(names, inner), max_size=4), SPACES)
    ),
    max_leaves=12,
)
"""JSON as anybody may write it: names that stand twice, or mean something; colons, brackets and quotes in texts."""


def outcome(body: bytes, reader: JsonBodies) -> bytes | str:
    try:
        return reader.encoded(body)
    except Unstorable as refusal:
        return str(refusal)


def strict_outcome(body: bytes, max_values: int) -> bytes | str:
    """What `JsonBodies.encoded` has to say, by `decode` alone."""
    try:
        return elements({"body": decode(body, max_values)})
    except Unstorable as refusal:
        return str(refusal)


class EncodedTests(SynchronousTestCase):
    """The fast way says what the strict one does, word for word and byte for byte."""

    def assertSame(self, body: bytes, max_values: int = 1000) -> None:
        reader, expected = JsonBodies(max_values), strict_outcome(body, max_values)
        for _ in range(3):  # the third time, its shape may be known
            self.assertEqual(outcome(body, reader), expected, body[:200])

    def only_fast(self) -> None:
        """Have the strict way fail the test if it is asked."""

        def refuse(text: str) -> None:
            raise AssertionError(f"not read the fast way: {text[:200]!r}")

        self.patch(json_body, "_decode", refuse)

    @settings(max_examples=400, deadline=None)
    @given(bodies.map(lambda text: text.encode("utf-8", "surrogatepass")))
    @example(b'{"a":1,"a":2}')
    @example(b'{"a":1,"a":":"}')
    @example(b'{"a":":","a":1}')
    @example(b'{"a":"\\u003a","b" :1,"b":2}')
    @example(b'{"x":{"a.b:c":1},"y":":"}')
    @example(b'{"x":{"a.b\\"c":1},"y":":"}')
    @example(b'{"x":{"\\u0000":1}}')
    @example(b'{"\\u0000":1}')
    @example(b'{"x":{"a.\\\\":[]},"y":"\\""}')
    @example(b'{"x":{"\\u002e":1}}')
    @example(b'{"x":"\\\\","a.b":[]}')
    @example(b'[{"_id":1},{"a":1,"_id":2}]')
    @example(b'{"a":1,"_id":2}')
    def test_json_as_anybody_writes_it(self, body: bytes) -> None:
        self.assertSame(body)

    @settings(max_examples=200, deadline=None)
    @given(bodies, st.integers(1, 4), st.data())
    def test_damaged_json(self, text: str, damages: int, data: st.DataObject) -> None:
        body = bytearray(text.encode("utf-8", "surrogatepass"))
        for _ in range(damages):
            body[data.draw(st.integers(0, len(body) - 1))] = data.draw(
                st.integers(0, 255) | st.sampled_from(b'":.,{}[]\\')
            )
        self.assertSame(bytes(body))

    @settings(max_examples=200, deadline=None)
    @given(st.floats(allow_nan=False, allow_infinity=False), st.integers(-400, 400))
    def test_numbers(self, real: float, exponent: int) -> None:
        self.assertSame(f"[{real!r},{real:.25e},{real:f},{real}e{exponent}]".encode())
        self.assertSame(f"[{abs(real):.17e}{exponent}]".encode())

    def test_numbers_of_many_digits(self) -> None:
        chance = random.Random(1)
        for _ in range(2000):
            digits = "".join(chance.choices("0123456789", k=chance.randrange(1, 40)))
            number = f"{chance.choice('123456789')}{digits}"
            self.assertSame(f"[{number},{number}.{digits},0.{digits},{number}e{chance.randrange(-330, 309)}]".encode())

    def test_depth(self) -> None:
        nests = (("[", "]"), ('{"a":', "}"), ('[{"[":', "}]"), ('{"a":"\\"","b":', "}"), ('["]",', ',"["]'))
        for opening, closing in nests:
            for depth in (1, 12, 13, 32, 33, MAX_DEPTH, MAX_DEPTH + 1, 500, 100_000):
                for beside in ("", ",[]" * 70, ',"]",[]' * 70, ',"[[["' * 70):
                    self.assertSame(f"[{opening * depth}1{closing * depth}{beside}]".encode(), 10_000_000)

    def test_weight(self) -> None:
        for body in (b"[" + b"1," * 400 + b"1]", b'{"a":1' + b',"b":2' * 100 + b"}"):
            for most in range(300, 420, 7):
                self.assertSame(body, most)

    def test_what_devices_send_is_read_the_fast_way(self) -> None:
        self.only_fast()
        for size in SIZES:
            body = reading(size, 1)
            self.assertEqual(JsonBodies().encoded(body), encode({"body": json.loads(body)})[4:-1])
        for body in (
            b"21.5",
            b"[]",
            b'"on"',
            b'{"t":21.5}',
            b'{"t": 21.5, "at": "2024-01-01T00:00:00.123+01:00"}',
            b'{"t":{"v":21.5,"unit":"\\u00b0C"},"note":"say \\"x\\": 5.1%"}',
            b'[{"n":"temp 1","v":1e3},{"n":"$x","v":-1}]',
            b'{"rows":[' + b",".join([b'{"a":1.5,"b":"12:30"}'] * 100) + b"]}",
        ):
            self.assertEqual(JsonBodies().encoded(body), encode({"body": json.loads(body)})[4:-1], body)

    def changed(self, body: bytes, data: st.DataObject) -> bytes:
        """With other digits and minus signs, in some places."""
        pieces = re.split(rb"([0-9-]+)", body)
        for place in range(1, len(pieces), 2):
            pieces[place] = data.draw(st.just(pieces[place]) | NUMERALS)
        if data.draw(st.booleans()):
            place = data.draw(st.integers(0, len(body)))
            return b"%b%b%b" % (body[:place], data.draw(NUMERALS), body[place:])
        return b"".join(pieces)

    @settings(max_examples=200, deadline=None)
    @given(bodies, st.data())
    def test_bodies_of_one_shape(self, text: str, data: st.DataObject) -> None:
        body, reader = text.encode("utf-8", "surrogatepass"), JsonBodies(1000)
        for some in (body, body, *[self.changed(body, data) for _ in range(6)]):
            self.assertEqual(outcome(some, reader), strict_outcome(some, 1000), some)

    def test_shapes_do_not_vouch_for_what_they_do_not_show(self) -> None:
        for first, then in (
            (b'{"t1":1,"t2":2}', b'{"t1":1,"t1":2}'),
            (b'[{"-":1,"":2}]', b'[{"":1,"":2}]'),
            (b'{"\\u0041":1,"x":2}', b'{"\\u0024":1,"x":2}'),
            (b"[1e30]", b"[1e400]"),
            (b'{"a":1}', b'{"a":99999999999999999999}'),
            (b"[1,2]", b"[,]"),
        ):
            reader = JsonBodies()
            for body in (first, first, first, then, first):
                self.assertEqual(outcome(body, reader), strict_outcome(body, 1000), body)

    def test_a_known_shape_is_not_looked_at_again(self) -> None:
        reader = JsonBodies()
        for number in (1, -22):
            self.assertEqual(reader._shapes, set())
            reader.encoded(b'{"t":{"v":%d}}' % number)
        self.assertEqual(reader._shapes, {b'{"t":{"v":}}'})
        reader._shapes = {b'{"a.b":}'}  # which would never get there
        self.assertEqual(reader.encoded(b'{"a.b":7}'), elements({"body": {"a.b": 7}}))
        self.assertEqual(reader.encoded(b'{"a.c":7}'), elements({"body": {"a%2Ec": 7}}))

    def test_few_shapes_are_remembered(self) -> None:
        self.patch(json_body, "MAX_SHAPES", 1000)
        self.patch(json_body, "MAX_SEEN", 50)
        reader = JsonBodies()
        names = ["".join(letters) for letters in itertools.product("abcdef", repeat=3)]
        for name in names:
            for _ in range(2):
                reader.encoded(b'{"%b":{}}' % name.encode())
            self.assertLessEqual(sum(map(len, reader._shapes)), 1000)
            self.assertLessEqual(len(reader._seen), 50)
            self.assertIn(b'{"%b":{}}' % name.encode(), reader._shapes)
        long = b'["%b"]' % (b"x" * json_body.MAX_SHAPE)
        for _ in range(3):
            reader.encoded(long)
        self.assertNotIn(long, reader._shapes)
