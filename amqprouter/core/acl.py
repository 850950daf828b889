"""Which topics a device may use, and which a user may see.

An ACL is lines of ``PATTERN -> TOPIC PATTERN[, TOPIC PATTERN…]``. The left side is a glob over the device id or user
name, the right side AMQP topic patterns over the whole topic, device id included (``<device id>.<topic words>``). In
a topic pattern the marker (``%d`` in the devices' file, ``%u`` in the users') stands for the own id or name, as a word
or inside one. Any line that matches allows; what no line allows is denied. A line that begins with ``#`` is a
comment; there are none behind a pattern, for ``#`` is a pattern too.

An id with ``.``, ``*`` or ``#`` in it would make another pattern of the one it is put in, so to such an id a topic
pattern with the marker gives nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from amqprouter.core.device_pattern import DevicePattern
from amqprouter.core.file_lines import FileProblems, counting_lines
from amqprouter.core.topic import TopicPattern

MARKERS = {"%d": "device", "%u": "user"}
"""The marker of each file, and whom it stands for."""

MAX_LINES = 10_000
"""A look that finds nothing remembered tries every line with a glob in it; ten thousand take about 2 ms."""

CACHE_SIZE = 100_000
"""Remembered pairs of id and topic, the one unused for longest makes room; some 30 MB when full. Topics come from
devices, so there is no bound but this."""

_ARROW = "->"
_GLOB_CHARACTERS = frozenset("*?[")


def _plain(who: str) -> bool:
    """Whether this id may stand in a topic pattern without making another of it."""
    return bool(who) and not any(character in who for character in ".*#")


class AclLine:
    """One line: whom it is for, and the topic patterns that it allows. Raises `ValueError` saying what is wrong."""

    __slots__ = ("_marker", "_topics", "number", "text", "who")

    def __init__(self, text: str, number: int, marker: str) -> None:
        self.text = text
        self.number = number
        self._marker = marker
        left, arrow, right = text.partition(_ARROW)
        if not arrow or _ARROW in right:
            raise ValueError(f"not one '{_ARROW}'; a line is PATTERN {_ARROW} TOPIC PATTERN[, TOPIC PATTERN…]")
        left = left.strip()
        if not left or " " in left or "\t" in left:
            raise ValueError(f"left of '{_ARROW}' stands one {MARKERS[marker]} pattern, such as * or meter-*")
        if "%d" in left or "%u" in left:
            raise ValueError(f"{MARKERS[marker]} pattern {left!r}: markers have a meaning in topic patterns only")
        self.who = DevicePattern(left)
        # A pattern without the marker is compiled once, here; one with it stays text until the id is known.
        self._topics = tuple(self._compiled(topic.strip()) for topic in right.split(","))

    def _compiled(self, topic: str) -> TopicPattern | str:
        if not topic:
            raise ValueError(f"an empty topic pattern; right of '{_ARROW}' stand one or more, with commas between")
        if any(character.isspace() for character in topic):
            raise ValueError(f"topic pattern {topic!r} has white space in it; a comment needs a line of its own")
        for marker, whom in MARKERS.items():
            if marker in topic and marker != self._marker:
                raise ValueError(f"topic pattern {topic!r}: {marker} is a {whom}'s; in this file it is {self._marker}")
        compiled = TopicPattern(topic)  # with the marker in it, just to see that it is one
        return topic if self._marker in topic else compiled

    @property
    def names_one(self) -> str:
        """The one id that the left side matches, or empty when it is a glob."""
        return "" if _GLOB_CHARACTERS & set(self.who.text) else self.who.text

    @property
    def has_marker(self) -> bool:
        """Whether some topic pattern depends on the id."""
        return any(isinstance(topic, str) for topic in self._topics)

    @property
    def allows_everybody_everything(self) -> bool:
        """Whether the line lets everybody use every topic, so that no other matters."""
        return self.who.text == "*" and any(
            isinstance(topic, TopicPattern) and topic.text == "#" for topic in self._topics
        )

    def topics_for(self, who: str) -> Iterator[TopicPattern]:
        """The topic patterns with `who` in place of the marker, without looking at the left side."""
        for topic in self._topics:
            if isinstance(topic, TopicPattern):
                yield topic
            elif _plain(who):
                yield TopicPattern(topic.replace(self._marker, who))


class Acl:
    """The lines of one file, in order. Immutable."""

    def __init__(self, lines: list[AclLine], filename: str) -> None:
        self._filename = filename
        self._lines_of: dict[str, list[AclLine]] = {}
        self._globs: list[AclLine] = []
        for line in lines:
            if line.names_one:
                self._lines_of.setdefault(line.names_one, []).append(line)
            else:
                self._globs.append(line)
        self._open = any(line.allows_everybody_everything for line in lines)
        self._remembered = lru_cache(maxsize=CACHE_SIZE)(self._decides)

    @classmethod
    def parse(cls, text: str, filename: str, own_id_marker: str) -> Acl:
        """The ACL that this text is. `filename` is for the errors and for `explain`.

        :raises AuthFileError: naming every bad line; then none of the file may be used.
        """
        lines: list[AclLine] = []
        problems = FileProblems(filename)
        for number, content in counting_lines(text):
            try:
                if len(lines) == MAX_LINES:
                    raise ValueError(f"this is one line more than {MAX_LINES}, the most; join lines, or use globs")
                lines.append(AclLine(content, number, own_id_marker))
            except ValueError as error:
                problems.add(number, str(error))
        problems.check()
        return cls(lines, filename)

    def allows(self, who: str, topic: str) -> bool:
        """Whether `who` may use, or see, the topic ``<device id>.<topic words>``."""
        return self._open or self._remembered(who, topic)

    def topics_for(self, who: str) -> list[TopicPattern]:
        """Every topic pattern that `who` is allowed: for one who asks about many topics, such as a subscriber."""
        return [pattern for line in self._lines_for(who) for pattern in line.topics_for(who)]

    def explain(self, who: str, topic: str) -> str:
        """Which line decides, for people: ``allowed by acl:3: …`` or ``denied: …``."""
        mine = self._lines_for(who)
        for line in mine:
            if any(pattern.matches(topic) for pattern in line.topics_for(who)):
                return f"allowed by {self._filename}:{line.number}: {line.text}"
        if not mine:
            return f"denied: no line of {self._filename} is for {who!r}"
        numbers = ", ".join(str(line.number) for line in mine)
        because = ""
        if not _plain(who) and any(line.has_marker for line in mine):
            because = "; its '.', '*' or '#' keeps it from standing in place of a marker"
        return f"denied: of {self._filename} the lines for {who!r} ({numbers}) do not allow {topic!r}{because}"

    def _lines_for(self, who: str) -> list[AclLine]:
        mine = [*self._lines_of.get(who, ()), *(line for line in self._globs if line.who.matches(who))]
        mine.sort(key=lambda line: line.number)
        return mine

    def _decides(self, who: str, topic: str) -> bool:
        return any(pattern.matches(topic) for pattern in self.topics_for(who))
