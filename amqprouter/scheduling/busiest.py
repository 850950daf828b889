"""Who is busiest of late, for somebody who looks every second or so.

The counts are totals since the start; what has changed since the last look, by the time between, are the rates. So a
device that began to be noisy just now comes first, however quiet it was for weeks. Nothing is kept but the counts as
they were: a look costs one step for each device that is counted or waits, and nothing happens between looks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from heapq import nlargest
from itertools import islice
from typing import NamedTuple


class Busy(NamedTuple):
    """One device: totals since the start, and rates a second since the last look (0 at the first)."""

    name: str
    passed: int
    waiting: int
    refused: int
    """Of these some may have been dropped or parked."""
    offered_rate: float
    """What came, as far as it shows: passed, refused, and more waiting than before."""
    passed_rate: float
    refused_rate: float


class Busiest:
    """Compares each look with the one before."""

    def __init__(self) -> None:
        self._at: float | None = None
        self._passed: Mapping[str, int] = {}
        self._refused: Mapping[str, int] = {}
        self._waiting: Mapping[str, int] = {}

    def compare(
        self, count: int, now: float, passed: Mapping[str, int], refused: Mapping[str, int], waiting: Mapping[str, int]
    ) -> list[Busy]:
        """The `count` devices of which most came since the last look; if fewer had any, others that have messages
        waiting, and then those of which most came ever. `now` is in seconds.
        """
        seconds = 0.0 if self._at is None else now - self._at
        share = 1.0 / seconds if seconds > 0 else 0.0
        new, lost = _grown(passed, self._passed), _grown(refused, self._refused)
        offered = Counter(new)
        offered.update(lost)
        for name in waiting.keys() | self._waiting.keys():
            offered[name] += waiting.get(name, 0) - self._waiting.get(name, 0)
        names = nlargest(count, offered, key=lambda name: (offered[name], name in waiting, name))
        shown = dict.fromkeys(name for name in names if offered[name] > 0 or waiting.get(name))
        for totals in (passed, refused):
            if len(shown) < count:
                shown |= dict.fromkeys(nlargest(count, totals, key=totals.__getitem__))
        self._at = now
        self._passed, self._refused, self._waiting = dict(passed), dict(refused), dict(waiting)
        return [
            Busy(
                name,
                passed.get(name, 0),
                waiting.get(name, 0),
                refused.get(name, 0),
                max(0, offered[name]) * share,
                new.get(name, 0) * share,
                lost.get(name, 0) * share,
            )
            for name in islice(shown, count)
        ]


def _grown(now: Mapping[str, int], before: Mapping[str, int]) -> dict[str, int]:
    """What came to each count; one that went down made room for others, and nothing is known to have come."""
    return {name: more for name, count in now.items() if (more := count - before.get(name, 0)) > 0}


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
