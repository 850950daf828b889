"""Which topics a device may use, which a user may see, and for which devices a publisher may speak.

An ACL is lines of ``[allow|deny] WHO -> TOPIC PATTERN[, TOPIC PATTERN…]``. The left side is a glob over the device id
or user name, or a group: ``@NAME`` of a line ``group NAME: MEMBER[, MEMBER…]``, or ``@group/NAME`` or ``@tenant/NAME``
of what a checker told. The right side are AMQP topic patterns over the whole topic, device id included (``<device
id>.<topic words>``), in which markers stand for the own id or name (``%d`` in the devices' file, ``%u`` in the users')
and the own tenant (``%t``), and ``@NAME`` in place of the first word for any device of a group. The first line that
matches decides; what no line matches is denied. A line that begins with ``#`` is a comment; there are none behind a
pattern, for ``#`` is a pattern too. A line ``registry`` is where lines count that a checker told of the one who asks
(`amqprouter.acl.registry`). In the publishers' list devices stand before the topics: `amqprouter.acl.speaking`.

An id with ``.``, ``*`` or ``#`` in it would make another pattern of the one it is put in, so to such an id an allowing
topic pattern with the marker gives nothing, and from it a denying one takes too much rather than too little.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache

from amqprouter.acl.groups import Group, is_group_line, parse_groups
from amqprouter.acl.line import AclLine
from amqprouter.acl.registry import REGISTRY, own_lines
from amqprouter.acl.speaking import SpokenFor
from amqprouter.acl.topic import TENANT_MARKER, AclTopic, Subject, plain
from amqprouter.text import FileProblems, counting_lines

MAX_LINES = 10_000
"""A look that finds nothing remembered tries every line with a glob in it; ten thousand take about 2 ms."""

CACHE_SIZE = 100_000
"""Remembered decisions, the one unused for longest makes room; some 30 MB when full. Topics come from devices, so there
is no bound but this."""

TOLD_CACHE_SIZE = 10_000
"""Remembered combinations of groups and tenant: most are shared by many, and one is worked out in microseconds."""

_LONE_RETURN = re.compile("\r(?!\n)")
"""Behind one, a comment may seem to end and a line to begin; the daemon would not see that line."""

OwnLines = tuple[str, ...]
"""What a checker told: lines for one device or user alone."""

_Told = tuple[tuple[str, ...], str, OwnLines | None]
"""What a checker told, as far as the lines ask for it: groups, the tenant where ``%t`` stands for it, own lines."""


class Acl:
    """The lines of one file, in order. Immutable.

    :param registry: the number of the line ``registry``; 0 without one.
    :param is_file: whether `filename` is a file's, in which line numbers mean something.
    """

    def __init__(
        self,
        lines: Sequence[AclLine],
        groups: Mapping[str, Group],
        filename: str,
        marker: str,
        registry: int = 0,
        *,
        is_file: bool = True,
    ) -> None:
        self._filename = filename
        self._is_file = is_file
        self._marker = marker
        self._registry = registry
        self._lines = lines
        self._groups = groups
        self._of_name: dict[str, list[AclLine]] = {}
        self._of_group: dict[str, list[AclLine]] = {}
        self._globs: list[AclLine] = []
        for line in lines:
            if line.who is None:
                self._of_group.setdefault(line.group, []).append(line)
            elif line.who.is_name:
                self._of_name.setdefault(line.left, []).append(line)
            else:
                self._globs.append(line)
        self._groups_left = [groups[name] for name in self._of_group if name in groups]
        self.needs_telling = registry > 0 or any(line.is_told for line in lines)
        """Whether some line depends on groups, a tenant or own lines that a checker tells."""
        self._uses_tenant = any(TENANT_MARKER in topic.text for line in lines for topic in line.topics)
        self._open = _is_open(lines)
        self._remembered = lru_cache(maxsize=CACHE_SIZE)(self._decides)
        self._told = lru_cache(maxsize=TOLD_CACHE_SIZE)(self._asked_for)

    @classmethod
    def parse(
        cls, text: str, filename: str, own_id_marker: str, *, may_ask_registry: bool = True, is_file: bool = True
    ) -> Acl:
        """The ACL that this text is. `filename` is for the errors and for `explain`.

        :param may_ask_registry: whether a line ``registry`` makes sense in it.
        :param is_file: whether somebody who looks for `filename` finds it; a default of ours is no file.
        :raises AuthFileError: naming every bad line; then none of the file may be used.
        """
        lines: list[AclLine] = []
        problems = FileProblems(filename)
        for lone in _LONE_RETURN.finditer(text):
            number = text.count("\n", 0, lone.start()) + 1
            problems.add(
                number, "a carriage return within the line, where some editors show another line; save it anew"
            )
        groups, bad_groups = parse_groups(counting_lines(text))
        registry = 0
        for count, (number, content) in enumerate(counting_lines(text)):
            try:
                if count >= MAX_LINES:
                    raise ValueError(f"this is one line more than {MAX_LINES}, the most; join lines, or use globs")
                _check_visible(content)
                if content == REGISTRY:
                    if registry or not may_ask_registry:
                        raise ValueError(
                            f"line {registry} says {REGISTRY} already"
                            if registry
                            else f"{REGISTRY} counts for the "
                            "lists of who may use, and who may see, topics; not for this one"
                        )
                    registry = number
                elif not is_group_line(content):
                    lines.append(AclLine(content, number, own_id_marker, groups))
                elif number in bad_groups:
                    raise ValueError(bad_groups[number])
            except ValueError as error:
                problems.add(number, str(error))
        problems.check()
        return cls(lines, groups, filename, own_id_marker, registry, is_file=is_file)

    @property
    def asks_registry(self) -> bool:
        """Whether lines that a checker tells count."""
        return self._registry > 0

    def allows(
        self, who: str, topic: str, groups: Sequence[str] = (), tenant: str = "", own: OwnLines | None = None
    ) -> bool:
        """Whether `who` may use, or see, the topic ``<device id>.<topic words>``.

        `groups`, `tenant` and `own` are what a checker told of `who`; the last None where it told no lines.

        :raises ValueError: the own lines make no sense (`acl_registry.check_own_lines`).
        """
        if self._open and (own is None or not self._registry):
            return True
        if (groups or tenant or own is not None) and self.needs_telling:
            return self._remembered(who, topic, self._told(tuple(groups), tenant, own))
        return self._remembered(who, topic)

    def explain(
        self, who: str, topic: str, groups: Sequence[str] = (), tenant: str = "", own: OwnLines | None = None
    ) -> str:
        """Which line decides, for people: ``allowed by acl:3: …`` or ``denied …``; below it, which groups led there.

        :raises ValueError: as `allows`.
        """
        subject = Subject(who, *self._asked_for(tuple(groups), tenant, own))
        mine = self._lines_for(subject)
        for line in mine:
            pattern = line.topic_for(topic, subject)
            if pattern is not None:
                verb = "allowed" if line.allows else "denied"
                place = f"{self._filename}:{line.number}" if self._is_file else self._filename
                decision = f"{verb} by {place}: {line.text}"
                return "\n  ".join((decision, *self._reasons(line, pattern, topic, subject)))
        if not mine:
            return f"denied: no line of {self._filename} is for {who!r}"
        numbers = ", ".join(str(line.number) for line in mine)
        because = ""
        if not plain(who) and any(pattern.has_marker for line in mine for pattern in line.topics):
            because = "; its '.', '*' or '#' keeps it from standing in place of a marker"
        return f"denied: of {self._filename} the lines for {who!r} ({numbers}) do not allow {topic!r}{because}"

    def warnings(self) -> Iterator[str]:
        """What is allowed to be in the file, but cannot be meant: lines that never decide, groups that nobody uses."""
        deciding: dict[str, AclLine] = {}
        used = set(self._of_group)
        for line in self._lines:
            used.update(pattern.group.name for pattern in line.topics if pattern.group is not None)
            before = deciding.get("*") or deciding.get(line.left)
            if before is not None:
                whom = "everybody" if before.left == "*" else before.left
                yield (
                    f"{self._filename}:{line.number}: never decides, for line {before.number} does so about every "
                    f"topic of {whom}: the first line that matches wins"
                )
            elif line.is_for_every_topic:
                deciding[line.left] = line
        for group in self._groups.values():
            if group.name not in used:
                yield f"{self._filename}:{group.number}: no line uses group {group.name}"

    def _lines_for(self, subject: Subject) -> list[AclLine]:
        who = subject.who
        mine = [*self._of_name.get(who, ()), *(line for line in self._globs if line.who and line.who.matches(who))]
        for group in self._groups_left:
            if group.member(who):
                mine += self._of_group[group.name]
        for name in subject.told:
            mine += self._of_group[name]
        mine.sort(key=lambda line: line.number)
        if subject.own is None:
            return mine
        above = [line for line in mine if line.number < self._registry]
        return [*above, *own_lines(subject.own, self._marker, self._registry)]

    def _decides(self, who: str, topic: str, told: _Told = ((), "", None)) -> bool:
        subject = Subject(who, *told)
        for line in self._lines_for(subject):
            if line.topic_for(topic, subject) is not None:
                return line.allows
        return False

    def _asked_for(self, groups: tuple[str, ...], tenant: str, own: OwnLines | None) -> _Told:
        """Of what a checker told, what some line asks for: so that what is remembered holds nothing else."""
        own = own if self._registry else None
        names = {f"group/{group}" for group in groups} | {f"tenant/{tenant}"}
        uses_tenant = self._uses_tenant or (own is not None and any(TENANT_MARKER in line for line in own))
        return tuple(sorted(names.intersection(self._of_group))), tenant if uses_tenant else "", own

    def _reasons(self, line: AclLine, pattern: AclTopic | SpokenFor, topic: str, subject: Subject) -> Iterator[str]:
        """How groups and markers led to a decision."""
        if line.group in self._groups:
            yield self._membership(subject.who, self._groups[line.group])
        elif line.group:
            yield f"{subject.who!r} is in @{line.group}, says who told its groups and its tenant"
        if pattern.group is not None:
            yield self._membership(topic.partition(".")[0], pattern.group)
        if pattern.has_marker and not line.allows and not plain(subject.who):
            yield f"any words stand where a marker is: {subject.who!r} cannot, with '.', '*' or '#' in it"

    def _membership(self, who: str, group: Group) -> str:
        return f"{who!r} is in @{group.name}, as {group.member(who)!r} in {self._filename}:{group.number}"


def _is_open(lines: Sequence[AclLine]) -> bool:
    """Whether everybody may use every topic: so says a line, and none before it denies anything."""
    for line in lines:
        if not line.allows:
            return False
        if line.left == "*" and line.is_for_every_topic:
            return True
    return False


def _check_visible(line: str) -> None:
    for column, character in enumerate(line, 1):
        if not character.isprintable() and character != "\t":
            raise ValueError(
                f"character {column} is U+{ord(character):04X}, which does not show: what the line means must be seen"
            )
