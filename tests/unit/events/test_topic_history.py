"""Whether a subscriber has missed anything, by the topics that had events: never no where it was yes."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from amqprouter.events.interest import Interest
from amqprouter.events.topic_history import MOST_TRIED, TopicHistory
from amqprouter.events.topic_selector import TopicSelector
from amqprouter.patterns import TopicPattern


def patterns(*texts: str) -> Interest:
    return Interest(TopicPattern(text) for text in texts)


def selectors(*texts: str) -> Interest:
    return Interest(TopicSelector(text) for text in texts)


WORDS = st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map(".".join)
PATTERNS = st.lists(st.sampled_from(["a", "b", "c", "*", "#"]), min_size=1, max_size=3).map(".".join)


class TopicHistoryTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.history = TopicHistory()

    def note(self, *topics: str) -> None:
        for offset, topic in enumerate(topics):
            self.history.note((topic,), offset)

    def test_names_are_looked_up(self) -> None:
        self.note("a.x", "b.x", "a.y", "b.y")
        self.assertIsNone(self.history.maybe_missed(patterns("a.x"), -1))
        self.assertEqual(self.history.maybe_missed(patterns("a.x"), 0), [])
        self.assertEqual(self.history.maybe_missed(patterns("a.x", "nobody.x"), 0), [])
        self.assertIsNone(self.history.maybe_missed(patterns("a.x", "b.y"), 0))

    def test_patterns_with_a_first_word_are_tried_on_its_topics_alone(self) -> None:
        self.note(*(f"d{n}.x" for n in range(3 * MOST_TRIED)), "a.x", "a.y")
        last = 3 * MOST_TRIED
        self.assertEqual(self.history.maybe_missed(patterns("d1.#"), last), [])
        self.assertEqual(self.history.maybe_missed(patterns("a.*", "nobody.#"), last), ["a.y"])
        self.assertEqual(self.history.maybe_missed(selectors("a.{+rest}"), last), ["a.y"])
        self.assertEqual(self.history.maybe_missed(patterns("*.alarm"), last - 2), ["a.y", "a.x", f"d{last - 1}.x"])

    def test_what_would_take_long_is_not_said(self) -> None:
        self.note(*(f"d{n}.x" for n in range(MOST_TRIED + 1)))
        self.assertIsNone(self.history.maybe_missed(patterns("*.alarm"), -1))
        self.assertEqual(len(self.history.maybe_missed(patterns("*.alarm"), 0) or ()), MOST_TRIED)
        self.assertIsNone(self.history.maybe_missed(patterns("*.alarm", "*.fault"), 0))

    def test_before_the_first_and_after_the_last(self) -> None:
        self.assertIsNone(self.history.maybe_missed(patterns("a"), 5))
        self.history.note(("x",), 10)
        self.assertIsNone(self.history.maybe_missed(patterns("a"), 8))
        self.assertEqual(self.history.maybe_missed(patterns("a"), 9), [])
        self.history.clear()
        self.assertIsNone(self.history.maybe_missed(patterns("a"), 9))
        self.assertEqual((len(self.history), self.history.bytes), (0, 0))

    def test_it_is_bounded_in_topics_and_bytes(self) -> None:
        for history, longest in ((TopicHistory(most=100), 10), (TopicHistory(most_bytes=100_000), 5000)):
            for offset in range(1000):
                history.note((f"d{offset}.".ljust(longest, "x"),), offset)
            self.assertLessEqual(len(history), 100)
            self.assertLessEqual(history.bytes, 110_000)
            assert history.complete_from is not None
            self.assertGreater(history.complete_from, 800)
            self.assertIsNone(history.maybe_missed(patterns("a"), history.complete_from - 1))
            self.assertEqual(history.maybe_missed(patterns("a"), history.complete_from), [])

    @settings(max_examples=300)
    @given(st.lists(st.lists(WORDS, min_size=1, max_size=2), max_size=30), st.lists(PATTERNS, min_size=1), st.data())
    def test_nothing_that_was_missed_is_passed_over(
        self, events: list[list[str]], texts: list[str], data: st.DataObject
    ) -> None:
        history = TopicHistory(most=6)
        for offset, topics in enumerate(events):
            history.note(tuple(topics), offset)
        last = data.draw(st.integers(-1, len(events)))
        interest = patterns(*texts)
        missed = any(interest.matches(topics) for topics in events[last + 1 :])
        candidates = history.maybe_missed(interest, last)
        if missed:
            self.assertTrue(candidates is None or interest.matches(candidates))


class FirstWordTests(SynchronousTestCase):
    def test_of_patterns(self) -> None:
        for text, word in (("a.#", "a"), ("a.*.b", "a"), ("a", "a"), ("*.a", ""), ("#", "")):
            self.assertEqual(TopicPattern(text).first_word, word)

    def test_of_selectors(self) -> None:
        for text, word in (
            ("a.{x}", "a"),
            ("https://shop.example/{x}", "https://shop"),
            ("a{x}.b", ""),
            ("{x}.b", ""),
            ("a{x}", ""),
            ("%41.{x}", ""),
            ("*", ""),
        ):
            self.assertEqual(TopicSelector(text).first_word, word, text)
