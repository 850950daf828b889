"""Who is to be told something now, of those who would otherwise be told again and again.

Each name is told at most once in so many seconds, and no more than so many names in that time: both the memory and the
flood of notices are bounded, however many devices are over their limits at once.
"""

from __future__ import annotations


class Notices:
    """At most one notice for a name in `seconds`, and at most `most` names; 0 seconds means none at all."""

    def __init__(self, seconds: float, most: int) -> None:
        self._seconds = seconds
        self._most = most
        self._told: dict[str, tuple[float, int]] = {}  # when, and how many came since; in the order of time

    def due(self, name: str, now: float) -> int:
        """Note that something came. Returns 0, or when it is time to tell: how much came since the last notice, this
        one included. `now` is seconds on a clock that never goes back.
        """
        told = self._told
        entry = told.get(name)
        if entry is not None:
            at, since = entry
            if now < at + self._seconds:
                told[name] = at, since + 1
                return 0
            del told[name]
        elif len(told) >= self._most:
            oldest = next(iter(told), None)
            if oldest is None or now < told[oldest][0] + self._seconds:
                return 0
            del told[oldest]
        if not self._seconds:
            return 0
        told[name] = now, 0
        return 1 if entry is None else entry[1] + 1
