"""The time that durations are measured by."""

from __future__ import annotations

import time
from typing import Any


class SteadyClock:
    """A reactor's delayed calls with a clock that never goes back.

    Twisted's ``reactor.seconds`` is the wall clock: set back by an hour it would starve every token bucket for as long.
    """

    def __init__(self, reactor: Any) -> None:
        self.callLater = reactor.callLater

    def seconds(self) -> float:
        """Seconds since some moment in the past; only differences mean something."""
        return time.monotonic()
