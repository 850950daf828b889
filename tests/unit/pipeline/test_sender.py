"""A sender's front is recognised by its bytes alone, and what is known from it is what looking would find."""

from __future__ import annotations

import gc

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from amqprouter.amqp.properties import Properties, encode_properties
from amqprouter.pipeline import sender as sender_module
from amqprouter.pipeline.sender import PATIENCE, Sender, Senders

KEY = b"k" * 32
HEADERS = st.dictionaries(st.sampled_from(["secret", "unit", "é"]), st.one_of(st.text(max_size=3), st.integers(0, 3)))


def some(headers: dict[str, object], message_id: str = "m", content_type: str = "t", **others: object) -> bytes:
    return encode_properties(headers=headers, message_id=message_id, content_type=content_type, **others)  # type: ignore[arg-type]


def of(sender: Sender, raw: bytes) -> Properties:
    properties = Properties(raw)
    sender.recognise(properties)
    return properties


class SendersTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.senders = Senders(b"by-id", KEY)

    def test_a_key_is_a_device_and_its_topic(self) -> None:
        sender = self.senders.of(b"devices", b"dev1.up.reading")
        self.assertEqual((sender.device, sender.topic), ("dev1", "up.reading"))
        self.assertIs(self.senders.of(b"other", b"dev1.up.reading"), sender)

    def test_by_id_the_whole_key_is_the_device(self) -> None:
        """One with a dot in it is no legal id, and must not be taken for a shorter one."""
        sender = self.senders.of(b"by-id", b"dev1.up")
        self.assertEqual((sender.device, sender.topic), ("dev1.up", ""))
        self.assertEqual(self.senders.of(b"devices", b"dev1.up").device, "dev1")

    def test_keys_that_are_not_utf8(self) -> None:
        sender = self.senders.of(b"devices", b"\xff.\xfe")
        self.assertEqual((sender.device, sender.topic), ("\\xff", "\\xfe"))

    def test_they_are_bounded(self) -> None:
        self.patch(sender_module, "MAX_SENDERS", 3)
        first = self.senders.of(b"devices", b"0.up")
        for number in range(1, 3):
            self.senders.of(b"devices", b"%d.up" % number)
        self.assertIs(self.senders.of(b"devices", b"0.up"), first)
        self.senders.of(b"devices", b"3.up")
        self.assertIsNot(self.senders.of(b"devices", b"0.up"), first)


class FrontTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.sender = Senders(b"by-id", KEY).of(b"devices", b"dev1.up")

    def test_what_stands_behind_the_headers_may_differ(self) -> None:
        first = of(self.sender, some({"secret": "s"}, "1", timestamp=1))
        second = of(self.sender, some({"secret": "s"}, "22", timestamp=2))
        self.assertIsNotNone(second.front)
        self.assertIs(second.front, first.front)

    def test_every_byte_of_the_front_counts(self) -> None:
        first = of(self.sender, some({"secret": "s"}))
        for other in (
            some({"secret": "t"}),
            some({"secret": "s", "a": 1}),
            some({"secret": "s"}, content_type="u"),
            some({"secret": "s"}, app_id="other flags"),
            some({}),
        ):
            self.assertIsNot(of(self.sender, other).front, first.front)
            self.assertIs(of(self.sender, some({"secret": "s"})).front is first.front, False)  # the latest counts

    def test_malformed_properties_are_not_recognised(self) -> None:
        good = some({"secret": "s"})
        for _ in range(2):
            self.assertIsNotNone(of(self.sender, good).front)
            for bad in (good + b"x", good[:-1], good[:-2], good[:3], b"", b"\xff\xff"):
                properties = of(self.sender, bad)
                self.assertIsNone(properties.front)
                with self.assertRaises(ValueError, msg=str(bad)):
                    properties.header_count()

    def test_who_never_repeats_a_front_is_no_longer_looked_at(self) -> None:
        for number in range(PATIENCE):
            self.assertIsNotNone(of(self.sender, some({"n": number})).front)
        for _ in range(3):
            self.assertIsNone(of(self.sender, some({"n": PATIENCE})).front)

    def test_who_repeats_one_at_times_is(self) -> None:
        for number in range(2 * PATIENCE):
            of(self.sender, some({"n": number // 2}))
        self.assertIsNotNone(of(self.sender, some({"n": 0})).front)

    def test_no_secret_stays_in_memory(self) -> None:
        secret = "never-to-be-" + "found-again"
        front = of(self.sender, some({"secret": secret})).front
        assert front is not None
        seen: list[object] = [self.sender]
        for known in seen:
            if isinstance(known, bytes):
                self.assertNotIn(secret.encode(), known)
            seen += [x for x in gc.get_referents(known) if isinstance(x, (bytes, str, dict, tuple, list, type(front)))]
        self.assertIn(front, seen)

    @given(st.lists(st.tuples(HEADERS, st.sampled_from(["", "a", "bb"]), st.booleans()), max_size=12))
    def test_it_changes_nothing_of_what_is_read(self, messages: list[tuple[dict[str, object], str, bool]]) -> None:
        sender = Senders(b"by-id", KEY).of(b"devices", b"dev1.up")
        for headers, text, has_user in messages:
            raw = some(headers, text, text, user_id="u" if has_user else "")
            known, plain = of(sender, raw), Properties(raw)
            self.assertEqual(known.header_count(), plain.header_count())
            self.assertEqual(known.headers, plain.headers)
            for name in ("user_id", "message_id", "content_type", "app_id"):
                self.assertEqual(known.raw_text(name), plain.raw_text(name))
                self.assertEqual(known.text(name), plain.text(name))
            self.assertEqual(known.raw_header(b"secret"), plain.raw_header(b"secret"))
