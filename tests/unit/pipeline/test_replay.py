"""Envelopes of replayed messages: closed, opened, and believed only when the broker vouches for the sender."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from amqprouter.amqp.properties import Properties, encode_properties
from amqprouter.amqp.wire import Delivery
from amqprouter.identity import Identity, Verdict
from amqprouter.pipeline.headers import identity_text, recalled
from amqprouter.pipeline.message import Message
from amqprouter.pipeline.replay import Replays, enveloped

STORY: dict[str, Any] = {
    "x-amqprouter-device": "dev1",
    "x-amqprouter-exchange": "devices",
    "x-amqprouter-checker": "secret",
    "x-amqprouter-proven": True,
}


class EnvelopeTests(SynchronousTestCase):
    def opened(self, raw: bytes, key: bytes = b"dev1.up.x", user: str = "gateway") -> Message:
        delivery = Delivery(1, b"c", 1, True, b"a.replay", key, raw, b"body")
        return Replays("a.replay", user).message(delivery, 5.0)

    def test_there_and_back(self) -> None:
        raw = encode_properties(
            content_type="t", headers={"unit": "C"}, message_id="m", type="y", app_id="a", timestamp=9
        )
        sent = enveloped(raw, "gateway", STORY)
        self.assertEqual(Properties(sent).text("user_id"), "gateway")
        message = self.opened(sent)
        self.assertEqual((message.device, message.topic, message.exchange), ("dev1", "up.x", b"devices"))
        self.assertEqual((message.routing_key, message.body, message.received_at), (b"dev1.up.x", b"body", 5.0))
        self.assertEqual(message.verdict, Verdict(True, checker="secret"))
        self.assertEqual(message.properties.raw, raw)

    @given(st.sets(st.sampled_from(["content_type", "message_id", "correlation_id", "type", "app_id"])), st.booleans())
    def test_whatever_properties_there_are(self, names: set[str], timed: bool) -> None:
        values: dict[str, Any] = dict.fromkeys(names, "v")
        raw = encode_properties(timestamp=1 if timed else None, **values)
        sent = Properties(enveloped(raw, "gateway", STORY))
        self.assertEqual(sent.text("user_id"), "gateway")
        self.assertEqual({name: sent.text(name) for name in names}, values)
        self.assertEqual(self.opened(sent.raw).properties.raw, raw)

    def test_what_is_not_passed_on(self) -> None:
        """An older headers, another's user id, and a time to live."""
        raw = encode_properties(headers={"x-amqprouter-reason": "r", "keep": 1}, user_id="dev9")
        expiring = (int.from_bytes(raw[:2], "big") | 1 << 8).to_bytes(2, "big")
        at = Properties(raw).spans()[11][0]
        raw = expiring + raw[2:at] + b"\x0210" + raw[at:]
        self.assertEqual(Properties(raw).text("expiration"), "10")
        sent = Properties(enveloped(raw, "gateway", STORY))
        self.assertEqual((sent.text("user_id"), sent.text("expiration")), ("gateway", None))
        self.assertEqual(self.opened(sent.raw).properties.headers, {"keep": 1})

    def test_without_a_proof_it_has_to_prove_itself(self) -> None:
        for headers in ({**STORY, "x-amqprouter-proven": False}, {**STORY, "x-amqprouter-proven": "yes"}, {}):
            message = self.opened(enveloped(encode_properties(), "gateway", headers))
            self.assertIsNone(message.verdict)
            self.assertEqual((message.device, message.topic), ("dev1", "up.x"))

    def test_nobody_elses_envelope_is_believed(self) -> None:
        forged = enveloped(encode_properties(), "evil", STORY)
        for raw, user in ((forged, "gateway"), (forged, ""), (encode_properties(headers=STORY), "gateway")):
            message = self.opened(raw, user=user)
            self.assertIsNone(message.verdict)
            self.assertEqual(message.exchange, b"a.replay")  # some proofs lie in the exchange
            self.assertEqual(message.properties.raw, raw)
        nobody = enveloped(encode_properties(), "", STORY)
        self.assertIsNone(self.opened(nobody, user="").verdict)

    def test_what_a_checker_had_said(self) -> None:
        identity = Identity("dev1", 60.0, "5/s", "alarms", "plant", ("north", "ü"))
        told = identity_text(identity)
        headers = {**STORY, "x-amqprouter-identity": told}
        message = self.opened(enveloped(encode_properties(), "gateway", headers))
        self.assertEqual(message.verdict.identity, Identity("", None, "5/s", "alarms", "plant", ("north", "ü")))
        self.assertEqual(identity_text(Identity("dev1")), "")
        self.assertEqual(identity_text(Identity("dev1", groups=("g" * 5000,))), "")
        for acl in ((), ("deny %d.x", "#")):
            self.assertEqual(recalled(identity_text(Identity("dev1", acl=acl))), Identity("", acl=acl))
        too_much = Identity("dev1", groups=("g" * 5000,), acl=("#",))
        self.assertEqual(recalled(identity_text(too_much)), Identity("", acl=()))  # it may do nothing, rather than all
        for odd in (
            "",
            "x",
            "1",
            "[]",
            "null",
            '{"groups": 1}',
            '{"groups": [1]}',
            '{"tenant": 1}',
            '{"acl": 1}',
            '{"acl": [1]}',
            '{"x": "y"}',
            "[" * 9999,
        ):
            self.assertIsNone(recalled(odd), odd)

    def test_who_published_it(self) -> None:
        story = {**STORY, "x-amqprouter-publisher": "bridge-7"}
        message = self.opened(enveloped(encode_properties(), "gateway", story))
        self.assertEqual(message.verdict, Verdict(True, checker="secret", publisher="bridge-7"))
        self.assertIsNone(self.opened(enveloped(encode_properties(), "evil", story)).verdict)

    def test_the_story_and_the_key_must_agree(self) -> None:
        """A proof holds for its own device alone."""
        for key in (b"dev2.up.x", b"dev11.up.x", b".up", b"", b"dev1\xff.up"):
            message = self.opened(enveloped(encode_properties(), "gateway", STORY), key)
            self.assertIsNone(message.verdict)
            self.assertNotEqual(message.device, "dev1")
        by_id = self.opened(enveloped(encode_properties(type="up"), "gateway", STORY), b"dev1")
        self.assertEqual((by_id.device, by_id.topic, by_id.verdict), ("dev1", "", Verdict(True, checker="secret")))

    def test_a_dotted_id_is_not_taken_for_a_shorter_one(self) -> None:
        headers = {**STORY, "x-amqprouter-device": "dev1.up", "x-amqprouter-exchange": "devices.by-id"}
        message = self.opened(enveloped(encode_properties(), "gateway", headers), b"dev1.up.x")
        self.assertEqual((message.device, message.topic), ("dev1.up", "x"))

    def test_malformed_properties(self) -> None:
        for raw in (b"", b"\x20\x00\xff", b"\x20\x10\0\0\0\1x\7gateway"):
            message = self.opened(raw)
            self.assertIsNone(message.verdict)
            self.assertEqual(message.properties.raw, raw)
        with self.assertRaises(ValueError):
            enveloped(b"\x20\x00\xff", "gateway", STORY)
        with self.assertRaises(ValueError):
            enveloped(encode_properties(), "x" * 256, STORY)
