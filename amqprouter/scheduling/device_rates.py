"""One limit for each of many devices: who has used how much of it."""

from __future__ import annotations

from amqprouter.scheduling.limit import Limit, State

MOST = 100_000
"""Devices that may have used some of their limit at a time: some 20 MB. Beyond that everybody waits."""


class DeviceRates:
    """Remembers only the devices whose buckets are not full."""

    def __init__(self, limit: Limit, most: int = MOST) -> None:
        self._limit = limit
        self._most = most
        self._states: dict[str, State] = {}

    def __len__(self) -> int:
        return len(self._states)

    def take(self, device: str, size: int, now: float) -> float:
        """Let one message of `size` bytes pass, or say in how many seconds it could; 0 when it passed."""
        limit = self._limit
        state = self._states.get(device)
        if state is None:
            if len(self._states) >= self._most:
                self._forget_full(now)
            if len(self._states) >= self._most:
                return 1.0  # to forget one would give it its whole burst again
            state = limit.start
        wait = limit.wait(state, size, now)
        if not wait and limit.windows:
            self._states[device] = limit.taken(state, size, now)
        return wait

    def _forget_full(self, now: float) -> None:
        self._states = {name: state for name, state in self._states.items() if not self._limit.is_full(state, now)}
