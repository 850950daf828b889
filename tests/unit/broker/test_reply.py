"""Correlation ids that say what an answer is about."""

from __future__ import annotations

from uuid import UUID

from twisted.trial.unittest import SynchronousTestCase

from amqprouter.broker.reply import ReplyAddress


class ReplyAddressTests(SynchronousTestCase):
    def test_there_and_back(self) -> None:
        address = ReplyAddress("queue images", "dev1.up.a|b")
        parsed = ReplyAddress.parse(address.correlation_id(UUID(int=5)))
        self.assertEqual((parsed, parsed.unique), (address, UUID(int=5).hex))

    def test_too_long(self) -> None:
        with self.assertRaises(ValueError):
            ReplyAddress("queue images", f"dev1.{'x' * 220}").correlation_id(UUID(int=5))

    def test_what_is_none(self) -> None:
        unique = UUID(int=5).hex
        endings = ("", "|", "|queue x", "|queue x|", "|queue x|dev1")
        for text in ("", "x", "1|q|d.t", *(unique + ending for ending in endings)):
            with self.assertRaises(ValueError):
                ReplyAddress.parse(text)
