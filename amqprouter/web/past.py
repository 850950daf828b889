"""What a daemon remembers of its day: since when which part is in trouble, and a point of its flow each minute.

House rules: no I/O and no clock; who looks says what it saw, and when. All is lost with the process.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import NamedTuple

EVERY = 60.0
"""Seconds between two points: what is shorter can be seen while it lasts."""
MOST = 1440
"""Points, so a day of them: about 200 KB in memory, and 60 KB as JSON. The oldest goes when there are more."""


class Flow(NamedTuple):
    """Totals since the start, and what is held up now, in messages."""

    received: int
    settled: int
    refused: int
    backlog: int


class Point(NamedTuple):
    """A minute: its end, in seconds since 1970; messages a second in it; messages held up at its end."""

    time: float
    received: float
    settled: float
    refused: float
    backlog: int


class Past:
    """The points of a day, in a ring."""

    def __init__(self) -> None:
        self.points: deque[Point] = deque(maxlen=MOST)
        """The oldest first."""
        self._before: tuple[float, Flow] | None = None

    def note(self, flow: Flow, now: float) -> None:
        """What is seen now; a point is made of it when a minute has gone by since the last one."""
        if self._before is None or now < self._before[0]:  # the wall clock was set back
            self._before = now, flow
            return
        since, before = self._before
        seconds = now - since
        if seconds < EVERY:
            return
        # A message that is parked is settled twice, and what is parked may be settled later than it is counted.
        rates = [round(max(0, flow[place] - before[place]) / seconds, 3) for place in range(3)]
        self.points.append(Point(round(now, 3), rates[0], rates[1], rates[2], flow.backlog))
        self._before = now, flow


class Troubles:
    """Since when parts have been in trouble, whatever it was in between. There are as many as there are parts."""

    def __init__(self) -> None:
        self.since: dict[str, float] = {}
        """By part, seconds since 1970; nothing of those that are ready."""

    def note(self, problems: Mapping[str, str], now: float) -> None:
        """What is wrong with each part, empty where nothing is."""
        self.since = {name: self.since.get(name, now) for name, problem in problems.items() if problem}
