"""MessagePack: what its values become, and what is refused."""

from __future__ import annotations

import contextlib
from datetime import datetime, timezone
from decimal import Decimal
from typing import Any

import msgpack
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from amqprouter.decoding.messagepack import make
from amqprouter.errors import Undecodable
from tests.unit.decoding.test_cbor import INFO, values


def decoded(body: bytes, max_values: int = 300_000) -> Any:
    made: Any = make("msgpack", max_values).decode(body, INFO)
    return made.value


class MessagePackTests(SynchronousTestCase):
    @given(values)
    def test_what_json_has_too(self, value: Any) -> None:
        self.assertEqual(repr(decoded(msgpack.packb(value))), repr(value))

    def test_by_rule(self) -> None:
        when = datetime(2025, 4, 16, 19, 7, 44, tzinfo=timezone.utc)
        for body, expected in (
            ("cf ffffffffffffffff", Decimal(2**64 - 1)),
            ("d6 ff 68000000", when),
            ("82 01 00 ff 01", {"1": 0, "-1": 1}),
            ("c4 01 ff", b"\xff"),
        ):
            made = decoded(bytes.fromhex(body))
            self.assertEqual((made, type(made)), (expected, type(expected)), body)

    def test_refusals(self) -> None:
        for body, reason in (
            (b"", "bad-msgpack"),
            (b"\xc1", "bad-msgpack"),
            (b"\x01\x02", "bad-msgpack"),
            (b"\xa2\xff\xff", "bad-msgpack"),
            (b"\xdf\xff\xff\xff\xff", "bad-msgpack"),
            (b"\xd7\xff" + b"\xff" * 8, "bad-msgpack"),
            (b"\xc7\x0c\xff\x00\x00\x00\x00\x7f" + b"\xff" * 7, "bad-msgpack"),
            (b"\xd4\x01\x00", "no-such-value"),
            (b"\x82\xa1a\x01\xa1a\x02", "bad-key"),
            (b"\x82\x01\x00\xa11\x00", "bad-key"),
            (b"\x81\x90\x00", "bad-key"),
            (b"\x81\xc4\x01a\x00", "bad-key"),
            (b"\x91" * 65 + b"\x00", "too-deep"),
            (b"\x91" * 70_000 + b"\x00", "too-deep"),
            (b"\xdd\x00\x01\x86\xa0" + b"\x90" * 100_000, "too-many-values"),
        ):
            with self.assertRaises(Undecodable, msg=body[:20]) as caught:
                decoded(body)
            self.assertEqual(caught.exception.reason, reason, body[:20])

    @given(st.binary(max_size=40))
    def test_anything_is_a_value_or_refused(self, body: bytes) -> None:
        with contextlib.suppress(Undecodable):
            decoded(body)
