"""The busiest devices, as ``/status`` and ``amqprouter top`` show them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from amqprouter.scheduling.scheduler import Scheduler

COUNT = 50
"""Devices: what fits on a screen or two; the rest is for /metrics."""
INTERVAL = 0.9
"""Seconds between two looks, however many people look: less than the second after which each asks again."""


class TopDevices:
    """Looks at the scheduler when asked, at most once in `INTERVAL`; `now` is the scheduler's clock, and `parked` says
    how many messages of a device are parked in the broker.
    """

    def __init__(self, scheduler: Scheduler[Any], now: Callable[[], float], parked: Callable[[str], int]) -> None:
        self._scheduler = scheduler
        self._now = now
        self._parked = parked
        self._read_at: float | None = None
        self._shown: list[dict[str, object]] = []

    def read(self) -> list[dict[str, object]]:
        """One object for each device, the busiest of late first; rates are messages a second since the last look."""
        now = self._now()
        if self._read_at is None or now - self._read_at >= INTERVAL:
            self._read_at = now
            self._shown = self._top(now)
        return self._shown

    def _top(self, now: float) -> list[dict[str, object]]:
        shown: list[dict[str, object]] = []
        for busy in self._scheduler.top(COUNT, now):
            told = self._scheduler.explain(busy.name, now)
            shown.append(
                {
                    "device": busy.name,
                    **({"publisher": told.publisher} if told.publisher else {}),
                    "class": told.device_class,
                    "rate": round(busy.offered_rate, 3),
                    "allowed": round(busy.passed_rate, 3),
                    "refusing": round(busy.refused_rate, 3),
                    "passed": busy.passed,
                    "waiting": busy.waiting,
                    "parked": self._parked(busy.name),
                    "refused": busy.refused,
                    "oldest": round(told.oldest, 3),
                    "state": told.state,
                    "limit": told.reason,
                }
            )
        return shown
