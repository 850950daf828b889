"""Lines of an access list that a checker tells for one device or user."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from amqprouter.acl.acl import Acl
from amqprouter.acl.registry import MAX_OWN_BYTES, MAX_OWN_LINES, check_own_lines
from amqprouter.errors import AuthFileError


def acl(text: str, marker: str = "%d") -> Acl:
    return Acl.parse(text, "f", marker)


class OwnLinesTests(SynchronousTestCase):
    def judged(self, judge: Acl, own: tuple[str, ...] | None, *topics: str, tenant: str = "") -> list[bool]:
        """What each topic of dev1 is judged; `explain` says the same."""
        said = [judge.allows("dev1", f"dev1.{topic}", (), tenant, own) for topic in topics]
        explained = [judge.explain("dev1", f"dev1.{topic}", (), tenant, own) for topic in topics]
        self.assertEqual([text.startswith("allowed") for text in explained], said)
        return said

    def test_the_first_that_matches_decides_and_nothing_is_denied_by_them_alone(self) -> None:
        judge = acl("registry\n* -> %d.up.#")
        own = ("deny %d.up.secret, %d.x", "allow %d.up.*", "%d.down.#")
        self.assertEqual(
            self.judged(judge, own, "up.secret", "up.temp", "up.a.b", "down.x.y", "x", "y"),
            [False, True, False, True, False, False],
        )
        self.assertEqual(self.judged(judge, None, "up.secret", "down.x"), [True, False])
        self.assertEqual(self.judged(judge, (), "up.temp", "down.x"), [False, False])

    def test_what_stands_above_goes_first_and_what_is_below_is_for_others(self) -> None:
        judge = acl("deny * -> *.firmware.#\ndev1 -> dev1.always\nregistry\ndev1 -> dev1.below\n* -> #")
        self.assertEqual(
            self.judged(judge, ("%d.firmware.#", "%d.mine"), "firmware.x", "always", "mine", "below"),
            [False, True, True, False],
        )
        self.assertEqual(self.judged(judge, None, "firmware.x", "always", "mine", "below"), [False, True, True, True])

    def test_without_the_line_they_do_not_count(self) -> None:
        judge = acl("* -> %d.up.#")
        self.assertFalse(judge.asks_registry)
        self.assertEqual(self.judged(judge, ("#",), "up.x", "down.x"), [True, False])
        self.assertEqual(self.judged(acl("* -> #"), (), "up.x"), [True])  # where everything is open, too

    def test_everybody_may_everything_but_for_those_with_lines(self) -> None:
        judge = acl("registry\n* -> #")
        self.assertEqual(self.judged(judge, None, "x"), [True])
        self.assertEqual(self.judged(judge, ("%d.up",), "up", "x"), [True, False])

    def test_nobody_elses_are_remembered(self) -> None:
        judge = acl("registry")
        for _ in range(2):
            self.assertTrue(judge.allows("dev1", "dev1.x", (), "", ("%d.x",)))
            self.assertFalse(judge.allows("dev1", "dev1.x", (), "", ("%d.y",)))
            self.assertFalse(judge.allows("dev1", "dev1.x"))
            self.assertFalse(judge.allows("dev2", "dev1.x", (), "", ("%d.x",)))

    def test_tenants(self) -> None:
        judge = acl("registry")
        self.assertEqual(self.judged(judge, ("dev1.%t.#",), "acme.x", "other.x", tenant="acme"), [True, False])
        self.assertEqual(self.judged(judge, ("dev1.%t.#",), "acme.x"), [False])
        self.assertEqual(self.judged(judge, ("deny dev1.%t.#", "#"), "acme.x"), [False])  # too much, not too little

    def test_users(self) -> None:
        judge = acl("registry", "%u")
        own = ("meter-17.#", "site.%u.*")
        self.assertTrue(judge.allows("ann", "meter-17.up", (), "", own))
        self.assertTrue(judge.allows("ann", "site.ann.x", (), "", own))
        self.assertFalse(judge.allows("ann", "meter-18.up", (), "", own))

    def test_what_explains(self) -> None:
        judge = acl("# first\nregistry\n* -> #")
        own = ("deny %d.firmware.#", "%d.up.#")
        self.assertEqual(
            judge.explain("dev1", "dev1.firmware.x", (), "", own), "denied by f:2: registry: deny %d.firmware.#"
        )
        self.assertEqual(judge.explain("dev1", "dev1.up.x", (), "", own), "allowed by f:2: registry: %d.up.#")
        self.assertEqual(
            judge.explain("dev1", "dev1.x", (), "", own),
            "denied by f:2: registry: none of the 2 own lines is for this topic",
        )

    def test_ids_that_would_be_patterns(self) -> None:
        judge = acl("registry")
        self.assertFalse(judge.allows("*", "dev2.up", (), "", ("%d.up",)))
        self.assertFalse(judge.allows("*", "dev2.up", (), "", ("deny %d.up", "#")))

    def test_what_makes_no_sense(self) -> None:
        for told in (
            ("",),
            (" ",),
            ("deny",),
            ("allow",),
            ("deny  ",),
            ("a b",),
            ("* -> #",),
            ("a..b",),
            ("a*",),
            ("@meters.#",),
            ("%u.x",),
            ("a\nb",),
            ("a\u202eb",),
            ("x",) * (MAX_OWN_LINES + 1),
            ("x" * (MAX_OWN_BYTES + 1),),
        ):
            error = self.assertRaises(ValueError, check_own_lines, told, "%d")
            self.assertNotIn("a..b", str(error))
        check_own_lines(("x",) * MAX_OWN_LINES, "%d")
        check_own_lines(("deny deny.#", " allow  allow, %t.%d "), "%d")


class LineTests(SynchronousTestCase):
    def test_once_and_only_where_it_makes_sense(self) -> None:
        error = self.assertRaises(AuthFileError, acl, "registry\n* -> x\nregistry")
        self.assertEqual(error.problems, ["f:3: line 1 says registry already"])
        for text in ("registry:", "Registry", "registry #", "deny registry"):
            self.assertRaises(AuthFileError, acl, text)
        self.assertFalse(acl("registry -> x").asks_registry)  # a device of that name
        with self.assertRaisesRegex(AuthFileError, "f:1: registry counts for the lists of"):
            Acl.parse("registry", "f", "%u", may_ask_registry=False)
