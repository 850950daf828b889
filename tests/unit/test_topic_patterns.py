"""Topic patterns match as RabbitMQ's topic exchanges do."""

from __future__ import annotations

import itertools
import re
import time
from random import Random

from twisted.trial.unittest import SynchronousTestCase

from amqprouter.patterns import TopicPattern, _all_ways, _glob


def by_regular_expression(pattern: str, topic: str) -> bool:
    """An independent oracle: translate to a regular expression over ``word.`` repetitions."""
    parts = {"*": r"[^.]+\.", "#": r"(?:[^.]+\.)*"}
    expression = "".join(parts.get(word, re.escape(word) + r"\.") for word in pattern.split("."))
    return re.fullmatch(expression, topic + "." if topic else "") is not None


class TopicPatternTests(SynchronousTestCase):
    def test_every_short_pattern_against_every_short_topic(self) -> None:
        patterns = [".".join(p) for n in (1, 2, 3, 4) for p in itertools.product("ab*#", repeat=n)]
        topics = [".".join(t) for n in (1, 2, 3, 4) for t in itertools.product("abc", repeat=n)]
        for pattern in patterns:
            compiled = TopicPattern(pattern)
            for topic in ["", *topics]:
                self.assertEqual(
                    compiled.matches(topic), by_regular_expression(pattern, topic), f"{pattern} against {topic!r}"
                )

    def test_overlaps(self) -> None:
        """Two patterns overlap if and only if some topic matches both; short ones have a short one."""
        words = ["a", "b", "*", "#"]
        patterns = [".".join(some) for n in (1, 2, 3) for some in itertools.product(words, repeat=n)]
        topics = [".".join(some) for n in range(7) for some in itertools.product("ab", repeat=n)]
        matched = {text: {topic for topic in topics if TopicPattern(text).matches(topic)} for text in patterns}
        for first, second in itertools.product(patterns, repeat=2):
            expected = bool(matched[first] & matched[second])
            self.assertEqual(TopicPattern(first).overlaps(TopicPattern(second)), expected, (first, second))

    def test_many_hashes_stay_cheap(self) -> None:
        pattern = TopicPattern(".".join(["#", "a"] * 40 + ["z"]))
        self.assertFalse(pattern.matches(".".join(["a"] * 2000)))

    def test_many_words_and_a_hash_stay_cheap(self) -> None:
        """Going back and forth, this would take a second."""
        words = ["a"] * 2000
        for end, matched in (("a", True), ("b", False)):
            pattern = TopicPattern(".".join(["#", *["a"] * 500, end]))
            began = time.perf_counter()
            self.assertEqual(pattern.matches(".".join(words)), matched)
            self.assertLess(time.perf_counter() - began, 0.1)

    def test_both_ways_to_match(self) -> None:
        chance = Random(1)
        for _ in range(5000):
            pattern = tuple(chance.choices("ab*#", k=chance.randint(1, 7)))
            words = chance.choices("ab", k=chance.randint(0, 7))
            self.assertEqual(_glob(pattern, words), _all_ways(pattern, words), (pattern, words))

    def test_bad_patterns_are_refused(self) -> None:
        for text in ("", "a..b", ".a", "a.", "a*", "x.#y"):
            with self.assertRaises(ValueError, msg=text):
                TopicPattern(text)
