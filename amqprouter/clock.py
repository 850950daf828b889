"""The time that durations are measured by."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol


class Clock(Protocol):
    """What durations are measured by, and what is done later by: a `SteadyClock`, or Twisted's Clock in tests."""

    def seconds(self) -> float:
        """Seconds since some moment in the past."""

    def callLater(self, delay: float, callable: Callable[..., object], /, *args: Any, **kw: Any) -> Any:
        """Call this after so many seconds; returns an `IDelayedCall`."""


class SteadyClock:
    """A reactor's delayed calls with a clock that never goes back.

    Twisted's ``reactor.seconds`` is the wall clock: set back by an hour it would starve every token bucket for as long.
    """

    def __init__(self, reactor: Any, monotonic: Callable[[], float]) -> None:
        """`monotonic` is `time.monotonic`: seconds since some moment in the past, of which only differences count."""
        self.callLater = reactor.callLater
        self.seconds = monotonic
