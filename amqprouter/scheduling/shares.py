"""Whose turn it is among those that wait, when they come in groups within groups.

Theory of operation. What waits is filed under a path: who it is for, from where, under what name. Whoever is next is
found by taking turns at each step of the way: so each group gets the same share as the others beside it, however many
wait in it, and one alone never waits for more than one turn of each other group.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Shares(Generic[T]):
    """Those who wait. All paths are of one length. Who files bounds how many there are."""

    __slots__ = ("_count", "_root")

    def __init__(self) -> None:
        self._root: OrderedDict[str, Any] = OrderedDict()  # the group whose turn is next comes first
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def push(self, path: tuple[str, ...], item: T) -> None:
        """File one behind the others of its group."""
        group = self._root
        for step in path[:-1]:
            group = group.setdefault(step, OrderedDict())
        group.setdefault(path[-1], deque()).append(item)
        self._count += 1

    def pop(self) -> T:
        """Take out the one whose turn it is; `IndexError` when nobody waits."""
        if not self._count:
            raise IndexError("nobody waits")
        self._count -= 1
        way: list[tuple[OrderedDict[str, Any], str]] = []
        group: Any = self._root
        while isinstance(group, OrderedDict):
            step = next(iter(group))
            way.append((group, step))
            group = group[step]
        item: T = group.popleft()
        for group, step in reversed(way):
            if group[step]:
                group.move_to_end(step)
            else:
                del group[step]
        return item
