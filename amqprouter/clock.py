"""The time that durations are measured by, and how long to wait before something is tried again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

_DOUBLINGS = 16
"""Enough for any pause to grow to its longest, and no power grows out of hand."""


class Clock(Protocol):
    """What durations are measured by, and what is done later by: a `SteadyClock`, or Twisted's Clock in tests."""

    def seconds(self) -> float:
        """Seconds since some moment in the past."""

    def callLater(self, delay: float, callable: Callable[..., object], /, *args: Any, **kw: Any) -> Any:
        """Call this after so many seconds; returns an `IDelayedCall`."""


class Backoff:
    """The pauses between tries of something that fails: each is twice as long as the one before, up to the longest.

    :param first: :param longest: seconds.
    :param random: gives numbers from 0 to 1, so that many who failed together do not come back together; None for
        pauses that are always whole.
    :param chance: the part of a pause that is left to it. With a half, nobody comes back at once; 1 spreads the most
        (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/ calls it full jitter).
    """

    def __init__(
        self, first: float, longest: float, random: Callable[[], float] | None, *, chance: float = 0.5
    ) -> None:
        self._first = first
        self._longest = longest
        self._random = random
        self._chance = chance

    def pause(self, failures: int) -> float:
        """Seconds until the next try; `failures` is how many there were in a row before the latest one."""
        whole = min(self._longest, self._first * 2.0 ** min(failures, _DOUBLINGS))
        return whole if self._random is None else whole * (1 - self._chance + self._chance * self._random())


class SteadyClock:
    """A reactor's delayed calls with a clock that never goes back.

    Twisted's ``reactor.seconds`` is the wall clock: set back by an hour it would starve every token bucket for as long.
    """

    def __init__(self, reactor: Any, monotonic: Callable[[], float]) -> None:
        """`monotonic` is `time.monotonic`: seconds since some moment in the past, of which only differences count."""
        self.callLater = reactor.callLater
        self.seconds = monotonic
