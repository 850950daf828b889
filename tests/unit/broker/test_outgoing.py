"""What a device may not say through us is gone, and the rest is as it was, byte for byte."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from pamqp import commands, header
from twisted.trial.unittest import SynchronousTestCase

from amqprouter.amqp import field_table
from amqprouter.amqp.properties import Properties, encode_properties
from amqprouter.broker.outgoing import Outgoing
from amqprouter.identity import Identity, Verdict
from amqprouter.layouts.layout import Placement
from amqprouter.pipeline.message import Message
from amqprouter.pipeline.sender import Sender, Senders

FORGED: dict[str, Any] = {
    "CC": ["other"],
    "BCC": ["other"],
    "x-death": [{"count": 1}],
    "x-first-death-queue": "q",
    "x-first-death-reason": "expired",
    "x-first-death-exchange": "e",
    "x-last-death-queue": "q",
    "x-last-death-reason": "expired",
    "x-last-death-exchange": "e",
    "x-delivery-count": 9,
    "x-acquired-count": 9,
    "x-routed-by": "rabbit@b",
    "x-received-from": [{"hops": 99}],
    "x-shovelled": [{"shovelled-by": "x"}],
    "x-delay": 2_000_000_000,
    "x-amqprouter-device": "somebody-else",
    "x-amqprouter-reason": "none",
    "x-amqprouter-at": 0,
    "x-amqprouter-exchange": "e",
    "x-amqprouter-routing-key": "k",
    "x-amqprouter-checker": "c",
    "x-amqprouter-proven": True,
    "x-amqprouter-identity": "{}",
    "x-amqprouter-key": "other.topic",
    "x-amqprouter-from": "ann",
    "x-amqprouter-attempt": 2**63 - 1,
    "x-amqprouter-public": True,
    "x-amqprouter-parked": {"device": "dev2"},
    "x-amqprouter-": 1,
    "X-AMQPRouter-From": "ann",
    "x-secret": "s3cret",
}


KEPT: dict[str, Any] = {
    "keep": 1.5,
    "x-deathly": "keep",
    "x-amqprouter": "keep",
}


def message(properties: bytes, device: str = "dev1", key: bytes = b"dev1.up") -> Message:
    return Message(device, "up", b"body", Properties(properties), exchange=b"devices", routing_key=key)


def everything() -> bytes:
    """Every property, by pamqp."""
    values = commands.Basic.Properties(
        content_type="t",
        content_encoding="e",
        headers=FORGED | KEPT,
        delivery_mode=1,
        priority=9,
        correlation_id="c",
        reply_to="r",
        expiration="1000",
        message_id="m",
        timestamp=datetime(2020, 1, 1, tzinfo=timezone.utc),
        message_type="y",
        user_id="u",
        app_id="a",
    )
    return bytes(header.ContentHeader(0, 0, values).marshal()[12:])


class OutgoingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.outgoing = Outgoing("x-secret")

    def test_passed_on(self) -> None:
        raw = self.outgoing.passed_on(message(everything()))
        properties = Properties(raw)
        self.assertEqual(properties.headers, {**KEPT, "x-amqprouter-device": "dev1"})
        kept = {name: properties.text(name) for name in ("content_type", "content_encoding", "correlation_id")}
        self.assertEqual(kept, {"content_type": "t", "content_encoding": "e", "correlation_id": "c"})
        self.assertEqual([properties.text(name) for name in ("message_id", "type", "app_id")], ["m", "y", "a"])
        for name in ("reply_to", "expiration", "user_id", "cluster_id"):
            self.assertIsNone(properties.text(name))
        self.assertEqual(properties.timestamp, 1577836800)
        self.assertNotIn(b"s3cret", raw)

    def test_nothing_to_begin_with(self) -> None:
        raw = self.outgoing.passed_on(message(b"\x00\x00"))
        self.assertEqual(Properties(raw).headers, {"x-amqprouter-device": "dev1"})

    def test_forged_twice(self) -> None:
        """Every copy of a forged header goes."""
        entry = field_table.encode_entry("x-amqprouter-device", "evil")
        table = entry + entry
        raw = b"\x20\x00" + len(table).to_bytes(4, "big") + table
        passed = Properties(self.outgoing.passed_on(message(raw)))
        self.assertEqual((passed.header_count(), passed.headers), (1, {"x-amqprouter-device": "dev1"}))

    def test_a_value_that_spells_the_rest_of_the_prefix(self) -> None:
        """A short name, the type T of a timestamp, and its eight bytes."""
        table = b"\x09x-amqprouTER-ABCDE"
        raw = b"\x20\x00" + len(table).to_bytes(4, "big") + table
        self.assertIn(table, self.outgoing.passed_on(message(raw)))

    def test_with_the_key_and_from_a_known_sender(self) -> None:
        raw = everything()
        expected = {**KEPT, "x-amqprouter-device": "dev1", "x-amqprouter-key": "dev1.up"}
        self.assertEqual(Properties(self.outgoing.with_key(message(raw))).headers, expected)
        del expected["x-amqprouter-key"]
        values = Properties(encode_properties(headers=FORGED | KEPT, message_id="m")).raw
        sender = Senders(b"by-id", b"k").of(b"devices", b"dev1.up")
        for _ in range(3):
            known = Properties(values)
            sender.recognise(known)
            passed = self.outgoing.passed_on(Message("dev1", "up", b"", known))
            self.assertEqual(Properties(passed).headers, expected)

    def test_who_published_it(self) -> None:
        """Told where it was somebody else than the device, and not what a front said that came from another."""
        values = encode_properties(headers=FORGED | KEPT | {"x-amqprouter-publisher": "forged"}, message_id="m")
        sender = Senders(b"by-id", b"k").of(b"devices", b"dev1.up")
        for publisher, told in (("", None), ("bridge", "bridge"), ("dev1", None), ("other", "other"), ("", None)):
            known = Properties(values)
            sender.recognise(known)
            made = Message("dev1", "up", b"", known)
            made.publisher = publisher
            self.assertEqual((made.publisher, made.is_spoken_for), (told or "dev1", told is not None))
            for raw in (
                self.outgoing.passed_on(made),
                self.outgoing.with_key(made),
                self.outgoing.quarantined(made, "r", 0),
                self.outgoing.headers_only(made, "r", 0),
            ):
                self.assertEqual(Properties(raw).headers.get("x-amqprouter-publisher"), told)

    def test_where_a_layout_found_the_device(self) -> None:
        placed = message(encode_properties(headers={**KEPT, "x-amqprouter-layout": "forged"}))
        placed.layout = Placement("tasmota", "dev1", "up", {"device": "dev1", "topic": "up", "prefix": "tele"})
        told = {"x-amqprouter-layout": "tasmota?prefix=tele", "x-amqprouter-key": "dev1.up"}
        expected = {**KEPT, "x-amqprouter-device": "dev1", **told}
        for made in (self.outgoing.passed_on(placed), self.outgoing.with_key(placed)):
            self.assertEqual(Properties(made).headers, expected)
        quarantined = Properties(self.outgoing.quarantined(placed, "no-route", 1577836800.9)).headers
        self.assertEqual({name: quarantined[name] for name in told}, told)

    def test_quarantined(self) -> None:
        properties = Properties(self.outgoing.quarantined(message(everything()), "no-route", 1577836800.9))
        self.assertEqual(
            properties.headers,
            {
                **KEPT,
                "x-amqprouter-reason": "no-route",
                "x-amqprouter-at": datetime(2020, 1, 1, tzinfo=timezone.utc),
                "x-amqprouter-exchange": "devices",
                "x-amqprouter-routing-key": "dev1.up",
                "x-amqprouter-device": "dev1",
            },
        )
        self.assertEqual(properties.message_id, "m")

    def test_quarantined_after_a_proof_of_identity(self) -> None:
        """With the proof's name, and whether it said yes: a replay counts on that."""
        for verdict in (Verdict(True, checker="user-id"), Verdict(False, "bad-secret", "secret")):
            refused = message(everything())
            refused.verdict = verdict
            headers = Properties(self.outgoing.quarantined(refused, "r", 0)).headers
            told = headers["x-amqprouter-checker"], headers["x-amqprouter-proven"]
            self.assertEqual(told, (verdict.checker, verdict.allowed))

    def test_quarantined_with_what_a_checker_said(self) -> None:
        """For a replay; of a device that was not proven it means nothing."""
        for allowed, told in ((True, '{"tenant":"plant","groups":["a"]}'), (False, None)):
            refused = message(everything())
            refused.verdict = Verdict(allowed, "r", "secret", Identity("dev1", tenant="plant", groups=("a",)))
            headers = Properties(self.outgoing.quarantined(refused, "r", 0)).headers
            self.assertEqual(headers.get("x-amqprouter-identity"), told)

    def test_quarantined_in_the_name_of_our_account(self) -> None:
        """And never in the device's: the broker would close the channel."""
        outgoing = Outgoing("x-secret", account="gateway")
        for raw in (everything(), encode_properties(user_id="dev1"), b"\x00\x00", b"\x20\x00\xff"):
            for made in (outgoing.quarantined(message(raw), "r", 0), outgoing.headers_only(message(raw), "r", 0)):
                self.assertEqual(Properties(made).text("user_id"), "gateway")
                self.assertEqual(Properties(made).headers["x-amqprouter-reason"], "r")
        self.assertIsNone(Properties(outgoing.passed_on(message(everything()))).text("user_id"))

    def test_quarantined_with_malformed_properties(self) -> None:
        """The story is told without them."""
        properties = Properties(self.outgoing.quarantined(message(b"\x20\x00\xff"), "malformed-properties", 0))
        self.assertEqual(properties.headers["x-amqprouter-reason"], "malformed-properties")
        self.assertEqual(len(properties.headers), 5)

    def test_words_that_amqp_has_no_room_for(self) -> None:
        """Reasons quote others' errors: they are cut, and what is no text is escaped; the message must go somewhere."""
        for made in (
            self.outgoing.quarantined(message(b"\x00\x00"), "\ud800" + "€" * 100_000, 0),
            self.outgoing.headers_only(message(b"\x00\x00"), "\ud800" + "€" * 100_000, 0),
        ):
            reason = Properties(made).headers["x-amqprouter-reason"]
            assert isinstance(reason, str)
            self.assertTrue(reason.startswith("\\ud800€€"))
            self.assertLessEqual(len(reason.encode()), 1024)

    def test_keys_that_are_not_text(self) -> None:
        odd = message(b"\x00\x00", key=b"dev1.\xff")
        odd.exchange = b"\xff"
        headers = Properties(self.outgoing.quarantined(odd, "r", 0)).headers
        self.assertEqual(headers["x-amqprouter-routing-key"], "dev1.\\xff")
        self.assertEqual(headers["x-amqprouter-exchange"], "\ufffd")

    def test_headers_only(self) -> None:
        properties = Properties(self.outgoing.headers_only(message(everything()), "why", 0))
        self.assertEqual(set(properties.headers), {"x-amqprouter-reason", "x-amqprouter-at", "x-amqprouter-device"})
        self.assertIsNone(properties.message_id)

    def test_persistent_unless_the_device_said_otherwise(self) -> None:
        raw = self.outgoing.passed_on(message(encode_properties(message_id="m")))
        self.assertEqual(read_mode(raw), 2)


def read_mode(raw: bytes) -> int:
    start, _ = Properties(raw).spans()[3]
    return raw[start]


class KnownSenderTests(SynchronousTestCase):
    def passed_on(self, sender: Sender | None, raw: bytes) -> bytes:
        made = message(raw)
        if sender is not None:
            sender.recognise(made.properties)
        return Outgoing("x-secret").passed_on(made) if sender is None else self.outgoing.passed_on(made)

    def setUp(self) -> None:
        self.outgoing = Outgoing("x-secret")

    @given(
        st.lists(
            st.fixed_dictionaries(
                {
                    "headers": st.sampled_from([{}, {"x-secret": "s"}, {"a": 1}, {"x-secret": "s", "a": "b"}, FORGED]),
                    "message_id": st.sampled_from(["", "1", "22"]),
                    "content_type": st.sampled_from(["", "text/plain"]),
                    "user_id": st.sampled_from(["", "", "dev1"]),
                }
            ),
            max_size=12,
        )
    )
    def test_what_is_passed_on_is_the_same(self, sent: list[dict[str, Any]]) -> None:
        sender = Senders(b"by-id", b"k" * 32).of(b"devices", b"dev1.up")
        for values in sent:
            raw = encode_properties(**values)
            self.assertEqual(self.passed_on(sender, raw), self.passed_on(None, raw))
            self.assertNotIn(b"x-secret", self.passed_on(sender, raw))

    def test_two_do_not_mix_up_what_they_drop(self) -> None:
        sender = Senders(b"by-id", b"k" * 32).of(b"devices", b"dev1.up")
        made = message(encode_properties(headers={"one": "1", "two": "2"}))
        sender.recognise(made.properties)
        self.assertNotIn(b"one", Outgoing("one").passed_on(made))
        self.assertNotIn(b"two", Outgoing("two").passed_on(made))
