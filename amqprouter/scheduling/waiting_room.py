"""Where messages wait: the lanes of the devices, and the places in which lanes stand.

House rules. A lane with messages stands in exactly one `Place`; one without messages is forgotten, unless its device is
parked. Of the lanes that a shared bucket has no room for, one holds the bucket, that is, is next to take from it: it
alone sleeps and wakes, so that a thousand lanes do not all wake for one token. Buckets are held in the order in which
terms list them: a lane that an earlier one holds up gives up the later ones, so no two lanes ever wait for each other.

`sleep`, `wake` and `pop` do in place what `move` and `leave` would: every message that waits goes through them, and the
calls are an eighth of its cost (``benchmarks.fairness_core``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from amqprouter.scheduling.lanes import Device, Lane, Place, Waiting
from amqprouter.scheduling.policy import Meter
from amqprouter.scheduling.timer_wheel import TimerWheel
from amqprouter.scheduling.turns import Turns

Item = TypeVar("Item")


class WaitingRoom(Generic[Item]):
    """Lanes by device, those that take turns, those asleep."""

    def __init__(self) -> None:
        self.lanes: dict[str, Lane[Item]] = {}
        self.ready: Turns[Lane[Item]] = Turns()
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

    def enqueue(self, name: str, device: Device[Item], waiting: Waiting[Item]) -> Lane[Item]:
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
        meters = lane.device.terms.meters
        self.give_up(lane, meters[: meters.index(blocker) + 1])
        if blocker.holder is None:
            blocker.holder = lane
            lane.holds += (blocker,)
        if blocker.holder is lane:
            self._sleep(lane, now + blocker.limit.wait(blocker.state, size, now), now)
        else:
            self.move(lane, Place.QUEUED)
            blocker.turns.push(lane)

    def sleep(self, name: str, device: Device[Item], waiting: Waiting[Item], due: float, now: float) -> None:
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

    def pop(self, lane: Lane[Item]) -> Waiting[Item]:
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

    def let_go(self, is_overdue: Callable[[Item], bool]) -> list[Item]:
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
        self.ready, self._wheel = Turns(), TimerWheel()
        for meter in meters:
            meter.holder, meter.turns = None, Turns()
        for lane in self.lanes.values():
            self.move(lane, Place.NOWHERE)
            lane.holds = ()
