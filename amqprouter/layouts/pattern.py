"""Patterns of routing keys: where the device id, the topic and more stand in one.

A pattern is words with dots between. A word is text, which must be there as it is, or has names in braces, which stand
for what is there:

=====================  ===============================================================================================
``{device}``           One word, not empty. Any name will do; some mean something (`amqprouter.layouts.layout`).
``{topic:#}``          Any number of words, none included; with ``{topic:+}`` one or more. Once in a pattern.
``{topic:up|join}``    One of these. Such a choice may be several words, ``events.rpc``, and end in any, ``status.#``.
``{app}@{tenant}``     Text and names within a word; the text between is found from the left, so only the last name may
                       have it in itself. `fill` refuses what would be read in another way.
=====================  ===============================================================================================

Matching takes time by the words of pattern and key together, whatever the key: at most one name stands for several
words, so nothing is ever tried twice. The way back, `fill`, makes a key of what the names stand for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice, product
from math import prod

from amqprouter.patterns import overlap

_NAME = re.compile(r"\{([a-z][a-z0-9_]*)(?::([^{}]*))?\}")
_LITERAL_FAULT = re.compile(r"[{}*#\s]")
_WILDCARDS = frozenset("*#")
_LONGEST = 1000
"""Characters of a pattern: keys have 255 bytes at most, names in braces take some more."""
_MOST_BINDINGS = 32
"""Bindings that the words to choose from in one pattern may make; beyond, any word is bound and the rest left out."""


class NotFilled(ValueError):
    """A pattern cannot be filled; the text names what is missing or not fit."""


class _Word:
    """One word of a pattern: pieces of text with a name between each two."""

    __slots__ = ("_exact", "_openings", "choices", "names", "several", "text", "texts")

    def __init__(self, text: str) -> None:
        self.text = text
        self.texts: list[str] = []
        self.names: list[str] = []
        self.choices: frozenset[str] = frozenset()
        self.several = ""
        """``#`` or ``+`` where the name stands for several words."""
        at = 0
        for found in _NAME.finditer(text):
            self.texts.append(text[at : found.start()])
            self.names.append(found[1])
            at = found.end()
            if found[2] is not None and found[0] != text:
                raise ValueError(f"{found[0]} is not the whole word; then it is just {{{found[1]}}}")
            if found[2] in ("#", "+"):
                self.several = found[2]
            elif found[2] is not None:
                self.choices = frozenset(found[2].split("|"))
                if "" in self.choices:
                    raise ValueError(f"{found[0]}: behind the colon stands #, + or words with | between")
        self.texts.append(text[at:])
        if any(_LITERAL_FAULT.search(one.removesuffix(".#")) for one in (*self.texts, *self.choices)):
            raise ValueError(
                f"word {text!r}: names in braces are a-z, 0-9 and _; text has no white space, *, # or brace"
            )
        self._exact = frozenset(choice for choice in self.choices if not choice.endswith(".#"))
        self._openings = tuple(choice[:-1] for choice in self.choices if choice.endswith(".#"))
        if any("." in choice for choice in self.choices):
            self.several = "+"
        if "" in self.texts[1:-1]:
            raise ValueError(f"word {text!r}: nothing tells where one name ends and the next one begins")

    @property
    def plain(self) -> str | None:
        """The text, where there is no name in it."""
        return None if self.names else self.texts[0]

    def match(self, word: str, found: dict[str, str]) -> bool:
        texts = self.texts
        if not self.names:
            return word == texts[0]
        if not word.startswith(texts[0]):
            return False
        at, last = len(texts[0]), len(self.names) - 1
        for number, name in enumerate(self.names):
            following = texts[number + 1]
            if number == last:
                end = len(word) - len(following)
                if not word.endswith(following):
                    return False
            else:
                end = word.find(following, at)
            if end <= at:
                return False
            found[name] = word[at:end]
            at = end + len(following)
        return self.chosen(word)

    def chosen(self, text: str) -> bool:
        """Whether this may stand for the name, by what there is to choose from."""
        return not self.choices or text in self._exact or any(text.startswith(one) for one in self._openings)

    def fill(self, values: Mapping[str, str]) -> str:
        made = self.texts[0]
        for name, text in zip(self.names, self.texts[1:], strict=True):
            value = values.get(name)
            if value is None:
                raise NotFilled(f"unknown-{name}")
            if not value and self.several != "#":
                raise NotFilled(f"no-{name}")
            if not self.chosen(value):
                raise NotFilled(f"bad-{name}: {', '.join(sorted(self.choices))} are legal")
            if "." in value and not self.several:
                raise NotFilled(f"bad-{name}: one word is legal")
            made += value + text
        if len(self.names) > 1:
            read: dict[str, str] = {}
            self.match(made, read)
            other = next((name for name in self.names if read.get(name) != values[name]), None)
            if other is not None:
                raise NotFilled(f"bad-{other}: {made!r} would be read with {read.get(other)!r}, by {self.text!r}")
        return made

    @property
    def bindings(self) -> tuple[str, ...]:
        if self.plain is not None:
            return (self.plain,)
        return tuple(sorted(self.choices)) or self.wide_binding

    @property
    def wide_binding(self) -> tuple[str]:
        """What takes more than the words there are to choose from."""
        return ({"#": "#", "+": "*.#", "": "*"}[self.several],)


class KeyPattern:
    """A compiled pattern. Raises `ValueError` saying what is wrong with the text."""

    __slots__ = ("_words", "names", "several", "text")

    def __init__(self, text: str) -> None:
        if len(text) > _LONGEST:
            raise ValueError(f"pattern {text[:40]!r}… is over {_LONGEST} characters")
        self.text = text
        self._words = tuple(_Word(word) for word in _split(text))
        self.names = tuple(name for word in self._words for name in word.names)
        twice = [name for name in self.names if self.names.count(name) > 1]
        if twice:
            raise ValueError(f"pattern {text!r} has {{{twice[0]}}} twice")
        several = [at for at, word in enumerate(self._words) if word.several]
        if len(several) > 1:
            raise ValueError(f"pattern {text!r}: two names for several words each; only one can be")
        self.several = several[0] if several else -1
        """Which word, from 0, stands for several; -1 where none does."""

    def match(self, words: Sequence[str]) -> dict[str, str] | None:
        """What the names stand for in a key of these words, several with dots between; None where it is another."""
        pattern, found, at = self._words, dict[str, str](), self.several
        if at < 0:
            if len(words) != len(pattern):
                return None
            return found if all(map(_matches, pattern, words, (found,) * len(words))) else None
        behind = len(pattern) - at - 1
        end = len(words) - behind
        if end < at + (pattern[at].several == "+"):
            return None
        for word, one in zip(words[:at], pattern[:at], strict=True):
            if not one.match(word, found):
                return None
        for word, one in zip(words[end:], pattern[at + 1 :], strict=True):
            if not one.match(word, found):
                return None
        rest = ".".join(words[at:end])
        if pattern[at].several == "+" and (not rest or not pattern[at].chosen(rest)):
            return None
        found[pattern[at].names[0]] = rest
        return found

    @property
    def beginnings(self) -> tuple[tuple[str, ...], ...]:
        """The fixed words that every key that matches begins with, in each way there is; empty where there are none."""
        words = []
        for word in self._words:
            if word.plain is None:
                break
            words.append(word.plain)
        if words or not self._words[0].choices:
            return (tuple(words),) if words else ()
        return tuple(tuple(choice.removesuffix(".#").split(".")) for choice in sorted(self._words[0].choices))

    def shares(self, words: Sequence[str]) -> bool:
        """Whether some key that matches is one that a filter of these words takes, with ``*`` and ``#`` for others."""
        return any(overlap(binding.split("."), words) for binding in self.bindings)

    def is_named_by(self, words: Sequence[str]) -> bool:
        """Whether one of the first words of a key is text or a choice of the pattern's, and not just any."""
        for word in self._words[: len(words)]:
            if word.plain is not None or word.choices:
                return True
            if word.several:
                break
        return False

    @property
    def divided(self) -> tuple[tuple[str, ...], ...]:
        """The names that share a word with others, word by word, as they stand in it."""
        return tuple(tuple(word.names) for word in self._words if len(word.names) > 1)

    def place_of(self, name: str) -> int:
        """Which word of every key that matches is this name, from 0; -1 where that depends on the key."""
        at = next((at for at, word in enumerate(self._words) if word.names == [name]), -1)
        return at if self.several < 0 or at < self.several else -1

    def fill(self, values: Mapping[str, str]) -> str:
        """The key in which the names stand for these values.

        :raises NotFilled: a value is missing, or cannot stand there.
        """
        words = [(word, word.fill(values)) for word in self._words]
        return ".".join(text for word, text in words if text or not word.several)

    def described(self, values: Mapping[str, str]) -> str:
        """The pattern, with these values where they can stand."""
        return ".".join(word.fill(values) if values.keys() >= set(word.names) else word.text for word in self._words)

    def binding(self, values: Mapping[str, str]) -> str:
        """The AMQP topic pattern for the keys with these values, whatever the topic.

        :raises NotFilled: as `fill`; or a value is a wildcard to the broker, by which others' keys would be taken, or
            is not UTF-8, which no binding can be.
        """
        filled = {word: word.fill(values) for word in self._words if word.names != ["topic"]}
        text = ".".join(filled.values())
        if not _WILDCARDS.isdisjoint(text.split(".")) or any("\ud800" <= character <= "\udfff" for character in text):
            raise NotFilled("no-queue: a word of its keys is * or #, or not UTF-8: no queue can be bound for it alone")
        words = [(word, filled[word] if word in filled else word.wide_binding[0]) for word in self._words]
        return ".".join(text for word, text in words if text or not word.several)

    @property
    def bindings(self) -> tuple[str, ...]:
        """AMQP topic patterns that take every key which matches, and as few others as can be."""
        ways = [word.bindings for word in self._words]
        if prod(map(len, ways)) > _MOST_BINDINGS:
            ways = [word.wide_binding if len(way) > 1 else way for way, word in zip(ways, self._words, strict=True)]
        return tuple(".".join(words) for words in product(*ways))

    def samples(self, values: Mapping[str, str]) -> tuple[str, ...]:
        """Some keys that match: with these values, each word that can be chosen, and two where any number can be."""
        ways = [
            tuple(sorted(f"{choice[:-1]}x" if choice.endswith(".#") else choice for choice in word.choices))
            or (word.fill({name: values.get(name, "x.x" if word.several else "x") for name in word.names}),)
            for word in self._words
        ]
        return tuple(".".join(words) for words in islice(product(*ways), _MOST_BINDINGS))

    def __repr__(self) -> str:
        return f"KeyPattern({self.text!r})"


def _matches(pattern: _Word, word: str, found: dict[str, str]) -> bool:
    return pattern.match(word, found)


def _split(text: str) -> Iterator[str]:
    """The words; a dot within braces is no separator."""
    depth, word = 0, ""
    for character in text:
        depth += (character == "{") - (character == "}")
        if character == "." and not depth:
            yield word
            word = ""
        else:
            word += character
    yield word
