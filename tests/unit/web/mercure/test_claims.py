"""What a token says about Mercure."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from amqprouter.web.mercure.claims import MAX_SELECTORS, MercureClaims, read_mercure_claims


class MercureClaimsTests(SynchronousTestCase):
    def test_nothing_said(self) -> None:
        cases: tuple[dict[str, Any], ...] = (
            {},
            {"mercure": None},
            {"mercure": {}},
            {"mercure": {"subscribe": None, "publish": None}},
        )
        for values in cases:
            claims = read_mercure_claims(values)
            self.assertEqual(claims, MercureClaims())
            self.assertFalse(claims.may_see(["a"]))
            self.assertFalse(claims.may_publish(["a"]))

    def test_seeing_takes_one_topic_and_publishing_all(self) -> None:
        claims = read_mercure_claims({"mercure": {"subscribe": ["a", "b/{id}"], "publish": ["a", "b/{id}"]}})
        for topics, sees, publishes in ((["a"], 1, 1), (["x", "b/1"], 1, 0), (["a", "b/1"], 1, 1), (["x"], 0, 0)):
            self.assertEqual((claims.may_see(topics), claims.may_publish(topics)), (sees, publishes), topics)

    def test_payload_and_namespace(self) -> None:
        claims = {"mercure": {"payload": 1}, "https://mercure.rocks/": {"payload": {"user": 7}}}
        self.assertEqual(read_mercure_claims(claims).payload, {"user": 7})

    def test_what_is_none(self) -> None:
        bad: tuple[Any, ...] = (
            "*",
            ["*"],
            {"subscribe": "*"},
            {"publish": {}},
            {"subscribe": [None]},
            {"subscribe": [""]},
            {"subscribe": ["x" * 1025]},
            {"publish": ["{a}" * 17]},
            {"subscribe": ["a"] * (MAX_SELECTORS + 1)},
        )
        for claim in bad:
            with self.assertRaises(ValueError, msg=str(claim)[:80]):
                read_mercure_claims({"mercure": claim})
