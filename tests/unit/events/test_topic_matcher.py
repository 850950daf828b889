"""Topic matchers of Mercure 1.0: exact ones and URL patterns."""

from __future__ import annotations

import time
from itertools import product

from twisted.trial.unittest import SynchronousTestCase

from amqprouter.events.interest import Interest
from amqprouter.events.topic_matcher import MAX_GROUPS, TopicMatcher, path_of_topic
from amqprouter.events.topic_selector import TopicSelector

HUB = "https://gateway.example/.well-known/mercure"


def pattern(text: str) -> TopicMatcher:
    return TopicMatcher("urlpattern", text, HUB)


class ExactTests(SynchronousTestCase):
    def test_the_very_topic(self) -> None:
        for text in ("a", "https://example.com/{id}", "https://example.com/:id", "é", "e\u0301", "%41"):
            matcher = TopicMatcher("exact", text, HUB)
            self.assertEqual((matcher.exact, matcher.expressions), (text, 0))
            for other in ("a", "https://example.com/1", "https://example.com/{id}", "é", "e\u0301", "A", "%41", "*"):
                self.assertEqual(matcher.matches(other), text == other, (text, other))

    def test_the_star_is_every_topic_in_any_type(self) -> None:
        for kind in ("exact", "urlpattern"):
            matcher = TopicMatcher(kind, "*", HUB)
            self.assertTrue(all(map(matcher.matches, ("a", "https://x/", "https://[bad", "*"))))
            self.assertEqual((matcher.exact, matcher.expressions, matcher.effort), ("", 1, 0))

    def test_first_word(self) -> None:
        self.assertEqual(TopicMatcher("exact", "boiler-1.up.x", HUB).first_word, "boiler-1")
        self.assertEqual(pattern("boiler-1.up.:x").first_word, "")

    def test_what_is_none(self) -> None:
        for kind, text in (
            *product(("exact", "urlpattern"), ("", "x" * 1025, "a\nb", "a\x7f", "a\x85", "a\u200b", "a\u202eb")),
            *product(("Exact", "", "urltemplate", "regexp"), ("a", "*")),
        ):
            with self.assertRaises(ValueError, msg=f"{kind} {text!r}"):
                TopicMatcher(kind, text, HUB)

    def test_equality(self) -> None:
        self.assertEqual(len({pattern("a"), pattern("a"), TopicMatcher("exact", "a", HUB), pattern("b")}), 3)

    def test_equal_texts_of_different_kinds_are_different(self) -> None:
        text = "https://example.com/*"
        interest = Interest([TopicSelector(text), TopicMatcher("exact", text, HUB), pattern(text), pattern(text)])
        self.assertEqual((len(interest.patterns), interest.exact), (1, {text}))
        self.assertTrue(interest.matches(["https://example.com/1"]))


class UrlPatternTests(SynchronousTestCase):
    def matched(self, text: str, *topics: str) -> list[bool]:
        matcher = pattern(text)
        self.assertEqual(matcher.exact, "")
        return [matcher.matches(topic) for topic in topics]

    def test_names_stars_groups_and_expressions(self) -> None:
        books = ("https://example.com/books/1", "https://example.com/books/x", "https://example.com/books/1/2")
        self.assertEqual(self.matched("https://example.com/books/:id", *books), [True, True, False])
        self.assertEqual(self.matched("https://example.com/books/*", *books), [True, True, True])
        self.assertEqual(self.matched(r"https://example.com/books/:id(\d+)", *books), [True, False, False])
        self.assertEqual(self.matched("https://example.com/books/:a{/:b}?", *books), [True, True, True])
        self.assertEqual(self.matched("https://:host.com/books/:id", *books), [True, True, False])

    def test_case_counts_but_in_hosts(self) -> None:
        topics = ("https://EXAMPLE.com/Books/1", "https://example.com/books/1", "HTTPS://example.com:443/Books/1")
        self.assertEqual(self.matched("https://example.com/Books/:id", *topics), [True, False, True])

    def test_relative_patterns_and_topics_are_the_hub_s(self) -> None:
        path = "/.well-known/mercure/subscriptions/exact/a/b"
        self.assertEqual(self.matched("/.well-known/mercure/subscriptions/:a/:b/:c", path), [True])
        self.assertEqual(self.matched("https://gateway.example/.well-known/mercure/*", path), [True])
        self.assertEqual(self.matched("https://other.example/.well-known/mercure/*", path), [False])
        self.assertEqual(self.matched("boiler-1.up.*", "boiler-1.up.temperature", "boiler-2.up.x"), [True, False])

    def test_what_is_no_url_matches_nothing(self) -> None:
        self.assertEqual(self.matched("*://*/*", "https://[bad", "http://x:99999/", "https://x/"), [False, False, True])

    def test_bad_patterns(self) -> None:
        for text in (
            "https://example.com/(",
            "https://example.com/(a",
            "https://example.com/:a/:a",
            "https://example.com/{:a",
            "https://example.com/((a))",
            "https://example.com/(a(?=b))",
            "https://example.com/(?i)",
            "https://example.com/((?i:a))",
            "https://example.com/([a)",
            "https://example.com/([[a]])",
            "https://example.com/(a{2)",
            "/*" * (MAX_GROUPS + 1),
        ):
            with self.assertRaises(ValueError, msg=text) as caught:
                pattern(text)
            self.assertNotIn("example.com", str(caught.exception))

    def test_good_ones_with_much_in_them(self) -> None:
        identifier = "([0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12})"
        topic = "https://example.com/bb3de268-05b0-4c65-b44e-8f9acefc29d6"
        self.assertEqual(self.matched(f"https://example.com/{identifier}", topic, topic + "0"), [True, False])
        self.assertEqual(self.matched(r"https://example.com/([\w-]+\.(?:txt|md))", "https://example.com/a.md"), [True])
        self.assertEqual(self.matched("/*" * MAX_GROUPS, "/a" * MAX_GROUPS), [True])

    def test_a_word_is_javascript_s(self) -> None:
        topics = ("https://example.com/a_1", "https://example.com/a-1", "https://example.com/é")
        for part, wanted in (
            (r"(\w+)", [True, False, False]),
            (r"([\w-]+)", [True, True, False]),
            (r"(\d+)", [False] * 3),
            (r"(\W+)", [False] * 3),
        ):
            self.assertEqual(self.matched(f"https://example.com/{part}", *topics), wanted, part)
        self.assertEqual(self.matched(r"https://example.com/(\W\D+|\p{Lu}+)", "https://example.com/-.a"), [True])
        self.assertEqual(self.matched(r"https://example.com/a\(:x", "https://example.com/a(b"), [True])

    def test_what_would_take_long_to_compile_is_refused_before(self) -> None:
        began = time.process_time()
        for part in (
            r"(\W{1000})",
            r"([^\W]{3})",
            r"([\p{L}a-z]{3})",
            r"(\w{1000})",
            r"(\p{L}{3})",
            "(" + r"\p{L}" * 150 + ")",
            "((?:a{100}){100})",
            "(a{100}{100})",
            r"((?:(?:\w{9}){9}){9})",
            "([a-z]{1000})",
            "(" + ".*" * 400 + ")",
        ):
            with self.assertRaisesRegex(ValueError, "too large", msg=part[:20]):
                pattern(f"https://x/{part}")
        self.assertLess(time.process_time() - began, 0.1)

    def test_matching_does_not_go_back(self) -> None:
        """Each of these takes a backtracking engine for ever."""
        topic = "https://example.com/" + "a" * 1000
        began = time.process_time()
        for part in ("((?:a|a)*b)", "((?:a*)*b)", "((?:a+)+b)", "(.*.*.*.*.*.*.*.*b)", "*" + "a*" * 15 + "b"):
            self.assertFalse(pattern(f"https://example.com/{part}").matches(topic), part)
        self.assertLess(time.process_time() - began, 0.5)


class PathTests(SynchronousTestCase):
    def test_as_patterns_see_it(self) -> None:
        for topic, path in (
            ("mercure/a", "/.well-known/mercure/a"),
            ("/.well-known/x/../mercure", "/.well-known/mercure"),
            ("https:\\\\h\\a", "/a"),
            ("https://[bad", None),
        ):
            self.assertEqual(path_of_topic(topic, HUB), path)
