"""One topic pattern of an ACL line: with markers for the own id and tenant, or a group in place of the device id."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from amqprouter.acl.groups import Group
from amqprouter.patterns import TopicPattern

MARKERS = {"%d": "device", "%u": "user"}
"""The marker of each file for the own id, and whom it stands for."""

TENANT_MARKER = "%t"
"""In both files, for the own tenant."""

_ANY_MARKER = re.compile("%[dut]")


class Subject(NamedTuple):
    """Who asks: id or name; what a checker told, as ``group/NAME`` and ``tenant/NAME``; the tenant once more; and lines
    of its own, None where there are none."""

    who: str
    told: tuple[str, ...] = ()
    tenant: str = ""
    own: tuple[str, ...] | None = None


def plain(text: str) -> bool:
    """Whether this id or tenant may stand in a topic pattern without making another of it."""
    return bool(text) and not any(character in text for character in ".*#")


_QUOTED = re.compile(r'"((?:[^"]|"")*)"')
_ITEM = re.compile(r'(\s*"(?:[^"]|"")*"\s*|[^,]*)(?:,|\Z)')


def split_topics(text: str) -> list[str]:
    """The topic patterns between commas; one in double quotes, which it keeps, may have commas in it."""
    items, at, more = [], 0, True
    while more:
        found = _ITEM.match(text, at)
        assert found is not None  # the second alternative takes anything
        items.append(found[1].strip())
        at, more = found.end(), found[0].endswith(",") and found.end() > found.end(1)
    return items


def unquoted(text: str) -> tuple[str, bool]:
    """A pattern without its double quotes, in which two stand for one, and whether it had them."""
    found = _QUOTED.fullmatch(text)
    return (text, False) if found is None else (found[1].replace('""', '"'), True)


class AclTopic:
    """A topic pattern for some subject. Raises `ValueError` saying what is wrong with the text.

    :param marker: ``%d`` or ``%u``, that of the file.
    :param groups: those that the file defines.
    """

    __slots__ = ("_fixed", "_marker", "group", "has_marker", "text")

    def __init__(self, text: str, marker: str, groups: Mapping[str, Group]) -> None:
        text, is_quoted = unquoted(text)
        if not is_quoted and any(character.isspace() for character in text):
            raise ValueError(
                f"topic pattern {text!r} has white space in it; a comment needs a line of its own, and a topic that "
                f'has some stands in quotes, "{text}"'
            )
        for other, whom in MARKERS.items():
            if other in text and other != marker:
                raise ValueError(f"topic pattern {text!r}: {other} is a {whom}'s; in this file it is {marker}")
        self.group: Group | None = None
        """The group of devices that the topic's first word must be of; the pattern is about the other words then."""
        self.text = text
        if text.startswith("@"):
            name, dot, self.text = text[1:].partition(".")
            self.group = groups.get(name)
            if "/" in name:
                raise ValueError(f"topic pattern {text!r}: whose topics these are, only a group of this file can say")
            if self.group is None:
                raise ValueError(f"topic pattern {text!r}: no line of this file defines group {name[:70]!r}")
            if not dot:
                raise ValueError(f"topic pattern {text!r}: which topics of theirs? {text}.# are all")
        self._marker = marker
        self.has_marker = marker in self.text or TENANT_MARKER in self.text
        compiled = TopicPattern(self.text)  # with the marker in it, just to see that it is one
        # A pattern without a marker is compiled once, here; one with it stays text until the id is known.
        self._fixed = None if self.has_marker else compiled

    @property
    def is_everything(self) -> bool:
        """Whether every topic matches."""
        return self.text == "#" and self.group is None

    def matches(self, topic: str, subject: Subject, *, widely: bool) -> bool:
        """Whether the pattern, for this subject, matches the topic.

        An id or a tenant that is missing, or not `plain`, cannot stand in place of its marker. Then the pattern matches
        nothing; or if `widely`, as what denies must, any words stand there.
        """
        pattern = self._fixed or self._filled_in(subject, widely)
        if pattern is None:
            return False
        if self.group is None:
            return pattern.matches(topic)
        device, *words = topic.split(".")
        return bool(device) and pattern.matches_words(words) and bool(self.group.member(device))

    def _filled_in(self, subject: Subject, widely: bool) -> TopicPattern | None:
        values = {self._marker: subject.who, TENANT_MARKER: subject.tenant}
        words = []
        for word in self.text.split("."):
            markers = _ANY_MARKER.findall(word)
            if all(plain(values[marker]) for marker in markers):
                # At one go, for what was put in may look like a marker.
                words.append(_ANY_MARKER.sub(lambda found: values[found[0]], word) if markers else word)
            elif widely:
                words.append("#")
            else:
                return None
        return TopicPattern(".".join(words))
