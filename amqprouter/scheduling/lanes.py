"""A device in the scheduler's memory, and the lane in which its messages wait."""

from __future__ import annotations

from collections import deque
from typing import Generic, NamedTuple, TypeVar

from amqprouter.scheduling.limit import SLACK, State
from amqprouter.scheduling.policy import Meter, Terms

Item = TypeVar("Item")


class Place:
    """Where a lane stands; from `ASLEEP` on it waits for a limit. Plain numbers: enums compare slowly."""

    NOWHERE = 0
    """It is empty, and kept because its device is parked."""
    READY = 1
    """It takes turns."""
    ASLEEP = 2
    """Until a moment at which its limit may have room."""
    QUEUED = 3
    """Behind others, at a bucket that it shares with them."""


class Waiting(NamedTuple, Generic[Item]):
    """A message that waits."""

    item: Item
    size: int
    since: float
    is_paid: bool
    """Whether its limits were charged when it came: what is not delayed is measured as it arrives."""


class Device(Generic[Item]):
    """What is known of a device. There may be a million of these, so every slot counts."""

    __slots__ = ("in_flight", "lane", "state", "terms")

    def __init__(self, terms: Terms) -> None:
        self.terms = terms
        self.state: State = terms.limit.start
        self.lane: Lane[Item] | None = None  # made when needed: most devices never wait
        self.in_flight = 0

    def own_wait(self, size: int, now: float) -> float:
        """Seconds until the device's own limit has room for a message of `size` bytes; 0 when it has."""
        terms, state = self.terms, self.state
        if terms.interval:  # the usual limit, without looking at what else there could be
            over = (state if state > now else now) - now + terms.interval - terms.tolerance  # type: ignore[operator]
            return over + SLACK if over > 0.0 else 0.0
        return terms.limit.wait(state, size, now)

    def paid(self, now: float) -> bool:
        """Take a message from all buckets, if that is at most the device's own and it has room; whether it did."""
        terms, state = self.terms, self.state
        interval = terms.interval
        if interval:
            full_at: float = (state if state > now else now) + interval  # type: ignore[operator]
            if full_at - now <= terms.tolerance:
                self.state = full_at
                return True
            return False
        return terms.is_free

    def blocker(self, size: int, now: float) -> Device[Item] | Meter | None:
        """What has no room for a message of `size` bytes: the device's limit, a bucket that it shares, or nothing."""
        terms = self.terms
        if not terms.device_class.is_shadow and self.own_wait(size, now):
            return self
        for meter in terms.meters:
            if not meter.is_shadow:
                is_others = meter.holder is not None and meter.holder is not self.lane
                if is_others or meter.limit.wait(meter.state, size, now):
                    return meter
        return None

    def charge(self, size: int, now: float) -> bool:
        """Take a message from every bucket that it concerns; from one in shadow mode only if it has room.

        Returns whether all of them had.
        """
        terms = self.terms
        if terms.interval:
            state = self.state
            self.state = (state if state > now else now) + terms.interval  # type: ignore[operator]
            return True
        device_class = terms.device_class
        would_wait = False
        if device_class.is_shadow and terms.limit.wait(self.state, size, now):
            would_wait = True
        else:
            self.state = terms.limit.taken(self.state, size, now)
        for meter in terms.meters:
            if meter.is_shadow and meter.limit.wait(meter.state, size, now):
                would_wait = True
            else:
                meter.state = meter.limit.taken(meter.state, size, now)
        return not would_wait

    def expected_wait(self, held: int, size: int, now: float) -> float:
        """Seconds until one more message, behind `held` others, would have its turn, as far as the limits go."""
        terms = self.terms
        wait = 0.0
        if not terms.device_class.is_shadow:
            wait = self.own_wait(size, now)
            if held:
                wait += held * terms.interval or terms.limit.backlog(held, held * size)
        for meter in terms.meters:
            if not meter.is_shadow:
                ahead = meter.turns.count + (meter.holder is not None)
                ahead *= held + 1  # the others take turns with each of the device's own
                wait = max(wait, meter.limit.wait(meter.state, size, now) + meter.limit.backlog(ahead, ahead * size))
        return wait


class Lane(Generic[Item]):
    """The waiting messages of one device, in order. It is a `Waiter` of `amqprouter.scheduling.turns`."""

    __slots__ = ("device", "due", "earned_in", "earned_with", "holds", "is_parked", "items", "name", "place")

    def __init__(self, name: str, device: Device[Item]) -> None:
        self.name = name
        self.device = device
        self.items: deque[Waiting[Item]] = deque()
        self.place = Place.NOWHERE
        self.due = 0.0  # while asleep
        self.holds: tuple[Meter, ...] = ()  # shared buckets that it is next to take from
        self.is_parked = False
        self.earned_in = 0.0
        self.earned_with: object = None

    @property
    def priority(self) -> int:
        """As `Waiter` has it."""
        return self.device.terms.device_class.priority

    @property
    def weight(self) -> float:
        """As `Waiter` has it."""
        return self.device.terms.device_class.weight

    @property
    def size(self) -> int:
        """As `Waiter` has it."""
        return self.items[0].size
