"""Patterns: globs over device ids, and those of topics, as AMQP topic exchanges match them.

In a glob ``*`` stands for any characters, ``?`` for any one, ``[abc]``, ``[a-z]`` and ``[!abc]`` for one of a set. A
topic is words separated by dots; in its pattern ``*`` stands for exactly one word and ``#`` for any number of words,
none included (AMQP 0-9-1, section 3.1.3.3). Matching takes bounded time, whatever the pattern: patterns come from
people, and a topic from anybody.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import translate

LONGEST = 255
"""Characters. No device id is longer, and the time to match is bounded by pattern × id: `fnmatch` puts each run between
stars in an atomic group, so it never tries one place for two stars, whatever the pattern."""

_WILDCARDS = frozenset("*?[")


class DevicePattern:
    """A compiled glob; upper and lower case differ. Raises `ValueError` for an empty or overlong one."""

    __slots__ = ("_match", "is_name", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        if not text:
            raise ValueError("device pattern is empty; '*' stands for every device")
        if len(text) > LONGEST:
            raise ValueError(f"device pattern {text[:40]!r}… is over {LONGEST} characters")
        self.is_name = not _WILDCARDS.intersection(text)
        """Whether it matches one id only, the very text."""
        try:
            self._match = re.compile(translate(text)).match
        except re.error as error:  # a range such as [z-a], before Python 3.11
            raise ValueError(f"device pattern {text!r} has a bad set in brackets: {error}") from None

    def matches(self, device: str) -> bool:
        """Whether the pattern matches this whole device id."""
        return self.text == "*" or self._match(device) is not None

    def __repr__(self) -> str:
        return f"DevicePattern({self.text!r})"


MOST_STEPS = 1000
"""Words × pattern words up to which going back and forth is quick enough at its worst, and mostly the quicker way."""


class TopicPattern:
    """A compiled pattern. Raises `ValueError` for one that is empty or has an empty word."""

    __slots__ = ("_has_hash", "_words", "text")
    kind = "pattern"
    effort = 0
    """See `amqprouter.events.interest.Selector`."""

    def __init__(self, text: str) -> None:
        self.text = text
        words = text.split(".")
        if "" in words:
            raise ValueError(f"topic pattern {text!r} has an empty word")
        for word in words:
            if word not in ("*", "#") and ("*" in word or "#" in word):
                raise ValueError(f"topic pattern {text!r}: '*' and '#' stand for whole words, not parts of {word!r}")
        self._words = tuple(words)
        self._has_hash = "#" in words

    @property
    def exact(self) -> str:
        """The one topic that is matched, if there is only one; else empty. Exact ones can be looked up, not tried."""
        return "" if "*" in self._words or self._has_hash else self.text

    @property
    def first_word(self) -> str:
        """The first word of every topic that is matched; empty if that differs."""
        word = self._words[0]
        return "" if word in ("*", "#") else word

    def matches(self, topic: str) -> bool:
        """Whether the pattern matches this dotted topic."""
        if self._words == ("#",):
            return True
        return self.matches_words(topic.split(".") if topic else [])

    def matches_words(self, words: list[str]) -> bool:
        """Whether the pattern matches the topic of these words."""
        pattern = self._words
        if not self._has_hash:
            return len(words) == len(pattern) and all(p in ("*", w) for p, w in zip(pattern, words, strict=True))
        if len(words) * len(pattern) > MOST_STEPS:
            return _all_ways(pattern, words)
        return _glob(pattern, words)

    @property
    def expressions(self) -> int:
        """Words that stand for others."""
        return sum(word in ("*", "#") for word in self._words)

    def overlaps(self, other: TopicPattern) -> bool:
        """Whether some topic matches both."""
        return overlap(self._words, other._words)

    def __repr__(self) -> str:
        return f"TopicPattern({self.text!r})"


def overlap(first: Sequence[str], second: Sequence[str]) -> bool:
    """Whether some topic matches both patterns of these words, in which ``*`` and ``#`` stand for others.

    It looks at the rests of both, from the ends to the beginnings: words × words steps.
    """
    below = [all(word == "#" for word in second[at:]) for at in range(len(second) + 1)]
    for place in reversed(range(len(first))):
        row = [False] * (len(second) + 1)
        for at in reversed(range(len(second) + 1)):
            if at == len(second):
                row[at] = first[place] == "#" and below[at]
            elif first[place] == "#" or second[at] == "#":
                row[at] = below[at] or row[at + 1]
            elif first[place] == second[at] or "*" in (first[place], second[at]):
                row[at] = below[at + 1]
        below = row
    return below[0]


def _glob(pattern: tuple[str, ...], words: list[str]) -> bool:
    """Match with ``#``: greedy, going back only to the latest ``#``, which is enough for patterns of this kind."""
    position = at = 0
    hash_at, resume = -1, 0
    while at < len(words):
        if position < len(pattern) and pattern[position] == "#":
            hash_at, resume = position, at
            position += 1
        elif position < len(pattern) and pattern[position] in ("*", words[at]):
            position += 1
            at += 1
        elif hash_at >= 0:
            resume += 1
            position, at = hash_at + 1, resume
        else:
            return False
    return all(word == "#" for word in pattern[position:])


def _all_ways(pattern: tuple[str, ...], words: list[str]) -> bool:
    """Match with ``#``: state n is the place before the n-th word of the pattern, that does not count ``#``."""
    lead: dict[str, int] = {}  # word → states that it leads on from
    anywhere = stars = state = 0
    for word in pattern:
        if word == "#":
            stars |= 1 << state
        else:
            if word == "*":
                anywhere |= 1 << state
            else:
                lead[word] = lead.get(word, 0) | 1 << state
            state += 1
    states = 1
    for word in words:
        states = (states & (lead.get(word, 0) | anywhere)) << 1 | states & stars
        if not states:
            return False
    return bool(states >> state & 1)


_BAD_IN_TOPIC = re.compile(r"[\x00-\x20\x7f/+*#\\\ud800-\udfff]")
"""A word with one of these would be another in MQTT, a pattern, or not to be seen in a log."""


def bad_topic(topic: str) -> bool:
    """Whether no command can have this topic."""
    return "" in topic.split(".") or _BAD_IN_TOPIC.search(topic) is not None
