"""Mercure 1.0's topic matchers: ``exact`` and ``urlpattern``, and in both ``*`` for every topic.

Theory of operation. A URL pattern (https://urlpattern.spec.whatwg.org) is compiled and matched by the library
`urlpattern`, a wrapper of Deno's, whose regular expressions never go back: matching takes time in proportion to pattern
and topic, whatever somebody wrote. Compiling takes 0.3 ms and 80 kB, and without end more for classes of all of Unicode
and for what is to be repeated a number of times; so the regular expressions in a pattern are weighed before the library
sees them, at most some 2 ms in all. Compiled patterns are shared, bounded in number, and made again when needed again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from amqprouter.events.topic_selector import MAX_SELECTOR
from amqprouter.text import has_control

try:
    from urlpattern import URLPattern
except ImportError:
    raise ImportError("URL patterns need the package urlpattern: pip install 'amqprouter[urlpattern]'") from None

EXACT, URL_PATTERN = "exact", "urlpattern"
MATCHER_TYPES = (EXACT, URL_PATTERN)
ANYTHING = "*"
"""The matcher of every topic, whatever its type."""

MAX_GROUPS = 16
"""Names, stars and regular expressions in one pattern: as many as expressions in a URI template."""
MAX_WEIGHT = 120.0
"""Of all regular expressions in one pattern, in hundredths of a millisecond; the rest takes another half of one."""
MOST_COMPILED = 1024
"""Patterns that are kept compiled, those needed last: some 80 MB."""
LEAST_EXPRESSIONS = 4
"""What a pattern counts for at least among a user's expressions, for what it takes of memory."""
EFFORT = 600
"""What a try takes besides looking at the topic, in characters looked at: the pattern may have to be compiled."""

_ASCII = {r"\d": "0-9", r"\w": "0-9A-Za-z_"}
_NOT_ASCII = {r"\D": "^0-9", r"\W": "^0-9A-Za-z_"}  # not to be written into a set
"""What JavaScript means by these. To Rust they have hundreds of Unicode's ranges, of which a URL has no other."""
ONE, ONE_IN_SET = 0.2, 0.02
"""What a character weighs, and an escape that is not among these: """
_WEIGHTS = {".": 2.0, "^": 2.0, r"\s": 2.0, r"\S": 3.0, r"\D": 20.0, r"\W": 100.0, r"\p": 100.0, r"\P": 100.0}
"""By the first two characters."""
_SETS = {token: f"[{content}]" for token, content in (*_ASCII.items(), *_NOT_ASCII.items())}
_REPEATED = re.compile(r"\{([0-9]{1,4})(?:,([0-9]{0,4}))?\}")
_TOKEN = re.compile(rf"{_REPEATED.pattern}|\\[pPux]\{{[^}}]*\}}|\\.|\(\?:|\(\??|.", re.DOTALL)
_REFUSED = frozenset(("", "(", "(?", "{", "}"))
"""What begins a lookaround, a flag, a capture or nothing: not JavaScript's, not linear, or of no use."""
_NAME = re.compile(r":[A-Za-z_$\u0080-\U0010ffff]")


class TopicMatcher:
    """One matcher, as a client writes it. Matchers of equal type, text and base are equal.

    :param base: the hub's URL, by which relative patterns and topics are resolved.
    :raises ValueError: there is no such type, or the text is none of it; quotes nothing of the text.
    """

    __slots__ = ("_any", "_base", "effort", "expressions", "kind", "text")

    def __init__(self, kind: str, text: str, base: str) -> None:
        if kind not in MATCHER_TYPES:
            raise ValueError(f"no such type of topic matchers; there are {' and '.join(MATCHER_TYPES)}")
        if not text or len(text) > MAX_SELECTOR:
            raise ValueError(f"a topic matcher of {len(text)} characters; 1 to {MAX_SELECTOR} are legal")
        if has_control(text):
            raise ValueError("a topic matcher with a control or format character in it")
        self.kind, self.text, self._base = kind, text, base
        self._any = text == ANYTHING
        self.expressions = 1 if self._any else 0
        self.effort = 0
        if kind == URL_PATTERN and not self._any:
            self.expressions = max(LEAST_EXPRESSIONS, _prepared(text)[0])
            self.effort = EFFORT
            _compiled(text, base)

    @property
    def exact(self) -> str:
        """The one topic that is matched; empty where there may be more."""
        return "" if self.expressions else self.text

    @property
    def first_word(self) -> str:
        """What stands in front of the first dot, if that is the same in all topics that match; else empty."""
        word, dot, _ = self.text.partition(".")
        return word if dot and not self.expressions else ""

    def matches(self, topic: str) -> bool:
        """Whether the topic is matched: byte for byte, or by the pattern, which nothing is that is no URL."""
        if not self.expressions:
            return topic == self.text
        return self._any or _test(self.text, topic, self._base)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TopicMatcher) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    @property
    def _key(self) -> tuple[str, str, str]:
        return self.kind, self.text, self._base

    def __repr__(self) -> str:
        return f"<TopicMatcher {self.kind} {self.text!r}>"


def path_of_topic(topic: str, base: str) -> str | None:
    """The path of a topic as a URL, resolved by the hub's and written as patterns see it; None where it is no URL."""
    try:
        found: Any = _ANY_URL.exec(topic, base)
    except ValueError:
        return None
    return None if found is None else str(found["pathname"]["input"])


_ANY_URL = URLPattern()


@lru_cache(maxsize=MOST_COMPILED)
def _compiled(text: str, base: str) -> URLPattern:
    """:raises ValueError: it is no URL pattern."""
    try:
        return URLPattern(_prepared(text)[1], base)
    except Exception:  # of several kinds, and their texts may quote the pattern
        raise ValueError("no well-formed URL pattern, or one with a regular expression that is not taken") from None


def _test(text: str, topic: str, base: str) -> bool:
    try:
        return bool(_compiled(text, base).test(topic, base))
    except ValueError:
        return False


def _prepared(text: str) -> tuple[int, str]:
    """How many groups are in a pattern, and the pattern as the library gets it.

    :raises ValueError: there are too many, or their regular expressions are too heavy, or of a kind that JavaScript's
        are not or that cannot be matched in linear time.
    """
    groups, weight, at = 0, 0.0, 0
    parts: list[str] = []
    while at < len(text):
        end = at + 1
        if text[at] == "\\":
            end += 1
        elif text[at] == "(":
            heavy, end, expression = _regular_expression(text, at + 1)
            weight += heavy
            groups += 1
            parts.append(f"({expression})")
            at = end
            continue
        elif text[at] == "*" or _NAME.match(text, at):
            groups += 1
        parts.append(text[at:end])
        at = end
    if groups > MAX_GROUPS:
        raise ValueError(f"a URL pattern with {groups} groups; {MAX_GROUPS} are the most")
    if weight > MAX_WEIGHT:
        raise ValueError("a URL pattern with regular expressions that are too large when written out")
    return groups, "".join(parts)


def _regular_expression(text: str, start: int) -> tuple[float, int, str]:
    """What the one that begins there weighs, where it has ended, and how the library gets it."""
    totals: list[float] = [0.0]
    parts: list[str] = []
    in_set, last = False, 0.0  # `last` is what the latest part weighs, which may be repeated
    for at, token in _tokens(text, start):
        repeated = _REPEATED.fullmatch(token)
        if token in _REFUSED or (in_set and token in ("[", ")")):
            raise ValueError(
                "a URL pattern with a regular expression with more in it than groups, sets and repetitions"
            )
        if in_set:
            in_set = token != "]"
            last += _WEIGHTS.get(token[:2], ONE_IN_SET)
        elif token == "[":
            in_set, last = True, ONE
        elif token == "(?:":
            totals.append(0.0)
        elif token == ")":
            last = totals.pop()
            if not totals:
                return last, at + 1, "".join(parts)
        elif repeated is not None:
            before, last = last, last * max(int(group or "1") for group in repeated.groups("1"))
            totals[-1] -= before
        else:
            last = ONE if token in _ASCII else _WEIGHTS["^"] if token in _NOT_ASCII else _WEIGHTS.get(token[:2], ONE)
        if not in_set and token != "(?:":
            totals[-1] += last
        ascii_only = _ASCII.get(token) if in_set else _SETS.get(token)
        parts.append(token if ascii_only is None else ascii_only)
    raise ValueError("a URL pattern with a regular expression that does not end")


def _tokens(text: str, at: int) -> Iterator[tuple[int, str]]:
    """Where each token of a regular expression is, and what it is."""
    while at < len(text):
        matched = _TOKEN.match(text, at)
        token = "" if matched is None else matched[0]
        yield at, token
        at += max(1, len(token))
