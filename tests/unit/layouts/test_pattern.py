"""Patterns of keys: what matches, what the names stand for, what is filled in, and what a queue is bound with."""

from __future__ import annotations

import random

from twisted.trial.unittest import SynchronousTestCase

from amqprouter.layouts.pattern import KeyPattern, NotFilled
from amqprouter.patterns import TopicPattern


def match(pattern: str, key: str) -> dict[str, str] | None:
    return KeyPattern(pattern).match(key.split("."))


class MatchTests(SynchronousTestCase):
    def test_words(self) -> None:
        self.assertEqual(match("tele.{device}.{topic}", "tele.plug.STATE"), {"device": "plug", "topic": "STATE"})
        for other in ("tele.plug", "tele.plug.STATE.x", "stat.plug.STATE", "tele..STATE", "tele.plug."):
            self.assertIsNone(match("tele.{device}.{topic}", other), other)
        self.assertEqual(match("a.b", "a.b"), {})
        self.assertEqual(match(".{device}.{topic}", ".d.t"), {"device": "d", "topic": "t"})

    def test_any_number_of_words(self) -> None:
        for key, topic in (("d", ""), ("d.", ""), ("d.a", "a"), ("d.a.b", "a.b"), ("d..a.", ".a.")):
            self.assertEqual(match("{device}.{topic:#}", key), {"device": "d", "topic": topic}, key)
        self.assertIsNone(match("{device}.{topic:#}", ""))
        self.assertEqual(match("x.{device:+}.{topic}", "x.a.b.c"), {"device": "a.b", "topic": "c"})
        self.assertEqual(match("x.{path:#}.set", "x.set"), {"path": ""})
        for other in ("x.c", "x", "y.a.c"):
            self.assertIsNone(match("x.{device:+}.{topic}", other), other)
        self.assertIsNone(match("x.{device:+}", "x."))

    def test_choices(self) -> None:
        self.assertEqual(match("{kind:tele|stat}.{d}", "stat.x"), {"kind": "stat", "d": "x"})
        self.assertIsNone(match("{kind:tele|stat}.{d}", "cmnd.x"))
        several = "{device}.{topic:events.rpc|status.#|online}"
        for topic in ("events.rpc", "status.a", "status.a.b", "online"):
            self.assertEqual(match(several, f"d.{topic}"), {"device": "d", "topic": topic})
        for other in ("d.events", "d.events.rpc.x", "d.status", "d.online.x", "d"):
            self.assertIsNone(match(several, other), other)

    def test_within_a_word(self) -> None:
        self.assertEqual(match("v3.{app}@{tenant}.x", "v3.a@t.x"), {"app": "a", "tenant": "t"})
        self.assertEqual(match("v3.{app}@{tenant}.x", "v3.a@b@t.x"), {"app": "a", "tenant": "b@t"})
        self.assertEqual(match("node-{device}-x", "node-1-2-x"), {"device": "1-2"})
        for other in ("v3.a.x", "v3.@t.x", "v3.a@.x"):
            self.assertIsNone(match("v3.{app}@{tenant}.x", other), other)
        for other in ("node--x", "node-1", "nod-1-x"):
            self.assertIsNone(match("node-{device}-x", other), other)

    def test_time_is_bounded(self) -> None:
        """A key of as many words as there can be, which nearly matches, is no more work than its words."""
        pattern = KeyPattern("a.{x:#}." + ".".join(f"{{w{n}}}" for n in range(60)) + ".b")
        self.assertIsNone(pattern.match(["a"] * 128))

    def test_bad_ones(self) -> None:
        for text, why in {
            "{device": "brace",
            "{Device}": "brace",
            "{device}{topic}": "where one name ends",
            "{a}.{a}": "{a} twice",
            "{a:#}.{b:+}": "several words",
            "x{a:#}": "not the whole word",
            "{a:}": "behind the colon",
            "{a:x|}": "behind the colon",
            "a b": "white space",
            "a.*": "brace",
            "#": "brace",
            "x" * 1001: "1000 characters",
        }.items():
            error = self.assertRaises(ValueError, KeyPattern, text)
            self.assertIn(why, str(error), text)


class FillTests(SynchronousTestCase):
    def fill(self, pattern: str, **values: str) -> str:
        return KeyPattern(pattern).fill(values)

    def test_fill(self) -> None:
        self.assertEqual(self.fill("cmnd.{device}.{topic:+}", device="p", topic="a.b"), "cmnd.p.a.b")
        self.assertEqual(self.fill("v3.{a}@{t}.x", a="A", t="T"), "v3.A@T.x")
        self.assertEqual(self.fill("{device}.{topic:#}", device="d", topic=""), "d")
        self.assertEqual(self.fill("z.{device:+}.{topic:set|get}", device="a b.c", topic="set"), "z.a b.c.set")

    def test_what_is_missing_or_not_fit(self) -> None:
        for pattern, values, reason in (
            ("a.{tenant}", {}, "unknown-tenant"),
            ("a.{device}", {"device": ""}, "no-device"),
            ("a.{topic}", {"topic": "x.y"}, "bad-topic: one word is legal"),
            ("a.{topic:set|get}", {"topic": "off"}, "bad-topic: get, set are legal"),
        ):
            error = self.assertRaises(NotFilled, self.fill, pattern, **values)
            self.assertEqual(str(error), reason)

    def test_what_would_be_read_in_another_way(self) -> None:
        pattern = KeyPattern("x.{device}-{site}")
        self.assertEqual(pattern.match(["x", "a-b-c"]), {"device": "a", "site": "b-c"}, "the first one divides")
        self.assertEqual(pattern.fill({"device": "a", "site": "b-c"}), "x.a-b-c")
        error = self.assertRaises(NotFilled, pattern.fill, {"device": "a-b", "site": "c"})
        self.assertEqual(str(error), "bad-device: 'a-b-c' would be read with 'a', by '{device}-{site}'")
        with self.assertRaises(NotFilled):
            pattern.binding({"device": "a-b", "site": "c"})
        self.assertEqual(pattern.divided, (("device", "site"),))
        self.assertEqual(KeyPattern("{a}.x{b}y").divided, ())

    def test_there_and_back(self) -> None:
        """What a key was matched with fills the same key again, whatever its words are."""
        chance = random.Random(17)
        texts = (
            "{device}.{topic:#}",
            "a.{device:+}.{topic}",
            "{x}-{y}.{device}.{topic:+}",
            "{s:p|q.#}.{device}",
            "a.{device}.b",
        )
        matched = 0
        for _ in range(5000):
            key = ".".join(
                chance.choice(("a", "b", "p", "q", "x-y", "x-y-z", "l r", "%")) for _ in range(chance.randint(1, 6))
            )
            for text in texts:
                pattern = KeyPattern(text)
                found = pattern.match(key.split("."))
                if found is not None:
                    matched += 1
                    self.assertEqual(pattern.fill(found), key, text)
                    self.assertTrue(any(TopicPattern(one).matches(key) for one in pattern.bindings), (text, key))
        self.assertGreater(matched, 1000)


class BindingTests(SynchronousTestCase):
    def test_bindings(self) -> None:
        for text, bindings in {
            "a.{b}.c": ("a.*.c",),
            "a.{b:#}": ("a.#",),
            "a.{b:+}": ("a.*.#",),
            "{k:tele|stat}.{d}.{t:up|join}": ("stat.*.join", "stat.*.up", "tele.*.join", "tele.*.up"),
            "{d}.{t:events.rpc|status.#}": ("*.events.rpc", "*.status.#"),
            "v3.{a}@{t}": ("v3.*",),
        }.items():
            self.assertEqual(KeyPattern(text).bindings, bindings)

    def test_beginnings(self) -> None:
        for text, beginnings in {
            "a.b.{c}.d": (("a", "b"),),
            "{s:p.q|r}.{d}": (("p", "q"), ("r",)),
            "{d}.x": (),
            "{d:#}": (),
        }.items():
            self.assertEqual(KeyPattern(text).beginnings, beginnings)

    def test_not_too_many(self) -> None:
        many = "|".join(f"w{n}" for n in range(40))
        self.assertEqual(KeyPattern(f"a.{{x:{many}}}").bindings, ("a.*",))
        self.assertEqual(KeyPattern(f"a.{{x:{many}|b.c}}").bindings, ("a.*.#",))
