"""Whose message goes next: a token bucket for each device, and turns among those that have tokens.

Theory of operation. A message whose device has a token, with room under `max_in_flight` and nobody waiting for a turn,
runs at once: the usual case costs one dictionary look-up and some arithmetic. Otherwise it waits in its device's queue.
A waiting device stands in one of two places: in the ring of those that have a token and wait for room, served one
message a turn, round and round; or, without a token, in a heap by the moment of its next one. Every decision is O(1) on
the ring and O(log waiting devices) on the heap, however many devices there are.

Bounds. A device without a token may have `max_waiting_per_device` messages waiting, and all such devices together
`max_waiting`; one more is refused, for holding it would fill the consumers' prefetch window and stall everybody else.
Messages that wait for room only are bounded by the prefetch. Buckets are bounded by `max_devices`: those that are full
equal new ones and are forgotten first, then the longest known that nothing waits for.

The core is pure: `now` is seconds on a monotonic clock, and whoever calls `take` decides when.
"""

from __future__ import annotations

from collections import deque
from enum import Enum
from heapq import heappop, heappush, nlargest
from typing import Generic, Protocol, TypeVar

from amqprouter.core.token_bucket import TokenBucket

Item = TypeVar("Item")


class Limits(Protocol):
    """Rates and bounds; ``[scheduler]`` of the configuration says what each means."""

    @property
    def rate(self) -> float: ...

    @property
    def burst(self) -> float: ...

    @property
    def max_waiting_per_device(self) -> int: ...

    @property
    def max_waiting(self) -> int: ...

    @property
    def max_in_flight(self) -> int: ...

    @property
    def max_devices(self) -> int: ...


class Decision(Enum):
    """What becomes of an offered message."""

    RUN = "run"
    """Its turn is now; it counts as in flight."""
    WAIT = "wait"
    """It waits for room; `take` will return it."""
    THROTTLED = "throttled"
    """It waits for its device's rate; `take` will return it."""
    REFUSED = "refused"
    """Too many wait for the device's rate already."""


class _Device(Generic[Item]):
    __slots__ = ("bucket", "is_throttled", "name", "passed", "refused", "waiting")

    def __init__(self, name: str, bucket: TokenBucket) -> None:
        self.name = name
        self.bucket = bucket
        self.waiting: deque[Item] | None = None  # made when needed: most devices never wait
        self.is_throttled = False  # in the heap, not the ring
        self.passed = 0
        self.refused = 0


class Scheduler(Generic[Item]):
    """Schedules items of any kind by the name of their device."""

    def __init__(self, limits: Limits) -> None:
        self._devices: dict[str, _Device[Item]] = {}
        self._ring: deque[_Device[Item]] = deque()
        self._heap: list[tuple[float, int, _Device[Item]]] = []
        self._heap_order = 0  # decides between equal moments: first come, first served
        self.in_flight = 0
        self.waiting = 0
        """Messages that wait, for room or for their rate."""
        self.throttled_waiting = 0
        """Those of them that wait for their rate."""
        self.configure(limits)

    def configure(self, limits: Limits) -> None:
        """Use these rates and bounds from now on; what waits keeps waiting by the new rate."""
        self._limits = limits
        self._rate, self._burst, self._max_in_flight = limits.rate, limits.burst, limits.max_in_flight

    def offer(self, name: str, item: Item, now: float) -> Decision:
        """A message of the device `name` has come."""
        device = self._devices.get(name)
        if device is None:
            device = self._add(name, now)
        if not device.waiting:
            if device.bucket.take(self._rate, self._burst, now):
                if self.in_flight < self._max_in_flight and not self._ring:
                    self.in_flight += 1
                    device.passed += 1
                    return Decision.RUN
                device.bucket.tokens += 1.0  # its turn will take it
                self._enqueue(device, item)
                self._ring.append(device)
                return Decision.WAIT
        elif not device.is_throttled:
            self._enqueue(device, item)
            return Decision.WAIT
        waiting = device.waiting
        if self.throttled_waiting >= self._limits.max_waiting or (
            waiting and len(waiting) >= self._limits.max_waiting_per_device
        ):
            device.refused += 1
            return Decision.REFUSED
        if not waiting:
            self._throttle(device)
        self._enqueue(device, item)
        self.throttled_waiting += 1
        return Decision.THROTTLED

    def take(self, now: float) -> list[Item]:
        """The items whose turn has come; they count as in flight."""
        heap, ring = self._heap, self._ring
        while heap and heap[0][0] <= now:
            device = heappop(heap)[2]
            device.is_throttled = False
            self.throttled_waiting -= len(device.waiting or ())
            ring.append(device)
        items: list[Item] = []
        while ring and self.in_flight < self._max_in_flight:
            device = ring.popleft()
            waiting = device.waiting
            assert waiting
            if not device.bucket.take(self._rate, self._burst, now):
                self._throttle(device)
                self.throttled_waiting += len(waiting)
                continue
            items.append(waiting.popleft())
            self.waiting -= 1
            self.in_flight += 1
            device.passed += 1
            if waiting:
                ring.append(device)
            else:
                device.waiting = None
        return items

    def finished(self, count: int = 1) -> None:
        """So many items are no longer in flight."""
        self.in_flight -= count

    def due(self) -> float | None:
        """When `take` will next have something by the passing of time alone; None when nothing waits for that."""
        return self._heap[0][0] if self._heap else None

    def withdraw(self) -> list[Item]:
        """Take everything that waits out of the scheduler, for a stop: it goes back to its queue on the broker."""
        items: list[Item] = []
        for device in (*self._ring, *(entry[2] for entry in self._heap)):
            items.extend(device.waiting or ())
            device.waiting, device.is_throttled = None, False
        self._ring.clear()
        self._heap.clear()
        self.waiting = self.throttled_waiting = 0
        return items

    def top(self, count: int) -> list[tuple[str, int, int, int]]:
        """The busiest devices: (name, messages passed, waiting, refused)."""
        busiest = nlargest(count, self._devices.values(), key=lambda device: device.passed + device.refused)
        return [(d.name, d.passed, len(d.waiting or ()), d.refused) for d in busiest]

    @property
    def known_devices(self) -> int:
        """Buckets in memory."""
        return len(self._devices)

    def _enqueue(self, device: _Device[Item], item: Item) -> None:
        if device.waiting is None:
            device.waiting = deque()
        device.waiting.append(item)
        self.waiting += 1

    def _throttle(self, device: _Device[Item]) -> None:
        device.is_throttled = True
        self._heap_order += 1
        heappush(self._heap, (device.bucket.due(self._rate), self._heap_order, device))

    def _add(self, name: str, now: float) -> _Device[Item]:
        if len(self._devices) >= self._limits.max_devices:
            self._forget(now)
        device = self._devices[name] = _Device(name, TokenBucket(self._burst, now))
        return device

    def _forget(self, now: float) -> None:
        """Make room, an eighth at least so that the walk is rare."""
        room = max(1, self._limits.max_devices // 8)
        idle = [d for d in self._devices.values() if not d.waiting]
        full = [d for d in idle if d.bucket.is_full(self._rate, self._burst, now)]
        for device in full if len(full) >= room else idle[:room]:
            del self._devices[device.name]
