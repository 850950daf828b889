"""The list of publishers: who may publish what for which devices."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from amqprouter.acl.acl import Acl
from amqprouter.acl.registry import check_own_lines
from amqprouter.acl.speaking import PUBLISHER_MARKER
from amqprouter.errors import AuthFileError


def acl(text: str) -> Acl:
    return Acl.parse(text, "f", PUBLISHER_MARKER)


class SpeakingTests(SynchronousTestCase):
    def judged(self, judge: Acl, publisher: str, *topics: str, **told: object) -> list[bool]:
        """Whether it may publish each; `explain` says the same."""
        said = [judge.allows(publisher, topic, **told) for topic in topics]  # type: ignore[arg-type]
        explained = [judge.explain(publisher, topic, **told) for topic in topics]  # type: ignore[arg-type]
        self.assertEqual([text.startswith("allowed") for text in explained], said)
        return said

    def test_devices_and_their_topics(self) -> None:
        judge = acl("bridge-7 -> lamp-*, plug-1: state.#, fault")
        topics = "lamp-1.state.on", "plug-1.fault", "lamp-1.fault.x", "plug-2.fault", "lamp-1"
        self.assertEqual(self.judged(judge, "bridge-7", *topics), [True, True, False, False, False])
        self.assertEqual(self.judged(judge, "bridge-8", *topics), [False] * 5)

    def test_the_first_line_that_matches_decides(self) -> None:
        judge = acl("deny * -> *: secret.#\nbridge-? -> lamp-*: #\ndeny bridge-1 -> *: #\n* -> plug: #")
        self.assertEqual(
            self.judged(judge, "bridge-1", "lamp-1.a", "lamp-1.secret.a", "plug.a"),
            [True, False, False],
        )
        self.assertEqual(self.judged(judge, "x", "lamp-1.a", "plug.a"), [False, True])

    def test_groups_on_either_side(self) -> None:
        judge = acl("group bridges: bridge-*\ngroup lamps: lamp-*, dim\n@bridges -> @lamps: #\n@tenant/acme -> a: #")
        self.assertEqual(self.judged(judge, "bridge-7", "lamp-1.x", "dim.x", "plug.x"), [True, True, False])
        self.assertEqual(self.judged(judge, "b", "a.x", tenant="acme"), [True])
        self.assertIn("'dim' is in @lamps, as 'dim' in f:2", judge.explain("bridge-7", "dim.x"))

    def test_ids_with_colons(self) -> None:
        judge = acl("bridge -> AA:BB:*: up:x.#")
        self.assertEqual(self.judged(judge, "bridge", "AA:BB:CC.up:x.1", "AA:BC.up:x.1"), [True, False])

    def test_the_publishers_own_name(self) -> None:
        judge = acl("edge-* -> %p-*: #")
        self.assertEqual(self.judged(judge, "edge-1", "edge-1-a.x", "edge-2-a.x"), [True, False])
        for name in ("edge-*", "edge-[12]", "edge-?", "edge-" + "x" * 300):  # no name is a pattern
            self.assertEqual(self.judged(judge, name, "edge-1-a.x", "edge-2-a.x"), [False, False], name)
        self.assertEqual(self.judged(judge, "edge-?", "edge-?-a.x"), [True])
        self.assertEqual(self.judged(acl("deny edge.1 -> %p*: #\n* -> *: #"), "edge.1", "edge-1.x"), [True])

    def test_lines_that_a_checker_tells(self) -> None:
        judge = acl("deny * -> *: secret\nregistry\n* -> %p-*: #")
        own = ("deny lamp-9: #", "lamp-*: #")
        topics = "lamp-1.x", "lamp-9.x", "lamp-1.secret", "edge-1-a.x"
        self.assertEqual(self.judged(judge, "edge-1", *topics, own=own), [True, False, False, False])
        self.assertEqual(self.judged(judge, "edge-1", *topics), [False, False, False, True])
        self.assertEqual(self.judged(judge, "edge-1", *topics, own=()), [False] * 4)
        check_own_lines(own, PUBLISHER_MARKER)
        for bad in ("lamp-*", "#", "x -> lamp: #", "lamp: a b"):
            with self.assertRaisesRegex(ValueError, r"line 2 is not \[allow\|deny\] DEVICE"):
                check_own_lines(("lamp: #", bad), PUBLISHER_MARKER)

    def test_bad_lines(self) -> None:
        for line, problem in {
            "a -> b": "no colon with a space behind it",
            "a -> b:#": "no colon with a space behind it",
            "a -> : #": "an empty device pattern",
            "a -> b, : #": "an empty device pattern",
            "a -> b: #,": "an empty topic pattern",
            "a -> b c: #": "white space",
            "a -> b: x # y": "white space",
            "a -> b: x#": "whole words",
            "a -> @b: #": "no line of this file defines that group",
            "a -> %d: #": "%d means nothing in this file",
            "a -> b: %t.#": "%t means nothing in this file",
            "a -> b: %p": "%p is for device patterns only",
            "%p -> b: #": "publisher pattern '%p'",
            "a b -> c: #": "one publisher pattern",
            "a": r"DEVICE\[, DEVICE…\]: TOPIC",
        }.items():
            with self.assertRaisesRegex(AuthFileError, f"^f:1: .*{problem}"):
                acl(line)

    def test_what_can_never_decide(self) -> None:
        judge = acl("group unused: x\na -> *: up, #\na -> b: #")
        warnings = list(judge.warnings())
        self.assertEqual(len(warnings), 2)
        self.assertIn("f:3: never decides", warnings[0])
        self.assertIn("no line uses group unused", warnings[1])
        self.assertFalse(any("unused" in text for text in acl("group unused: x\na -> @unused: #").warnings()))

    def test_everything_by_everybody(self) -> None:
        self.assertEqual(self.judged(acl("* -> *: #"), "a", "b.c"), [True])
        self.assertEqual(self.judged(acl("* -> *: up\n"), "a", "b.c"), [False])
