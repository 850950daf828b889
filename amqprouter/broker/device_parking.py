"""The parking queues of devices: as `amqprouter.broker.parking`, but thousands of them, come and gone.

::

    <prefix>.parked                     which devices have one: see `amqprouter.broker.parking_registry`
    <prefix>.parked.device.<device>     what the device sent over its rate

They have a channel of their own. Which there are is known, from the registry, before the ingress starts; opening them
takes a few questions each and is done behind that, some at a time, so that a start does not take longer for them.
Until then their devices count as parked: what comes goes behind what is in there.

A lot that has been empty for a while is left: its consumer is cancelled, and the queue deleted. A classic queue is
deleted by the broker only if it is empty and nobody consumes from it, in one step; quorum queues know no such
condition, so they stay, empty, until the broker deletes them because nobody consumed from them for `EXPIRES`. A gateway
that learned of a lot from another keeps its consumer for as long as the other does, and gets what is in there when that
one dies. Who leaves a lot that another gateway consumes from does not say so in the registry: the last one does.

Where the broker refuses the registry, no lot is made, and all are as if their queues were refused: one that nobody
knows of might never be found again.
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
from amqprouter.amqp.declare import PRECONDITION_FAILED, explained, look_at
from amqprouter.amqp.delayed_calls import at_once
from amqprouter.broker.parking import Parking, parking_queue_name
from amqprouter.broker.parking_queue import ParkingQueue
from amqprouter.broker.parking_refusals import LONGEST_PAUSE
from amqprouter.broker.parking_registry import ANNOUNCE_EVERY, ParkingRegistry
from amqprouter.errors import BrokerRefused
from amqprouter.pipeline.ports import IDeviceParking, IDeviceParkingUser, IParkingQueue

PREFETCH = 8
"""Messages out of one device's lot: enough for some hundreds a second, and few enough for ten thousand devices."""
EXPIRES = 7 * 86400.0
"""Seconds after which a quorum lot that nobody consumes from is deleted: as long as the registry knows of it."""
AT_ONCE = 64
"""Lots that are opened at once, each with a channel of its own for a moment. The broker answers for them in little more
time than for one, and writes down several consumers at once; all others' turns wait for so many."""
MADE_WITHIN = 2.0
"""Seconds in which another gateway that says it uses a lot has made it; then it is asked for once more."""


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
        self._checking: dict[str, None] = {}  # devices whose lots are to be checked
        self._leaving: dict[str, bool] = {}  # devices whose lots are to be left, and whether these are ours
        self._announced_at = self._clock.seconds()
        self._user: IDeviceParkingUser | None = None

    # See `IDeviceParking`.

    def use(self, user: IDeviceParkingUser) -> None:
        """Tell this one of lots that are found, and of those that are gone."""
        self._user = user

    def of(self, device: str) -> IParkingQueue:
        """The device's lot."""
        expires = EXPIRES if self._queue_type == "quorum" else 0.0
        lot = self.lot("device", device, prefetch=PREFETCH, expires=expires)
        self._devices[lot.queue] = device
        return lot

    def check(self, device: str) -> None:
        """Ask how much is in a lot; `IDeviceParkingUser.checked` is told."""
        self._checking[device] = None
        self._delayed.later(0, self._check_all)

    def leave(self, device: str, ours: bool) -> None:
        """Consume no more from an empty lot, and delete it; one that is not ours only if nobody else is there."""
        self._leaving[device] = ours
        self._delayed.later(0, self._leave_all)

    def flush(self) -> None:
        """The end of a batch."""
        if self._restless:
            restless, self._restless = self._restless, set()
            for lot in restless:
                lot.flush()

    # Coming and going.

    async def attach(self, connection: Connection) -> None:
        """As `Parking.attach`; returns when it is known which lots there are."""
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

    def problem(self) -> str:
        """See `IReadiness`: what holds up the start, or else as `Parking.problem`."""
        if self._unregistered:
            return f"{self._unregistered} ({self.POLICY})"
        return self._registry.problem() or super().problem()

    async def _open_lots(self, connection: Connection, current: ConsumerChannel) -> None:
        self._delayed.later(0, self._open_all, current)
        if self._unregistered:
            self._delayed.later(LONGEST_PAUSE, self._register_again, connection)
        self._delayed.later(max(0.0, self._announced_at + ANNOUNCE_EVERY - self._clock.seconds()), self._announce_all)

    async def _open_all(self, current: ConsumerChannel) -> None:
        """Open the lots, so many at once; others may have their turns in between."""
        waiting = iter(self.lots)
        while lots := list(islice(waiting, AT_ONCE)):
            async with self._turn:
                if self._current is not current or self._connection is None:
                    return
                await self._open_some(self._connection, current, lots)
            gone = [lot for lot in lots if not lot.declared]
            for lot in gone:
                if lot.entering:
                    self.open(lot)
            await at_once(self._forget(lot) for lot in gone if self._is_absent(lot))

    async def _open_some(self, connection: Connection, current: ConsumerChannel, lots: list[ParkingQueue]) -> None:
        """As `_consume` for each of these that is not open yet."""
        lots = [lot for lot in lots if consumer_tag(lot.queue) not in current.consumers and not lot.refusal]
        for lot in lots:
            if lot.is_unreadable:
                await self._consume(connection, current, lot, make=False)
        lots = [lot for lot in lots if not lot.is_unreadable]
        looks = await at_once(self._looked(connection, current, lot) for lot in lots)
        await current.channel.basic_qos(prefetch_count=PREFETCH)
        there: list[ParkingQueue] = []
        for lot, messages in zip(lots, looks, strict=True):
            young_for = lot.safe_at - self._clock.seconds()
            if young_for > 0:
                self._delayed.later(young_for, self._use, lot)
            elif messages is None:
                if (lot.declared or lot.is_in_doubt) and not (lot.refusal or lot in self._passing):
                    lot.gone()
            else:
                lot.opened(messages)  # before anything comes out
                there.append(lot)
        try:
            await current.consume_all([lot.queue for lot in there])
        except BrokerRefused as error:
            for lot in there:
                self._not_consumed(connection, current, lot, error)
        else:
            for lot in there:
                self._refusals.granted(lot)
                self._passing.pop(lot, None)

    async def _looked(self, connection: Connection, current: ConsumerChannel, lot: ParkingQueue) -> int | None:
        try:
            return await self._look(connection, lot.queue)
        except BrokerRefused as error:
            self._not_consumed(connection, current, lot, error)
            return None

    async def _find(self, lot: ParkingQueue) -> None:
        await super()._find(lot)
        if self._is_absent(lot) and self._current is not None:
            self._delayed.later(MADE_WITHIN, self._find_again, lot)

    async def _find_again(self, lot: ParkingQueue) -> None:
        await super()._find(lot)
        if self._is_absent(lot) and self._current is not None:
            await self._forget(lot)

    async def _make(self, lot: ParkingQueue) -> None:
        """Have it known that there is such a lot before there is."""
        if lot.queue in self._making or lot.queue not in self._devices or self._current is None:
            return
        if self._unregistered:
            self._refusals.refused(lot, self._unregistered)
            return
        self._making.add(lot.queue)
        try:
            if not (lot.refusal and lot.queue in self._announced):
                await self._registry.announce(self._devices[lot.queue], True)
                self._announced.add(lot.queue)
            await super()._make(lot)
        finally:
            self._making.discard(lot.queue)

    async def _announce_all(self) -> None:
        self._announced_at = self._clock.seconds()
        self._delayed.later(ANNOUNCE_EVERY, self._announce_all)
        if self._unregistered:
            return
        waiting = iter([self._devices[lot.queue] for lot in self.lots if lot.declared])
        while devices := list(islice(waiting, AT_ONCE)):
            await at_once(self._registry.announce(device, True) for device in devices)

    async def _forget(self, lot: ParkingQueue, *, is_used: bool = False) -> None:
        """There is no such lot, or it was left empty; but if another gateway uses it, it is that one's to say so."""
        device = self._devices.pop(lot.queue, None)
        if device is None:
            return
        del self._lots[consumer_tag(lot.queue).encode()]
        self._restless.discard(lot)
        self._refusals.forget(lot)
        self._passing.pop(lot, None)
        self._announced.discard(lot.queue)
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
        lot = self._lots.get(self._tag(device))
        if lot is None:
            return
        self._announced.discard(lot.queue)
        if lot.backlog or lot.declared:  # what is parked next must be found as well
            self._delayed.later(0, self._registry.announce, device, True)
        if not lot.backlog:
            self._user.abandoned(device)

    def _tag(self, device: str) -> bytes:
        return consumer_tag(parking_queue_name(self._prefix, "device", device)).encode()

    def _wants_flush(self, tag: bytes) -> None:
        self._restless.add(self._lots[tag])
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
        lot = self._lots.get(self._tag(device))
        messages = 0
        if lot is not None and lot.declared:
            messages = await self._look(connection, lot.queue) or 0
            lot.seen(messages)
        if self._user is not None:
            self._user.checked(device, messages)

    async def _leave_all(self) -> None:
        while leaving := list(islice(self._leaving.items(), AT_ONCE)):
            for device, _ in leaving:
                del self._leaving[device]
            told: list[Deferred[None]] = []
            async with self._turn:
                if self._connection is None or self._current is None:
                    return
                lots = {lot: ours for device, ours in leaving if (lot := self._lots.get(self._tag(device))) is not None}
                is_used = await self._leave_some(self._connection, self._current, lots)
                for lot in lots:
                    if lot in is_used and not lot.backlog:
                        told.append(Deferred.fromCoroutine(self._forget(lot, is_used=is_used[lot])))
            await at_once(told)  # others' turns need not wait for it

    async def _leave_some(
        self, connection: Connection, current: ConsumerChannel, lots: Mapping[ParkingQueue, bool]
    ) -> dict[ParkingQueue, bool]:
        """Leave those that can be left, some of which are ours; returns these, and whether another gateway uses them.

        Step by step, for one kind of question at a time may be under way on a channel (`ConsumerChannel.consume_all`).
        """
        is_used = {lot: False for lot in lots if not lot.backlog}
        declared = [lot for lot in is_used if lot.declared]
        for lot in declared:
            lot.declared = False  # what is to go in waits
        tags = [lot.queue for lot in declared if consumer_tag(lot.queue) in current.consumers]
        await at_once(current.cancel(queue) for queue in tags)
        looks = await at_once(look_at(connection, lot.queue) for lot in declared)
        for lot, found in zip(declared, looks, strict=True):
            if lot.backlog or (found is not None and (found[0] or (found[1] and not lots[lot]))):
                await self._consume(connection, current, lot, make=True)
                del is_used[lot]
            elif found is not None and found[1]:
                is_used[lot] = True
        if self._queue_type == "classic":
            unused = [lot for lot, found in zip(declared, looks, strict=True) if found and is_used.get(lot) is False]
            for lot, is_gone in zip(
                unused, await at_once(self._delete(connection, lot.queue) for lot in unused), strict=True
            ):
                is_used[lot] = not is_gone
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
