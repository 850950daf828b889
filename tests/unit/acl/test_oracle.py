"""The indexed and remembering ACL against one that tries line after line."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from amqprouter.acl.acl import Acl

NAMES = ["a", "b", "ab", "%d", "%t", "@g", "a.b", "*", "#", ""]
GLOBS = ["a", "b", "ab", "a*", "*", "?", "[ab]", "[!a]", "*b"]
WORDS = ["a", "b", "*", "*", "#", "#", "%d", "%t", "x%d", "%d-%t"]
TENANTS = ["", "a", "b", "%d", "a.b", "#"]


@dataclass(frozen=True)
class Line:
    """One line, as it was made: `who` is a glob, ``@file group``, ``@group/…`` or ``@tenant/…``."""

    allows: bool
    who: str
    topics: tuple[tuple[str, ...], ...]

    @property
    def text(self) -> str:
        verb = "" if self.allows else "deny "
        return f"{verb}{self.who} -> {', '.join('.'.join(words) for words in self.topics)}"


@dataclass(frozen=True)
class Asked:
    who: str
    topic: str
    groups: tuple[str, ...]
    tenant: str


@dataclass
class Oracle:
    """First match wins, word for word as documented, with nothing remembered and nothing looked up."""

    lines: list[Line]
    groups: dict[str, list[str]] = field(default_factory=dict)

    def allows(self, asked: Asked) -> bool:
        for line in self.lines:
            if self.is_for(line.who, asked) and any(self.matches(words, asked, line.allows) for words in line.topics):
                return line.allows
        return False

    def is_for(self, left: str, asked: Asked) -> bool:
        if left.startswith("@group/"):
            return left.removeprefix("@group/") in asked.groups
        if left.startswith("@tenant/"):
            return left.removeprefix("@tenant/") == asked.tenant
        if left.startswith("@"):
            return self.is_member(asked.who, left[1:])
        return fnmatchcase(asked.who, left)

    def is_member(self, who: str, group: str) -> bool:
        return any(fnmatchcase(who, member) for member in self.groups[group])

    def matches(self, words: tuple[str, ...], asked: Asked, allows: bool) -> bool:
        topic = asked.topic.split(".") if asked.topic else []
        if words[0].startswith("@"):
            if not topic or not topic[0] or not self.is_member(topic[0], words[0][1:]):
                return False
            words, topic = words[1:], topic[1:]
        expression = ""
        for word in words:
            needed = [value for marker, value in (("%d", asked.who), ("%t", asked.tenant)) if marker in word]
            plain = all(value and not set(value) & set(".*#") for value in needed)
            if not plain and allows:
                return False
            if word == "#" or not plain:
                expression += "(?:/[^/]*)*"
            elif word == "*":
                expression += "/[^/]*"
            else:
                parts = re.split("(%[dt])", word)
                expression += "/" + re.escape(
                    "".join({"%d": asked.who, "%t": asked.tenant}.get(part, part) for part in parts)
                )
        return re.fullmatch(expression, "".join(f"/{word}" for word in topic)) is not None


patterns = st.tuples(st.sampled_from(["@g", "@h", *WORDS]), st.sampled_from(WORDS)) | st.tuples(st.sampled_from(WORDS))
lines = st.builds(
    Line,
    st.booleans(),
    st.sampled_from(["@g", "@h", "@group/a", "@group/g", "@tenant/a", "@tenant/b", *GLOBS]),
    st.lists(patterns, min_size=1, max_size=2).map(tuple),
)
topics = st.lists(st.sampled_from(["a", "b", "ab", "xa", "a-a", "%d", "%t", "@g", "", "*", "#"]), max_size=3)
told = st.tuples(st.lists(st.sampled_from(["a", "b", "g"]), max_size=2).map(tuple), st.sampled_from(TENANTS))


class OracleTests(SynchronousTestCase):
    @settings(max_examples=500, deadline=None)
    @given(
        st.lists(lines, min_size=2, max_size=8),
        st.lists(st.sampled_from(GLOBS), min_size=1, max_size=2),
        st.lists(st.sampled_from(GLOBS), min_size=1, max_size=2),
        st.lists(topics.map(".".join), min_size=1, max_size=5),
        st.lists(told, max_size=2),
    )
    def test_equal(
        self, lines: list[Line], g: list[str], h: list[str], topics: list[str], told: list[tuple[tuple[str, ...], str]]
    ) -> None:
        oracle = Oracle(lines, {"g": g, "h": h})
        # One group is defined above its use and one below it.
        text = [f"group g: {', '.join(g)}", *(line.text for line in lines), f"group h: {', '.join(h)}"]
        acl = Acl.parse("\n".join(text), "f", "%d")
        questions = [
            Asked(who, topic, groups, tenant)
            for who in NAMES
            for topic in topics
            for groups, tenant in [((), ""), *told]
        ]
        expected = [oracle.allows(question) for question in questions]
        for _ in range(2):  # the second time from memory
            answers = [acl.allows(asked.who, asked.topic, asked.groups, asked.tenant) for asked in questions]
            self.assertEqual(answers, expected, (text, questions))
        for asked, allowed in zip(questions, expected, strict=True):
            explained = acl.explain(asked.who, asked.topic, asked.groups, asked.tenant)
            self.assertTrue(explained.startswith("allowed" if allowed else "denied"), (text, asked, explained))
