"""What is passed to another gateway comes out of its envelope as it went in, and nobody else's is believed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from amqprouter.amqp.properties import Properties, encode_properties
from amqprouter.amqp.wire import Delivery
from amqprouter.broker.repartition_envelope import Envelope
from amqprouter.pipeline.headers import REPARTITIONED

SHORT = st.binary(max_size=255)
ACCOUNTS = st.sampled_from(["", "gateway", "é" * 100])


def copied(envelope: Envelope, delivery: Delivery, redelivered: bool = False) -> Delivery:
    """As it comes out of the partition's queue."""
    return Delivery(2, b"tag", 77, redelivered, b"", b"amqprouter.partition.1", envelope.wrapped(delivery), b"body")


class EnvelopeTests(SynchronousTestCase):
    @given(ACCOUNTS, SHORT, SHORT, SHORT, st.binary(max_size=300), st.booleans(), st.booleans())
    def test_there_and_back(
        self, account: str, tag: bytes, exchange: bytes, key: bytes, raw: bytes, before: bool, since: bool
    ) -> None:
        """Byte for byte, whatever the device's properties are, malformed ones too."""
        envelope = Envelope(account)
        delivery = Delivery(1, tag, 5, before, exchange, key, raw, b"body")
        found = envelope.unwrapped(copied(envelope, delivery, since))
        assert found is not None
        self.assertEqual((found.consumer_tag, found.exchange, found.routing_key), (tag, exchange, key))
        self.assertEqual((found.properties, found.body), (raw, b"body"))
        self.assertEqual((found.channel, found.delivery_tag, found.redelivered), (2, 77, before or since))

    def test_a_broker_may_add_a_header(self) -> None:
        """RabbitMQ counts how often a quorum queue delivered a message, and 4.0 sorts all headers by name."""
        envelope = Envelope("gateway")
        delivery = copied(envelope, Delivery(1, b"t", 5, False, b"devices", b"lamp.up", encode_properties(), b""))
        header = Properties(delivery.properties).header(REPARTITIONED.encode())
        for headers in (
            {REPARTITIONED: header, "x-delivery-count": 2},
            {"x-acquired-count": 1, REPARTITIONED: header},
        ):
            delivery.properties = encode_properties(headers=headers, user_id="gateway")
            found = envelope.unwrapped(delivery)
            assert found is not None
            self.assertEqual((found.exchange, found.routing_key), (b"devices", b"lamp.up"))

    def test_nobody_elses_is_opened(self) -> None:
        ours, theirs = Envelope("gateway"), Envelope("device-7")
        inner = Delivery(1, b"t", 5, False, b"devices", b"lamp.up", encode_properties(), b"")
        self.assertIsNone(ours.unwrapped(copied(theirs, inner)))
        self.assertIsNone(ours.unwrapped(copied(Envelope(""), inner)))

    @given(st.binary(max_size=60))
    def test_what_is_no_envelope_is_none(self, content: bytes) -> None:
        """Whatever stands under the name; opening it never raises."""
        envelope = Envelope("")
        for raw in (content, encode_properties(headers={REPARTITIONED: content}), encode_properties()):
            found = envelope.unwrapped(Delivery(1, b"t", 5, False, b"", b"q", raw, b""))
            if found is not None:
                self.assertEqual(content[0], 1)
        self.assertIsNone(envelope.unwrapped(Delivery(1, b"t", 5, False, b"", b"q", encode_properties(), b"")))

    def test_one_that_is_cut_off_is_none(self) -> None:
        for account in ("", "gateway"):
            envelope = Envelope(account)
            whole = envelope.wrapped(Delivery(1, b"t", 5, False, b"devices", b"lamp.up", encode_properties(), b""))
            for size in range(len(whole)):
                self.assertIsNone(envelope.unwrapped(Delivery(1, b"t", 5, False, b"", b"q", whole[:size], b"")), size)

    def test_the_copy_is_as_persistent_as_the_message(self) -> None:
        envelope = Envelope("gateway")
        for raw, persistent in (
            (encode_properties(delivery_mode=2), True),
            (encode_properties(delivery_mode=1), False),
            (encode_properties(delivery_mode=1, content_type="a/b", content_encoding="gzip", headers={"a": 1}), False),
            (encode_properties(delivery_mode=2, content_type="a/b", headers={"a": 1}), True),
            (b"\x00\x00", False),
            (b"\x10\x00", True),  # malformed
            (b"", True),
        ):
            copy = Properties(envelope.wrapped(Delivery(1, b"t", 5, False, b"devices", b"lamp.up", raw, b"")))
            start, end = copy.spans()[3]
            self.assertEqual(copy.raw[start:end], b"\x02" if persistent else b"\x01", raw)

    def test_nothing_of_the_message_steers_the_copy(self) -> None:
        raw = encode_properties(headers={"CC": ["elsewhere"]}, user_id="device-7", reply_to="q")
        copy = Properties(Envelope("gateway").wrapped(Delivery(1, b"t", 5, False, b"devices", b"lamp.up", raw, b"")))
        self.assertEqual((set(copy.headers), copy.text("user_id")), ({REPARTITIONED}, "gateway"))
        self.assertIsNone(copy.text("reply_to"))
