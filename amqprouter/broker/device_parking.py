"""The parking queues of devices: as `amqprouter.broker.parking`, but thousands of them, come and gone.

::

    <prefix>.parked                     which devices have one: see `amqprouter.broker.parking_registry`
    <prefix>.parked.device.<device>     what the device sent over its rate

They have a channel of their own. Which there are is known, from the registry, before the ingress starts; opening them
takes a few questions each and is done behind that, some at a time, so that a start does not take longer for them.
Until then their devices count as parked: what comes goes behind what is in there.

A parking queue that has been empty for a while is left: its consumer is cancelled, and the queue deleted. A classic
queue is deleted by the broker only if it is empty and nobody consumes from it, in one step; quorum queues know no such
condition, so they stay, empty, until the broker deletes them because nobody consumed from them for `EXPIRES`. A gateway
that learned of a parking queue from another keeps its consumer for as long as the other does, and gets what is in there
when that one dies. Who leaves a parking queue that another gateway consumes from does not say so in the registry: the
last one does.

Where the broker refuses the registry, no parking queue is made, and all are as if their queues were refused: one that
nobody knows of might never be found again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any

from twisted.internet.defer import Deferred
from zope.interface import implementer

from amqprouter.amqp.connection import Connection
from amqprouter.amqp.consumer import ConsumerChannel, consumer_tag
from amqprouter.amqp.declare import PRECONDITION_FAILED, Found, explained, queue_state
from amqprouter.amqp.delayed_calls import at_once
from amqprouter.broker.parking import Parking, parking_queue_name
from amqprouter.broker.parking_queue import ParkingQueue
from amqprouter.broker.parking_refusals import LONGEST_PAUSE
from amqprouter.broker.parking_registry import ANNOUNCE_EVERY, ParkingRegistry
from amqprouter.errors import BrokerRefused
from amqprouter.pipeline.ports import IDeviceParking, IDeviceParkingUser, IParkingQueue

PREFETCH = 8
"""Messages out of one device's parking queue: enough for some hundreds a second, and few enough for ten thousand
devices."""
EXPIRES = 7 * 86400.0
"""Seconds after which a quorum parking queue that nobody consumes from is deleted: as long as the registry knows of
it."""
AT_ONCE = 64
"""Parking queues that are opened at once, each with a channel of its own for a moment. The broker answers for them in
little more time than for one, and writes down several consumers at once; all others' turns wait for so many."""
MADE_WITHIN = 2.0
"""Seconds in which another gateway that says it uses a parking queue has made it; then it is asked for once more."""


@implementer(IDeviceParking)
class DeviceParking(Parking):
    """See `IDeviceParking`. `random` also makes the name by which the registry knows this process."""

    name = "device-parking"
    POLICY = "what should be parked is rejected as rate-limited"

    def __init__(self, *arguments: Any, wall_clock: Callable[[], float] = time.time, **options: Any) -> None:
        super().__init__(*arguments, **options)
        gateway = f"{int(self._random() * 2**64):016x}"
        self._registry = ParkingRegistry(
            self._clock,
            self._publisher,
            f"{self._prefix}.parked",
            gateway,
            self._learned,
            random=self._random,
            wall_clock=wall_clock,
        )
        self._devices: dict[str, str] = {}  # by queue
        self._making: set[str] = set()
        self._announced: set[str] = set()  # queues that were said to be used
        self._unregistered = ""  # why the broker refuses the registry
        self._restless: set[ParkingQueue] = set()  # have to be flushed
        self._checking: dict[str, None] = {}  # devices whose parking queues are to be checked
        self._leaving: dict[str, bool] = {}  # devices whose parking queues are to be left, and whether these are ours
        self._announced_at = self._clock.seconds()
        self._user: IDeviceParkingUser | None = None

    # See `IDeviceParking`.

    def use(self, user: IDeviceParkingUser) -> None:
        """Tell this one of parking queues that are found, and of those that are gone."""
        self._user = user

    def of(self, device: str) -> IParkingQueue:
        """The device's parking queue."""
        expires = EXPIRES if self._queue_type == "quorum" else 0.0
        parking_queue = self.parking_queue("device", device, prefetch=PREFETCH, expires=expires)
        self._devices[parking_queue.queue] = device
        return parking_queue

    def check(self, device: str) -> None:
        """Ask how much is in a parking queue; `IDeviceParkingUser.checked` is told."""
        self._checking[device] = None
        self._delayed.later(0, self._check_all)

    def leave(self, device: str, ours: bool) -> None:
        """Consume no more from an empty parking queue, and delete it; one that is not ours only if nobody else is
        there."""
        self._leaving[device] = ours
        self._delayed.later(0, self._leave_all)

    def flush(self) -> None:
        """The end of a batch."""
        if self._restless:
            restless, self._restless = self._restless, set()
            for parking_queue in restless:
                parking_queue.flush()

    # Coming and going.

    async def attach(self, connection: Connection) -> None:
        """As `Parking.attach`; returns when it is known which parking queues there are."""
        if not self._stopping:
            await self._register(connection)
            await super().attach(connection)

    async def _register(self, connection: Connection) -> None:
        told = self._unregistered
        try:
            await self._registry.attach(connection)
        except BrokerRefused as error:
            if connection.closed:
                raise
            self._unregistered = f"no registry of parking queues: {explained(error)}"
            if not told:
                self.log.error("Devices cannot be parked: {reason}; {policy}", reason=str(error), policy=self.POLICY)
            return
        self._unregistered = ""
        if told:
            self.log.info("Devices can be parked again")

    async def _register_again(self, connection: Connection) -> None:
        if connection is self._connection and not connection.closed:
            await self._register(connection)
            if self._unregistered:
                self._delayed.later(LONGEST_PAUSE, self._register_again, connection)

    @property
    def registry(self) -> ParkingRegistry | None:
        """Which parking queues there are; None while the broker refuses its stream."""
        return None if self._unregistered else self._registry

    def problem(self) -> str:
        """See `IReadiness`: what holds up the start, or else as `Parking.problem`."""
        if self._unregistered:
            return f"{self._unregistered} ({self.POLICY})"
        return self._registry.problem() or super().problem()

    async def _open_parking_queues(self, connection: Connection, current: ConsumerChannel) -> None:
        self._delayed.later(0, self._open_all, current)
        if self._unregistered:
            self._delayed.later(LONGEST_PAUSE, self._register_again, connection)
        self._delayed.later(max(0.0, self._announced_at + ANNOUNCE_EVERY - self._clock.seconds()), self._announce_all)

    async def _open_all(self, current: ConsumerChannel) -> None:
        """Open the parking queues, so many at once; others may have their turns in between."""
        waiting = iter(self.parking_queues)
        while parking_queues := list(islice(waiting, AT_ONCE)):
            async with self._turn:
                if self._current is not current or self._connection is None:
                    return
                await self._open_some(self._connection, current, parking_queues)
            gone = [parking_queue for parking_queue in parking_queues if not parking_queue.declared]
            for parking_queue in gone:
                if parking_queue.entering:
                    self.open(parking_queue)
            await at_once(self._forget(parking_queue) for parking_queue in gone if self._is_absent(parking_queue))

    async def _open_some(
        self, connection: Connection, current: ConsumerChannel, parking_queues: list[ParkingQueue]
    ) -> None:
        """As `_consume` for each of these that is not open yet."""
        parking_queues = [
            parking_queue
            for parking_queue in parking_queues
            if consumer_tag(parking_queue.queue) not in current.consumers and not parking_queue.refusal
        ]
        for parking_queue in parking_queues:
            if parking_queue.is_unreadable:
                await self._consume(connection, current, parking_queue, make=False)
        parking_queues = [parking_queue for parking_queue in parking_queues if not parking_queue.is_unreadable]
        counts = await at_once(self._counted(connection, current, parking_queue) for parking_queue in parking_queues)
        await current.channel.basic_qos(prefetch_count=PREFETCH)
        current.prefetch = min(current.prefetch or PREFETCH, PREFETCH)
        there: list[ParkingQueue] = []
        for parking_queue, messages in zip(parking_queues, counts, strict=True):
            young_for = parking_queue.safe_at - self._clock.seconds()
            if young_for > 0:
                self._delayed.later(young_for, self._use, parking_queue)
            elif messages is None:
                if (parking_queue.declared or parking_queue.is_in_doubt) and not (
                    parking_queue.refusal or parking_queue in self._passing
                ):
                    parking_queue.gone()
            else:
                parking_queue.opened(messages)  # before anything comes out
                there.append(parking_queue)
        try:
            await current.consume_all([parking_queue.queue for parking_queue in there])
        except BrokerRefused as error:
            for parking_queue in there:
                self._not_consumed(connection, current, parking_queue, error)
        else:
            for parking_queue in there:
                self._refusals.granted(parking_queue)
                self._passing.pop(parking_queue, None)

    async def _counted(
        self, connection: Connection, current: ConsumerChannel, parking_queue: ParkingQueue
    ) -> int | None:
        try:
            return await self._messages_in(connection, parking_queue.queue)
        except BrokerRefused as error:
            self._not_consumed(connection, current, parking_queue, error)
            return None

    async def _find(self, parking_queue: ParkingQueue) -> None:
        await super()._find(parking_queue)
        if self._is_absent(parking_queue) and self._current is not None:
            self._delayed.later(MADE_WITHIN, self._find_again, parking_queue)

    async def _find_again(self, parking_queue: ParkingQueue) -> None:
        await super()._find(parking_queue)
        if self._is_absent(parking_queue) and self._current is not None:
            await self._forget(parking_queue)

    async def _make(self, parking_queue: ParkingQueue) -> None:
        """Have it known that there is such a parking queue before there is."""
        if parking_queue.queue in self._making or parking_queue.queue not in self._devices or self._current is None:
            return
        if self._unregistered:
            self._refusals.refused(parking_queue, self._unregistered)
            return
        self._making.add(parking_queue.queue)
        try:
            if not (parking_queue.refusal and parking_queue.queue in self._announced):
                await self._registry.announce(self._devices[parking_queue.queue], True)
                self._announced.add(parking_queue.queue)
            await super()._make(parking_queue)
        finally:
            self._making.discard(parking_queue.queue)

    async def _announce_all(self) -> None:
        self._announced_at = self._clock.seconds()
        self._delayed.later(ANNOUNCE_EVERY, self._announce_all)
        if self._unregistered:
            return
        waiting = iter(
            [self._devices[parking_queue.queue] for parking_queue in self.parking_queues if parking_queue.declared]
        )
        while devices := list(islice(waiting, AT_ONCE)):
            await at_once(self._registry.announce(device, True) for device in devices)

    async def _forget(self, parking_queue: ParkingQueue, *, is_used: bool = False) -> None:
        """There is no such parking queue, or it was left empty; but if another gateway uses it, it is that one's to say
        so."""
        device = self._devices.pop(parking_queue.queue, None)
        if device is None:
            return
        del self._parking_queues[consumer_tag(parking_queue.queue).encode()]
        self._restless.discard(parking_queue)
        self._refusals.forget(parking_queue)
        self._passing.pop(parking_queue, None)
        self._announced.discard(parking_queue.queue)
        if self._user is not None:
            self._user.gone(device)
        if self._unregistered:
            return
        if is_used:
            self._registry.leave(device)
        else:
            await self._registry.announce(device, False)

    def _learned(self, device: str, used: bool) -> None:
        """The registry says so."""
        if self._user is None or self._stopping:
            return
        if used:
            self._user.found(device)
            return
        parking_queue = self._parking_queues.get(self._tag(device))
        if parking_queue is None:
            return
        self._announced.discard(parking_queue.queue)
        if parking_queue.backlog or parking_queue.declared:  # what is parked next must be found as well
            self._delayed.later(0, self._registry.announce, device, True)
        if not parking_queue.backlog:
            self._user.abandoned(device)

    def _tag(self, device: str) -> bytes:
        return consumer_tag(parking_queue_name(self._prefix, "device", device)).encode()

    def _wants_flush(self, tag: bytes) -> None:
        self._restless.add(self._parking_queues[tag])
        self._wake()

    def _closed(self, connection: Connection, consuming: ConsumerChannel, error: Exception) -> None:
        is_current = consuming is self._current
        super()._closed(connection, consuming, error)
        if is_current and self._user is not None:
            self._user.lost()

    async def _check_all(self) -> None:
        while devices := list(islice(self._checking, AT_ONCE)):
            for device in devices:
                del self._checking[device]
            async with self._turn:
                if self._connection is None or self._current is None:
                    return
                await at_once(self._check(self._connection, device) for device in devices)

    async def _check(self, connection: Connection, device: str) -> None:
        parking_queue = self._parking_queues.get(self._tag(device))
        messages: int | None = 0
        if parking_queue is not None and parking_queue.declared:
            found = await queue_state(connection, parking_queue.queue)
            messages = None if found is None or not self._is_sure(found, parking_queue) else found.messages
            if messages is not None:
                parking_queue.seen(messages)
        if self._user is not None:
            self._user.checked(device, messages)

    def _is_sure(self, found: Found, parking_queue: ParkingQueue) -> bool:
        """Whether the broker has really looked; that can be told while we consume, and a classic queue always does."""
        current = self._current
        consumes = current is not None and consumer_tag(parking_queue.queue) in current.consumers
        return self._queue_type == "classic" or found.tells or not consumes

    async def _leave_all(self) -> None:
        while leaving := list(islice(self._leaving.items(), AT_ONCE)):
            for device, _ in leaving:
                del self._leaving[device]
            told: list[Deferred[None]] = []
            async with self._turn:
                if self._connection is None or self._current is None:
                    return
                parking_queues = {
                    parking_queue: ours
                    for device, ours in leaving
                    if (parking_queue := self._parking_queues.get(self._tag(device))) is not None
                }
                is_used = await self._leave_some(self._connection, self._current, parking_queues)
                for parking_queue in parking_queues:
                    if parking_queue in is_used and not parking_queue.backlog:
                        told.append(Deferred.fromCoroutine(self._forget(parking_queue, is_used=is_used[parking_queue])))
            await at_once(told)  # others' turns need not wait for it

    async def _leave_some(
        self, connection: Connection, current: ConsumerChannel, parking_queues: Mapping[ParkingQueue, bool]
    ) -> dict[ParkingQueue, bool]:
        """Leave those that can be left, some of which are ours; returns these, and whether another gateway uses them.

        Step by step, for one kind of question at a time may be under way on a channel (`ConsumerChannel.consume_all`).
        The first is asked while we are a consumer: without one, "nothing" is no answer (see `Found`).
        """
        is_used = {parking_queue: False for parking_queue in parking_queues if not parking_queue.backlog}
        declared = [parking_queue for parking_queue in is_used if parking_queue.declared]
        for parking_queue in declared:
            parking_queue.declared = False  # what is to go in waits
        states = await at_once(queue_state(connection, parking_queue.queue) for parking_queue in declared)
        for parking_queue, found in zip(list(declared), states, strict=True):
            if found is not None and (found.messages or not self._is_sure(found, parking_queue)):
                parking_queue.opened(found.messages)
                declared.remove(parking_queue)
                del is_used[parking_queue]
        tags = [
            parking_queue.queue for parking_queue in declared if consumer_tag(parking_queue.queue) in current.consumers
        ]
        await at_once(current.cancel(queue) for queue in tags)
        states = await at_once(queue_state(connection, parking_queue.queue) for parking_queue in declared)
        for parking_queue, found in zip(declared, states, strict=True):
            if parking_queue.backlog or (
                found is not None and (found.messages or (found.consumers and not parking_queues[parking_queue]))
            ):
                await self._consume(connection, current, parking_queue, make=True)
                del is_used[parking_queue]
            elif found is not None and found.consumers:
                is_used[parking_queue] = True
        if self._queue_type == "classic":
            unused = [
                parking_queue
                for parking_queue, found in zip(declared, states, strict=True)
                if found and is_used.get(parking_queue) is False
            ]
            for parking_queue, is_gone in zip(
                unused,
                await at_once(self._delete(connection, parking_queue.queue) for parking_queue in unused),
                strict=True,
            ):
                is_used[parking_queue] = not is_gone
        return is_used

    async def _delete(self, connection: Connection, queue: str) -> bool:
        """Delete a queue if it is empty and unused; if it is not, somebody else has just begun to use it."""
        channel = await connection.open_channel()
        try:
            await channel.queue_delete(queue=queue, if_unused=True, if_empty=True)
        except BrokerRefused as error:
            if error.code != PRECONDITION_FAILED:
                raise
            return False
        await channel.shut()
        return True

    def stop(self) -> None:
        """As `Parking.stop`; nor is anything written down of its own accord."""
        super().stop()
        self._registry.stop()
