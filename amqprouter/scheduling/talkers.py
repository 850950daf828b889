"""Who sends most, in bounded memory: a million devices are counted with a few thousand counters.

Theory of operation (Misra and Gries, 1982). While there is a counter to spare, every name gets one, and counts are
exact. When there is none, all counters go down by one and those at zero are given up: a name that sends more than one
in `capacity` of everything keeps its counter, and no count is too low by more than `missed`. Going down costs one step
for each counter, and that many names must have come before it happens again: a constant for each message.
"""

from __future__ import annotations


class Talkers:
    """Counts of the busiest names."""

    __slots__ = ("_capacity", "counts", "missed")

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self.counts: dict[str, int] = {}
        self.missed = 0
        """What a count may be too low by."""

    def count(self, name: str) -> None:
        """One more of this name."""
        counts = self.counts
        known = counts.get(name)
        if known is not None:
            counts[name] = known + 1
        elif len(counts) < self._capacity:
            counts[name] = 1
        else:
            self.missed += 1
            self.counts = {name: count - 1 for name, count in counts.items() if count > 1}
