"""The pieces that documents are put together from."""

from __future__ import annotations

from typing import Any

from bson import Int64, decode, encode
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from amqprouter.errors import Unstorable
from amqprouter.storage.elements import MAX_BYTES, binary, elements, joined

values = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text() | st.binary() | st.lists(st.text())
fields = st.dictionaries(st.text("abc."), values, max_size=4)


class ElementsTests(SynchronousTestCase):
    @given(fields, fields)
    def test_together_they_are_a_document(self, some: dict[str, Any], others: dict[str, Any]) -> None:
        others = {f"{name}'": value for name, value in others.items()}
        self.assertEqual(joined((elements(some), b"", elements(others))), encode(some | others))

    @given(st.binary())
    def test_bytes(self, value: bytes) -> None:
        self.assertEqual(binary(b"name", value), elements({"name": value}))

    def test_what_cannot_be_encoded(self) -> None:
        for value, reason in ((2**63, "integer-too-large"), ("\ud800", "bad-text"), (object(), "unencodable")):
            with self.assertRaises(Unstorable) as caught:
                elements({"a": value})
            self.assertEqual(caught.exception.reason, reason)
        deep: list[Any] = []
        for _ in range(10_000):
            deep = [deep]
        self.assertEqual(self.assertRaises(Unstorable, elements, {"a": deep}).reason, "unencodable")

    def test_the_largest(self) -> None:
        rest = len(joined((binary(b"a", b""),)))
        self.assertEqual(len(joined((binary(b"a", bytes(MAX_BYTES - rest)),))), MAX_BYTES)
        too_large = binary(b"a", bytes(MAX_BYTES - rest + 1))
        self.assertEqual(self.assertRaises(Unstorable, joined, (too_large,)).reason, "document-too-large")
        self.assertEqual(decode(joined(())), {})
        self.assertEqual(elements({"n": Int64(1)})[0], 0x12)
