"""Escaped field names come back exactly, and mean nothing to MongoDB."""

from __future__ import annotations

from bson import decode, encode
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from amqprouter.errors import Unstorable
from amqprouter.storage.keys import escaped, escaped_all, unescaped

any_key = st.text() | st.text(alphabet="%$.\x00205E4a")


class KeyTests(SynchronousTestCase):
    def test_what_is_escaped(self) -> None:
        for key, stored in {
            "plain": "plain",
            "a.b": "a%2Eb",
            "$set": "%24set",
            "a$b": "a$b",
            "humidity_%": "humidity_%",
            "100%2E": "100%252E",
            "%24": "%2524",
            "a\0b": "a%00b",
            "": "",
        }.items():
            self.assertEqual(escaped(key), stored)
            self.assertEqual(unescaped(stored), key)

    @given(any_key)
    def test_round_trip(self, key: str) -> None:
        self.assertEqual(unescaped(escaped(key)), key)

    @given(st.lists(any_key, min_size=1))
    def test_many_at_once(self, keys: list[str]) -> None:
        self.assertEqual(escaped_all(keys), [escaped(key) for key in keys])

    def test_what_stands_between_them_cannot_be_in_one(self) -> None:
        for keys in (["\udfff"], ["a\udfffb"], ["a", "\udfff", "b"]):
            self.assertRaises(Unstorable, escaped_all, keys)

    @given(any_key, any_key)
    def test_different_keys_stay_different(self, one: str, other: str) -> None:
        self.assertEqual(escaped(one) == escaped(other), one == other)

    @given(any_key)
    def test_nothing_special_remains_and_bson_takes_it(self, key: str) -> None:
        stored = escaped(key)
        self.assertNotIn(".", stored)
        self.assertFalse(stored.startswith("$"))
        self.assertEqual(decode(encode({stored: 1})), {stored: 1})
