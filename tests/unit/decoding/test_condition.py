"""Conditions on bodies: what they say, what is no condition, and what strangers cannot do with them."""

from __future__ import annotations

import time
from decimal import Decimal
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from amqprouter.decoding.condition import MAX_LENGTH, MAX_NODES, Condition

BODY: dict[str, Any] = {
    "t": 81.5,
    "n": 7,
    "big": Decimal(2**64),
    "unit": "C",
    "on": True,
    "none": None,
    "list": [1, "a", {"x": 2}],
    "oil": {"values": 3, "a b": 4, "items": [5, 6]},
    "raw": b"\1",
}


def holds(text: str, body: Any = BODY) -> bool:
    return Condition(text).holds(body, "boiler-1", "up.t")


class MeaningTests(SynchronousTestCase):
    def test_what_the_layout_kept(self) -> None:
        condition = Condition("layout.application == 'a-1' and layout.name in ['chirpstack-v4']")
        kept = {"name": "chirpstack-v4", "application": "a-1"}
        self.assertTrue(condition.holds(BODY, "d", "t", kept))
        self.assertFalse(condition.holds(BODY, "d", "t", {**kept, "application": "b"}))
        self.assertFalse(condition.holds(BODY, "d", "t"))
        self.assertFalse(Condition("not layout.application == 'a-1'").holds(BODY, "d", "t"))

    def test_true(self) -> None:
        for text in (
            "body.t > 80",
            "body.t > 80 and body.unit == 'C'",
            "80 < body.t <= 81.5",
            "body.n == 7.0",
            "body.n != 8",
            "body.big > 18446744073709551615",
            "body.oil.values == 3",
            'body.oil["a b"] == 4',
            "body.oil.items[-1] == 6",
            "body.list[2].x * 2 + 1 == 5",
            "body.n / 2 == 3.5 and body.n // 2 == 3 and body.n % 2 == 1",
            "-body.n < -6 and +body.n - 1 == 6",
            "body.big + 0.5 > 1",
            "body.on",
            "body.on == true and body.none == null and body.on != False",
            "body.unit in ['C', 'F']",
            "body.unit not in ('K',)",
            "'a' in body.list",
            "'values' in body.oil",
            "'oil' in device",
            "device == 'boiler-1' and topic == 'up.t'",
            "body.missing > 1 or body.t > 80",
            "body.t > 80 or body.missing > 1",
            "not body.t < 80",
            "body.unit < 'D'",
            "(body.t - 32) * 5 / 9 > 27",
        ):
            self.assertTrue(holds(text), text)
        self.assertTrue(holds("body > 20", 23.5))
        self.assertTrue(holds("body == 'ON'", "ON"))
        self.assertTrue(holds("body[0] == 1", [1]))

    def test_not_true(self) -> None:
        for text in (
            "body.t > 90",
            "body.missing > 1",
            "not body.missing > 1",
            "not (body.missing == 1)",
            "body.missing != 1",
            "body.missing == body.missing",
            "body.missing not in [1]",
            "1 not in body.missing",
            "body.missing.more.still == 1",
            "body.missing == null",
            "body.missing",
            "body.none",
            "body.unit > 1",
            "not body.unit > 1",
            "body.on > 0",
            "body.unit + 'x' == 'Cx'",
            "body.unit * 3 == 'CCC'",
            "body.n / 0 > 1",
            "body.n % 0 == 0",
            "body.list == [1]",
            "body.oil == body.oil",
            "body.list[7] == 1",
            "body.list['a'] == 1",
            "body.oil[0] == 1",
            "body.t.real > 1",
            "body.unit.upper",
            "body.oil.get",
            "body.unit[0] == 'C'",
            "body.raw > 1",
            "body.raw in body.unit",
            "body.t > 80 and body.missing > 1",
        ):
            self.assertFalse(holds(text), text)
        bodies: list[Any] = [None, 1, "x", [], {}, b""]
        for body in bodies:
            self.assertFalse(holds("body.t > 80", body))

    def test_nothing_of_a_message_is_kept(self) -> None:
        condition = Condition("body.t > 80")
        condition.holds(BODY, "d", "t")
        self.assertEqual(condition._evaluator.names, {})


class RefusalTests(SynchronousTestCase):
    def test_what_is_no_condition(self) -> None:
        for text, reason in (
            ("", "no expression"),
            ("body.t >", "no expression"),
            ("body.t = 1", "no expression"),
            ("bdy.t > 1", "unknown name 'bdy'; legal: body, device, topic"),
            ("body.unit == C", "texts stand in quotes"),
            ("body.t ** 2 > 1", "no pow"),
            ("len(body) > 1", "no call"),
            ("body.unit.upper() == 'C'", "no call"),
            ("body.n << 2 > 1", "no lshift"),
            ("[x for x in body]", "no listcomp"),
            ("lambda: 1", "no lambda"),
            ("body.list[0:1]", "no slice"),
            ("f'{body}' == 'x'", "no joinedstr"),
            ("1 if body.on else 0", "no ifexp"),
            ("body.on is true", "no is"),
            ("{'a': 1}", "no dict"),
            ("(body := 1)", "no namedexpr"),
            ("body.raw == b'x'", "a bytes"),
            ("body.n == 1j", "a complex"),
            ("body.n == ...", "a ellipsis"),
            (f"body.n == {2**64}", "over 64 bits"),
            ("body.n + " * MAX_NODES + "1 > 1", f"over {MAX_NODES}"),
            ("(" * 300 + "1" + ")" * 300, "no expression"),
            ("not " * 240 + "true", f"over {MAX_NODES}"),
            (" " * (MAX_LENGTH + 1), f"over {MAX_LENGTH}"),
        ):
            with self.assertRaises(ValueError, msg=text) as caught:
                Condition(text)
            self.assertIn(reason, str(caught.exception), text)

    def test_work_is_bounded_whatever_the_body(self) -> None:
        text = " or ".join(["body.t in body.list"] * 12)
        self.assertTrue(holds(text, {"t": 1, "list": [0] * 999 + [1]}))
        self.assertFalse(holds(text, {"t": 1, "list": [0] * 300_000 + [1]}))
        product = " * ".join(["body.n"] * 20)
        begun = time.process_time()
        self.assertTrue(holds(f"{product} > 1", {"n": 2**63 - 1}))
        self.assertFalse(holds(f"{product} > 1", {"n": "x" * 1_000_000}))
        self.assertFalse(holds("body.f % 5 == 1", {"f": "%1000000000d"}))
        self.assertLess(time.process_time() - begun, 0.5)

    @given(
        st.sampled_from(
            ["body.a > 1", "body.a + 1 > body.b", "body.a in body.b", "body[0] == body.a", "not body.a", "body.a % 3"]
        ),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.binary(max_size=2)
            | st.decimals(),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
        ),
    )  # fmt: skip
    def test_any_body(self, text: str, body: Any) -> None:
        self.assertIn(holds(text, body), (True, False))
