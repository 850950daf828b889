"""One body, three readers: what the store, events and Celery tasks make of it, row by row."""

from __future__ import annotations

import base64
import gzip
import json
import random
import zlib
from typing import Any, NamedTuple
from uuid import UUID

from bson import decode
from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from amqprouter.amqp.properties import Properties, encode_properties
from amqprouter.broker.celery import CeleryTask
from amqprouter.decoding.choice import Decoding
from amqprouter.decoding.installed import Decoders
from amqprouter.decoding.judge import Judge
from amqprouter.errors import Unstorable
from amqprouter.events.event import encode_event_body
from amqprouter.layouts.layout import Placement
from amqprouter.pipeline.bodies import Bodies
from amqprouter.pipeline.message import Message
from amqprouter.pipeline.placeholders import FieldMissing, Template
from amqprouter.pipeline.routes import RuleSet
from amqprouter.settings import RouteSettings
from amqprouter.storage.document import DocumentMaker

JSON, TEXT, OCTETS = "application/json", "text/plain", "application/octet-stream"
BOM = b"\xef\xbb\xbf"


class Dead(NamedTuple):
    """A body that a reader has no value of, and the first word of why."""

    reason: str


class Told(NamedTuple):
    """A value with the first word of a problem beside it."""

    value: object
    problem: str


def bodies(decode: str = "", undecodable: str = "") -> Bodies:
    """What judges bodies with one route that says so."""
    decoders = Decoders(300_000)
    made = Bodies(Judge(decoders.of))
    rules = RuleSet([RouteSettings("r", ("events:",), decode=decode, undecodable=undecodable)], made)
    decoders.make(rules.choices)
    rules.take_effect()
    return made


def message(body: bytes, content_type: str | None, content_encoding: str = "") -> Message:
    kinds: dict[str, Any] = {} if content_type is None else {"content_type": content_type}
    raw = encode_properties(content_encoding=content_encoding, message_id="m", **kinds)
    return Message("dev1", "up.x", body, Properties(raw))


def stored(given: Message, judge: Bodies) -> object:
    try:
        fields = decode(DocumentMaker(random.Random(1), bodies=judge).document(given).raw)
    except Unstorable as refusal:
        return Dead(refusal.reason)
    return Told(fields["body"], _word(fields["body_problem"])) if "body_problem" in fields else fields["body"]


def event(given: Message, judge: Bodies) -> object:
    fields = json.loads(encode_event_body(given, judge.of))
    return Told(fields["body"], _word(fields["body_problem"])) if "body_problem" in fields else fields["body"]


def celery(given: Message, judge: Bodies) -> object:
    task = CeleryTask("t", [Template("{body}", judge.of)], random_id=lambda: UUID(int=1))
    try:
        return json.loads(task.encoded(given, 0.0)[1])[0][0]
    except FieldMissing as error:
        return Dead(str(error).removeprefix("the body cannot be decoded: ").partition(":")[0])


def _word(problem: str) -> str:
    return problem.partition(":")[0]


class TableTests(SynchronousTestCase):
    """Rows are: body, content type, content encoding; then what the store, an event and a task have."""

    def check(self, rows: list[tuple[bytes, str | None, str, object, object, object]], **choice: str) -> None:
        for body, content_type, encoding, in_store, in_event, in_task in rows:
            for readers in ((stored, event, celery), (celery, event, stored)):
                judge = bodies(**choice)
                given = message(body, content_type, encoding)  # one for all, whoever comes first
                found = {reader.__name__: reader(given, judge) for reader in readers}
                expected = {"stored": in_store, "event": in_event, "celery": in_task}
                self.assertEqual(found, expected, f"{body[:60]!r} as {content_type} {encoding} {choice}")
                for name, one in found.items():
                    self.assertIs(type(one), type(expected[name]), f"{body[:60]!r}: {name}")

    def test_without_a_choice(self) -> None:
        one = {"t": 1}
        dead, no_json = Dead("bad-json"), "bad-json"
        self.check(
            [
                (b"23.50", None, "", b"23.50", 23.5, 23.5),
                (b"ON", None, "", b"ON", "ON", "ON"),
                (b'{"t":1}', None, "", one, one, one),
                (b'{"t":1', None, "", b'{"t":1', '{"t":1', '{"t":1'),
                (b'{"t":1}', TEXT, "", b'{"t":1}', '{"t":1}', '{"t":1}'),
                (b'{"t":1}', "text/json", "", b'{"t":1}', '{"t":1}', '{"t":1}'),
                (b'{"t":1}', OCTETS, "", b'{"t":1}', one, one),
                (b"\xff\x00", OCTETS, "", b"\xff\x00", {"base64": "/wA="}, {"base64": "/wA="}),
                (b'{"t":1}', JSON, "", one, one, one),
                (b'{"t":1}', JSON, "utf-8", one, one, one),
                (BOM + b'{"t":1}', JSON, "", dead, Told('\ufeff{"t":1}', no_json), dead),
                (b'{"t":1}\0', JSON, "", dead, Told('{"t":1}\0', no_json), dead),
                (b'{"t":NaN}', JSON, "", dead, Told('{"t":NaN}', no_json), dead),
                (b'{"t":1,"t":2}', JSON, "", dead, Told('{"t":1,"t":2}', no_json), dead),
                (b'{"t":1}\n{"t":2}', JSON, "", dead, Told('{"t":1}\n{"t":2}', no_json), dead),
                (
                    b"18446744073709551615",
                    JSON,
                    "",
                    Dead("integer-too-large"),
                    Told("18446744073709551615", "integer-too-large"),
                    Dead("integer-too-large"),
                ),
                (
                    b'{"t":1e400}',
                    JSON,
                    "",
                    Dead("number-too-large"),
                    Told('{"t":1e400}', "number-too-large"),
                    Dead("number-too-large"),
                ),
                (
                    b'["\\ud800"]',
                    JSON,
                    "",
                    Dead("bad-text"),
                    Told('["\\ud800"]', "bad-text"),
                    Dead("bad-text"),
                ),
            ]
        )

    def test_compressed(self) -> None:
        one, packed = {"t": 1}, gzip.compress(b'{"t":1}')
        raw = zlib.compress(b'{"t":1}')[2:-4]
        cut = Dead("bad-packing")
        self.check(
            [
                (packed, JSON, "gzip", one, one, one),
                (packed, JSON, "X-GZIP", one, one, one),
                (packed, None, "gzip", one, one, one),
                (gzip.compress(b"ON"), TEXT, "gzip", b"ON", "ON", "ON"),
                (zlib.compress(b'{"t":1}'), JSON, "deflate", one, one, one),
                (raw, JSON, "deflate", one, one, one),
                (packed[:-3], JSON, "gzip", cut, Told({"base64": _b64(packed[:-3])}, "bad-packing"), cut),
                (packed, JSON, "br", packed, {"base64": _b64(packed)}, {"base64": _b64(packed)}),
            ]
        )
        self.check([(packed, None, "", one, one, one)], decode="gzip+json")
        twice = gzip.compress(packed)
        self.check([(twice, None, "gzip", one, one, one)], decode="gzip+json")
        unknown = Dead("unknown-packing")
        self.check([(b"{}", None, "br", unknown, Told("{}", "unknown-packing"), unknown)], decode="json")

    def test_a_route_that_is_lenient(self) -> None:
        """What is JSON is a value, also as a guess; what is not is kept, with the reason where it should have been."""
        one = {"t": 1}
        rows: list[tuple[bytes, str | None, str, object]] = [
            (b"23.50", None, "", 23.5),
            (b"ON", None, "", "ON"),
            (b"", None, "", ""),
            (b'{"t":1}', TEXT, "", one),
            (b'{"t":1}', "text/json", "", one),
            (b'{"t":1}', OCTETS, "", one),
            (BOM + b'{"t":1}', JSON, "", one),
            (b'{"t":1}\0', JSON, "", one),
            (b'{"t":NaN}', JSON, "", Told('{"t":NaN}', "bad-json")),
            (b'{"t":1,"t":2}', JSON, "", Told('{"t":1,"t":2}', "bad-json")),
            (b'{"t":1}\n{"t":2}', JSON, "", Told('{"t":1}\n{"t":2}', "bad-json")),
            (b"18446744073709551615", JSON, "", Told("18446744073709551615", "integer-too-large")),
            (b'{"t":1e400}', JSON, "", Told('{"t":1e400}', "number-too-large")),
            (gzip.compress(b'{"t":1}'), JSON, "gzip", one),
        ]
        self.check(
            [(*row, row[3], row[3].value if isinstance(row[3], Told) else row[3]) for row in rows],
            decode="json-lenient",
        )

    def test_a_route_that_keeps_what_cannot_be_decoded(self) -> None:
        self.check(
            [
                (b"{", JSON, "", Told("{", "bad-json"), Told("{", "bad-json"), "{"),
                (
                    b'"\xff"',
                    JSON,
                    "",
                    Told(b'"\xff"', "bad-json"),
                    Told({"base64": "Iv8i"}, "bad-json"),
                    {"base64": "Iv8i"},
                ),
                (b"{}", JSON, "", {}, {}, {}),
            ],
            undecodable="keep",
        )

    def test_numbers_and_text(self) -> None:
        bad = Dead("not-a-number")
        self.check(
            [
                (b"23.50", None, "", 23.5, 23.5, 23.5),
                (b" -7\r\n", TEXT, "", -7, -7, -7),
                (b"ON", None, "", bad, Told("ON", "not-a-number"), bad),
            ],
            decode="number",
        )
        bad = Dead("bad-text")
        self.check(
            [
                (b"23.50", None, "", "23.50", "23.50", "23.50"),
                (b"{}", JSON, "", "{}", "{}", "{}"),
                (b"\xff", None, "", bad, Told({"base64": "/w=="}, "bad-text"), bad),
            ],
            decode="text",
        )
        self.check([(b"{}", JSON, "", b"{}", "{}", "{}")], decode="binary")

    @given(
        st.binary(max_size=12)
        | st.text(max_size=12).map(str.encode)
        | st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        ).map(lambda value: json.dumps(value).encode()),
        st.sampled_from([None, JSON, TEXT, OCTETS, "application/senml+json"]),
    )
    @example(b'{"a":1,"a":2}', JSON)
    @example(b"[1e400]", JSON)
    @example(b'{"\\ud800":1}', JSON)
    def test_the_store_reads_json_as_the_judge_does(self, body: bytes, content_type: str | None) -> None:
        """It has a way of its own for bodies that no route says anything about."""
        judge = bodies()
        alone, judged = message(body, content_type), message(body, content_type)
        judge.of(judged)
        self.assertEqual(repr(stored(alone, judge)), repr(stored(judged, judge)))


def _b64(body: bytes) -> str:
    return base64.b64encode(body).decode()


class ChoiceTests(SynchronousTestCase):
    """Which route decides."""

    def choice(self, *routes: RouteSettings, headers: dict[str, Any] | None = None) -> Decoding:
        given = Message("dev1", "up.x", b"", Properties(encode_properties(headers=headers or {})))
        return RuleSet(routes).choice(given)

    def test_the_first_that_matches_and_says(self) -> None:
        route = RouteSettings
        silent, text = route("a", ("events:",)), route("b", ("events:",), decode="text")
        number = route("c", ("events:",), decode="number", undecodable="keep")
        self.assertEqual(self.choice(silent), Decoding())
        self.assertEqual(self.choice(silent, text, number), Decoding("text"))
        self.assertEqual(self.choice(number, text), Decoding("number", keeps=True))
        other = route("d", ("events:",), device="dev2", decode="cbor")
        self.assertEqual(self.choice(other, text), Decoding("text"))
        final = route("e", ("events:",), final=True)
        self.assertEqual(self.choice(final, text), Decoding())

    def test_headers_have_a_say(self) -> None:
        by_header = RouteSettings("a", ("events:",), headers=(("kind", "raw"),), decode="binary")
        text = RouteSettings("b", ("events:",), decode="text")
        self.assertEqual(self.choice(by_header, text), Decoding("text"))
        self.assertEqual(self.choice(by_header, text, headers={"kind": "raw"}), Decoding("binary"))
        self.assertEqual(self.choice(by_header), Decoding())

    def test_a_layout_says_it_where_no_route_does(self) -> None:
        by_layout = {"plant": Decoding("number"), "other": Decoding("text")}
        given = Message("dev1", "up.x", b"7", Properties())
        for route, layout, expected in (
            (RouteSettings("a", ("events:",)), "plant", Decoding("number")),
            (RouteSettings("a", ("events:",)), "third", Decoding()),
            (RouteSettings("a", ("events:",)), "", Decoding()),
            (RouteSettings("a", ("events:",), decode="binary"), "plant", Decoding("binary")),
            (RouteSettings("a", ("events:",), decode="auto"), "plant", Decoding("auto")),
        ):
            given.layout = Placement(layout, "dev1", "up.x", {}) if layout else None
            rules = RuleSet([route], by_layout=by_layout)
            self.assertEqual(rules.choice(given), expected)
        self.assertEqual(set(rules.choices), {Decoding("auto"), *by_layout.values()})

    def test_how_it_is_written(self) -> None:
        self.assertEqual(Decoding.parse("gzip+cbor", "keep"), Decoding("cbor", "", "gzip", True))
        self.assertEqual(Decoding.parse("lpp:a+b"), Decoding("lpp", "a+b"))
        self.assertEqual(Decoding.parse("zstd+"), Decoding("auto", "", "zstd"))
        for text in ("json:x", "Json", "br+json", "+json", ":x"):
            with self.assertRaises(ValueError, msg=text):
                Decoding.parse(text)
