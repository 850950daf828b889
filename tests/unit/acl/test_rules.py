"""ACLs beyond plain lines: what denies, groups, tenants, and how all that is explained."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from amqprouter.acl import acl as module
from amqprouter.acl.acl import Acl


class FirstMatchWinsTests(SynchronousTestCase):
    def test_what_comes_first_decides(self) -> None:
        acl = Acl.parse(
            """\
deny  meter-9  -> #
meter-*        -> %d.debug.on
deny *         -> %d.debug.#, *.secret
allow *        -> %d.#
meter-1        -> meter-1.secret
""",
            "devices.acl",
            "%d",
        )
        for who, topic, allowed in (
            ("meter-9", "meter-9.up", False),
            ("meter-1", "meter-1.up", True),
            ("meter-1", "meter-1.debug.on", True),
            ("gw-1", "gw-1.debug.on", False),
            ("meter-1", "meter-1.debug.off", False),
            ("meter-1", "meter-1.debug", False),
            ("meter-1", "meter-1.secret", False),  # though a later line, for it alone, would allow
            ("meter-1", "gw-1.up", False),
        ):
            with self.subTest(who=who, topic=topic):
                self.assertEqual(acl.allows(who, topic), allowed)
                self.assertEqual(acl.allows(who, topic), allowed)  # remembered
                self.assertEqual(acl.explain(who, topic).startswith("allowed"), allowed)

    def test_everything_for_everybody_is_not_open_behind_what_denies(self) -> None:
        acl = Acl.parse("deny meter-9 -> #\n* -> #", "f", "%d")
        self.assertEqual([acl.allows(who, "x.y") for who in ("meter-1", "meter-9")], [True, False])
        acl = Acl.parse("* -> #\ndeny meter-9 -> #", "f", "%d")
        self.assertTrue(acl.allows("meter-9", "x.y"))

    def test_an_id_in_what_denies_takes_too_much_rather_than_too_little(self) -> None:
        acl = Acl.parse("deny * -> %u.private, for-%u.x, @own.%u.y\n* -> #\ngroup own: dev*", "users.acl", "%u")
        self.assertTrue(acl.allows("ann", "bob.private"))
        self.assertFalse(acl.allows("ann", "ann.private"))
        self.assertFalse(acl.allows("ann", "for-ann.x"))
        for who in ("ann@example.com", "*", "#", "a.#", "", ".", "..", "a*"):
            with self.subTest(who=who):
                self.assertFalse(acl.allows(who, f"{who}.private"))
                self.assertFalse(acl.allows(who, f"for-{who}.x"))
                self.assertFalse(acl.allows(who, f"dev1.{who}.y"))
                self.assertTrue(acl.allows(who, "ann.public"))
        self.assertIn("any words stand where a marker is", acl.explain("a.b", "a.b.private"))
        self.assertNotIn("any words", acl.explain("ann", "ann.private"))

    def test_a_reserved_word_as_a_name(self) -> None:
        acl = Acl.parse("allow deny -> a.x\ndeny allow -> b.x\nallow group -> c.x\n* -> b.x", "f", "%d")
        self.assertEqual([acl.allows("deny", "a.x"), acl.allows("allow", "b.x")], [True, False])
        self.assertEqual([acl.allows("group", "c.x"), acl.allows("dev1", "b.x")], [True, True])


GROUPS = """\
group meters: meter-*, gw-1
deny @meters -> *.off
@meters      -> shared.%d
gw-1         -> gw-1.off
@group/lab   -> lab.#
deny @tenant/late -> #
@tenant/acme -> acme.%d.#
*            -> of.%t.%d-%t
"""


class GroupTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.acl = Acl.parse(GROUPS, "devices.acl", "%d")

    def test_groups_of_the_file(self) -> None:
        for who, topic, allowed in (
            ("meter-1", "shared.meter-1", True),
            ("gw-1", "shared.gw-1", True),
            ("gw-2", "shared.gw-2", False),
            ("gw-1", "gw-1.off", False),
            ("@meters", "shared.@meters", False),
            ("meters", "shared.meters", False),
        ):
            with self.subTest(who=who, topic=topic):
                self.assertEqual(self.acl.allows(who, topic), allowed)

    def test_what_a_checker_tells(self) -> None:
        for topic, groups, tenant, allowed in (
            ("lab.x", ("lab",), "", True),
            ("lab.x", ("other", "lab"), "acme", True),
            ("lab.x", (), "", False),
            ("lab.x", ("other",), "", False),
            ("acme.dev1.up", (), "acme", True),
            ("acme.dev1.up", (), "Acme", False),
            ("acme.dev1.up", ("acme",), "", False),  # a group is no tenant
            ("lab.x", (), "lab", False),  # and the other way round
            ("acme.dev1.up", ("tenant/acme",), "", False),
            ("shared.dev1", ("meters",), "", False),  # a checker's group is not the file's of the same name
            ("of.acme.dev1-acme", (), "acme", True),
            ("of.other.dev1-other", (), "other", True),
            ("of.acme.dev1-acme", (), "other", False),
            ("of.late.dev1-late", (), "late", False),
            ("of.*.dev1-*", (), "*", False),
            ("of.a.b.dev1-a.b", (), "a.b", False),
            ("of..dev1-", (), "", False),
        ):
            with self.subTest(topic=topic, groups=groups, tenant=tenant):
                for _ in range(2):
                    self.assertEqual(self.acl.allows("dev1", topic, groups, tenant), allowed)
                self.assertEqual(self.acl.explain("dev1", topic, groups, tenant).startswith("allowed"), allowed)

    def test_one_is_not_answered_with_what_was_told_of_another(self) -> None:
        told = [(("lab",), ""), ((), ""), (("other",), ""), (("lab", "other"), "acme")]
        for _ in range(2):
            answers = [self.acl.allows("dev1", "lab.x", groups, tenant) for groups, tenant in told]
            self.assertEqual(answers, [True, False, False, True])

    def test_a_list_of_groups_will_do(self) -> None:
        self.assertTrue(self.acl.allows("dev1", "lab.x", ["lab"]))

    def test_an_id_or_tenant_that_looks_like_a_marker_stands_for_itself(self) -> None:
        self.assertTrue(self.acl.allows("%t", "of.acme.%t-acme", (), "acme"))
        self.assertFalse(self.acl.allows("%t", "of.acme.acme-acme", (), "acme"))
        self.assertTrue(self.acl.allows("dev1", "of.%d.dev1-%d", (), "%d"))

    def test_what_no_line_asks_for_is_not_remembered(self) -> None:
        acl = Acl.parse("* -> %d.up\n@group/lab -> lab.#", "f", "%d")
        for number in range(50):
            self.assertTrue(acl.allows("dev1", "dev1.up", (f"g{number}",), f"t{number}"))
        self.assertEqual(acl._remembered.cache_info().currsize, 1)
        acl = Acl.parse("* -> %d.up", "f", "%d")
        acl.allows("dev1", "dev1.up", ("g",), "t")
        self.assertFalse(acl.needs_telling)
        self.assertEqual(acl._told.cache_info().currsize, 0)

    def test_all_that_is_remembered_is_bounded(self) -> None:
        self.patch(module, "CACHE_SIZE", 8)
        self.patch(module, "TOLD_CACHE_SIZE", 4)
        acl = Acl.parse(GROUPS, "f", "%d")
        for number in range(100):
            acl.allows("dev1", "lab.x", (f"g{number}",), f"t{number}")
        self.assertEqual(acl._remembered.cache_info().currsize, 8)
        self.assertEqual(acl._told.cache_info().currsize, 4)

    def test_topics_of_a_group_of_devices(self) -> None:
        acl = Acl.parse(
            "@operators -> @meters.#\nbob -> @meters.alarm.*\ncy -> @meters.for-%u\n"
            "group operators: ann, op-*\ngroup meters: meter-*, gw-1",
            "users.acl",
            "%u",
        )
        for who, topic, allowed in (
            ("ann", "meter-1.up", True),
            ("op-7", "gw-1.a.b.c", True),
            ("ann", "meter-1", True),
            ("ann", "gw-2.up", False),
            ("ann", "x.meter-1.up", False),
            ("ann", "@meters.up", False),
            ("bob", "meter-1.alarm.x", True),
            ("bob", "meter-1.alarm", False),
            ("bob", "gw-2.alarm.x", False),
            ("cy", "meter-1.for-cy", True),
            ("cy", "meter-1.for-bob", False),
            ("meter-1", "meter-1.up", False),
            ("ann", "", False),
        ):
            with self.subTest(who=who, topic=topic):
                self.assertEqual(acl.allows(who, topic), allowed)

    def test_a_topic_without_a_device_is_of_no_group(self) -> None:
        acl = Acl.parse("* -> @all.#\ngroup all: *", "users.acl", "%u")
        self.assertEqual([acl.allows("ann", topic) for topic in ("dev1.up", "", ".up")], [True, False, False])

    def test_many_groups_do_not_slow_each_other(self) -> None:
        text = "".join(f"group g{n}: dev{n}\n@g{n} -> t{n}.#\n" for n in range(5000))
        acl = Acl.parse(text, "f", "%d")
        self.assertEqual([acl.allows("dev7", "t7.x"), acl.allows("dev7", "t8.x")], [True, False])


class ExplainTests(SynchronousTestCase):
    def test_the_groups_that_led_there(self) -> None:
        acl = Acl.parse(GROUPS, "devices.acl", "%d")
        self.assertEqual(
            acl.explain("meter-7", "meter-7.off"),
            "denied by devices.acl:2: deny @meters -> *.off\n  'meter-7' is in @meters, as 'meter-*' in devices.acl:1",
        )
        self.assertEqual(
            acl.explain("dev1", "lab.x", ["lab"]),
            "allowed by devices.acl:5: @group/lab   -> lab.#\n"
            "  'dev1' is in @group/lab, says who told its groups and its tenant",
        )
        self.assertEqual(
            Acl.parse("group a: ann\n* -> @b.#\ngroup b: gw-1", "users.acl", "%u").explain("ann", "gw-1.x"),
            "allowed by users.acl:2: * -> @b.#\n  'gw-1' is in @b, as 'gw-1' in users.acl:3",
        )

    def test_nothing_matches(self) -> None:
        acl = Acl.parse(GROUPS, "devices.acl", "%d")
        self.assertEqual(
            acl.explain("gw-1", "x.y"),
            "denied: of devices.acl the lines for 'gw-1' (2, 3, 4, 8) do not allow 'x.y'",
        )


class WarningTests(SynchronousTestCase):
    def test_lines_that_never_decide(self) -> None:
        acl = Acl.parse("a -> #\ndeny a -> x.y\nb -> x\n* -> x, #\ndeny c -> x\n@g -> y\ngroup g: q", "f", "%d")
        self.assertEqual(
            [warning.partition(", for")[0] for warning in acl.warnings()],
            ["f:2: never decides", "f:5: never decides", "f:6: never decides"],
        )
        self.assertIn("line 1 does so about every topic of a:", next(acl.warnings()))
        self.assertIn("line 4 does so about every topic of everybody:", list(acl.warnings())[1])

    def test_groups_that_nobody_uses(self) -> None:
        acl = Acl.parse("group a: x\ngroup b: y\n@b -> z\ngroup c: v\n* -> @c.#\ngroup d: w", "f", "%d")
        self.assertEqual(list(acl.warnings()), ["f:1: no line uses group a", "f:6: no line uses group d"])

    def test_nothing_to_warn_of(self) -> None:
        self.assertEqual(list(Acl.parse("deny a -> #\na* -> @g.#\n* -> #\ngroup g: x", "f", "%d").warnings()), [])
