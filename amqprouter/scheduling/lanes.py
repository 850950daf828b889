"""A device in the scheduler's memory, and the lane in which its messages wait."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from amqprouter.scheduling.limit import SLACK, State
from amqprouter.scheduling.policy import Meter, Policy
from amqprouter.scheduling.timer_wheel import TimerWheel
from amqprouter.scheduling.turns import GroupedTurns

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


class Waiting(NamedTuple):  # which cannot be generic before Python 3.11
    """A message that waits."""

    item: Any
    size: int
    since: float
    is_paid: bool
    """Whether its limits were charged when it came: what is not delayed is measured as it arrives."""
    publisher: str = ""
    """Who sent it, where that is not the device."""


class Device(Generic[Item]):
    """What is known of a device. There may be a million of these, so every slot counts."""

    __slots__ = ("in_flight", "lane", "policy", "state")

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.state: State = policy.limit.start
        self.lane: Lane[Item] | None = None  # made when needed: most devices never wait
        self.in_flight = 0

    def own_wait(self, size: int, now: float) -> float:
        """Seconds until the device's own limit has room for a message of `size` bytes; 0 when it has."""
        policy, state = self.policy, self.state
        if policy.interval:  # the usual limit, without looking at what else there could be
            over = (state if state > now else now) - now + policy.interval - policy.tolerance  # type: ignore[operator]
            return over + SLACK if over > 0.0 else 0.0
        return policy.limit.wait(state, size, now)

    def paid(self, now: float) -> bool:
        """Take a message from all buckets, if that is at most the device's own and it has room; whether it did."""
        policy, state = self.policy, self.state
        interval = policy.interval
        if interval:
            full_at: float = (state if state > now else now) + interval  # type: ignore[operator]
            if full_at - now <= policy.tolerance:
                self.state = full_at
                return True
            return False
        return policy.is_free

    def blocker(self, size: int, now: float) -> Device[Item] | Meter | None:
        """What has no room for a message of `size` bytes: the device's limit, a bucket that it shares, or nothing."""
        policy = self.policy
        if not policy.device_class.is_shadow and self.own_wait(size, now):
            return self
        for meter in policy.meters:
            if not meter.is_shadow:
                is_others = meter.holder is not None and meter.holder is not self.lane
                if is_others or meter.limit.wait(meter.state, size, now):
                    return meter
        return None

    def charge(self, size: int, now: float) -> bool:
        """Take a message from every bucket that it concerns; from one in shadow mode only if it has room.

        Returns whether all of them had.
        """
        policy = self.policy
        if policy.interval:
            state = self.state
            self.state = (state if state > now else now) + policy.interval  # type: ignore[operator]
            return True
        device_class = policy.device_class
        would_wait = False
        if device_class.is_shadow and policy.limit.wait(self.state, size, now):
            would_wait = True
        else:
            self.state = policy.limit.taken(self.state, size, now)
        for meter in policy.meters:
            if meter.is_shadow and meter.limit.wait(meter.state, size, now):
                would_wait = True
            else:
                meter.state = meter.limit.taken(meter.state, size, now)
        return not would_wait

    def expected_wait(self, held: int, size: int, now: float) -> float:
        """Seconds until one more message, behind `held` others, would have its turn, as far as the limits go."""
        policy = self.policy
        wait = 0.0
        if not policy.device_class.is_shadow:
            wait = self.own_wait(size, now)
            if held:
                wait += held * policy.interval or policy.limit.backlog(held, held * size)
        for meter in policy.meters:
            if not meter.is_shadow:
                ahead = meter.turns.count + (meter.holder is not None)
                ahead *= held + 1  # the others take turns with each of the device's own
                wait = max(wait, meter.limit.wait(meter.state, size, now) + meter.limit.backlog(ahead, ahead * size))
        return wait


class Lane(Generic[Item]):
    """The waiting messages of one device, in order. It is a `Member` of `amqprouter.scheduling.turns`."""

    __slots__ = ("device", "due", "earned_in", "earned_with", "holds", "is_parked", "items", "name", "place")

    def __init__(self, name: str, device: Device[Item]) -> None:
        self.name = name
        self.device = device
        self.items: deque[Waiting] = deque()
        self.place = Place.NOWHERE
        self.due = 0.0  # while asleep
        self.holds: tuple[Meter, ...] = ()  # shared buckets that it is next to take from
        self.is_parked = False
        self.earned_in = 0.0
        self.earned_with: object = None

    @property
    def priority(self) -> int:
        """As `Waiter` has it."""
        return self.device.policy.device_class.priority

    @property
    def weight(self) -> float:
        """As `Waiter` has it."""
        return self.device.policy.device_class.weight

    @property
    def size(self) -> int:
        """As `Waiter` has it; 0 for one that was emptied while it stood in line."""
        return self.items[0].size if self.items else 0

    @property
    def group(self) -> str:
        """As `Member` has it: those whom one publisher speaks for."""
        return self.device.policy.publisher


class WaitingRoom(Generic[Item]):
    """Lanes by device, those that take turns, those asleep."""

    def __init__(self) -> None:
        self.lanes: dict[str, Lane[Item]] = {}
        self.ready: GroupedTurns[Lane[Item]] = GroupedTurns()
        self._wheel: TimerWheel[Lane[Item]] = TimerWheel()
        self.waiting = 0
        """Messages that wait, for room or for a limit."""
        self.throttled = 0
        """Those of them that wait for a limit."""

    def lane(self, name: str, device: Device[Item]) -> Lane[Item]:
        """The device's lane, made if need be."""
        lane = device.lane
        if lane is None:
            lane = device.lane = self.lanes[name] = Lane(name, device)
        return lane

    def enqueue(self, name: str, device: Device[Item], waiting: Waiting) -> Lane[Item]:
        """Put a message at the end of its device's lane; one that was empty stands nowhere yet."""
        lane = device.lane or self.lane(name, device)
        lane.items.append(waiting)
        self.waiting += 1
        if lane.place >= Place.ASLEEP:
            self.throttled += 1
        return lane

    def move(self, lane: Lane[Item], place: int) -> None:
        """Note where a lane stands."""
        if lane.place >= Place.ASLEEP:
            if place < Place.ASLEEP:
                self.throttled -= len(lane.items)
        elif place >= Place.ASLEEP:
            self.throttled += len(lane.items)
        lane.place = place

    def make_ready(self, lane: Lane[Item]) -> None:
        """Have a lane take turns."""
        self.move(lane, Place.READY)
        self.ready.push(lane)

    def block(self, lane: Lane[Item], blocker: Device[Item] | Meter, now: float) -> None:
        """Have a lane wait for what has no room for its first message."""
        size = lane.size
        if isinstance(blocker, Device):
            self.give_up(lane)
            self._sleep(lane, now + blocker.own_wait(size, now), now)
            return
        meters = lane.device.policy.meters
        self.give_up(lane, meters[: meters.index(blocker) + 1])
        if blocker.holder is None:
            blocker.holder = lane
            lane.holds += (blocker,)
        if blocker.holder is lane:
            self._sleep(lane, now + blocker.limit.wait(blocker.state, size, now), now)
        else:
            self.move(lane, Place.QUEUED)
            blocker.turns.push(lane)

    def sleep(self, name: str, device: Device[Item], waiting: Waiting, due: float, now: float) -> None:
        """Have the first message of a device without a lane wait until `due`: what limits do most often."""
        lane = device.lane = self.lanes[name] = Lane(name, device)
        lane.items.append(waiting)
        lane.place, lane.due = Place.ASLEEP, due
        self.waiting += 1
        self.throttled += 1
        self._wheel.push(due, lane, now)

    def _sleep(self, lane: Lane[Item], due: float, now: float) -> None:
        self.move(lane, Place.ASLEEP)
        lane.due = due
        self._wheel.push(due, lane, now)

    def give_up(self, lane: Lane[Item], keep: Sequence[Meter] = ()) -> None:
        """The lane is no longer next at the shared buckets that it holds, but for those to keep."""
        for meter in lane.holds:
            if meter not in keep:
                meter.holder = None
                while meter.turns.count and meter.holder is None:
                    following = meter.turns.pop()
                    if following.items:  # else it was emptied while it stood in line
                        meter.holder = following
                        following.holds += (meter,)
                        self.make_ready(following)
        lane.holds = tuple(meter for meter in lane.holds if meter in keep)

    def leave(self, lane: Lane[Item]) -> None:
        """A lane has nothing left that waits."""
        self.move(lane, Place.NOWHERE)
        if not lane.is_parked:
            lane.device.lane = None
            del self.lanes[lane.name]

    def wake(self, now: float) -> None:
        """Have the lanes take turns whose moment has come."""
        for due, lane in self._wheel.pop_due(now):
            if lane.place == Place.ASLEEP and lane.due == due:
                self.throttled -= len(lane.items)
                lane.place = Place.READY
                self.ready.push(lane)

    def due(self) -> float | None:
        """When to `wake` next; None when nobody sleeps."""
        return self._wheel.next()

    def pop(self, lane: Lane[Item]) -> Waiting:
        """Take the first message out of a lane that has had its turn."""
        waiting = lane.items.popleft()
        self.waiting -= 1
        if lane.holds:
            self.give_up(lane)
        if lane.items:
            self.ready.push(lane)
        else:
            lane.place = Place.NOWHERE
            if not lane.is_parked:
                lane.device.lane = None
                del self.lanes[lane.name]
        return waiting

    def empty(self, lane: Lane[Item]) -> list[Item]:
        """Take all messages out of a lane that does not take turns."""
        self.give_up(lane)
        in_line = lane.place == Place.QUEUED
        self.move(lane, Place.NOWHERE)
        items = [waiting.item for waiting in lane.items]
        self.waiting -= len(items)
        lane.items.clear()
        self.leave(lane)
        if in_line and lane.is_parked:  # nobody is called out of the line, so another takes its place at the device
            lane.device.lane = None
            self.lane(lane.name, lane.device).is_parked = True
        return items

    def release(self, is_overdue: Callable[[Item], bool]) -> list[Item]:
        """Take all messages out of the lanes that wait for a limit and whose first one is overdue."""
        asleep = [lane for lane in self.lanes.values() if lane.place >= Place.ASLEEP and lane.items]
        return [item for lane in asleep if is_overdue(lane.items[0].item) for item in self.empty(lane)]

    def withdraw(self, meters: Sequence[Meter]) -> list[Item]:
        """Take everything out; `meters` are all shared buckets."""
        items = [waiting.item for lane in self.lanes.values() for waiting in lane.items]
        self.clear(meters)
        for lane in list(self.lanes.values()):
            lane.items.clear()
            self.leave(lane)
        self.waiting = 0
        return items

    def clear(self, meters: Sequence[Meter]) -> None:
        """Have no lane stand anywhere, nor hold any of the shared buckets."""
        self.ready, self._wheel = GroupedTurns(), TimerWheel()
        for meter in meters:
            meter.holder, meter.turns = None, GroupedTurns()
        for lane in self.lanes.values():
            self.move(lane, Place.NOWHERE)
            lane.holds = ()
