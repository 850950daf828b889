"""A cache bounded by count and by age."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class AgedCache(Generic[K, V]):
    """Remembers at most `size` values for less than `seconds` each; the one unused for longest makes room.

    One value may be given less time than the others. Reading does not make a value younger. When the clock goes back
    behind a value's time the value is forgotten: no turning of the clock makes it last longer.
    """

    __slots__ = ("_entries", "_seconds", "_size")

    def __init__(self, size: int, seconds: float) -> None:
        self._size = size
        self._seconds = seconds
        self._entries: OrderedDict[K, tuple[float, float, V]] = OrderedDict()  # from when to when, and what

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: K, now: float) -> V | None:
        """The value, or None when there is none or it is too old. `now` is in seconds, as in `put`."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        since, until, value = entry
        if since <= now < until:
            self._entries.move_to_end(key)
            return value
        del self._entries[key]
        return None

    def put(self, key: K, value: V, now: float, at_most: float | None = None) -> None:
        """Remember the value from now on, for `at_most` these seconds; with 0 or less, and with NaN, not at all."""
        seconds = self._seconds if at_most is None or at_most > self._seconds else at_most
        if self._size > 0 and seconds > 0:
            self._entries[key] = (now, now + seconds, value)
            self._entries.move_to_end(key)
            if len(self._entries) > self._size:
                self._entries.popitem(last=False)

    def drop(self, key: K) -> None:
        """Forget this value, if there is one."""
        self._entries.pop(key, None)

    def entries(self, chosen: Callable[[K], bool], now: float) -> Iterator[tuple[K, V, float, float]]:
        """The chosen keys with their values, ages and what is left of their time. Looks at all: for rare use."""
        for key, (since, until, value) in self._entries.items():
            if chosen(key) and since <= now < until:
                yield key, value, now - since, until - now

    def forget(self, chosen: Callable[[K], bool]) -> int:
        """Forget every value whose key is chosen; how many. Looks at all of them: for rare use."""
        keys = [key for key in self._entries if chosen(key)]
        for key in keys:
            del self._entries[key]
        return len(keys)

    def clear(self) -> int:
        """Forget everything; how many values that was."""
        count = len(self._entries)
        self._entries.clear()
        return count
