"""Mercure's topic selectors: what they match, and that nothing written into one makes matching slow."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from amqprouter.events.interest import Interest
from amqprouter.events.topic_selector import MAX_EXPRESSIONS, MAX_SELECTOR, MOST_COMPILED, TopicSelector, _compiled

UNRESERVED = r"[A-Za-z0-9\-._~,]|%[0-9A-Fa-f]{2}"


class MatchTests(SynchronousTestCase):
    def check(self, selector: str, *, yes: tuple[str, ...] = (), no: tuple[str, ...] = ()) -> None:
        compiled = TopicSelector(selector)
        for topic in yes:
            self.assertTrue(compiled.matches(topic), (selector, topic))
        for topic in no:
            self.assertFalse(compiled.matches(topic), (selector, topic))

    def test_everything(self) -> None:
        self.check("*", yes=("a", "https://example.com/x", ""))

    def test_exact(self) -> None:
        self.check("https://example.com/a", yes=("https://example.com/a",), no=("https://example.com/", "a"))
        self.check("meter-1.up.x", yes=("meter-1.up.x",), no=("meter-1.up.xx", "meter-1-up-x"))

    def test_simple_expressions(self) -> None:
        """Unreserved characters, commas and escapes; neither ``/`` nor ``:``."""
        self.check(
            "https://example.com/books/{id}",
            yes=("https://example.com/books/1", "https://example.com/books/a%20b,c", "https://example.com/books/"),
            no=("https://example.com/books/1/x", "https://example.com/books/a:b", "http://example.com/books/1"),
        )
        self.check("{x}.up.{y}", yes=("meter-1.up.temperature", ".up."), no=("meter-1.down.x",))
        self.check("{x}", no=("%2", "%zz", "a%"))

    def test_reserved_expressions(self) -> None:
        self.check("a/{+x}", yes=("a/b/c?d=e", "a/"), no=("b/c", "a/ "))
        self.check("a{#x}", yes=("a#b/c", "a", "a#"), no=("ab",))

    def test_prefixed_expressions(self) -> None:
        self.check("a{/x}", yes=("a/b", "a", "a/"), no=("a/b/c", "ab"))
        self.check("a{/x,y}", yes=("a/b/c", "a/b"), no=("ab",))
        self.check("a{/x*}", yes=("a/b/c/d",))
        self.check("a{.x}", yes=("a.b", "a"), no=("a/b",))
        self.check("a{;x}", yes=("a;x=1", "a"), no=("a/x",))
        self.check("a{?x,y}", yes=("a?x=1&y=2", "a"), no=("a&x=1",))
        self.check("a?f=1{&x}", yes=("a?f=1&x=2", "a?f=1"), no=("a?f=1x=2",))

    def test_several_in_a_row(self) -> None:
        """Where one stops and the next begins does not matter."""
        self.check("{x}{y}/{z}end", yes=("ab/endend", "/end"), no=("ab/en",))
        self.check("{+x}{+y}c", yes=("abcabc", "c"), no=("ab",))

    def test_escapes_are_equal_in_either_case(self) -> None:
        self.check("a%2fb{x}", yes=("a%2Fb", "a%2fbc"))

    def test_what_is_no_template_is_a_topic(self) -> None:
        for text in ("a{b", "a}b{", "{", "{}", "{!x}", "{x y}", "{x:0}", "{x}}"):
            self.check(text, yes=(text,), no=("a", "ab", "x"))

    def test_too_large(self) -> None:
        for text in ("", "x" * (MAX_SELECTOR + 1), "{x}" * (MAX_EXPRESSIONS + 1)):
            with self.assertRaises(ValueError):
                TopicSelector(text)

    def test_exact_ones_say_so(self) -> None:
        self.assertEqual([TopicSelector(text).exact for text in ("a", "*", "{x}", "{")], ["a", "", "", "{"])

    def test_alternate_topics_count(self) -> None:
        interest = Interest([TopicSelector("a"), TopicSelector("b/{x}")])
        self.assertTrue(interest.matches(("z", "b/1")))
        self.assertFalse(interest.matches(("z", "c")))
        self.assertFalse(Interest([]).matches(("z",)))

    def test_an_escape_is_not_torn_apart(self) -> None:
        self.check("{x}20", yes=("a20", "20"), no=("%20", "a%20"))
        self.check("{x}%{y}20", yes=("%zz20", "a%20%zz20"), no=("%20%20", "%a20", "a%20"))

    def test_how_many_expressions(self) -> None:
        texts = ("a", "*", "{x}", "a{x}{/y}", "{", "{x}{")
        self.assertEqual([TopicSelector(text).expressions for text in texts], [0, 1, 1, 2, 0, 0])

    def test_equal_ones_share_what_is_compiled(self) -> None:
        before = _compiled.cache_info().misses
        for _ in range(100):
            TopicSelector("shared/{x}").matches("shared/1")
        self.assertEqual(_compiled.cache_info().misses, before + 1)
        for number in range(MOST_COMPILED + 10):
            TopicSelector(f"{number}/{{x}}").matches("a")
        self.assertEqual(_compiled.cache_info().currsize, MOST_COMPILED)

    def test_equality(self) -> None:
        self.assertEqual(len({TopicSelector("{x}"), TopicSelector("{x}"), TopicSelector("{y}")}), 2)

    def test_hostile_templates_take_no_longer(self) -> None:
        """A backtracking match of this would not be back before the universe ends."""
        selector = TopicSelector("{+a}" * MAX_EXPRESSIONS + "!")
        self.assertFalse(selector.matches("a" * 10_000))

    @given(
        st.lists(st.sampled_from(["{x}", "{+x}", "{/x}", "{.x}", "{#x}", "a", "/", ".", "b", "%20"]), max_size=5),
        st.lists(st.sampled_from(["a", "b", "/", ".", "#", "%20", "%", ","]), max_size=8),
    )
    def test_as_a_regular_expression(self, parts: list[str], symbols: list[str]) -> None:
        reserved = rf"{UNRESERVED}|[:/?#\[\]@!$&'()*+,;=]"
        expressions = {
            "{x}": f"(?:{UNRESERVED})*",
            "{+x}": f"(?:{reserved})*",
            "{/x}": f"(?:/(?:{UNRESERVED})*)?",
            "{.x}": rf"(?:\.(?:{UNRESERVED})*)?",
            "{#x}": f"(?:#(?:{reserved})*)?",
        }
        text, topic = "".join(parts), "".join(symbols)
        if not text:
            return
        pattern = "".join(expressions.get(part) or re.escape(part) for part in parts)
        self.assertEqual(TopicSelector(text).matches(topic), re.fullmatch(pattern, topic) is not None)
