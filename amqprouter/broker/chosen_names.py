"""How many names there may be that others choose, such as those of queues that are made of what devices send.

House rules. Whoever had a name made first is its owner. Nobody's names keep all others from having theirs: the last
tenth of the room is for owners who have less than a tenth, and there may be a limit for each owner besides. A name that
nobody uses any more is forgotten, and counts no longer; when that is, whoever keeps the names says.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Name = TypeVar("Name", bound=Hashable)

SHARE = 10
"""The part of the room that is kept for owners who have little: one in so many."""
PAUSE = 1.0
"""Seconds between two searches for names that may be forgotten: each looks at all of them."""


class ChosenNames(Generic[Name]):
    """The names, and who owns them.

    :param most: names at a time. :param most_of_one: of one owner; 0 for no limit but the last tenth.
    :param lasting: seconds after its last use that a name is remembered.
    :param forgotten: is told of names that time has passed over.
    """

    def __init__(
        self, most: int, most_of_one: int, lasting: float, forgotten: Callable[[Name], None] = lambda _: None
    ) -> None:
        self._most = most
        self._most_of_one = most_of_one or most
        self._kept = most // SHARE
        self._lasting = lasting
        self._forgotten = forgotten
        self._used: dict[Name, float] = {}
        self._owners: dict[Name, str] = {}
        self._counts: Counter[str] = Counter()
        self._searched = float("-inf")

    def __len__(self) -> int:
        return len(self._used)

    def __contains__(self, name: object) -> bool:
        return name in self._used

    def admits(self, name: Name, owner: str, now: float) -> bool:
        """Whether there is such a name, or room for it."""
        if name in self._used or self._has_room(owner):
            return True
        self._forget_unused(now)
        return self._has_room(owner)

    def _has_room(self, owner: str) -> bool:
        count = self._counts.get(owner, 0)
        free = self._most - len(self._used)
        return count < self._most_of_one and free > (0 if count < self._kept else self._kept)

    def _forget_unused(self, now: float) -> None:
        if now - self._searched < PAUSE:
            return
        self._searched = now
        for name in [name for name, used in self._used.items() if now - used >= self._lasting]:
            self.forget(name)
            self._forgotten(name)

    def use(self, name: Name, owner: str, now: float) -> None:
        """The name is in use; `owner` has it if it is new."""
        if name not in self._used:
            self._owners[name] = owner
            self._counts[owner] += 1
        self._used[name] = now

    def touch(self, name: Name, now: float) -> None:
        """A name that is there is in use."""
        if name in self._used:
            self._used[name] = now

    def forget(self, name: Name) -> None:
        """There is no such name any more."""
        if self._used.pop(name, None) is None:
            return
        owner = self._owners.pop(name)
        self._counts[owner] -= 1
        if not self._counts[owner]:
            del self._counts[owner]

    def least_used(self, count: int, before: float) -> list[Name]:
        """So many of the names that nobody has used since then, those first that nobody has for the longest time."""
        unused = [name for name, used in self._used.items() if used <= before]
        return heapq.nsmallest(count, unused, key=self._used.__getitem__)
