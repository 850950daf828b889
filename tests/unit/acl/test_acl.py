"""ACLs: who may use which topic, and which line says so."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from amqprouter.acl import acl as module
from amqprouter.acl import groups as groups_module
from amqprouter.acl.acl import Acl
from amqprouter.errors import AuthFileError

TEXT = """\
# the fleet
*          -> %d.up.#
meter-*    -> %d.alarm, shared.%d.*

   # one more
boss -> #
kit-[12]   -> kit.pre-%d-post.x
"""


class AclTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.acl = Acl.parse(TEXT, "devices.acl", "%d")

    def test_what_lines_allow(self) -> None:
        for who, topic, allowed in (
            ("dev1", "dev1.up", True),
            ("dev1", "dev1.up.temperature.3", True),
            ("dev1", "dev2.up", False),
            ("dev1", "dev1.alarm", False),
            ("meter-7", "meter-7.alarm", True),
            ("meter-7", "meter-8.alarm", False),
            ("meter-7", "meter-7.alarm.x", False),
            ("meter-7", "shared.meter-7.x", True),
            ("meter-7", "meter-7.up", True),
            ("METER-7", "METER-7.alarm", False),
            ("boss", "anything.at.all", True),
            ("kit-1", "kit.pre-kit-1-post.x", True),
            ("kit-1", "kit.pre-kit-2-post.x", False),
            ("kit-3", "kit.pre-kit-3-post.x", False),
            ("", "up", False),
        ):
            with self.subTest(who=who, topic=topic):
                self.assertEqual(self.acl.allows(who, topic), allowed)
                self.assertEqual(self.acl.allows(who, topic), allowed)  # remembered
                self.assertEqual(self.acl.explain(who, topic).startswith("allowed"), allowed)

    def test_explain_names_the_line(self) -> None:
        self.assertEqual(self.acl.explain("boss", "x"), "allowed by devices.acl:6: boss -> #")
        self.assertEqual(
            self.acl.explain("meter-7", "meter-7.alarm"),
            "allowed by devices.acl:3: meter-*    -> %d.alarm, shared.%d.*",
        )
        self.assertEqual(
            self.acl.explain("meter-7", "x.y"),
            "denied: of devices.acl the lines for 'meter-7' (2, 3) do not allow 'x.y'",
        )
        self.assertEqual(
            Acl.parse("", "none.acl", "%d").explain("dev1", "x"), "denied: no line of none.acl is for 'dev1'"
        )

    def test_an_id_never_widens_a_pattern(self) -> None:
        acl = Acl.parse("* -> %d.up\n* -> %d\n* -> x-%d.#", "f", "%d")
        for who in ("*", "#", "a.b", "a.#", "#.a", "*.a", "", "."):
            for topic in ("victim.up", "victim", "a.b", "a.b.up", "x-a.b", "x-*.b", "", "#.up", "*.up", "*", "#"):
                self.assertFalse(acl.allows(who, topic), (who, topic))
        self.assertIn("keeps it from", acl.explain("a.b", "a.b.up"))

    def test_an_id_that_is_a_marker_stands_for_itself(self) -> None:
        acl = Acl.parse("* -> %d.up", "f", "%d")
        self.assertTrue(acl.allows("%d", "%d.up"))
        self.assertFalse(acl.allows("%d", "dev1.up"))

    def test_dots_in_a_name_are_no_hindrance_without_a_marker(self) -> None:
        acl = Acl.parse("alice@example.com -> site.#\n*@example.com -> public.*", "f", "%u")
        self.assertTrue(acl.allows("alice@example.com", "site.dev1.up"))
        self.assertTrue(acl.allows("bob@example.com", "public.x"))
        self.assertFalse(acl.allows("aliceXexample.com", "site.dev1.up"))

    def test_nothing_and_everything(self) -> None:
        self.assertFalse(Acl.parse("# nobody", "f", "%u").allows("alice", "x"))
        everything = Acl.parse("* -> a.b, #", "f", "%u")
        self.assertTrue(everything.allows("alice", "x.y"))
        self.assertIn("f:1", everything.explain("alice", "x.y"))

    def test_answers_are_remembered_up_to_a_bound(self) -> None:
        self.patch(module, "CACHE_SIZE", 8)
        acl = Acl.parse("* -> %d.up", "f", "%d")
        for number in range(100):
            acl.allows("dev1", f"dev1.{number}")
        info = acl._remembered.cache_info()
        self.assertEqual((info.currsize, info.misses), (8, 100))
        self.assertTrue(acl.allows("dev1", "dev1.up"))

    def test_many_names_do_not_slow_each_other(self) -> None:
        text = "\n".join(f"user{number} -> site{number}.#" for number in range(5000))
        acl = Acl.parse(text, "f", "%u")
        self.assertEqual(acl._globs, [])
        self.assertTrue(acl.allows("user4999", "site4999.x"))
        self.assertFalse(acl.allows("user4999", "site1.x"))


class BadLineTests(SynchronousTestCase):
    def problems(self, text: str, marker: str = "%d") -> list[str]:
        error: AuthFileError = self.assertRaises(AuthFileError, Acl.parse, text, "devices.acl", marker)
        return error.problems

    def test_all_at_once_each_with_its_line(self) -> None:
        problems = self.problems("dev1\n* -> #\n* -> a..b\n\n* ->\n")
        self.assertEqual([problem.split(": ")[0] for problem in problems], [f"devices.acl:{n}" for n in (1, 3, 5)])

    def test_each_kind(self) -> None:
        for line, said in (
            ("dev1 topic", "WHO -> TOPIC PATTERN"),
            ("a -> b -> c", "not one '->'"),
            ("-> a.b", "stands one device pattern"),
            ("dev1 dev2 -> a", "stands one device pattern"),
            ("deny a.b", "not one '->'"),
            ("deny -> a.b", "deny whom? For one whose name is 'deny' write allow deny ->"),
            ("allow -> a.b", "allow whom?"),
            ("group -> a.b", "group whom?"),
            ("Deny * -> a.b", "before it may stand allow or deny"),
            ("deny allow * -> a.b", "stands one device pattern"),
            ("%d -> a", "in topic patterns only"),
            ("deny x-%t -> a", "in topic patterns only"),
            ("@meters -> a", "no line of this file defines that group; a checker's is @group/meters"),
            ("@ -> a", "group name ''"),
            ("@a.b -> a", "group name 'a.b'"),
            ("@team/x -> a", "there are @group/NAME and @tenant/NAME"),
            ("@group/ -> a", "named in full"),
            ("@tenant/a* -> a", "named in full"),
            ("* -> @meters.#", "no line of this file defines group 'meters'"),
            ("* -> @tenant/acme.#", "only a group of this file can say"),
            ("deny meter-1\u200b -> #", "character 13 is U+200B, which does not show"),
            ("deny meter-1\xa0-> #", "U+00A0"),
            ("* -> a,,b", "an empty topic pattern"),
            ("* -> a.b # why", "a comment needs a line of its own"),
            ("* -> a.b,", "an empty topic pattern"),
            ("* -> a b", "white space"),
            ("* -> %u.up", "%u is a user's; in this file it is %d"),
            ("* -> %d*.up", "whole words"),
            ("* -> dev*.up", "whole words"),
            ("x" * 256 + " -> a", "over 255"),
        ):
            with self.subTest(line=line):
                (problem,) = self.problems(line)
                self.assertIn(said, problem)
        for line, said in (
            ("group g", "no ':'; a group's line is group NAME: MEMBER"),
            ("group a.b: x", "group name 'a.b'"),
            ("group : x", "group name ''"),
            ("group " + "g" * 65 + ": x", "1 to 64"),
            ("group g:", "group g is empty"),
            ("group g: a,,b", "an empty member"),
            ("group g: a b", "'a b' has white space"),
            ("group g: @other", "groups do not nest"),
            ("group g: %d", "in topic patterns only"),
            ("group g: x-%t", "in topic patterns only"),
            ("group g: a -> b", "'->' among the members"),
            ("group g: " + "x" * 256, "over 255"),
            ("group\tg: a,", "an empty member"),
        ):
            with self.subTest(line=line):
                (problem,) = self.problems(f"{line}\n@g -> a" if line.startswith(("group g:", "group\tg:")) else line)
                self.assertTrue(problem.startswith("devices.acl:1: "), problem)
                self.assertIn(said, problem)
        (problem,) = self.problems("group g: a\ngroup g: b\n@g -> x")
        self.assertEqual(problem, "devices.acl:2: group g is defined in line 1 already")
        (problem,) = self.problems("group g: a\n@g -> @g")
        self.assertIn("which topics of theirs? @g.# are all", problem)
        (problem,) = self.problems("* -> %d.up", "%u")
        self.assertIn("%d is a device's; in this file it is %u", problem)

    def test_too_many_members(self) -> None:
        self.patch(groups_module, "MAX_NAMES", 3)
        self.patch(groups_module, "MAX_GLOBS", 2)
        Acl.parse("group g: a, b, c, d*, e*\n@g -> x", "f", "%d")
        for more in ("y", "y*"):
            (problem,) = self.problems(f"group g: a, b, c, d*, e*\n@g -> x\ngroup h: {more}")
            self.assertIn("devices.acl:3: the groups have", problem)

    def test_ten_thousand_lines_and_one_more(self) -> None:
        Acl.parse("* -> a\n" * 10_000, "f", "%d")
        (problem,) = self.problems("* -> a\n" * 10_000 + "deny * -> b\n")
        self.assertIn("devices.acl:10001: ", problem)

    def test_too_many_lines(self) -> None:
        self.patch(module, "MAX_LINES", 3)
        (problem,) = self.problems("a -> b\n" * 4)
        self.assertIn("devices.acl:4: ", problem)
        self.assertIn("3, the most", problem)

    @given(
        st.lists(
            st.sampled_from(
                ["ab", "*", "#", ".", "%d", "%t", "->", ",", " ", "\n", "[!", "]", "deny ", "group g:", "@g"]
            )
        )
    )
    def test_any_text_parses_or_is_refused(self, parts: list[str]) -> None:
        try:
            acl = Acl.parse("".join(parts), "f", "%d")
        except AuthFileError as error:
            self.assertTrue(error.problems)
        else:
            acl.allows("ab", "ab.b")
            acl.explain("ab", "ab.b")


class QuotedTests(SynchronousTestCase):
    """Topics with spaces and commas, which MQTT allows."""

    def test_named_in_quotes(self) -> None:
        text = 'a -> "%d.living room.#" , %d.x,"%d.one, two"\ndeny b -> "b.""q"""\nb -> #\n'
        acl = Acl.parse(text, "acl", "%d")
        for topic in ("a.living room.lamp", "a.x", "a.one, two"):
            self.assertTrue(acl.allows("a", topic), topic)
        for topic in ("a.living.lamp", "a.one", "a.living  room.x"):
            self.assertFalse(acl.allows("a", topic), topic)
        self.assertFalse(acl.allows("b", 'b."q"'))
        self.assertTrue(acl.allows("b", "b.q"))

    def test_quotes_within_a_pattern_are_quotes(self) -> None:
        acl = Acl.parse('* -> a."b".c, "d, e"\n', "acl", "%d")
        self.assertTrue(acl.allows("x", 'a."b".c'))

    def test_what_is_wrong_is_told(self) -> None:
        for text, words in (
            ("* -> a b", 'stands in quotes, "a b"'),
            ('* -> ""', "empty"),
            ('* -> "a b" c', "white space"),
            ('* -> "a..b"', "empty word"),
        ):
            error = self.assertRaises(AuthFileError, Acl.parse, text, "acl", "%d")
            self.assertIn(words, str(error))

    def test_of_publishers(self) -> None:
        acl = Acl.parse('bridge -> lamp-*: "living room.#", x\n', "acl", "%p")
        self.assertTrue(acl.allows("bridge", "lamp-1.living room.state"))
        self.assertTrue(acl.allows("bridge", "lamp-1.x"))
        self.assertFalse(acl.allows("bridge", "lamp-1.living.state"))
