"""Moments to come, however many, each set and met in constant time.

Theory of operation. Time is cut into ticks of a millisecond. What is due within the next second or so is filed under
its tick; what is due later is filed under its second, and moves to its tick when that second begins: two moves at most,
and one more for each quarter of an hour. (A heap would cost more the more devices wait; that they are met up to a tick
late costs a device nothing, for its bucket refills meanwhile.) Nothing is ever met early.

A moment is not withdrawn: whoever waits says, when it is met, whether it still waits for that one.
"""

from __future__ import annotations

from math import ceil, floor
from typing import Generic, TypeVar

from amqprouter.scheduling.slot_ring import SlotRing

Thing = TypeVar("Thing")

TICK = 0.001
"""Seconds. A tenth of what lies between 100 messages a second; the reactor's timers are hardly more exact."""
_SECOND = 10
"""Bits of a tick's number within its second, which thus has 1,024 ticks."""
_SPAN = 1 << _SECOND
_ROUNDING = 1e-6
"""Ticks that floating-point arithmetic may lose: less than the slack of limits."""


class TimerWheel(Generic[Thing]):
    """`now` and `due` are seconds on one clock, which never goes back."""

    __slots__ = ("_near", "_seconds")

    def __init__(self) -> None:
        self._near: SlotRing[tuple[float, Thing]] = SlotRing(_SPAN)
        self._seconds: SlotRing[tuple[float, Thing]] = SlotRing(_SPAN)

    def __len__(self) -> int:
        return self._near.count + self._seconds.count

    def push(self, due: float, thing: Thing, now: float) -> None:
        """Have `thing` met at `due` or up to a tick later."""
        near, present = self._near, floor(now / TICK + _ROUNDING)
        if present > near.base:
            near.advance(present)
        tick = ceil(due / TICK - _ROUNDING)
        if tick <= present:
            tick = present + 1
        if tick < near.base + _SPAN:
            near.push(tick, (due, thing))
        else:
            self._seconds.advance(present >> _SECOND)
            self._seconds.push(tick >> _SECOND, (due, thing))

    def pop_due(self, now: float) -> list[tuple[float, Thing]]:
        """What is due by now, with the moment that it was pushed with."""
        near, seconds, present = self._near, self._seconds, _tick(now)
        met: list[tuple[float, Thing]] = []
        while (first := near.first()) is not None and first <= present:
            met += near.pop_all(first)
        near.advance(present)
        later: list[tuple[float, Thing]] = []
        while (first := seconds.first()) is not None and first <= present >> _SECOND:
            due, thing = seconds.pop()
            if due / TICK - _ROUNDING <= present:
                met.append((due, thing))
            else:
                later.append((due, thing))
        for due, thing in later:
            self.push(due, thing, now)
        return met

    def next(self) -> float | None:
        """When to look again; None when nothing is to come."""
        first, second = self._near.first(), self._seconds.first()
        ticks = [tick for tick in (first, None if second is None else second << _SECOND) if tick is not None]
        return min(ticks) * TICK if ticks else None


def _tick(now: float) -> int:
    """The last tick that has begun."""
    return floor(now / TICK + _ROUNDING)
