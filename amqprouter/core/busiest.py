"""Who is busiest of late, for somebody who looks every second or so.

The counts are totals since the start; what has changed since the last look, by the time between, are the rates. So a
device that began to be noisy just now comes first, however quiet it was for weeks. Nothing is kept but the counts as
they were: a look costs one step for each device that is counted or waits, and nothing happens between looks.
"""

from __future__ import annotations

from collections.abc import Mapping
from heapq import nlargest
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

    def look(
        self, count: int, now: float, passed: Mapping[str, int], refused: Mapping[str, int], waiting: Mapping[str, int]
    ) -> list[Busy]:
        """The `count` devices of which most came since the last look, then of all time; `now` is in seconds."""
        seconds = 0.0 if self._at is None else now - self._at
        share = 1.0 / seconds if seconds > 0 else 0.0
        entries = []
        for name in {**passed, **refused, **waiting}:
            here, gone, held = passed.get(name, 0), refused.get(name, 0), waiting.get(name, 0)
            # Counts of names that make room for others go down: nothing is known to have come then.
            new = max(0, here - self._passed.get(name, 0))
            lost = max(0, gone - self._refused.get(name, 0))
            offered = max(0, new + lost + held - self._waiting.get(name, 0))
            entries.append(Busy(name, here, held, gone, offered * share, new * share, lost * share))
        self._at = now
        self._passed, self._refused, self._waiting = dict(passed), dict(refused), dict(waiting)
        return nlargest(count, entries, key=lambda busy: (busy.offered_rate, busy.passed + busy.refused, busy.name))
