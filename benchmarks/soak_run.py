"""One soak from its start to its account: the fleet sends, faults come and go, everything drains, all is looked for."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import treq
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from amqprouter.amqp.properties import Properties
from amqprouter.amqp.wire import Delivery
from amqprouter.pipeline.headers import PARKED
from benchmarks.soak_bed import TARGET, Bed
from benchmarks.soak_faults import Faults
from benchmarks.soak_fleet import STUFFED
from benchmarks.soak_ledger import Account, Evidence, Waits, Windows, account, waits
from benchmarks.soak_schedule import OPERATOR, PROCESSES, Planned
from tests.support.gateway import drain_queue, reason_of
from tests.support.process import reactor, until

WARM = 3.0
"""Seconds of flow before the first measurement of memory: secrets have been checked, queues declared."""
PATIENCE = 90.0
"""Seconds after a fault within which a probe has to be at both its targets, on a busy machine."""
SETTLING = 10.0
"""Seconds behind that which still count as disturbed: what had piled up is on its way."""
STANDSTILL = 90.0
"""Seconds without a message less, at the end, after which what is left counts as stuck."""
IDLE = 15.0
"""Seconds after which what strangers put into a parking queue may stay there: nothing is parked in it any more."""
SILENCE = 30.0
"""Seconds without an event, at the end, after which no more are awaited."""
LOOK = 0.5
QUARANTINE = ("amqprouter.rejected", "amqprouter.dead-letters", "amqprouter.unrouted")


@dataclass
class Report:
    """What a run gives. Times are seconds."""

    account: Account
    quiet: Waits
    """Quiet devices' messages, from their publishing until they are at the target: outside of faults,"""
    quiet_disturbed: Waits
    """and the others."""
    worst: dict[str, float]
    """The longest of them by fault: of those sent while it lasted. Where two faults overlap it is told of both."""
    faults: int
    resumed: Waits
    """From a fault's end until a probe was at both targets, where nothing else was wrong."""
    not_resumed: list[str]
    """Faults after which it was not, within `PATIENCE`."""
    tracebacks: list[str]
    ended_by_itself: int
    killed_stops: int
    slowest_stop: float
    drained_in: float
    gaps: list[str]
    backwards: int
    streams: int
    skipped: int
    left: dict[str, int]
    """Queues that did not drain."""
    memory: tuple[int, int, int]
    """Bytes of the daemon: at the start, at the end, at most."""
    files: tuple[int, int, int]
    broker: tuple[dict[str, int], dict[str, int]]
    """Connections and channels, at the start and at the end."""

    def failures(self) -> dict[str, int]:
        """What must be 0, and is not."""
        told = self.account
        counts = {
            "lost": len(told.lost),
            "stuck": len(told.stuck),
            "twice in the store": len(told.twice),
            "changed": len(told.changed),
            "let in": len(told.let_in),
            "tracebacks": len(self.tracebacks),
            "ended by itself": self.ended_by_itself,
            "had to be killed": self.killed_stops,
            "not resumed": len(self.not_resumed),
            "events missed unsaid": 0 if self.gaps else len(told.unseen),
        }
        return {name: count for name, count in counts.items() if count}


@dataclass
class Course:
    """What is noted along the way."""

    windows: list[tuple[float, float]] = field(default_factory=list)
    lasted: list[tuple[str, float, float]] = field(default_factory=list)
    """Each fault, from its beginning until it was lifted."""
    active: set[str] = field(default_factory=set)
    resumed: list[float] = field(default_factory=list)
    not_resumed: list[str] = field(default_factory=list)

    def worst(self, waited: list[tuple[float, float]]) -> dict[str, float]:
        """The longest of these waits by fault, the worst fault first."""
        found: dict[str, float] = {}
        for name, began, lifted in self.lasted:
            lengths = [arrived - at for at, arrived in waited if began <= at <= lifted]
            found[name] = max(found.get(name, 0.0), *lengths, 0.0)
        return dict(sorted(found.items(), key=lambda one: -one[1]))


class Soak:
    """One run on a bed. `say` tells how it goes."""

    def __init__(self, bed: Bed, schedule: list[Planned], seconds: float, say: Callable[[str], None]) -> None:
        self._bed = bed
        self._schedule = schedule
        self._seconds = seconds
        self._say = say
        self._faults = Faults(bed)
        self._course = Course()
        self._waiting: set[Deferred[Any]] = set()
        self._over = False

    def end(self) -> None:
        """Begin no more faults, lift what there is, and go on to the account."""
        self._over = True
        for pause in list(self._waiting):
            pause.cancel()

    async def run(self) -> Report:
        bed = self._bed
        bed.fleet.start()
        self._began = reactor.seconds()
        await self._pause(WARM)
        before = await bed.broker_figures()
        memory, files = bed.process.memory[-1], bed.process.files[-1]
        lanes = [[one for one in self._schedule if one.kind.lane == lane] for lane in (PROCESSES, OPERATOR)]
        await gatherResults([Deferred.fromCoroutine(self._lane(lane)) for lane in lanes], consumeErrors=True)
        await self._pause_until(self._seconds)
        bed.fleet.stop()
        drained_in, left = await self._drain()
        after = await bed.broker_figures()
        memories = memory, bed.process.memory[-1], max(bed.process.memory)
        file_counts = files, bed.process.files[-1], max(bed.process.files)
        evidence = await self._look(left)
        windows = Windows([*self._course.windows, (reactor.seconds(), float("inf"))])
        quiet = [
            (message.at, evidence.arrived[name].at)
            for name, message in bed.fleet.sent.items()
            if message.device.startswith("quiet-") and name in evidence.arrived
        ]
        return Report(
            account(evidence, windows),
            waits(arrived - at for at, arrived in quiet if not windows.touch(at, arrived)),
            waits(arrived - at for at, arrived in quiet if windows.touch(at, arrived)),
            self._course.worst(quiet),
            len(self._course.lasted),
            waits(self._course.resumed),
            self._course.not_resumed,
            bed.troubles(),
            bed.process.ended_by_itself,
            self._faults.killed_stops,
            self._faults.slowest_stop,
            drained_in,
            bed.subscriber.gaps,
            bed.subscriber.backwards,
            bed.subscriber.streams,
            bed.fleet.skipped,
            left,
            memories,
            file_counts,
            (before, after),
        )

    # Faults.

    async def _lane(self, schedule: list[Planned]) -> None:
        for planned in schedule:
            await self._pause_until(planned.at)
            if self._over:
                return
            await self._fault(planned)

    async def _fault(self, planned: Planned) -> None:
        name, course = planned.kind.name, self._course
        began = reactor.seconds()
        self._say(f"{began - self._began:7.1f} s  {name} for {planned.seconds:g} s")
        window = len(course.windows)
        course.windows.append((began, float("inf")))
        course.active.add(name)
        try:
            async with self._faults.named(name, planned.chance):
                await self._pause(planned.seconds)
        finally:
            course.active.discard(name)
        lifted = reactor.seconds()
        course.lasted.append((name, began, lifted))
        resumed = await self._resumed(lifted)
        now = reactor.seconds()
        course.windows[window] = (began, now + SETTLING)
        if resumed is None:
            course.not_resumed.append(f"{name} at {began - self._began:.1f} s")
            self._say(f"{now - self._began:7.1f} s  {name}: no flow within {PATIENCE:g} s; {await self._problems()}")
        elif resumed:
            course.resumed.append(resumed)
            self._say(f"{now - self._began:7.1f} s  {name}: flows again after {resumed:.1f} s")

    async def _resumed(self, lifted: float) -> float | None:
        """Seconds until a probe that is sent now is at both targets; None if it is not in time.

        0 where another fault is there, or comes meanwhile."""
        name = self._bed.fleet.probe()
        while True:
            if self._course.active or self._over:
                return 0.0
            there = name in self._bed.reader.arrived and await self._bed.is_stored(name)
            if there and not self._course.active:
                return float(reactor.seconds() - lifted)
            if reactor.seconds() - lifted > PATIENCE:
                return None
            await deferLater(reactor, 0.1)

    async def _problems(self) -> str:
        with suppress(Exception):
            response = await treq.get(f"{self._bed.gateway.url}/readyz", persistent=False, timeout=5)
            parts = (await response.json())["parts"]
            return (
                "; ".join(f"{part}: {problem}" for part, problem in parts.items() if problem) or "it says it is ready"
            )
        return "it does not answer"

    async def _pause(self, seconds: float) -> None:
        """So long, or until it is over."""
        if self._over or seconds <= 0:
            return
        pause: Deferred[None] = deferLater(reactor, seconds)
        self._waiting.add(pause)
        with suppress(CancelledError):
            await pause
        self._waiting.discard(pause)

    async def _pause_until(self, seconds: float) -> None:
        await self._pause(self._began + seconds - reactor.seconds())

    # The end.

    async def _drain(self) -> tuple[float, dict[str, int]]:
        """Lift the limits and wait until no message is on its way any more; how long that took, and what is left."""
        bed, began = self._bed, reactor.seconds()
        sections = bed.gateway.sections
        for name in ("class noisy", "class greedy"):
            sections[name]["limits"] = "none"
        await until(bed.gateway.is_ready, what="the daemon is ready", timeout=PATIENCE, child=bed.gateway.running)
        bed.gateway.write_config()
        bed.gateway.running.signal("HUP")
        last = bed.fleet.probe()
        least, since = 10**9, reactor.seconds()
        while True:
            waiting = await self._waiting_messages()
            if not waiting and await bed.is_stored(last):
                break
            total = sum(waiting.values())
            if total < least:
                least, since = total, reactor.seconds()
            elif waiting.keys() == {STUFFED} and reactor.seconds() - since > IDLE:
                break
            elif reactor.seconds() - since > STANDSTILL:
                consumers = await bed.broker.list_queues(column="consumers")
                told = {name: f"{count}, {consumers.get(name, 0)} consumers" for name, count in waiting.items()}
                self._say(f"stuck for {STANDSTILL:g} s: {told}; {await self._problems()}")
                break
            await deferLater(reactor, LOOK)
        drained_in = reactor.seconds() - began
        await self._subscriber_has_all()
        return drained_in, waiting

    async def _subscriber_has_all(self) -> None:
        """Wait until the subscriber was told of everything, or nothing new came for a while."""
        bed = self._bed
        told = {name for name, message in bed.fleet.sent.items() if message.confirmed}
        most, since = len(bed.subscriber.seen), reactor.seconds()
        while not told & bed.reader.arrived.keys() <= bed.subscriber.seen:
            if len(bed.subscriber.seen) > most:
                most, since = len(bed.subscriber.seen), reactor.seconds()
            elif reactor.seconds() - since > SILENCE:
                return
            await deferLater(reactor, LOOK)

    async def _waiting_messages(self) -> dict[str, int]:
        """Where there are still messages to come from."""
        bed = self._bed
        waiting = {
            name: count
            for name, (kind, count) in (await bed.queues()).items()
            if count and kind != "stream" and name not in QUARANTINE
        }
        if bed.fleet.unconfirmed:
            waiting["at the devices"] = bed.fleet.unconfirmed
        return waiting

    async def _look(self, left: dict[str, int]) -> Evidence:
        """Stop the daemon, and look into the store and every queue."""
        bed = self._bed
        await self._faults.stop_daemon()
        bed.subscriber.close()
        await bed.reader.close()
        queues = await bed.queues()
        quarantined: dict[str, str] = {}
        for queue in QUARANTINE:
            for delivery in await drain_queue(bed.broker.uri, queue, queues[queue][1], timeout=300):
                quarantined[_name(delivery)] = _reason(delivery, queue)
        waiting: dict[str, str] = {}
        for queue, (kind, count) in queues.items():
            if count > 0 and kind != "stream" and queue not in (*QUARANTINE, TARGET):
                for delivery in await drain_queue(bed.broker.uri, queue, count, timeout=300):
                    waiting[_name(delivery)] = queue
        return Evidence(
            bed.fleet.sent,
            bed.reader.arrived,
            await deferToThread(bed.stored),
            quarantined,
            waiting,
            bed.subscriber.seen,
            self._faults.quarantine_was_full,
        )


def _name(delivery: Delivery) -> str:
    """The message id; of what is parked it is in the header that says what was parked."""
    properties = Properties(delivery.properties)
    parked = properties.header(PARKED.encode())
    if properties.message_id is None and isinstance(parked, dict):
        raw = parked.get("properties")
        properties = Properties(raw) if isinstance(raw, bytes) else properties
    return properties.message_id or ""


def _reason(delivery: Delivery, queue: str) -> str:
    """Why a message is in quarantine; empty where nothing says so."""
    properties = Properties(delivery.properties)
    reason = reason_of(delivery) or properties.header(b"x-first-death-reason")
    return str(reason or ("unrouted" if queue.endswith("unrouted") else ""))
