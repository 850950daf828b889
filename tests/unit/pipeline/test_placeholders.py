"""Placeholders: what they stand for, what a message may lack, and what is wrong in a configuration."""

from __future__ import annotations

import gzip
import json

from twisted.trial.unittest import SynchronousTestCase

from amqprouter.amqp.field_table import FieldValue
from amqprouter.amqp.properties import Properties, encode_properties
from amqprouter.decoding.json_text import MAX_DEPTH
from amqprouter.decoding.judge import Judge
from amqprouter.decoding.judgement import Decoded
from amqprouter.layouts.layout import Placement
from amqprouter.pipeline.bodies import Bodies
from amqprouter.pipeline.message import Message
from amqprouter.pipeline.placeholders import FieldMissing, Template


def message(body: object = None, headers: dict[str, FieldValue] | None = None, **properties: str | int) -> Message:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    encoded = encode_properties(headers=headers, **properties)  # type: ignore[arg-type]
    return Message("dev1", "up.engine.temperature", raw, Properties(encoded), received_at=12.5)


class RenderTests(SynchronousTestCase):
    def check(self, text: str, expected: str, given: Message | None = None) -> None:
        self.assertEqual(Template(text).render(given or message()), expected, text)

    def test_names(self) -> None:
        self.check("tasks", "tasks")
        self.check("{device}", "dev1")
        self.check("{topic}/{key}", "up.engine.temperature/dev1.up.engine.temperature")
        self.check("tasks.{topic[1]}", "tasks.engine")
        self.check("{topic[-1]}{topic[0]}", "temperatureup")
        self.check("{received_at}", "12.5")
        self.check("{{{device}}}", "{dev1}")

    def test_the_publisher(self) -> None:
        given = message()
        self.check("{publisher}", "dev1", given)
        given.publisher = "bridge-7"
        self.check("{publisher}.{device}", "bridge-7.dev1", given)

    def test_what_the_layout_kept(self) -> None:
        given = message()
        given.layout = Placement("chirpstack-v4", "dev1", "up", {"application": "a-1", "device": "dev1"})
        self.check("{layout}.{layout[application]}.{layout[name]}", "chirpstack-v4.a-1.chirpstack-v4", given)
        for text, one in (("{layout[tenant]}", given), ("{layout}", message()), ("{layout[application]}", message())):
            self.assertRaisesRegex(FieldMissing, r"no \{layout", Template(text).render, one)
        for text in ("{layout[a][b]}", "{layout.application}"):
            self.assertRaises(ValueError, Template, text)

    def test_properties_and_headers(self) -> None:
        given = message(headers={"unit": "C", "n": 3, "on": True}, message_id="m1", type="t", timestamp=7)
        self.check("{message_id} {type} {timestamp}", "m1 t 7", given)
        self.check("{header[unit]} {header[n]} {header[on]}", "C 3 true", given)

    def test_bodies(self) -> None:
        given = message({"a": [1, {"b": "x"}], "c": 2.5, "d": True})
        self.check("{body[a][0]} {body[a][-1][b]} {body[c]} {body[d]}", "1 x 2.5 true", given)

    def test_values_keep_their_type(self) -> None:
        given = message({"a": [1, None]})
        self.assertEqual(Template("{body}").value(given), {"a": [1, None]})
        self.assertEqual(Template("{body[a]}").value(given), [1, None])
        self.assertEqual(Template("{body[a][0]}").value(given), 1)
        self.assertEqual(Template("n={body[a][0]}").value(given), "n=1")
        self.assertEqual(Template("").value(given), "")

    def test_what_a_message_lacks(self) -> None:
        given = message({"a": [1]}, headers={"x": [1], "x-amqprouter-from": "ann", "X-Amqprouter-New": 1})
        for text in (
            "{header[x-amqprouter-from]}",
            "{header[X-Amqprouter-New]}",
            "{topic[3]}",
            "{topic[-4]}",
            "{header[y]}",
            "{message_id}",
            "{timestamp}",
            "{body[b]}",
            "{body[a][1]}",
            "{body[a][b]}",
            "{body[a][0][0]}",
        ):
            with self.assertRaises(FieldMissing) as raised:
                Template(text).value(given)
            self.assertIn(text, str(raised.exception))
        for text in ("{body}", "{header[x]}"):
            with self.assertRaises(FieldMissing):
                Template(text).render(given)

    def test_bodies_that_are_no_strict_json(self) -> None:
        deep = b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1)
        for body in (b"", b"\xff", b"{", b'{"a":1,"a":2}', b"NaN", deep, b"[" * 100_000):
            with self.assertRaises(FieldMissing) as raised:
                Template("{body}").value(message(body, content_type="application/json"))
            self.assertIn("the body cannot be decoded: ", str(raised.exception))
            with self.assertRaises(FieldMissing):
                Template("{body[a]}").value(message(body))
        self.assertIsInstance(Template("{body}").value(message(deep[1:-1])), list)

    def test_bodies_that_are_no_json(self) -> None:
        """What they are is a value all the same."""
        for body, value in ((b"ON", "ON"), (b"", ""), (b"23.50", 23.5), (b"\xff", {"base64": "/w=="})):
            self.assertEqual(Template("{body}").value(message(body)), value)
        self.check("q.{body}", "q.ON", message(b"ON"))

    def test_the_body_as_it_came(self) -> None:
        given = message(b'{"a": 1.50}')
        self.check("{body_text}|{body_base64}", '{"a": 1.50}|eyJhIjogMS41MH0=', given)
        self.check("{body_text}", "x", message(gzip.compress(b"x"), content_encoding="gzip"))
        with self.assertRaises(FieldMissing) as raised:
            Template("{body_text}").value(message(b"\xff"))
        self.assertIn("{body_text}", str(raised.exception))
        self.check("{body_base64}", "/w==", message(b"\xff"))
        self.check("{body_text}", "{", message(b"{", content_type="application/json"))

    def test_names_with_dots(self) -> None:
        given = message({"a": {"b_1": [{"c": 7}]}})
        self.check("{body.a.b_1[0].c}", "7", given)
        with self.assertRaises(FieldMissing) as raised:
            Template("{body.a.x}").value(given)
        self.assertIn("{body.a.x}", str(raised.exception))

    def test_bodies_that_would_take_too_long_to_read(self) -> None:
        given = message([{}] * 500, content_type="application/json")
        with self.assertRaises(FieldMissing) as raised:
            Template("{body[0]}", Bodies(Judge(max_values=2000)).of).value(given)
        self.assertIn("max_body_values", str(raised.exception))
        given.judged = None
        self.assertEqual(Template("{body[0]}", Bodies(Judge(max_values=2600)).of).value(given), {})

    def test_a_body_is_read_once_for_all_placeholders(self) -> None:
        reads: list[bytes] = []

        class Counting(Judge):
            def decode_usual(self, body: bytes, content_type: str | None) -> Decoded:
                reads.append(body)
                return super().decode_usual(body, content_type)

        body_of = Bodies(Counting()).of
        given = message({"a": 1, "b": [2]})
        self.assertEqual(
            [Template(text, body_of).value(given) for text in ("{body[a]}", "{body[b]}", "{body}")][:2], [1, [2]]
        )
        self.assertEqual(len(reads), 1)

    def test_malformed_properties(self) -> None:
        given = Message("d", "t", b"", Properties(b"\xff"))
        for text in ("{message_id}", "{header[x]}", "{timestamp}"):
            with self.assertRaises(FieldMissing):
                Template(text).value(given)


class ConfigurationTests(SynchronousTestCase):
    def test_what_is_no_placeholder(self) -> None:
        for text in (
            "{",
            "}",
            "{}",
            "{0}",
            "{devise}",
            "{device.x}",
            "{device!r}",
            "{device:10}",
            "{device[0]}",
            "{topic[x]}",
            "{topic[0][1]}",
            "{header}",
            "{header[a][b]}",
            "{body[]}",
            "{body[a}",
            "{__class__}",
            "{body.__class__}",
        ):
            with self.assertRaises(ValueError) as raised:
                Template(text)
            self.assertNotIsInstance(raised.exception, FieldMissing)

    def test_constant(self) -> None:
        self.assertTrue(Template("a{{b}}").constant)
        self.assertFalse(Template("a{device}").constant)
