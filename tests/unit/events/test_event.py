"""Events as JSON, from whatever a device sent."""

from __future__ import annotations

import base64
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from amqprouter.amqp.properties import Properties, encode_properties
from amqprouter.decoding.judge import Judge
from amqprouter.events.event import Event, encode_event_body, read_event, received_at
from amqprouter.layouts.layout import Placement
from amqprouter.pipeline.bodies import Bodies
from amqprouter.pipeline.message import Message


def message(body: bytes, **properties: Any) -> Message:
    return Message("dev1", "up.temp", body, Properties(encode_properties(**properties)), received_at=1_700_000_000.5)


def body_of(raw: bytes, **properties: Any) -> Any:
    return json.loads(encode_event_body(message(raw, **properties)))["body"]


class ReceivedAtTests(SynchronousTestCase):
    def test_of_a_message(self) -> None:
        data = encode_event_body(message(b'{"received_at":"1999-01-01T00:00:00.000Z"}'))
        self.assertEqual(received_at(Event(1, ("dev1.up",), data)), 1_700_000_000.5)

    def test_no_name_passes_for_it(self) -> None:
        for device in ('x","received_at":"1999-01-01T00:00:00.000Z', '\\","received_at":"1999-01-01T00:00:00.000Z'):
            made = Message(device, device, b"1", Properties(), received_at=1_700_000_000.5)
            self.assertEqual(received_at(Event(1, ("dev1.up",), encode_event_body(made))), 1_700_000_000.5)

    def test_of_others(self) -> None:
        data = encode_event_body(message(b"1"))
        self.assertEqual(received_at(Event(1, ("dev1.up",), data, id="urn:x")), 0.0)
        bad = (b"", b"{}", b'{"a":1,"received_at":"', b'{"a":1,"received_at":"soon, or even later than that"}')
        for other in (*bad, b'{"a":1,"received_at":"0001-01-01T00:00:00.00\xff"}', b'"' + b" " * 5000 + data):
            self.assertEqual(received_at(Event(1, ("dev1.up",), other)), 0.0)


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

    def test_what_it_answers_is_told(self) -> None:
        event = json.loads(encode_event_body(message(b"1", correlation_id="c-1")))
        self.assertEqual(event["correlation_id"], "c-1")

    def test_who_published_it(self) -> None:
        made = message(b"1")
        made.publisher = "bridge-7"
        self.assertEqual(json.loads(encode_event_body(made))["publisher"], "bridge-7")
        self.assertNotIn("publisher", json.loads(encode_event_body(message(b"1"))))

    def test_absent_properties(self) -> None:
        event = json.loads(encode_event_body(message(b"1")))
        self.assertNotIn("sent_at", event)
        self.assertNotIn("correlation_id", event)
        self.assertIsNone(event["message_id"])
        self.assertIsNone(event["content_type"])

    def test_a_clock_beyond_the_calendar_is_told_as_a_number(self) -> None:
        event = json.loads(encode_event_body(message(b"1", timestamp=2**64 - 1)))
        self.assertNotIn("sent_at", event)
        self.assertEqual(event["sent_at_raw"], 2**64 - 1)

    def test_the_encoding_is_told(self) -> None:
        event = json.loads(encode_event_body(message(b"1", content_encoding="br")))
        self.assertEqual(event["content_encoding"], "br")

    def test_names_that_need_escapes(self) -> None:
        odd = Message('d"\n\u2028', "t\r", b"1", Properties())
        encoded = encode_event_body(odd)
        self.assertNotIn(b"\n", encoded)
        self.assertEqual(json.loads(encoded)["device"], 'd"\n\u2028')


class BodyTests(SynchronousTestCase):
    def test_json_keeps_its_digits(self) -> None:
        for raw in (b"1.10", b"1234567890123456789", b'"\\ud83d\\ude00"', b"[1e300]"):
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
            b"123456789012345678901234567890",
            b'"\\ud800"',
            b"[1e400]",
            b'{"a":1,"a":2}',
        ):
            self.assertEqual(body_of(raw), raw.decode(), raw)

    def test_json_nested_too_deeply_is_text(self) -> None:
        raw = b"[" * 200_000 + b"]" * 200_000
        self.assertEqual(body_of(raw), raw.decode())

    def test_json_that_would_take_too_long_to_read_is_text(self) -> None:
        raw = b"[" + b"{}," * 500 + b"1]"
        for most, expected in ((2000, raw.decode()), (2600, json.loads(raw))):
            body_of = Bodies(Judge(max_values=most)).of
            self.assertEqual(json.loads(encode_event_body(message(raw), body_of))["body"], expected)

    def test_what_is_known_to_be_json_is_not_read_again(self) -> None:
        given = message(b'{"a": 1.10}')
        given.is_json = True
        encoded = encode_event_body(given, lambda message: self.fail("judged again"))
        self.assertIn(b'"body":{"a": 1.10}}', encoded)

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


class StreamMessageTests(SynchronousTestCase):
    """Events in the headers of stream messages."""

    def read(self, **headers: Any) -> Event | None:
        named = {f"x-amqprouter-{name}": value for name, value in headers.items()}
        return read_event(7, Properties(encode_properties(headers={"x-stream-offset": 7, **named})), b"{}")

    def test_a_device_s(self) -> None:
        self.assertEqual(self.read(key="d.t"), Event(7, ("d.t",), b"{}", private=True))

    def test_everything_comes_back(self) -> None:
        for event in (
            Event(7, ("d.t",), b"{}"),
            Event(7, ("d.t",), b"{}", private=False),
            Event(7, ("https://example.com/1", "alternate", "é"), b"{}", False, "kind", 1500, "urn:x"),
            Event(7, ("a",), b"{}", True, "", 0, ""),
        ):
            raw = encode_properties(headers={**event.headers(), "x-stream-offset": 7})
            self.assertEqual(read_event(7, Properties(raw), b"{}"), event)

    def test_alternate_topics_for_every_reader(self) -> None:
        """RabbitMQ 3 drops arrays from streams, and earlier releases read and write nothing else."""
        event = Event(7, ("https://example.com/1", "alternate", 'é"'), b"{}", False)
        headers = event.headers()
        texts_alone = {name: value for name, value in headers.items() if not isinstance(value, list)}
        raw = encode_properties(headers={**texts_alone, "x-stream-offset": 7})
        self.assertEqual(read_event(7, Properties(raw), b"{}"), event)
        self.assertEqual(headers["x-amqprouter-alternates"], ["alternate", 'é"'])
        self.assertEqual(
            self.read(key="https://example.com/1", alternates=["alternate", 'é"'], public=True),
            event,
        )

    def test_as_many_topics_as_there_may_be_fit_into_a_frame(self) -> None:
        event = Event(7, tuple(f"{number}".rjust(1024, "x") for number in range(100)), b"{}")
        raw = encode_properties(headers={**event.headers(), "x-stream-offset": 7})
        self.assertLess(len(raw), 131_000)
        self.assertEqual(read_event(7, Properties(raw), b"{}"), event)

    def test_names_of_other_events_are_nobodys_own(self) -> None:
        """Of publishers of earlier releases: such an event has its offset for an id."""
        for own in ("2", "-1", "00", "earliest"):
            event = self.read(key="k", id=own)
            assert event is not None
            self.assertEqual(event.id, "", own)
        for own in ("2a", "urn:2", "Earliest", "1.0"):
            event = self.read(key="k", id=own)
            assert event is not None
            self.assertEqual(event.id, own)

    def test_what_is_no_event(self) -> None:
        self.assertIsNone(self.read())

    def test_bad_headers(self) -> None:
        for headers in (
            {"key": 4},
            {"key": "k", "alternates": "x"},
            {"key": "k", "alternates": [4]},
            {"key": "k", "other-topics": ["x"]},
            {"key": "k", "other-topics": "x"},
            {"key": "k", "other-topics": "{}"},
            {"key": "k", "other-topics": "[4]"},
            {"key": "k", "other-topics": "[" * 100_000},
            {"key": "k", "retry": -1},
            {"key": "k", "retry": "1"},
            {"key": "k", "retry": True},
            {"key": "k", "id": "a\nb"},
            {"key": "k", "id": "a\0"},
            {"key": "k", "type": "a\rb"},
            {"key": "k", "type": 4},
        ):
            self.assertRaises(ValueError, self.read, **headers)

    def test_private_unless_it_says_public(self) -> None:
        for value in (None, 1, "true", False, 0):
            event = self.read(key="k", public=value)
            assert event is not None
            self.assertTrue(event.private, value)


class LayoutTests(SynchronousTestCase):
    def test_where_a_layout_found_the_device(self) -> None:
        placed = message(b"{}")
        placed.layout = Placement("tasmota", "dev1", "up.temp", {"device": "dev1", "prefix": "tele"})
        self.assertEqual(json.loads(encode_event_body(placed))["layout"], {"name": "tasmota", "prefix": "tele"})
        self.assertNotIn("layout", json.loads(encode_event_body(message(b"{}"))))
