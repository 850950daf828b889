"""Parked messages come out as they went in."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from amqprouter.amqp.field_table import FieldValue
from amqprouter.amqp.properties import Properties, encode_properties
from amqprouter.broker.parked_message import parked_message, parked_properties
from amqprouter.identity import Identity, Verdict
from amqprouter.layouts.layout import Placement
from amqprouter.pipeline.headers import PARKED
from amqprouter.pipeline.message import Message

SHORT = st.binary(max_size=255)
FIELDS = ("device", "topic", "body", "exchange", "routing_key", "redelivered", "received_at", "verdict", "publisher")
VERDICTS = st.sampled_from(
    [
        None,
        Verdict(True, checker="secret"),
        Verdict(True, checker="user-id", identity=Identity("", tenant="t", groups=("g",))),
        Verdict(True, checker="user-id", publisher="bridge-7"),
    ]
)


class ParkedMessageTests(SynchronousTestCase):
    @given(st.text("abcé-", max_size=60), SHORT, SHORT, st.binary(max_size=300), st.booleans(), st.floats(0), VERDICTS)
    def test_there_and_back(
        self, text: str, exchange: bytes, key: bytes, raw: bytes, redelivered: bool, at: float, verdict: Verdict | None
    ) -> None:
        """Byte for byte, whatever the device's properties are, malformed ones too."""
        message = Message(
            text,
            f"up.{text}",
            raw[::-1],
            Properties(raw),
            exchange=exchange,
            routing_key=key,
            redelivered=redelivered,
            received_at=at,
        )
        message.verdict = verdict
        message.publisher = "" if verdict is None else verdict.publisher
        restored = parked_message(parked_properties(message), message.body)
        for field in FIELDS:
            self.assertEqual(getattr(restored, field), getattr(message, field), field)
        self.assertEqual(restored.properties.raw, raw)

    def test_with_its_layout(self) -> None:
        message = Message("My%20Plug", "up", b"", Properties(), routing_key=b"t.acme.My Plug.up")
        message.layout = Placement("own one", "My%20Plug", "up", {"tenant": "acme", "device": "My Plug"}, "acme")
        restored = parked_message(parked_properties(message), b"").layout
        assert restored is not None
        self.assertEqual((restored.text, restored.tenant), (message.layout.text, "acme"))
        self.assertEqual((restored.device, restored.topic), ("My%20Plug", "up"))

    def test_what_a_device_sent_steers_nothing(self) -> None:
        """Neither an expiry, nor copies, nor a user, nor a header that claims to be ours."""
        forged = parked_properties(Message("other", "up", b"", Properties()))
        parked = Properties(forged).headers[PARKED]
        raw = encode_properties(headers={PARKED: parked, "CC": ["x"]}, user_id="meter", delivery_mode=1)
        outer = Properties(parked_properties(Message("mine", "up", b"", Properties(raw))))
        self.assertEqual(set(outer.headers), {PARKED})
        self.assertIsNone(outer.text("user_id"))
        self.assertEqual(parked_message(outer.raw, b"").device, "mine")

    def test_what_was_not_parked(self) -> None:
        good = Properties(parked_properties(Message("d", "t", b"", Properties()))).headers[PARKED]
        assert isinstance(good, dict)
        headers: tuple[dict[str, FieldValue], ...] = (
            {},
            {PARKED: "text"},
            {PARKED: {**good, "device": 5}},
            {PARKED: {**good, "properties": "text"}},
            {PARKED: {name: value for name, value in good.items() if name != "exchange"}},
            {PARKED: {**good, "received-at": "soon"}},
        )
        for bad in headers:
            with self.assertRaises(ValueError):
                parked_message(encode_properties(headers=bad), b"")
