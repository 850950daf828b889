"""Whose message goes next: limits for devices and those above them, and turns among those that have room.

Theory of operation. A message runs at once when its device's limit has room (`amqprouter.scheduling.limit`), when every
bucket that it shares with others has (`amqprouter.scheduling.policy`), when there is room in flight, and when nobody
waits for that room; the usual case costs one look-up and some arithmetic. Nothing is taken from any bucket unless all
of them have room.

Otherwise the class of the device says what happens. ``drop`` and ``reject`` measure messages as they come. ``delay``
has them wait in the device's lane, in order, which stands in one place at a time:

- taking turns for room (`amqprouter.scheduling.turns`);
- asleep until its limit has room (`amqprouter.scheduling.timer_wheel`);
- or behind other lanes at a bucket that they share. Of those, one at a time is next to take from the bucket: it alone
  sleeps and wakes, so that a thousand lanes do not all wake for one token. It may queue at a later bucket meanwhile,
  but gives up later ones when an earlier one holds it up: so no two lanes ever wait for each other.

Of the room in flight an eighth is a reserve, for devices that have less in flight than there is room left (a dynamic
threshold, Choudhury and Hahne, 1998): they run at once, even before those who take turns, but in the long run not more
often than these. So a device that sends more than the targets take yields to quiet ones, without any rate being
configured, and nobody starves. Devices for which one publisher speaks count as one in this, and take turns as one.

What runs in one turn of the reactor is bounded by a budget: what is over it takes turns too, so that nobody's large
messages, however many are let go at once, keep the others from theirs.

Each step is O(1), however many devices wait.

Bounds. A device may have `max_waiting_per_device` messages waiting for a limit, for at most `max_hold` seconds, and all
devices together `max_waiting`: one more would fill the consumers' prefetch window and stall everybody else, so it is to
be parked. Messages that wait for room only are bounded by the prefetch. Devices in memory are bounded by `max_devices`:
those whose buckets are full equal new ones and are forgotten, sooner when memory is short.

The core is pure: `now` is seconds on a monotonic clock, and whoever calls `take` decides when.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Generic, Protocol, TypeVar

from amqprouter.scheduling.busiest import Busiest, Busy, Talkers
from amqprouter.scheduling.decision import RUN, Decision
from amqprouter.scheduling.explanation import Explanation, explain
from amqprouter.scheduling.known_devices import KnownDevices
from amqprouter.scheduling.lanes import Device, Lane, Place, Waiting, WaitingRoom
from amqprouter.scheduling.limit import Limit
from amqprouter.scheduling.policy import (
    NOTHING,
    ClassOptions,
    DeviceGrant,
    Granted,
    Meter,
    Policy,
    PolicyBook,
    Rates,
    SharedOptions,
)

Item = TypeVar("Item")

MAX_OVERRIDES = 10_000
"""Limits set by hand. More of them are better granted by the checker, or made a class."""
TALKERS = 4096
"""Devices counted for `top`; while there are no more, the counts are exact."""
RESERVE = 1 / 8
"""Of the room in flight, what is left to devices that have little in flight."""
SHARE_OF_OWN = 4
"""One in so many of the messages that may wait for a limit is left to devices that publish for themselves."""
_NOBODY: Mapping[str, int] = {}
_TURNED_AWAY = Decision.PARK, Decision.DROP, Decision.REFUSED


class Limits(Rates, Protocol):
    """Rates and bounds; ``[scheduler]`` of the configuration says what each means."""

    @property
    def max_waiting_per_device(self) -> int: ...
    @property
    def max_waiting(self) -> int: ...
    @property
    def max_hold(self) -> float: ...
    @property
    def max_in_flight(self) -> int: ...
    @property
    def max_devices(self) -> int: ...


class Scheduler(Generic[Item]):
    """Schedules items of any kind by the name of their device. `counts` gets the totals of
    `amqprouter.counters.Counters.scheduled`; `complain` is told what is wrong with what a checker grants.

    :raises ValueError: a limit or a pattern is none; configurations that were validated have no such.
    """

    def __init__(
        self,
        limits: Limits,
        classes: Sequence[ClassOptions] = (),
        tenants: Sequence[SharedOptions] = (),
        counts: defaultdict[str, int] | None = None,
        complain: Callable[[str], None] = lambda problem: None,
        publishers: Sequence[SharedOptions] = (),
    ) -> None:
        self._counts: defaultdict[str, int] = defaultdict(int) if counts is None else counts
        self._complain = complain
        self._known: KnownDevices[Item] = KnownDevices()
        self._devices = self._known.by_name
        self._room: WaitingRoom[Item] = WaitingRoom()
        self._talkers, self._refused = Talkers(TALKERS), Talkers(TALKERS)
        self._busiest = Busiest()
        self.overrides: dict[str, Limit] = {}
        """Limits set by hand, by device."""
        self.in_flight = 0
        self.budget = sys.maxsize
        """What may still run in this turn of the reactor, in whatever unit: nothing does from 0 down, but waits for its
        turn. Whoever runs what is given out sets and lowers it."""
        self._book = PolicyBook(limits, classes, tenants, complain, publishers)
        self._in_flight_by: dict[str, int] = {}
        """Of `in_flight`, those that publishers sent who are not the device, by publisher."""
        self._overtaken = 0  # messages that ran before others who took turns, less the turns taken since
        self._use(limits)

    def _use(self, limits: Limits) -> None:
        self._limits = limits
        self._max_in_flight = limits.max_in_flight
        self._reserve = int(limits.max_in_flight * RESERVE)
        self._open = limits.max_in_flight - self._reserve

    def has_class(self, name: str) -> bool:
        """Whether there is a class of this name."""
        return name in self._book.classes

    @property
    def only_class(self) -> str:
        """The name of the class of all devices, where there is one only; else empty."""
        classes = self._book.classes
        return next(iter(classes)) if len(classes) == 1 else ""

    def class_of(self, name: str) -> str:
        """The class of a device; empty where it is not in memory."""
        device = self._devices.get(name)
        return "" if device is None else device.policy.device_class.name

    def configure(
        self,
        limits: Limits,
        classes: Sequence[ClassOptions],
        tenants: Sequence[SharedOptions],
        now: float,
        publishers: Sequence[SharedOptions] = (),
    ) -> list[Item]:
        """Use these limits and bounds from now on; what was used stays used, and what waits goes by the new ones.

        Returns what would wait too long by these, in order for each device: it is to be parked.
        """
        book = PolicyBook(limits, classes, tenants, self._complain, publishers)
        self._book.retire(book, now)
        self._book = book
        self._use(limits)
        lanes = [lane for lane in self._room.lanes.values() if lane.items]
        self._room.clear(self._book.meters())
        for lane in lanes:
            self._renew(lane.name, lane.device, lane.device.policy.granted, now)
        return [item for lane in lanes for item in self._wait_or_leave(lane, now)]

    def set_limit(self, name: str, limit: Limit | None, now: float) -> list[Item]:
        """Give a device a limit of its own, whatever its class or checker says; None takes it away again.

        Returns what would wait too long by it, in order: it is to be parked.

        :raises ValueError: too many devices have one.
        """
        if limit is None:
            self.overrides.pop(name, None)
        elif name not in self.overrides and len(self.overrides) >= MAX_OVERRIDES:
            raise ValueError(f"{MAX_OVERRIDES} devices have limits of their own already; make a class for them")
        else:
            self.overrides[name] = limit
        device = self._devices.get(name)
        if device is None:
            return []
        self._renew(name, device, device.policy.granted, now)
        if device.lane is None or device.lane.place != Place.ASLEEP:
            return []
        return self._wait_or_leave(device.lane, now)

    def _wait_or_leave(self, lane: Lane[Item], now: float) -> list[Item]:
        """Have a lane that stands nowhere or sleeps take turns, or else the messages that would wait too long."""
        wait = lane.device.expected_wait(len(lane.items) - 1, lane.size, now)
        if lane.is_parked or wait <= self._limits.max_hold:  # what is parked already is newer than these
            self._room.make_ready(lane)
            return []
        return self._room.empty(lane)

    # In.

    def offer(
        self,
        name: str,
        item: Item,
        now: float,
        size: int = 0,
        grant: DeviceGrant | None = None,
        from_parking: bool = False,
        publisher: str = "",
        publisher_limits: str | None = None,
    ) -> Decision:
        """A message of `size` bytes has come from the device `name`, of which a checker says `grant`: in force at once,
        for what waits too; or `from_parking`, said it then, which counts only where nothing is known of the device.

        :param publisher: who sent it, where that is not the device; `finished` must be told the same.
        :param publisher_limits: what a checker says of the publisher's own, None where none was asked.
        """
        device = self._devices.get(name)
        granted: Granted | None = None
        if grant is not None:
            granted = grant.limits, grant.device_class, grant.tenant, grant.groups, publisher, publisher_limits
            if granted == NOTHING:
                granted = None
        elif publisher:
            granted = "", "", "", (), publisher, publisher_limits
        if device is None:
            device = self._add(name, granted, now)
        policy = device.policy
        if from_parking:
            granted = policy.granted
        if granted != policy.granted or policy.retired_at is not None:
            policy = self._renew(name, device, granted, now)
            if device.lane is not None and device.lane.place == Place.ASLEEP:
                self._room.make_ready(device.lane)  # it sleeps by what held till now
        if device.lane is None and self.in_flight < self._open and not self._room.ready.count and self.budget > 0:
            if device.paid(now):
                self._run(name, device, publisher)
                return RUN
            if policy.interval:
                wait = device.own_wait(size, now)
                if (
                    wait <= self._limits.max_hold
                    and policy.device_class.over == "delay"
                    and self._may_hold(0, publisher)
                ):
                    self._room.sleep(name, device, Waiting(item, size, now, False, publisher), now + wait, now)
                    self._counts[policy.counted_by[Decision.THROTTLED]] += 1
                    return Decision.THROTTLED
        decision = self._decide(name, device, Waiting(item, size, now, False, publisher), from_parking)
        if decision is RUN:
            self._run(name, device, publisher)
        else:
            self._counts[policy.counted_by[decision]] += 1
            if decision in _TURNED_AWAY:
                self._refused.count(name)
        return decision

    def _decide(self, name: str, device: Device[Item], coming: Waiting, from_parking: bool) -> Decision:
        lane, policy = device.lane, device.policy
        size, now = coming.size, coming.since
        if lane is not None and lane.is_parked and not from_parking:
            return Decision.PARK
        over = policy.device_class.over if not from_parking else "delay"
        is_behind = lane is not None and len(lane.items) > 0
        if is_behind and over == "delay":
            assert lane is not None
            if lane.place < Place.ASLEEP:
                self._room.enqueue(name, device, coming)
                return Decision.WAIT
            return self._hold(name, device, coming, from_parking)
        blocker = device.blocker(size, now)
        if blocker is not None:
            if over != "delay":
                return Decision.DROP if over == "drop" else Decision.REFUSED
            decision = self._hold(name, device, coming, from_parking)
            if decision is Decision.THROTTLED:
                assert device.lane is not None
                self._room.block(device.lane, blocker, now)
            return decision
        runs = not is_behind and self._has_room(device, coming.publisher)
        if runs or over != "delay":
            self._charge(device, size, now)
        if runs:
            if self._room.ready.count:
                self._overtaken += 1
            return Decision.RUN
        lane = self._room.enqueue(name, device, coming if over == "delay" else coming._replace(is_paid=True))
        if not is_behind:
            self._room.make_ready(lane)
        return Decision.WAIT

    def _has_room(self, device: Device[Item], publisher: str) -> bool:
        """Whether a message may run at once as far as the room in flight goes."""
        if self.budget <= 0:
            return False
        if not self._room.ready.count and self.in_flight < self._open:
            return True
        is_quiet = self.in_flight + self._has_in_flight(device, publisher) < self._max_in_flight
        return is_quiet and (not self._room.ready.count or self._overtaken < self._reserve)

    def _has_in_flight(self, device: Device[Item], publisher: str) -> int:
        """How much is under way of a device, or of all for which its publisher speaks."""
        return self._in_flight_by.get(publisher, 0) if publisher else device.in_flight

    def _hold(self, name: str, device: Device[Item], coming: Waiting, from_parking: bool) -> Decision:
        """Have a message wait for a limit, if there is room for that and it would not take too long."""
        lane, size, now = device.lane, coming.size, coming.since
        held = len(lane.items) if lane is not None else 0
        # What comes out of the parking queue can't go back there, for it would be behind newer messages.
        if not from_parking and not (
            self._may_hold(held, coming.publisher) and device.expected_wait(held, size, now) <= self._limits.max_hold
        ):
            return Decision.PARK
        self._room.enqueue(name, device, coming)
        return Decision.THROTTLED

    def _may_hold(self, held: int, publisher: str) -> bool:
        """Whether one more message may wait for a limit, of a device of which so many do."""
        most = self._limits.max_waiting
        if publisher:  # of whose devices there may be thousands
            most -= most // SHARE_OF_OWN
        return held < self._limits.max_waiting_per_device and self._room.throttled < most

    # Out.

    def take(self, now: float) -> list[Item]:
        """The items whose turn has come; they count as in flight."""
        return list(self.each(now))

    def each(self, now: float) -> Iterator[Item]:
        """The items whose turn has come, one by one, for as long as the budget lasts; they count as in flight."""
        room = self._room
        room.wake(now)
        ready = room.ready
        while ready.count and self.in_flight < self._max_in_flight and self.budget > 0:
            lane = ready.pop()
            device, waiting = lane.device, lane.items[0]
            in_flight = self._has_in_flight(device, waiting.publisher)
            if self.in_flight >= self._open and self.in_flight + in_flight >= self._max_in_flight:
                ready.put_back(lane)  # the reserve is not for this one
                break
            if not waiting.is_paid and not device.paid(now):
                blocker = device.blocker(waiting.size, now)
                if blocker is not None:
                    room.block(lane, blocker, now)
                    continue
                self._charge(device, waiting.size, now)
            room.pop(lane)
            self._overtaken -= self._overtaken > 0
            self._run(lane.name, device, waiting.publisher)
            yield waiting.item

    def finished(self, name: str, publisher: str = "") -> None:
        """An item of the device `name`, sent by this publisher if not by itself, is no longer in flight."""
        self.in_flight -= 1
        if publisher:
            self._finished_of(publisher, 1)
        device = self._devices.get(name)
        if device is not None:
            device.in_flight -= 1

    def finished_all(self, names: list[str], publishers: Mapping[str, int] = _NOBODY) -> None:
        """An item of each of these devices is no longer in flight.

        :param publishers: how many of them each publisher sent who is not the device.
        """
        self.in_flight -= len(names)
        for publisher, count in publishers.items():
            self._finished_of(publisher, count)
        devices = self._devices
        for name in names:
            device = devices.get(name)
            if device is not None:
                device.in_flight -= 1

    def _finished_of(self, publisher: str, count: int) -> None:
        left = self._in_flight_by.get(publisher, 0) - count
        if left > 0:
            self._in_flight_by[publisher] = left
        else:
            self._in_flight_by.pop(publisher, None)

    @property
    def publishers_in_flight(self) -> int:
        """Publishers of whom something is in flight that they sent for other devices."""
        return len(self._in_flight_by)

    def due(self) -> float | None:
        """When `take` will next have something by the passing of time alone; None when nothing waits for that."""
        return self._room.due()

    def release(self, is_overdue: Callable[[Item], bool]) -> list[Item]:
        """Take out all messages of those devices that wait for a limit and whose first one is overdue, in order."""
        return self._room.release(is_overdue)

    def withdraw(self) -> list[Item]:
        """Take everything that waits out of the scheduler, for a stop: it goes back to its queue on the broker."""
        return self._room.withdraw(self._book.meters())

    # Being parked.

    def park(self, name: str, now: float) -> None:
        """From now on what comes from this device gets `Decision.PARK`: older messages of it are in its parking queue.

        Those are offered with `from_parking`; they wait behind what waits already.
        """
        device = self._devices.get(name) or self._add(name, None, now)
        self._room.lane(name, device).is_parked = True

    def unpark(self, name: str) -> None:
        """The parking queue is empty and everything that was in it has been offered: what comes is newer than that."""
        lane = self._room.lanes.get(name)
        if lane is not None:
            lane.is_parked = False
            if not lane.items:
                self._room.leave(lane)

    # Being asked.

    def explain(self, name: str, now: float, size: int = 0) -> Explanation:
        """Which limits hold for a device, what is left of them, and when a message of `size` bytes may pass: without a
        size, the first one that waits."""
        device = self._devices.get(name)
        if device is None:
            policy = self._book.policy(name, None, self.overrides.get(name), now)
        elif device.policy.retired_at is not None:
            policy = self._renew(name, device, device.policy.granted, now)
        else:
            policy = device.policy
        return explain(name, device, policy, name in self.overrides, size, now)

    def held_by(self, name: str, size: int, now: float) -> str:
        """The kind of limit that a message of this device would wait for, and its class, with a space between."""
        device = self._devices[name]
        blocker = device.blocker(size, now)
        kind = blocker.key.partition(" ")[0] if isinstance(blocker, Meter) else "device"
        return f"{kind} {device.policy.device_class.name}"

    def top(self, count: int, now: float) -> list[Busy]:
        """The busiest devices since the last time that somebody asked."""
        waiting = {name: len(lane.items) for name, lane in self._room.lanes.items()}
        return self._busiest.compare(count, now, self._talkers.counts, self._refused.counts, waiting)

    @property
    def waiting(self) -> int:
        """Messages that wait, for room or for a limit."""
        return self._room.waiting

    @property
    def throttled_waiting(self) -> int:
        """Those of them that wait for a limit."""
        return self._room.throttled

    @property
    def known_devices(self) -> int:
        """Devices in memory."""
        return len(self._devices)

    def tidy(self, now: float) -> None:
        """Look at a few devices whether they are idle; call it for every batch of messages."""
        self._known.tidy(now)

    # Inside.

    def _add(self, name: str, granted: Granted | None, now: float) -> Device[Item]:
        policy = self._book.policy(name, granted, self.overrides.get(name), now)
        return self._known.add(name, policy, self._limits.max_devices, now)

    def _renew(self, name: str, device: Device[Item], granted: Granted | None, now: float) -> Policy:
        """Look up a device's policy again, keeping what it has used."""
        before = device.policy
        policy = self._book.policy(name, granted, self.overrides.get(name), now)
        if policy is not before:
            if policy.limit is not before.limit:
                at = now if before.retired_at is None else before.retired_at
                device.state = before.limit.converted(device.state, at, policy.limit)
            before.members -= 1
            policy.members += 1
            device.policy = policy
        return policy

    def _charge(self, device: Device[Item], size: int, now: float) -> None:
        if not device.charge(size, now):
            self._counts[f"shadow {device.policy.device_class.name}"] += 1

    def _run(self, name: str, device: Device[Item], publisher: str) -> None:
        if publisher:
            self._in_flight_by[publisher] = self._in_flight_by.get(publisher, 0) + 1
        self._counts[device.policy.counted_as] += 1
        device.in_flight += 1
        self.in_flight += 1
        talkers = self._talkers
        if name in talkers.counts:
            talkers.counts[name] += 1
        else:
            talkers.count(name)
