"""Events as JSON, from whatever a device sent."""

from __future__ import annotations

import base64
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from amqprouter.core.event import encode_event_body
from amqprouter.core.message import Message
from amqprouter.core.properties import Properties, encode_properties


def message(body: bytes, **properties: Any) -> Message:
    return Message("dev1", "up.temp", body, Properties(encode_properties(**properties)), received_at=1_700_000_000.5)


def body_of(raw: bytes, **properties: Any) -> Any:
    return json.loads(encode_event_body(message(raw, **properties)))["body"]


class EnvelopeTests(SynchronousTestCase):
    def test_every_field(self) -> None:
        encoded = encode_event_body(
            message(b'{"t": 1}', message_id="m-1", timestamp=1_699_999_999, content_type="application/json")
        )
        self.assertEqual(
            encoded,
            b'{"device":"dev1","topic":"up.temp","received_at":"2023-11-14T22:13:20.500Z",'
            b'"sent_at":"2023-11-14T22:13:19.000Z","message_id":"m-1","content_type":"application/json",'
            b'"body":{"t": 1}}',
        )

    def test_absent_properties(self) -> None:
        event = json.loads(encode_event_body(message(b"1")))
        self.assertNotIn("sent_at", event)
        self.assertIsNone(event["message_id"])
        self.assertIsNone(event["content_type"])

    def test_a_clock_beyond_the_calendar_is_left_out(self) -> None:
        self.assertNotIn("sent_at", json.loads(encode_event_body(message(b"1", timestamp=2**64 - 1))))

    def test_names_that_need_escapes(self) -> None:
        odd = Message('d"\n\u2028', "t\r", b"1", Properties())
        encoded = encode_event_body(odd)
        self.assertNotIn(b"\n", encoded)
        self.assertEqual(json.loads(encoded)["device"], 'd"\n\u2028')


class BodyTests(SynchronousTestCase):
    def test_json_keeps_its_digits(self) -> None:
        for raw in (b"1.10", b"123456789012345678901234567890", b'"\\ud800"', b"[1e400]"):
            self.assertIn(b'"body":' + raw + b"}", encode_event_body(message(raw)))

    def test_line_ends_between_tokens_become_spaces(self) -> None:
        encoded = encode_event_body(message(b'{\r\n "a":\n"b\\n"\r}'))
        self.assertNotRegex(encoded, rb"[\r\n]")
        self.assertEqual(json.loads(encoded)["body"], {"a": "b\n"})

    def test_bad_json_is_text(self) -> None:
        for raw in (
            b"{",
            b"NaN",
            b"[Infinity]",
            b"-Infinity",
            b'{"a":1}}',
            b"\xef\xbb\xbf1",
            b'"\n"',
            b"",
            b"9" * 5000,
        ):
            self.assertEqual(body_of(raw), raw.decode(), raw)

    def test_json_nested_too_deeply_is_text(self) -> None:
        raw = b"[" * 200_000 + b"]" * 200_000
        self.assertEqual(body_of(raw), raw.decode())

    def test_other_encodings_of_json_are_not_guessed(self) -> None:
        raw = '{"a":1}'.encode("utf-16")
        self.assertEqual(body_of(raw), {"base64": base64.b64encode(raw).decode()})

    def test_text_stays_text(self) -> None:
        self.assertEqual(body_of(b"123", content_type="text/plain; charset=utf-8"), "123")

    def test_binary(self) -> None:
        self.assertEqual(body_of(b"\xff\x00"), {"base64": "/wA="})

    @given(st.binary() | st.text().map(str.encode))
    def test_any_body_gives_one_line_of_json(self, raw: bytes) -> None:
        encoded = encode_event_body(message(raw))
        self.assertNotRegex(encoded, rb"[\r\n]")
        json.loads(encoded)
