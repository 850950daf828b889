"""Escaping, which loses nothing and mixes nothing up; normalising."""

from __future__ import annotations

from itertools import combinations

from twisted.trial.unittest import SynchronousTestCase

from amqprouter.identity import valid_device_id
from amqprouter.layouts.words import NORMALISERS, escaped, escaped_topic, unescaped, words_of

NAMES = (
    b"lamp",
    b"Living Room",
    b"Living%20Room",
    b"Living%2520Room",
    b"a.b",
    b"a%2Eb",
    b"a%2eb",
    b"50%",
    b"a/b",
    b"a\\b",
    b"*",
    b"#",
    b"+",
    b"$state",
    b"\x00\x1f\x7f",
    b"\xff\xfe",
    b"%FF%FE",
    "Küche".encode(),
    "a\u00a0b\u200bc\ufeff".encode(),
    b"tab\there",
)


class EscapeTests(SynchronousTestCase):
    def test_nothing_is_lost(self) -> None:
        for name in NAMES:
            text = name.decode("utf-8", "surrogateescape")
            self.assertEqual(unescaped(escaped(text)), text)
            self.assertTrue(valid_device_id(escaped(text)), name)

    def test_nothing_is_mixed_up(self) -> None:
        for one, other in combinations(NAMES, 2):
            texts = [name.decode("utf-8", "surrogateescape") for name in (one, other)]
            self.assertNotEqual(escaped(texts[0]), escaped(texts[1]))

    def test_as_documented(self) -> None:
        self.assertEqual(escaped("Living Room.Lamp"), "Living%20Room%2ELamp")
        self.assertEqual(escaped("50%"), "50%25")
        self.assertEqual(escaped("plain-id_0:$~@!(),;=Ü"), "plain-id_0:$~@!(),;=Ü")
        self.assertEqual(escaped_topic("a b..c%"), "a%20b..c%25")

    def test_what_was_never_escaped_stays(self) -> None:
        self.assertEqual(unescaped("100%"), "100%")

    def test_words(self) -> None:
        self.assertEqual(words_of(b".a..b."), ["", "a", "", "b", ""])
        self.assertEqual(escaped(words_of(b"a.\xff")[1]), "%FF")


class NormaliseTests(SynchronousTestCase):
    def test_eui64(self) -> None:
        for text in ("0080E1150000ABCD", "00-80-E1-15-00-00-AB-CD", "00:80:e1:15:00:00:ab:cd"):
            self.assertEqual(NORMALISERS["eui64"](text), "0080e1150000abcd")
            self.assertEqual(NORMALISERS["eui64-dashes"](text), "00-80-e1-15-00-00-ab-cd")
        for other in ("00-80:E1-15-00-00-AB-CD", "0080E1150000ABC", "0080E1150000ABCDE", "eui-0080E1150000ABCD", ""):
            self.assertEqual(NORMALISERS["eui64"](other), other)

    def test_mac(self) -> None:
        for text in ("A4C138AABBCC", "A4:C1:38:AA:BB:CC", "a4-c1-38-aa-bb-cc"):
            self.assertEqual(NORMALISERS["mac"](text), "a4c138aabbcc")
            self.assertEqual(NORMALISERS["mac-colons"](text), "a4:c1:38:aa:bb:cc")
        self.assertEqual(NORMALISERS["mac"]("OpenMQTTGateway"), "OpenMQTTGateway")

    def test_case(self) -> None:
        self.assertEqual((NORMALISERS["lower"]("Ab"), NORMALISERS["upper"]("Ab")), ("ab", "AB"))
