"""The devices in the scheduler's memory, and forgetting those that are idle.

Theory of operation. A device whose bucket is full equals one that was never seen. A hand goes round over all of them,
two steps for each device that is new, and forgets those that have been full for `KEEP_IDLE`; so memory follows the
devices that are active, and nothing ever walks over a million at once. At the bound, it forgets who is full, and if
nobody is for a while, whoever has nothing waiting and nothing in flight: that one begins with a full bucket when it
comes again.
"""

from __future__ import annotations

from typing import Generic, TypeVar

from amqprouter.scheduling.lanes import Device
from amqprouter.scheduling.policy import Policy

Item = TypeVar("Item")

KEEP_IDLE = 300.0
"""Seconds that a full bucket is kept: making a device known again costs ten times as much as finding it."""
_STEPS = 2
"""For each new device: so the hand is round twice while the devices double."""
_LONG_STEPS = 64
"""At the bound, before somebody who is not full is forgotten."""


class KnownDevices(Generic[Item]):
    """Devices by name."""

    __slots__ = ("_hand", "_names", "by_name")

    def __init__(self) -> None:
        self.by_name: dict[str, Device[Item]] = {}
        self._names: list[str] = []
        self._hand = 0

    def add(self, name: str, policy: Policy, bound: int, now: float) -> Device[Item]:
        """A device that is not known; others are forgotten for it, so that there are no more than `bound`."""
        by_name = self.by_name
        self._sweep(_STEPS, now - KEEP_IDLE)
        if len(by_name) >= bound and not self._sweep(_LONG_STEPS, now, 1):
            self._sweep(len(by_name), float("inf"), 1 + len(by_name) - bound)
        device: Device[Item] = Device(policy)
        policy.members += 1
        by_name[name] = device
        self._names.append(name)
        return device

    def tidy(self, now: float) -> None:
        """Take a few steps of the hand; for every batch of messages, say."""
        self._sweep(_STEPS, now - KEEP_IDLE)

    def _sweep(self, steps: int, full_by: float, enough: int = 0) -> int:
        """Forget who has been full since `full_by`, until there are `enough`; how many they were."""
        names, by_name = self._names, self.by_name
        forgotten = 0
        for _ in range(min(steps, len(names))):
            hand = self._hand if self._hand < len(names) else 0
            device = by_name[names[hand]]
            if device.lane is None and not device.in_flight and device.policy.limit.is_full(device.state, full_by):
                device.policy.members -= 1
                del by_name[names[hand]]
                last = names.pop()
                if hand < len(names):
                    names[hand] = last
                forgotten += 1
            else:
                hand += 1
            self._hand = hand
            if enough and forgotten >= enough:
                break
        return forgotten
