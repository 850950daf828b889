"""One line of an ACL: ``[allow|deny] WHO -> TOPIC PATTERN[, TOPIC PATTERN…]``.

In the publishers' list stands right of the arrow what `amqprouter.acl.speaking` says.
"""

from __future__ import annotations

from collections.abc import Mapping

from amqprouter.acl.groups import Group, check_group_name
from amqprouter.acl.speaking import PUBLISHER_MARKER, SpokenFor, spoken_for
from amqprouter.acl.topic import MARKERS, TENANT_MARKER, AclTopic, Subject, split_topics
from amqprouter.patterns import DevicePattern

ARROW = "->"
WHOSE = {**MARKERS, PUBLISHER_MARKER: "publisher"}
"""By each file's marker for the own name, whom its lines are for."""
_TOLD = ("group/", "tenant/")
"""What begins the name of a group, behind the ``@``, that a checker tells and not the file."""


class AclLine:
    """One line: whom it is for, and the topics that it allows or denies. Raises `ValueError` saying what is wrong.

    :param marker: ``%d``, ``%u`` or ``%p``, that of the file for the own id.
    :param groups: those that the file defines.
    """

    __slots__ = ("allows", "group", "left", "number", "text", "topics", "who")

    def __init__(self, text: str, number: int, marker: str, groups: Mapping[str, Group]) -> None:
        self.text = text
        self.number = number
        left, arrow, right = text.partition(ARROW)
        of_publishers = marker == PUBLISHER_MARKER
        if not arrow or ARROW in right:
            form = "DEVICE[, DEVICE…]: TOPIC PATTERN[, …]" if of_publishers else "TOPIC PATTERN[, TOPIC PATTERN…]"
            raise ValueError(f"not one '{ARROW}'; a line is [allow|deny] WHO {ARROW} {form}")
        words = left.split()
        if words in (["allow"], ["deny"], ["group"]):
            # It may mean a device of this name, but to take a deny for that would open what it should close.
            raise ValueError(f"{words[0]} whom? For one whose name is {words[0]!r} write allow {words[0]} {ARROW} …")
        self.allows = words[:1] != ["deny"]
        """Whether the line allows; else it denies."""
        if len(words) == 2 and words[0] in ("allow", "deny"):
            del words[0]
        if len(words) != 1:
            raise ValueError(
                f"left of '{ARROW}' stands one {WHOSE[marker]} pattern, such as * or meter-*, or one @GROUP; before "
                "it may stand allow or deny"
            )
        (self.left,) = words
        if any(one in self.left for one in (*MARKERS, TENANT_MARKER)) or (of_publishers and marker in self.left):
            raise ValueError(f"{WHOSE[marker]} pattern {self.left!r}: markers have a meaning in topic patterns only")
        self.group = ""
        """Which group the line is for: its name in the file, or ``group/NAME`` or ``tenant/NAME`` of a checker's."""
        self.who: DevicePattern | None = None
        """Whom the line is for, when that is no group."""
        if self.left.startswith("@"):
            self.group = _group(self.left[1:], groups)
        else:
            self.who = DevicePattern(self.left)
        self.topics: tuple[AclTopic, ...] | tuple[SpokenFor, ...]
        if of_publishers:
            self.topics = spoken_for(right, groups)
        else:
            self.topics = tuple(AclTopic(_present(topic), marker, groups) for topic in split_topics(right))

    @property
    def is_told(self) -> bool:
        """Whether only a checker can tell whom the line is for, or which topics."""
        return self.group.startswith(_TOLD) or any(TENANT_MARKER in topic.text for topic in self.topics)

    @property
    def is_for_every_topic(self) -> bool:
        """Whether the line decides about whatever topic."""
        return any(topic.is_everything for topic in self.topics)

    def topic_for(self, topic: str, subject: Subject) -> AclTopic | SpokenFor | None:
        """The pattern of this line, which must be for the subject, that matches the topic."""
        widely = not self.allows
        for pattern in self.topics:
            if pattern.matches(topic, subject, widely=widely):
                return pattern
        return None


def _present(topic: str) -> str:
    if not topic:
        raise ValueError(f"an empty topic pattern; right of '{ARROW}' stand one or more, with commas between")
    return topic


def _group(name: str, groups: Mapping[str, Group]) -> str:
    if name.startswith(_TOLD):
        kind, _, told = name.partition("/")
        if not told or any(character in told for character in "*?["):
            raise ValueError(f"@{name[:70]}: a checker's {kind} is named in full, without wildcards")
        return name
    if "/" in name:
        raise ValueError(f"@{name[:70]}: besides groups of this file there are @group/NAME and @tenant/NAME")
    if check_group_name(name) not in groups:
        raise ValueError(f"@{name}: no line of this file defines that group; a checker's is @group/{name}")
    return name
