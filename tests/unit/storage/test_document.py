"""A message's document: its id, its fields, and what cannot be one."""

from __future__ import annotations

import gzip
import random
import struct
from datetime import datetime, timezone
from decimal import Decimal
from hashlib import sha256
from typing import Any

from bson import CodecOptions, Decimal128, decode
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from amqprouter.amqp.properties import NAMES, Properties, encode_properties, text_value, with_values
from amqprouter.amqp.wire import Delivery
from amqprouter.decoding.judge import promises_json
from amqprouter.errors import Unstorable
from amqprouter.layouts.layout import Placement
from amqprouter.pipeline.message import Message
from amqprouter.pipeline.sender import Senders
from amqprouter.storage.document import MAX_REMEMBERED, DocumentMaker
from amqprouter.storage.elements import MAX_BYTES
from tests.unit.storage.plain_documents import plain_document

AWARE: Any = CodecOptions(tz_aware=True)
JSON = "application/json"
RECEIVED = 1_700_000_000.123


def message(
    body: bytes = b"{}", *, device: str = "dev1", topic: str = "up.t", received_at: float = RECEIVED, **properties: Any
) -> Message:
    properties.setdefault("message_id", "m1")
    raw = Properties(encode_properties(**properties))
    return Message(device, topic, body, raw, received_at=received_at)


class DocumentTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.maker = DocumentMaker(random.Random(1), {"x-device-secret"})

    def document(self, message: Message) -> dict[str, Any]:
        fields: dict[str, Any] = decode(self.maker.document(message).raw, AWARE)
        return fields

    def assertUnstorable(self, message: Message, reason: str) -> None:
        with self.assertRaises(Unstorable) as caught:
            self.maker.document(message)
        self.assertEqual(caught.exception.reason, reason)


class IdentityTests(DocumentTestCase):
    def test_the_same_message_has_the_same_id(self) -> None:
        first = self.document(message(b'{"a":1}', received_at=1.0))
        again = self.document(message(b'{"a":1}', received_at=2.0))
        self.assertEqual(first["_id"], again["_id"])
        self.assertRegex(first["_id"], r"^[0-9a-f]{32}$")

    def test_the_id_is_the_same_in_every_version(self) -> None:
        """Written down, for documents already stored must still be recognised after an upgrade."""
        expected = sha256(b"4 4 2 " + b"dev1" + b"up.t" + b"m1" + b"{}").hexdigest()[:32]
        self.assertEqual(self.document(message(b"{}"))["_id"], expected)

    @given(*[st.tuples(st.text(max_size=5), st.text(max_size=5), st.text("ab", min_size=1), st.binary(max_size=5))] * 2)
    def test_equal_ids_mean_equal_content(self, one: Any, other: Any) -> None:
        ids = [
            self.maker.document(message(body, device=device, topic=topic, message_id=message_id))["_id"]
            for device, topic, message_id, body in (one, other)
        ]
        self.assertEqual(ids[0] == ids[1], one == other)

    def test_parts_do_not_run_into_one_another(self) -> None:
        parts = [("ab", "c", "d"), ("a", "bc", "d"), ("a", "b", "cd")]
        ids = {self.maker.document(message(device=d, topic=t, message_id=m))["_id"] for d, t, m in parts}
        self.assertEqual(len(ids), 3)

    def test_without_a_message_id_every_document_is_another(self) -> None:
        nameless = message(message_id="")
        ids = {self.maker.document(nameless)["_id"] for _ in range(50)}
        self.assertEqual(len(ids), 50)
        self.assertNotIn("message_id", self.document(nameless))

    def test_a_device_cannot_choose_the_id(self) -> None:
        stored = self.document(message(b'{"_id":"mine"}', content_type=JSON, headers={"_id": "mine"}))
        self.assertNotEqual(stored["_id"], "mine")
        self.assertEqual(stored["body"], {"_id": "mine"})


class FieldTests(DocumentTestCase):
    def test_a_whole_document(self) -> None:
        stored = self.document(
            message(
                b'{"t":21.5}', content_type=JSON, timestamp=1_600_000_000, headers={"fw": "1.2", "x-device-secret": "s"}
            )
        )
        del stored["_id"]
        self.assertEqual(
            stored,
            {
                "device": "dev1",
                "topic": "up.t",
                "message_id": "m1",
                "received_at": datetime(2023, 11, 14, 22, 13, 20, 123000, tzinfo=timezone.utc),
                "sent_at": datetime(2020, 9, 13, 12, 26, 40, tzinfo=timezone.utc),
                "content_type": JSON,
                "body": {"t": 21.5},
                "headers": {"fw": "1.2"},
            },
        )

    def test_who_published_it_if_not_the_device(self) -> None:
        made = message()
        made.publisher = "bridge-7"
        self.assertEqual(self.document(made)["publisher"], "bridge-7")
        made.publisher = "dev1"
        self.assertNotIn("publisher", self.document(made))

    def test_no_field_for_what_is_not_there(self) -> None:
        stored = self.document(message(b"x"))
        self.assertEqual(set(stored), {"_id", "device", "topic", "message_id", "received_at", "body"})

    def test_timestamps_out_of_range_stay_numbers(self) -> None:
        for seconds, raw in ((1_700_000_000_000, 1_700_000_000_000), (2**64 - 1, Decimal128(str(2**64 - 1)))):
            stored = self.document(message(timestamp=seconds))
            self.assertNotIn("sent_at", stored)
            self.assertEqual(stored["sent_at_raw"], raw)
        self.assertEqual(self.document(message(timestamp=0))["sent_at"].year, 1970)

    def test_headers_keep_their_types(self) -> None:
        when = datetime(2024, 1, 2, tzinfo=timezone.utc)
        headers: dict[str, Any] = {
            "text": "é",
            "flag": True,
            "none": None,
            "bytes": b"\x00\xff",
            "when": when,
            "list": [1, {"a.b": b"x"}],
            "$table": {"deep": {"%2E": 1}},
            "n\0ul": 1,
            "min": -(2**63),
        }
        stored = self.document(message(headers={**headers, "decimal": Decimal("1.50"), "huge": 2**63, "real": 1.5}))
        self.assertEqual(
            stored["headers"],
            {
                "text": "é",
                "flag": True,
                "none": None,
                "bytes": b"\x00\xff",
                "when": when,
                "list": [1, {"a%2Eb": b"x"}],
                "%24table": {"deep": {"%252E": 1}},
                "n%00ul": 1,
                "min": -(2**63),
                "decimal": Decimal128("1.50"),
                "huge": Decimal128(str(2**63)),
                "real": 1.5,
            },
        )

    def test_what_brokers_add_is_left_out(self) -> None:
        headers: dict[str, Any] = {"x-death": [{"count": 1}], "x-delivery-count": 3, "CC": ["a"], "BCC": ["b"]}
        headers |= {"x-acquired-count": 3, "x-routed-by": "rabbit@b", "x-last-death-queue": "q"}
        self.assertNotIn("headers", self.document(message(headers=headers)))

    def test_what_only_the_daemon_may_write_is_left_out(self) -> None:
        headers: dict[str, Any] = {"x-amqprouter-from": "ann", "x-amqprouter-new": 1, "X-AMQProuter-From": "ann"}
        self.assertNotIn("headers", self.document(message(headers=headers)))
        self.assertEqual(self.document(message(headers=headers | {"x-amqp": 1}))["headers"], {"x-amqp": 1})

    def test_malformed_properties(self) -> None:
        raw = encode_properties(message_id="m", headers={"a": 1})
        self.assertUnstorable(Message("d", "t", b"", Properties(raw[:-4])), "malformed-properties")
        bad_table = struct.pack(">H", 1 << 13) + struct.pack(">I", 4) + b"\x01aZ\x00"
        self.assertUnstorable(Message("d", "t", b"", Properties(bad_table)), "malformed-properties")


class BodyTests(DocumentTestCase):
    def body(self, raw: bytes, **properties: Any) -> Any:
        return self.document(message(raw, **properties))["body"]

    def test_which_types_promise_json(self) -> None:
        for kind in (JSON, "Application/JSON; charset=utf-8", "application/vnd.acme+json", "application/geo+json ;x=y"):
            self.assertTrue(promises_json(kind), kind)
        for kind in ("", "text/plain", "application/jsonp", "application/json-seq", "text/json5"):
            self.assertFalse(promises_json(kind), kind)

    def test_json_of_every_kind(self) -> None:
        for raw, value in (
            (b"[1,2.5,null]", [1, 2.5, None]),
            (b" 42 ", 42),
            (b"true", True),
            (b"null", None),
            (b'"x"', "x"),
            (b'{"a.b":{"$c":[]}}', {"a%2Eb": {"%24c": []}}),
            (b"9223372036854775807", 2**63 - 1),
            (b'"\\ud83d\\ude00"', "😀"),
            (b'{"a":"\\u0000"}', {"a": "\0"}),
        ):
            self.assertEqual(self.body(raw, content_type=JSON), value)

    def test_without_a_type_it_is_json_only_if_it_looks_and_reads_so(self) -> None:
        self.assertEqual(self.body(b'{"a":1}'), {"a": 1})
        self.assertEqual(self.body(b"[1]"), [1])
        for raw in (
            b"",
            b"42",
            b"{oops",
            b'{"a":1,"a":2}',
            b'["\\ud800"]',
            b"[9223372036854775808]",
            b"[" * 99 + b"]" * 99,
        ):
            self.assertEqual(self.body(raw), raw)

    def test_other_types_are_binary(self) -> None:
        for raw in (b'{"a":1}', b"", bytes(range(256)), "é".encode()):
            self.assertEqual(self.body(raw, content_type="text/plain"), raw)

    def test_a_packed_body_is_unpacked(self) -> None:
        raw = struct.pack(">H", 1 << 15 | 1 << 14) + b"\x10application/json" + b"\x04gzip"
        stored = self.document(Message("d", "t", gzip.compress(b'{"a.b":1}'), Properties(raw)))
        self.assertEqual((stored["body"], stored["content_encoding"]), ({"a%2Eb": 1}, "gzip"))
        self.assertUnstorable(Message("d", "t", b"\x1f\x8b", Properties(raw)), "bad-packing")

    def test_a_packing_that_nobody_knows_is_binary_whatever_its_type(self) -> None:
        raw = struct.pack(">H", 1 << 15 | 1 << 14) + b"\x10application/json" + b"\x02br"
        stored = self.document(Message("d", "t", b"\x1f\x8b", Properties(raw)))
        self.assertEqual((stored["body"], stored["content_encoding"]), (b"\x1f\x8b", "br"))

    def test_the_name_of_a_character_set_packs_nothing(self) -> None:
        """Kombu and Celery write it there."""
        raw = encode_properties(content_type="application/json", content_encoding="UTF-8")
        stored = self.document(Message("d", "t", b'{"a": 1}', Properties(raw)))
        self.assertEqual((stored["body"], stored["content_encoding"]), ({"a": 1}, "UTF-8"))

    def test_what_was_read_as_json_is_known_to_be(self) -> None:
        for raw, is_json in ((b'{"a":1}', True), (b"{", False), (b"1", False), (b"[9223372036854775808]", False)):
            made = message(raw)
            self.document(made)
            self.assertEqual(made.is_json, is_json, raw)

    def test_json_that_would_take_too_long_to_read(self) -> None:
        raw = b"[" + b"{}," * 500 + b"1]"
        document = DocumentMaker(random.Random(1), max_values=2000).document
        self.assertEqual(document(message(raw))["body"], raw)
        with self.assertRaises(Unstorable) as caught:
            document(message(raw, content_type=JSON))
        self.assertEqual(caught.exception.reason, "too-many-values")

    def test_promised_json_that_cannot_be_stored(self) -> None:
        for raw, reason in (
            (b"", "bad-json"),
            (b"{", "bad-json"),
            (b'{"a":1,"a":2}', "bad-json"),
            (b"[NaN]", "bad-json"),
            (b'["\xff"]', "bad-json"),
            (b'["\\ud800"]', "bad-text"),
            (b'{"\\udfff":1}', "bad-text"),
            (b"[9223372036854775808]", "integer-too-large"),
            (b"[1e400]", "number-too-large"),
            (b"[1e400]", "number-too-large"),
            (b"-9223372036854775809", "integer-too-large"),
            (b"[" * 65 + b"]" * 65, "json-too-deep"),
            (b"[" + b"0," * 2_000_000 + b"0]", "too-many-values"),
        ):
            self.assertUnstorable(message(raw, content_type=JSON), reason)

    def test_a_binary_body_too_large(self) -> None:
        self.assertUnstorable(message(bytes(16 * 1024 * 1024)), "document-too-large")
        self.assertEqual(len(self.body(bytes(16 * 1024 * 1024 - 1000))), 16 * 1024 * 1024 - 1000)

    @given(st.binary(max_size=60), st.sampled_from(["", JSON, "text/plain"]))
    def test_any_body_is_stored_or_refused(self, raw: bytes, content_type: str) -> None:
        try:
            self.document(message(raw, content_type=content_type))
        except Unstorable:
            self.assertEqual(content_type, JSON)

    def test_json_larger_as_bson(self) -> None:
        """Three megabytes of small numbers are seventeen as elements; the bound is on what is stored."""
        raw = b"[" + b"1," * 1_600_000 + b"1]"
        document = DocumentMaker(random.Random(1), max_values=10_000_000).document
        with self.assertRaises(Unstorable) as caught:
            document(message(raw, content_type=JSON))
        self.assertEqual(caught.exception.reason, "document-too-large")
        self.assertEqual(document(message(raw))["body"], raw)

    def test_the_size_is_exact(self) -> None:
        rest = len(self.maker.document(message(b"")).raw)
        self.assertEqual(len(self.maker.document(message(bytes(MAX_BYTES - rest))).raw), MAX_BYTES)
        self.assertUnstorable(message(bytes(MAX_BYTES - rest + 1)), "document-too-large")

    def test_fields_of_the_body_stay_in_order(self) -> None:
        self.assertEqual(list(self.body(b'{"b":1,"_id":2}')), ["b", "_id"])


FIELDS = st.dictionaries(
    st.text(max_size=6) | st.sampled_from(["unit", "x-death", "x-device-secret", "X-amqprouter-a", "a.b", "$a", "_id"]),
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**63), 2**64 - 1)
        | st.floats(allow_nan=False)
        | st.text(max_size=9)
        | st.binary(max_size=9)
        | st.decimals(-1, 1, places=4)
        | st.integers(0, 2**32).map(lambda seconds: datetime.fromtimestamp(seconds, timezone.utc)),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        max_leaves=5,
    ),
    max_size=4,
)
SHORT_TEXTS = [name for name in NAMES if name not in ("headers", "delivery_mode", "priority", "timestamp")]
TYPES = st.none() | st.sampled_from([JSON, "text/plain", "application/senml+json; v=1", ""])
BODIES = st.sampled_from([
    b"", b"{}", b'{"t":21.5}', b'{"a":{"a.b":1}}', b'{"a":1,"a":1}', b"[1e400]", b"\xff", b"[" + b"9" * 30 + b"]"
])  # fmt: skip
TIMES = st.none() | st.integers(0, 2**64 - 1) | st.sampled_from([253_402_300_799, 253_402_300_800, 2**63 - 1, 2**63])

PLACEMENTS = [Placement("a", "dev1", "t", {"group": "g"}), Placement("b", "dev1", "t", {})]


class PlainDocumentTests(SynchronousTestCase):
    """Whatever is remembered of its sender, a message's document is, byte for byte, what it is by the plain way."""

    def setUp(self) -> None:
        self.maker = DocumentMaker(random.Random(5), {"x-device-secret"}, 2000)
        self.senders = Senders(b"by-id", b"k" * 16)

    def assertPlain(self, message: Message) -> None:
        try:
            made: bytes | str = self.maker.document(message).raw
        except Unstorable as refusal:
            made = str(refusal)
        random_id = made[13:45].decode() if isinstance(made, bytes) else ""
        try:
            expected: bytes | str = plain_document(message, {"x-device-secret"}, random_id, 2000)
        except Unstorable as refusal:
            expected = str(refusal)
        self.assertEqual(made, expected)

    @settings(max_examples=300, deadline=None)
    @given(FIELDS, TYPES, st.sets(st.sampled_from(SHORT_TEXTS)), st.data())
    def test_the_same_bytes(
        self, headers: Any, content_type: str | None, others: set[str], data: st.DataObject
    ) -> None:
        """Twice, at least: the second message's front is known."""
        priority = data.draw(st.booleans())
        for _ in range(2):
            timestamp = data.draw(TIMES)
            values = {name: text_value(data.draw(st.text(max_size=5))) for name in others - {"content_type"}}
            if "message_id" in others and data.draw(st.booleans()):
                values["message_id"] = b"\x03\xff\xe9a"
            raw = encode_properties(headers=headers, timestamp=timestamp)
            if content_type is not None:
                values["content_type"] = text_value(content_type)
            if "content_encoding" in others:
                values["content_encoding"] = text_value(data.draw(st.sampled_from(["utf-8", "br", ""])))
            if priority:
                values["priority"] = b"\x04"
            raw = with_values(raw, values)
            body = data.draw(BODIES)
            for exchange, key in ((b"devices", b"dev1.up.t"), (b"devices", "dév".encode()), (b"by-id", b"dev1")):
                delivery = Delivery(1, b"c", 1, False, exchange, key, raw, body)
                received_at = data.draw(st.floats(0, 4e9))
                for _ in range(2):
                    some = self.senders.of(exchange, key).message(delivery, received_at)
                    self.assertPlain(some)
                    some.use_topic(data.draw(st.sampled_from(["t", "u"])))
                    self.assertPlain(some)
                    some.publisher = data.draw(st.sampled_from(["", "dev1", "bridge"]))
                    some.layout = data.draw(st.sampled_from([None, *PLACEMENTS]))
                    self.assertPlain(some)
                self.assertPlain(Message("dev1", "up", body, Properties(raw), received_at=received_at))

    @given(st.floats(0, 253_402_300_799))
    def test_times_are_rounded_alike(self, received_at: float) -> None:
        self.assertPlain(message(received_at=received_at))

    def test_times_about_a_millisecond(self) -> None:
        for seconds in (0, 1, 1_700_000_000, 1_700_000_001):
            for micros in (0, 1, 499, 500, 999, 1000, 1001, 999_499, 999_999):
                for off in (-6e-7, -5e-7, -4e-7, 0, 4e-7, 5e-7, 6e-7):
                    self.assertPlain(message(received_at=max(0.0, seconds + micros / 1e6 + off)))

    def known(self, message: Message, key: bytes = b"dev1.up") -> Message:
        delivery = Delivery(1, b"c", 1, False, b"devices", key, message.properties.raw, message.body)
        return self.senders.of(b"devices", key).message(delivery, RECEIVED)

    def test_what_is_remembered_is_used(self) -> None:
        first = self.known(message(content_type=JSON, headers={"fw": "1.2"}))
        self.maker.document(first)
        front = first.properties.front
        assert front is not None
        self.patch(Properties, "headers", property(lambda _: self.fail("decoded anew")))
        self.assertEqual(
            self.maker.document(self.known(message(content_type=JSON, headers={"fw": "1.2"})))["device"], "dev1"
        )

    def test_no_secret_is_remembered(self) -> None:
        some = self.known(message(headers={"x-device-secret": "sesame", "fw": "open"}))
        self.maker.document(some)
        front = some.properties.front
        assert front is not None
        kept = front.known[self.maker]
        remembered = b"".join(value for name in dir(kept) if isinstance(value := getattr(kept, name), bytes))
        self.assertIn(b"open", remembered)
        self.assertNotIn(b"sesame", remembered)

    def test_little_is_remembered(self) -> None:
        for octets, is_kept in ((MAX_REMEMBERED - 50, True), (MAX_REMEMBERED + 1, False)):
            some = self.known(message(headers={"h": "x" * octets}))
            self.maker.document(some)
            front = some.properties.front
            assert front is not None
            self.assertEqual(self.maker in front.known, is_kept)
            self.assertPlain(self.known(message(headers={"h": "x" * octets})))

    def test_a_publisher_that_cannot_be_encoded_leaves_nothing_behind(self) -> None:
        some = self.known(message())
        self.maker.document(some)
        for publisher, topic in (("\ud800", "other"), ("", "up.t")):
            some.publisher, some.topic = publisher, topic
            if publisher:
                self.assertRaises(Unstorable, self.maker.document, some)
            else:
                self.assertPlain(some)

    def test_half_a_surrogate_pair_in_a_name(self) -> None:
        for device, topic in (("\ud800", "t"), ("d", "\udfff")):
            with self.assertRaises(Unstorable) as caught:
                self.maker.document(message(device=device, topic=topic))
            self.assertEqual(caught.exception.reason, "bad-text")


class LayoutTests(DocumentTestCase):
    def test_where_a_layout_found_the_device(self) -> None:
        placed = message(device="press-3", topic="DDATA")
        words = {"group": "Plant 1", "node": "e\udcff", "device": "press-3", "topic": "DDATA"}
        placed.layout = Placement("sparkplug-b", "press-3", "DDATA", words)
        self.assertEqual(self.document(placed)["layout"], {"name": "sparkplug-b", "group": "Plant 1", "node": "e\\xff"})
        self.assertNotIn("layout", self.document(message()))
