"""A lazily refilled token bucket.

Nothing ticks: what has leaked in since the last look is worked out from the timestamp, so an idle bucket costs nothing
but its memory, and a bucket that has not been looked at for burst / rate seconds equals a new one and can be forgotten.
"""

from __future__ import annotations

_WHOLE = 1.0 - 1e-9
"""A token, less what floating-point arithmetic may lose between `due` and the `take` at that moment."""


class TokenBucket:
    """Tokens of one device. Rate (tokens per second) and burst are the caller's, so that they can change for all."""

    __slots__ = ("tokens", "updated")

    def __init__(self, burst: float, now: float) -> None:
        self.tokens = burst
        self.updated = now

    def take(self, rate: float, burst: float, now: float) -> bool:
        """Take a token if there is one; `now` is seconds on a clock that never goes back."""
        tokens = self.tokens + (now - self.updated) * rate
        self.updated = now
        tokens = min(tokens, burst)
        if tokens >= _WHOLE:
            self.tokens = tokens - 1.0
            return True
        self.tokens = tokens
        return False

    def due(self, rate: float) -> float:
        """When the next token will be there, on the clock of `take`; the past if it is."""
        return self.updated + (1.0 - self.tokens) / rate

    def is_full(self, rate: float, burst: float, now: float) -> bool:
        """Whether the bucket equals a new one."""
        return self.tokens + (now - self.updated) * rate >= burst
