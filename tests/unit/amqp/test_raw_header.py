"""One header as bytes, without decoding it or the others."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from amqprouter.amqp.field_table import FieldValue
from amqprouter.amqp.properties import Properties, encode_properties

NAME = "x-secret"
VALUES: st.SearchStrategy[FieldValue] = st.one_of(
    st.text(), st.binary(), st.integers(-(2**63), 2**63 - 1), st.booleans(), st.none(), st.just({NAME: "nested"})
)


class RawHeaderTests(SynchronousTestCase):
    @given(st.dictionaries(st.sampled_from([NAME, "x-secre", "x-secret2", "X-Secret", "é", ""]), VALUES))
    def test_it_is_what_decoding_gives(self, headers: dict[str, FieldValue]) -> None:
        value = headers.get(NAME)
        expected = value.encode() if isinstance(value, str) else value
        if NAME in headers and not isinstance(expected, bytes):
            expected = b""
        properties = Properties(encode_properties(headers=headers))
        self.assertEqual(properties.raw_header(NAME.encode()), expected)

    def test_the_first_of_two_counts(self) -> None:
        table = b"\x08x-secretS\0\0\0\1a\x08x-secretS\0\0\0\1b"
        properties = Properties(b"\x20\0" + len(table).to_bytes(4, "big") + table)
        self.assertEqual(properties.raw_header(b"x-secret"), b"a")

    def test_its_name_inside_a_value_is_not_it(self) -> None:
        properties = Properties(encode_properties(headers={"a": "\x08x-secretS\0\0\0\1a"}))
        self.assertIsNone(properties.raw_header(b"x-secret"))

    def test_malformed_tables(self) -> None:
        for table in (b"\x08x-secret", b"\x08x-secretS", b"\x08x-secretS\0\0\0\5a", b"\x01aZ\x08x-secretS\0\0\0\1a"):
            properties = Properties(b"\x20\0" + len(table).to_bytes(4, "big") + table)
            with self.assertRaises(ValueError, msg=str(table)):
                properties.raw_header(b"x-secret")
