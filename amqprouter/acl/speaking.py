"""What stands right of the arrow in the publishers' list: ``DEVICE[, DEVICE…]: TOPIC PATTERN[, TOPIC PATTERN…]``.

Devices are globs over ids, in which ``%p`` stands for the publisher's own name, or ``@NAME`` for a group of the file.
The topics are those behind the device id. A colon with white space behind it parts the two, for ids have colons in them
as well: a MAC address, say.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from amqprouter.acl.groups import Group
from amqprouter.acl.topic import MARKERS, TENANT_MARKER, Subject, split_topics, unquoted
from amqprouter.patterns import LONGEST, DevicePattern, TopicPattern

PUBLISHER_MARKER = "%p"
"""For the publisher's own name: ``edge-* -> %p-*: #``."""
_LEGAL = "right of the arrow stand devices, a colon and a space, and topics: lamp-*: # is everything of these devices"
_COLON = re.compile(r":\s")
_WILDCARD = re.compile(r"[*?[]")


class SpokenFor:
    """One of the devices of a line, with the line's topics. Raises `ValueError` saying what is wrong with the text."""

    __slots__ = ("_pattern", "_topics", "group", "has_marker", "text")

    def __init__(self, device: str, topics: tuple[TopicPattern, ...], groups: Mapping[str, Group]) -> None:
        self.text = device
        self._topics = topics
        self.group: Group | None = None
        """The group that the device must be in."""
        self.has_marker = False
        """Whether a marker may stand for too much, as in a topic: here any name is put in as it is."""
        self._pattern: DevicePattern | None = None  # one with a marker is made once the publisher is known
        if not device:
            raise ValueError(f"an empty device pattern; {_LEGAL}")
        if any(character.isspace() for character in device):
            raise ValueError(f"device pattern {device[:40]!r} has white space in it; put commas between")
        if device.startswith("@"):
            self.group = groups.get(device[1:])
            if self.group is None:
                raise ValueError(f"device pattern {device[:70]!r}: no line of this file defines that group")
        elif PUBLISHER_MARKER in device:
            DevicePattern(device)  # just to see that it is one
        else:
            self._pattern = DevicePattern(device)

    @property
    def is_everything(self) -> bool:
        """Whether every topic of every device matches."""
        return self.text == "*" and any(topic.text == "#" for topic in self._topics)

    def matches(self, topic: str, subject: Subject, *, widely: bool) -> bool:
        """Whether ``<device id>.<topic words>`` is among these devices' topics; `widely` makes no difference."""
        device, _, rest = topic.partition(".")
        if self.group is not None:
            is_meant = bool(self.group.member(device))
        else:
            pattern = self._pattern or self._filled_in(subject)
            is_meant = pattern is not None and pattern.matches(device)
        return is_meant and any(pattern.matches(rest) for pattern in self._topics)

    def _filled_in(self, subject: Subject) -> DevicePattern | None:
        name = _WILDCARD.sub(lambda found: f"[{found[0]}]", subject.who)
        text = self.text.replace(PUBLISHER_MARKER, name)
        return DevicePattern(text) if len(text) <= LONGEST else None  # no id is as long


def spoken_for(text: str, groups: Mapping[str, Group]) -> tuple[SpokenFor, ...]:
    """The devices and topics of a line, of which this is the part right of the arrow.

    :raises ValueError: saying what is wrong with it.
    """
    parts = _COLON.split(text.strip(), maxsplit=1)
    if len(parts) != 2:
        raise ValueError(f"no colon with a space behind it; {_LEGAL}")
    devices, topics = parts
    for marker in (*MARKERS, TENANT_MARKER):
        if marker in text:
            raise ValueError(f"{marker} means nothing in this file; {PUBLISHER_MARKER} is the publisher's own name")
    if PUBLISHER_MARKER in topics:
        raise ValueError(f"{PUBLISHER_MARKER} is for device patterns only")
    patterns = []
    for written in split_topics(topics):
        topic, is_quoted = unquoted(written)
        if not topic:
            raise ValueError(f"an empty topic pattern; {_LEGAL}")
        if not is_quoted and any(character.isspace() for character in topic):
            raise ValueError(f"topic pattern {topic!r} has white space in it; a comment needs a line of its own")
        patterns.append(TopicPattern(topic))
    return tuple(SpokenFor(device.strip(), tuple(patterns), groups) for device in devices.split(","))
