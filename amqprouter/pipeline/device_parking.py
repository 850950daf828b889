"""Devices over their rate whose messages are parked in the broker, and drained from there at their rate.

House rules. A device's messages keep their order: while there may be anything in its parking queue, what comes newly
goes behind that, and what comes out of the parking queue is offered to the scheduler, which lets it go at the device's
rate. A message comes out of a parking queue with the verdict it went in with; one without is nobody's, and goes to the
dead letters.

Theory of operation. The scheduler says ``PARK`` for the first message that finds too many waiting; from then on the
device is parked: the scheduler says so for everything that does not come out of its parking queue. The parking queue
hands out a few messages at a time, which wait in the device's lane behind those that waited there before. When all that
is left of the parking queue has come out, by our own count and by the broker's word, the device is no longer parked:
newer messages wait behind those in its lane. A parking queue that has been empty for `IDLE` seconds is left, and its
queue goes away.

Bounds. A parking queue takes `max_messages`, and `max_devices` may have one: more than that is not taken, and rejected
by whoever asked, for it would fill the consumers' prefetch window and stall everybody else. Devices for which one
publisher speaks may have a quarter of those. The same goes for what a
parking queue does not take, for whatever reason of the broker's: its queue cannot be made, takes fewer, or does not
confirm. A device whose parking queue has no queue is not parked: a few of its messages wait in memory, as before there
was need of a parking queue.

Parking queues that are found, after a restart or because another gateway made them, may hold anything; so their devices
count as parked until the broker has said that there is nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.logger import Logger
from zope.interface import implementer

from amqprouter.clock import Clock
from amqprouter.pipeline.message import Message
from amqprouter.pipeline.ports import CANNOT_PARK, IDeviceParking, IDeviceParkingUser, IHoldsDeliveries, IParkingQueue
from amqprouter.pipeline.settlement import Settlement
from amqprouter.scheduling.decision import Decision
from amqprouter.scheduling.scheduler import Scheduler

IDLE = 30.0
"""Seconds that an empty parking queue is kept: making one takes several questions to the broker."""
SWEEP_EVERY = 5.0
"""Seconds between two looks at which parking queues are idle, or still."""
PUBLISHERS_SHARE = 4
"""A publisher over its limits may have one in so many of all parking queues for the devices that it speaks for: a
bridge with thousands of them leaves some to others."""
CHECKS = 20
"""Parking queues from which nothing comes that the broker is asked about in one sweep: ten thousand take the better
part of an hour, and nothing waits for it but the return to the short way."""


class _Parked:
    """A device that has a parking queue."""

    __slots__ = ("idle_since", "is_checking", "is_ours", "is_parked", "out", "parking_queue", "publisher")

    def __init__(self, parking_queue: IParkingQueue, publisher: str) -> None:
        self.parking_queue = parking_queue
        self.publisher = publisher  # who spoke for it when it was parked
        self.out = 0  # came out of the parking queue, not yet settled
        self.is_parked = False
        self.is_checking = False
        self.is_ours = False  # whether we have put anything in or got anything out
        self.idle_since: float | None = None

    @property
    def has_any(self) -> bool:
        """Whether the broker has something of it, or may have."""
        return self.parking_queue.confirmed > 0 or not self.parking_queue.backlog


class _FromParkingQueue(Settlement):
    """Of a message that came out of a parking queue: `release` answers for it there."""

    __slots__ = ("outer", "release")

    def __init__(
        self, outer: Settlement, finish: Callable[[Settlement], None], release: Callable[[Settlement], None]
    ) -> None:
        super().__init__(outer.message, outer.tag, outer.ledger, finish)
        self.outer = outer
        self.release = release


@implementer(IDeviceParkingUser, IHoldsDeliveries)
class ParkedDevices:
    """What the pipeline gives messages to that are over their device's rate.

    :param finish: is called with the settlement of each message that was parked once the parking queue has it.
    :param clock: provides ``seconds`` and ``callLater``.
    :param route: hands a message, which counts as in flight, to its targets.
    :param wake: asks for a flush in the reactor's next turn.
    :param defer: parks a message, or rejects it where there is no room.
    :param reject: rejects a message that was to be parked, and that its parking queue did not take.
    """

    log = Logger()

    def __init__(
        self,
        clock: Clock,
        scheduler: Scheduler[Settlement],
        parking_queues: IDeviceParking,
        *,
        max_messages: int,
        max_devices: int,
        route: Callable[[Settlement], None],
        finish: Callable[[Settlement], None],
        wake: Callable[[], None],
        defer: Callable[[Settlement], None],
        reject: Callable[[Settlement], None],
    ) -> None:
        self._clock = clock
        self._scheduler = scheduler
        self._parking_queues = parking_queues
        self._max_messages = max_messages
        self._max_devices = max_devices
        self._route = route
        self._finish = finish
        self._wake = wake
        self._defer = defer
        self._reject = reject
        self.entering = 0
        """Messages on their way into parking queues."""
        self._devices: dict[str, _Parked] = {}
        self._by_publisher: Counter[str] = Counter()  # devices
        self._dirty: set[IParkingQueue] = set()
        self._sweeping: Any = None
        parking_queues.use(self)

    @property
    def devices(self) -> int:
        """Devices with messages in their parking queues, or whose parking queues may hold some; not those with all on
        their way there."""
        return sum(parked.is_parked and parked.has_any for parked in self._devices.values())

    @property
    def messages(self) -> int:
        """Messages in all parking queues, as far as this gateway knows."""
        return sum(parked.parking_queue.confirmed for parked in self._devices.values())

    def backlog(self, device: str) -> int:
        """Messages in this device's parking queue, by the broker's word."""
        parked = self._devices.get(device)
        return 0 if parked is None else parked.parking_queue.confirmed

    # In.

    def park(self, settlement: Settlement) -> bool:
        """Park a message, whose verdict is known, behind all others of its device; False when there is no room."""
        message = settlement.message
        parked = self._devices.get(message.device)
        if not self._has_room(message.other_publisher) if parked is None else self._is_full(parked):
            return False
        if parked is not None and parked.parking_queue.refusal:
            parked.idle_since = None  # it is still wanted
            return False
        parked = self._park(message.device, message.other_publisher)
        parked.is_ours = True
        self.entering += 1
        receipt = Settlement(message, settlement.tag, settlement.ledger, partial(self._entered, settlement))
        parked.parking_queue.park(message, receipt)
        self._dirty.add(parked.parking_queue)
        return True

    def _has_room(self, publisher: str) -> bool:
        """Whether one more device may have a parking queue, that this publisher speaks for if not itself."""
        share = self._max_devices // PUBLISHERS_SHARE
        return len(self._devices) < self._max_devices and not (publisher and self._by_publisher[publisher] >= share)

    def _is_full(self, parked: _Parked) -> bool:
        return parked.parking_queue.backlog >= self._max_messages

    def _entered(self, settlement: Settlement, receipt: Settlement) -> None:
        """The parking queue has a message, or will never take it."""
        self.entering -= 1
        if isinstance(settlement, _FromParkingQueue):
            settlement.release(receipt)
        elif receipt.refusals and receipt.refusals[0].startswith(CANNOT_PARK):
            self._reject(settlement)
        else:
            self._finish(receipt)

    def flush(self) -> None:
        """The end of a batch."""
        if self._dirty:
            dirty, self._dirty = self._dirty, set()
            for parking_queue in dirty:
                parking_queue.flush()
        self._parking_queues.flush()

    def _park(self, device: str, publisher: str = "") -> _Parked:
        parked = self._devices.get(device)
        if parked is None:
            parking_queue = self._parking_queues.of(device)
            parked = self._devices[device] = _Parked(parking_queue, publisher)
            self._by_publisher[publisher] += 1
            receive, changed = partial(self._receive, device, parked), partial(self._changed, device, parked)
            parking_queue.use(receive, changed, most=lambda: 0)
            self._sweep_later()
        if not parked.is_parked:
            parked.is_parked, parked.idle_since = True, None
            self._scheduler.park(device, self._clock.seconds())
        return parked

    # Out.

    def _receive(self, device: str, parked: _Parked, message: Message, settlement: Settlement) -> None:
        """A message comes out of the device's parking queue."""
        if message.verdict is None or message.device != device:
            settlement.refused("not proven: it was parked without a verdict")
            return
        if not parked.is_parked and parked.parking_queue.backlog > parked.out + 1:
            self._park(device)  # another gateway's
        parked.is_ours = True
        parked.out += 1
        release = partial(self._release, device, parked, settlement)
        inner = _FromParkingQueue(settlement, partial(self._finished, device, release), release)
        now = self._clock.seconds()
        decision = self._scheduler.offer(
            device,
            inner,
            now,
            len(message.body),
            message.verdict.identity,
            from_parking=True,
            publisher=message.other_publisher,
        )
        if decision is Decision.RUN:
            self._route(inner)
        self._wake()

    def _finished(self, device: str, release: Callable[[Settlement], None], inner: Settlement) -> None:
        self._scheduler.finished(device, inner.message.other_publisher)
        release(inner)

    def _release(self, device: str, parked: _Parked, outer: Settlement, answered: Settlement) -> None:
        if parked.parking_queue.owns(outer):
            parked.out -= 1
        if answered.refusals:
            outer.refused("; ".join(answered.refusals))
        else:
            outer.delivered()
        self._changed(device, parked)

    def release_overdue(self) -> None:
        """See `IHoldsDeliveries`: what waits for a limit is parked, and what came out of a parking queue goes back
        there."""
        for settlement in self._scheduler.release(lambda settlement: settlement.is_overdue):
            parked = self._devices.get(settlement.message.device)
            if not isinstance(settlement, _FromParkingQueue) or parked is None:
                self._defer(settlement)
            elif parked.parking_queue.owns(settlement.outer):
                self._park(settlement.message.device)
                parked.out -= 1
                parked.parking_queue.requeue(settlement.outer)
        self._wake()

    # What becomes of the parking queues.

    def _changed(self, device: str, parked: _Parked) -> None:
        """See whether the device can go without its parking queue, or has to."""
        if parked.is_parked and parked.parking_queue.refusal and parked.parking_queue.backlog <= parked.out:
            parked.is_parked = False
            self._scheduler.unpark(device)
        elif parked.is_parked and not parked.is_checking and parked.parking_queue.backlog <= parked.out:
            parked.is_checking = True
            self._parking_queues.check(device)

    def checked(self, device: str, messages: int | None) -> None:
        """See `IDeviceParkingUser`."""
        parked = self._devices.get(device)
        if parked is None:
            return
        parked.is_checking = False
        if parked.is_parked and messages == 0 and parked.parking_queue.backlog <= parked.out:
            parked.is_parked = False
            self._scheduler.unpark(device)

    def found(self, device: str) -> None:
        """See `IDeviceParkingUser`."""
        self._park(device)

    def abandoned(self, device: str) -> None:
        """See `IDeviceParkingUser`."""
        parked = self._devices.get(device)
        if parked is not None:
            parked.is_ours = True  # who else's?

    def gone(self, device: str) -> None:
        """See `IDeviceParkingUser`."""
        parked = self._devices.pop(device, None)
        if parked is not None:
            self._by_publisher[parked.publisher] -= 1
            if not self._by_publisher[parked.publisher]:
                del self._by_publisher[parked.publisher]
        if parked is not None and parked.is_parked:
            self._scheduler.unpark(device)

    def lost(self) -> None:
        """See `IDeviceParkingUser`."""
        for device, parked in self._devices.items():
            parked.out, parked.is_checking = 0, False
            if parked.parking_queue.backlog:
                self._park(device)

    # Idle and still ones.

    def _sweep_later(self) -> None:
        if self._sweeping is None:
            self._sweeping = self._clock.callLater(SWEEP_EVERY, self._sweep)

    def _sweep(self) -> None:
        self._sweeping = None
        now, checks = self._clock.seconds(), CHECKS
        for device, parked in list(self._devices.items()):
            if parked.is_parked:
                if not parked.out and checks:
                    checks -= 1
                    del self._devices[device]  # the next sweep begins with others
                    self._devices[device] = parked
                    parked.is_checking = True
                    self._parking_queues.check(device)
            elif parked.parking_queue.backlog:
                parked.idle_since = None
            elif parked.idle_since is None:
                parked.idle_since = now
            elif now >= parked.idle_since + IDLE:
                parked.idle_since = now
                self._parking_queues.leave(device, parked.is_ours)
        if self._devices:
            self._sweep_later()

    def stop(self) -> None:
        """Nothing more is asked, and what has not set out for its parking queue stays where it is."""
        self.entering -= sum(parked.parking_queue.withdraw() for parked in self._devices.values())
        if self._sweeping is not None:
            self._sweeping.cancel()
            self._sweeping = None
