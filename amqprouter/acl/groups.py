"""The groups that an ACL file defines: ``group NAME: MEMBER[, MEMBER…]``, each member a glob over ids or names.

Groups do not nest: whoever reads a line of the ACL finds all of a group in one other line. A group may be used above
the line that defines it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from amqprouter.patterns import DevicePattern

MAX_NAMES = 100_000
"""Members without a wildcard, of all groups of a file together: a whole fleet, name by name, takes some 15 MB."""

MAX_GLOBS = 10_000
"""Members with a wildcard, likewise: each is tried for an id that nothing is remembered of, which takes about 2 ms."""

_NAME = re.compile(r"[\w-]{1,64}").fullmatch


def is_group_line(line: str) -> bool:
    """Whether this line begins as one that defines a group."""
    words = line.split(maxsplit=1)
    return words[0] == "group" and not words[-1].startswith("->") and len(words) == 2


def check_group_name(name: str) -> str:
    """The name. Raises `ValueError` when no group of a file may be called that."""
    if not _NAME(name):
        raise ValueError(f"group name {name[:70]!r}; it takes 1 to 64 letters, digits, '-' and '_'")
    return name


class Group:
    """One group: its name, the number of the line that defines it, and who is in it."""

    __slots__ = ("_globs", "_names", "name", "number")

    def __init__(self, name: str, number: int) -> None:
        self.name = name
        self.number = number
        self._names: set[str] = set()
        self._globs: list[DevicePattern] = []

    def member(self, who: str) -> str:
        """The member that this id or name is, as the file has it; empty for one that is not in the group."""
        if who in self._names:
            return who
        return next((glob.text for glob in self._globs if glob.matches(who)), "")

    def add(self, text: str) -> None:
        """Add what stands behind the colon. Raises `ValueError` saying what is wrong with it."""
        if not text.strip():
            raise ValueError(
                f"group {self.name} is empty; behind the ':' stand one or more members, with commas between"
            )
        for member in map(str.strip, text.split(",")):
            if not member:
                raise ValueError(f"group {self.name}: an empty member; is there a comma too many?")
            if "->" in member:
                raise ValueError(f"group {self.name}: '->' among the members; what a group may use takes another line")
            if any(character.isspace() for character in member):
                raise ValueError(f"group {self.name}: member {member[:40]!r} has white space in it; put commas between")
            if member.startswith("@"):
                raise ValueError(f"group {self.name}: {member[:40]!r}: groups do not nest; list the members themselves")
            if "%d" in member or "%u" in member or "%t" in member:
                raise ValueError(f"group {self.name}: {member!r}: markers have a meaning in topic patterns only")
            pattern = DevicePattern(member)
            if pattern.is_name:
                self._names.add(member)
            else:
                self._globs.append(pattern)

    @property
    def sizes(self) -> tuple[int, int]:
        """How many members it has without and with a wildcard."""
        return len(self._names), len(self._globs)


def parse_groups(lines: Iterable[tuple[int, str]]) -> tuple[Mapping[str, Group], Mapping[int, str]]:
    """The groups by name, and what is wrong with their lines by line number; of those the others are ignored.

    A group with something wrong is among the groups all the same, so that lines that use it are not blamed.
    """
    groups: dict[str, Group] = {}
    problems: dict[int, str] = {}
    names = globs = 0
    for number, line in lines:
        if not is_group_line(line):
            continue
        try:
            name, colon, members = line[len("group") :].partition(":")
            if not colon:
                raise ValueError("no ':'; a group's line is group NAME: MEMBER[, MEMBER…]")
            name = check_group_name(name.strip())
            if name in groups:
                raise ValueError(f"group {name} is defined in line {groups[name].number} already")
            groups[name] = group = Group(name, number)
            group.add(members)
            names, globs = names + group.sizes[0], globs + group.sizes[1]
            if names > MAX_NAMES or globs > MAX_GLOBS:
                raise ValueError(
                    f"the groups have {names} members without and {globs} with a wildcard by now; {MAX_NAMES} and "
                    f"{MAX_GLOBS} are the most. Use wider patterns, or groups that the checker tells"
                )
        except ValueError as error:
            problems[number] = str(error)
    return groups, problems
