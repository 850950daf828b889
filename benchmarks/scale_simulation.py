"""A fleet on many gateways, simulated: ``python -m benchmarks.scale_simulation [--devices N] [--gateways N] …``.

No broker, no network and no clock but the simulation's. What is real is who has which shard (`Partitions`, `Position`),
how often gateways look at each other (`INTERVAL`), and each gateway's `Scheduler`. Devices send once a minute, each at
a moment of its own, and a few send far beyond their limit. At a third of the time one gateway is lost without a word,
and at two thirds it is back. A queue has one consumer at a time: who is to have a shard waits until the one before has
looked and let go, as with RabbitMQ's single active consumer.

The report says how evenly the work is shared, how many shards change hands, and how long messages wait in calm times
and around each change. And whether the promises hold: each message is done once, those of a device in order, and a
device gets no more than its rate, with one burst more for each gateway that it comes to.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from amqprouter.broker.repartition import Partitions
from amqprouter.broker.shards import INTERVAL, Position
from amqprouter.scheduling.decision import Decision
from amqprouter.scheduling.scheduler import Scheduler
from amqprouter.settings import ClassSettings, SchedulerSettings
from benchmarks.figures import table

PERIOD = 60.0
"""Seconds between two messages of a device."""
TICK = 0.02
"""Seconds of the simulation's steps: what happens within one happens at once."""
NOISY_RATE = 20.0
"""Messages a second of a noisy device, ten times what it may; one device in ten thousand is noisy."""
RATE, BURST = 2.0, 10.0
AROUND = 10.0
"""Seconds after a change that count as around it."""


@dataclass(frozen=True)
class Plan:
    """What is simulated."""

    devices: int
    gateways: int
    shards: int
    capacity: float
    """Messages a second that one gateway does."""
    seconds: float
    seed: int = 1

    @property
    def noisy(self) -> int:
        """Noisy devices, besides the others."""
        return max(1, self.devices // 10_000)

    @property
    def lost_at(self) -> float:
        return self.seconds / 3

    @property
    def back_at(self) -> float:
        return self.seconds * 2 / 3


@dataclass
class Outcome:
    """Waits are seconds, of messages that came in calm times, or within `AROUND` behind a change."""

    sent: int = 0
    done: int = 0
    dropped: int = 0
    left: int = 0
    """Still in their queues at the end."""
    out_of_order: int = 0
    beyond_limit: int = 0
    """Devices that got more than they may."""
    moved_lost: int = 0
    """Shards that changed hands when the gateway was lost, its own among them, and when it was back."""
    moved_back: int = 0
    busiest: float = 0.0
    """Messages of the gateway with the most, per those of the average one, in calm times."""
    calm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Median, 99th percentile, longest."""
    lost: tuple[float, float, float] = (0.0, 0.0, 0.0)
    back: tuple[float, float, float] = (0.0, 0.0, 0.0)
    cpu: float = 0.0
    """Seconds that the simulation took."""


@dataclass
class Gateway:
    """One of them, with what it knows."""

    seat: int
    scheduler: Scheduler[int]
    looks_at: float
    """When it looks at the others next."""
    is_there: bool = True
    shards: list[int] = field(default_factory=list)
    done: int = 0


class Fleet:
    """Who sends when, and to which shard. Devices are numbers; the noisy ones come last."""

    def __init__(self, plan: Plan) -> None:
        self._chance = random.Random(plan.seed)
        self.names = [f"device-{number:08d}" for number in range(plan.devices)]
        self.names += [f"noisy-{number}" for number in range(plan.noisy)]
        self.first_noisy = plan.devices
        queues = Partitions([str(number) for number in range(plan.shards)])
        self.shard = [int(queues.queue_of.__wrapped__(name)) for name in self.names]
        self._ticks = int(PERIOD / TICK)
        self._due: list[list[int]] = [[] for _ in range(self._ticks)]
        for device in range(plan.devices):
            self._due[self._chance.randrange(self._ticks)].append(device)

    def at(self, tick: int) -> Iterator[int]:
        """Those that send now."""
        yield from self._due[tick % self._ticks]
        for device in range(self.first_noisy, len(self.names)):
            if self._chance.random() < NOISY_RATE * TICK:
                yield device


class Simulation:
    """All gateways, and the broker's queues."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._fleet = Fleet(plan)
        self._gateways = [
            Gateway(seat, self._scheduler(), seat * INTERVAL / plan.gateways) for seat in range(plan.gateways)
        ]
        self._queues: list[deque[tuple[float, int]]] = [deque() for _ in range(plan.shards)]
        self._owner: list[Gateway | None] = [None] * plan.shards
        self._wanted: list[set[int]] = [set() for _ in range(plan.shards)]
        """Seats of those that wait for a shard."""
        self._latest: dict[int, float] = {}
        self._passed: dict[int, int] = {}
        self._owners: dict[int, list[Scheduler[int]]] = {}
        """Of noisy devices: who had them, one after the other."""
        self._period = "calm"
        self._hands = {"calm": 0, "lost": 0, "back": 0}
        """Shards that were given out in each period."""
        self._waits: dict[str, list[float]] = {"calm": [], "lost": [], "back": []}
        self.outcome = Outcome()

    def run(self) -> Outcome:
        """All of it."""
        began, plan, outcome = time.process_time(), self._plan, self.outcome
        for gateway in self._gateways:
            self._look(gateway)
        self._hands["calm"] = 0
        for tick in range(int(plan.seconds / TICK)):
            now = tick * TICK
            self._period = self._period_of(now)
            self._change(now)
            for device in self._fleet.at(tick):
                self._queues[self._fleet.shard[device]].append((now, device))
                outcome.sent += 1
            for gateway in self._gateways:
                if gateway.is_there:
                    if now >= gateway.looks_at:
                        gateway.looks_at += INTERVAL
                        self._look(gateway)
                    self._work(gateway, now)
        outcome.moved_lost, outcome.moved_back = self._hands["lost"], self._hands["back"]
        outcome.left = sum(map(len, self._queues))
        calm = [gateway.done for gateway in self._gateways]
        outcome.busiest = max(calm) * len(calm) / max(1, sum(calm))
        outcome.calm, outcome.lost, outcome.back = (spread(self._waits[name]) for name in ("calm", "lost", "back"))
        outcome.beyond_limit = sum(
            count > RATE * plan.seconds + BURST * len(self._owners[device]) for device, count in self._passed.items()
        )
        outcome.cpu = time.process_time() - began
        return outcome

    def _change(self, now: float) -> None:
        victim = self._gateways[len(self._gateways) // 2]
        if victim.is_there and self._plan.lost_at <= now < self._plan.back_at:
            victim.is_there = False
            for shard in victim.shards:
                self._owner[shard] = None
            victim.shards = []
            for wanted in self._wanted:
                wanted.discard(victim.seat)
        elif not victim.is_there and now >= self._plan.back_at:
            victim.is_there, victim.looks_at = True, now
            victim.scheduler = self._scheduler()  # it knows no device any more

    def _scheduler(self) -> Scheduler[int]:
        noisy = ClassSettings("noisy", devices=("noisy-*",), limits=f"{RATE:g}/s burst {BURST:g}", over="drop")
        return Scheduler(SchedulerSettings(max_devices=2 * len(self._fleet.names)), (noisy,))

    def _look(self, gateway: Gateway) -> None:
        """See which shards are ours: let go of the others, and wait for those that somebody has still."""
        taken = [one.seat for one in self._gateways if one.is_there]
        position = Position(taken.index(gateway.seat), len(taken))
        for shard, owner in enumerate(self._owner):
            if position.owns(shard):
                if owner is not gateway:
                    self._wanted[shard].add(gateway.seat)
                    self._give(shard)
            elif owner is gateway:
                gateway.shards.remove(shard)
                self._owner[shard] = None
                self._give(shard)
            else:
                self._wanted[shard].discard(gateway.seat)

    def _give(self, shard: int) -> None:
        """The first in line has it, if nobody else does."""
        if self._owner[shard] is None and self._wanted[shard]:
            gateway = self._gateways[self._wanted[shard].pop()]
            self._owner[shard] = gateway
            gateway.shards.append(shard)
            self._hands[self._period] += 1

    def _work(self, gateway: Gateway, now: float) -> None:
        room = self._plan.capacity * TICK
        plan, outcome, names = self._plan, self.outcome, self._fleet.names
        waits, latest, is_calm = self._waits[self._period], self._latest, self._period == "calm"
        queues = [self._queues[shard] for shard in gateway.shards]
        while room > 0 and any(queues):
            for queue in queues:
                if not queue or room <= 0:
                    continue
                sent, device = queue.popleft()
                room -= 1
                decision = gateway.scheduler.offer(names[device], device, now)
                if decision is Decision.RUN:
                    gateway.scheduler.finished(names[device])
                else:
                    outcome.dropped += 1
                    continue
                outcome.done += 1
                gateway.done += is_calm
                waits.append(now - sent)
                outcome.out_of_order += sent < latest.get(device, 0.0)
                latest[device] = sent
                if device >= plan.devices:
                    self._passed[device] = self._passed.get(device, 0) + 1
                    owners = self._owners.setdefault(device, [])
                    if not owners or owners[-1] is not gateway.scheduler:
                        owners.append(gateway.scheduler)

    def _period_of(self, now: float) -> str:
        for name, moment in (("lost", self._plan.lost_at), ("back", self._plan.back_at)):
            if moment <= now < moment + AROUND:
                return name
        return "calm"


def spread(waits: list[float]) -> tuple[float, float, float]:
    """Median, 99th percentile and longest."""
    ordered = sorted(waits) or [0.0]
    return ordered[len(ordered) // 2], ordered[len(ordered) * 99 // 100], ordered[-1]


def report(plan: Plan, outcome: Outcome) -> str:
    """For people."""
    waits = [
        (name, *(f"{seconds:,.2f}" for seconds in figures))
        for name, figures in (
            ("calm", outcome.calm),
            (f"{AROUND:g} s after one is lost", outcome.lost),
            (f"{AROUND:g} s after it is back", outcome.back),
        )
    ]
    return "\n".join(
        (
            f"{plan.devices:,} devices, once a minute, and {plan.noisy} noisy ones; "
            f"{plan.gateways} gateways of {plan.capacity:,.0f} messages/s, {plan.shards} shards, {plan.seconds:g} s",
            table(waits, ("seconds that messages wait", "median", "p99", "longest")),
            f"sent {outcome.sent:,}, done {outcome.done:,}, dropped by limits {outcome.dropped:,}, "
            f"left {outcome.left:,}",
            f"out of order {outcome.out_of_order}, devices beyond their limits {outcome.beyond_limit}",
            f"shards that changed hands: {outcome.moved_lost} and {outcome.moved_back} of {plan.shards}",
            f"the busiest gateway has {outcome.busiest:.2f} times the average; {outcome.cpu:,.0f} s of CPU",
        )
    )


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.scale_simulation", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--devices", type=int, default=1_000_000, help="(%(default)s)")
    parser.add_argument("--gateways", type=int, default=32, help="(%(default)s)")
    parser.add_argument("--shards", type=int, default=128, help="(%(default)s)")
    parser.add_argument("--capacity", type=float, default=1000.0, help="messages a second of a gateway (%(default)g)")
    parser.add_argument("--seconds", type=float, default=90.0, help="that are simulated (%(default)g)")
    parser.add_argument("--json", type=Path, help="a file for all figures")
    options = parser.parse_args(argv)
    plan = Plan(options.devices, options.gateways, options.shards, options.capacity, options.seconds)
    outcome = Simulation(plan).run()
    print(report(plan, outcome))
    if options.json is not None:
        options.json.write_text(json.dumps({"plan": asdict(plan), "outcome": asdict(outcome)}, indent=1) + "\n")
    return 0 if not (outcome.out_of_order or outcome.beyond_limit) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
