"""The scheduler by itself: ``python -m benchmarks.fairness_core [--devices N] [--json FILE] [--plot FILE]``.

No broker, no reactor, a simulated clock: what is measured is what the core promises. Costs are CPU time of this
process, with that many devices known, for each decision: one about a message that runs at once, two about one that
waits, when it comes and when it runs, each with its share of timers and of what is noted when the message is finished.
Memory is the growth of the process, names included. Fairness is a simulation of 1,000 devices whose messages each take
a fixed time at their targets: waiting times of the quiet devices, with and without a noisy one that sends a hundred
times its rate, beside one queue for all (first in, first out) with the same targets.
"""

from __future__ import annotations

import argparse
import gc
import heapq
import json
import random
import resource
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from amqprouter.scheduling.decision import Decision
from amqprouter.scheduling.limit import Limit
from amqprouter.scheduling.scheduler import Scheduler
from amqprouter.settings import ClassSettings, SchedulerSettings
from benchmarks.figures import picture, table

QUIET, NOISY = 999, "noisy"
QUIET_RATE = 5.0
"""Messages per second of each quiet device, at random moments."""
LIMIT, BURST = 10.0, 20.0
NOISY_RATE = 100 * LIMIT
SERVICE, SLOTS = 0.05, 275
"""Seconds that a message is under way, and how many may be: 5,500 a second, of which the quiet devices need 4,995."""
OPEN = SchedulerSettings(rate=LIMIT, burst=BURST, max_in_flight=SLOTS)
UNLIMITED = (ClassSettings("default", limits="none"),)


@dataclass(frozen=True)
class Scenario:
    """What is simulated; `fifo` is one queue for all, without any scheduler."""

    name: str
    has_noisy: bool = True
    has_limit: bool = True
    fifo: bool = False


SCENARIOS = (
    Scenario("quiet devices alone", has_noisy=False),
    Scenario("and a noisy one, over its limit"),
    Scenario("and a noisy one, no limit set", has_limit=False),
    Scenario("and a noisy one, one FIFO queue", fifo=True),
)


@dataclass(frozen=True)
class Outcome:
    """Of one scenario. Waits are seconds, rates are messages a second."""

    name: str
    quiet_rate: float
    noisy_rate: float
    median: float
    p99: float
    longest: float
    jain: float
    """Of the quiet devices' rates, which differ by chance even when all that they send runs at once."""


def jain(shares: Sequence[float]) -> float:
    """Jain's index of fairness: 1 when all are equal, 1/n when one has everything."""
    return sum(shares) ** 2 / (len(shares) * sum(share * share for share in shares))


def arrivals(seconds: float, has_noisy: bool, seed: int = 1) -> list[tuple[float, str]]:
    """When which device sends; quiet devices send the same in every scenario."""
    chance = random.Random(seed)
    sent: list[tuple[float, str]] = []
    for number in range(QUIET):
        moment = chance.expovariate(QUIET_RATE)
        while moment < seconds:
            sent.append((moment, f"device-{number:04d}"))
            moment += chance.expovariate(QUIET_RATE)
    if has_noisy:
        sent += [(count / NOISY_RATE, NOISY) for count in range(int(seconds * NOISY_RATE))]
    return sorted(sent)


def simulate(scenario: Scenario, seconds: float) -> tuple[Outcome, list[float]]:
    """The outcome, and how long each message of the quiet devices waited, in order of length."""
    sent = arrivals(seconds, scenario.has_noisy)
    ran = (_fifo if scenario.fifo else _scheduled)(scenario, sent, seconds)
    waits = sorted(moment - came for moment, came, device in ran if device != NOISY)
    counts = Counter(device for _, _, device in ran)
    noisy = counts.pop(NOISY, 0)
    outcome = Outcome(
        scenario.name,
        sum(counts.values()) / seconds,
        max(0.0, noisy - BURST) / seconds if scenario.has_limit and not scenario.fifo else noisy / seconds,
        waits[len(waits) // 2],
        waits[len(waits) * 99 // 100],
        waits[-1],
        jain([float(count) for count in counts.values()]),
    )
    return outcome, waits


Sent = tuple[float, str]
Ran = list[tuple[float, float, str]]


def _fifo(scenario: Scenario, sent: list[tuple[float, str]], seconds: float) -> Ran:
    free = [0.0] * SLOTS
    ran: Ran = []
    for came, device in sent:
        moment = max(came, heapq.heappop(free))
        heapq.heappush(free, moment + SERVICE)
        if moment < seconds:
            ran.append((moment, came, device))
    return ran


def _scheduled(scenario: Scenario, sent: list[tuple[float, str]], seconds: float) -> Ran:

    scheduler: Scheduler[Sent] = Scheduler(OPEN, () if scenario.has_limit else UNLIMITED)
    under_way: deque[Sent] = deque()
    ran: Ran = []

    def run(item: Sent, now: float) -> None:
        ran.append((now, *item))
        under_way.append((now + SERVICE, item[1]))

    def until(moment: float) -> None:
        while True:
            due = scheduler.due()
            following = min(under_way[0][0] if under_way else moment, moment if due is None else due)
            if following >= moment:
                return
            while under_way and under_way[0][0] <= following:
                scheduler.finished(under_way.popleft()[1])
            for item in scheduler.take(following):
                run(item, following)

    for item in sent:
        until(item[0])
        if scheduler.offer(item[1], item, item[0]) is Decision.RUN:
            run(item, item[0])
    until(seconds)
    return ran


def shares_of_equals(devices: int = 1000, rounds: int = 20_000) -> float:
    """Jain's index of what equal devices get, all of which always have more to send than there is room for."""
    scheduler: Scheduler[str] = Scheduler(replace(OPEN, max_in_flight=100), UNLIMITED)
    names = [f"device-{number:04d}" for number in range(devices)]
    got: Counter[str] = Counter()
    under_way: deque[str] = deque()

    def offer(name: str) -> None:
        if scheduler.offer(name, name, 0.0) is Decision.RUN:
            under_way.append(name)

    for name in names * 3:
        offer(name)
    for _ in range(rounds):
        scheduler.finished(under_way.popleft())
        for name in scheduler.take(0.0):
            under_way.append(name)
            got[name] += 1
            offer(name)
    return jain([float(got[name]) for name in names])


def costs(devices: int) -> dict[str, float]:
    """Bytes for each device, and CPU µs for each message."""
    settings = replace(OPEN, rate=1000.0, burst=1e6, max_devices=2 * devices, max_in_flight=10**9)
    scheduler: Scheduler[str] = Scheduler(settings)
    gc.collect()
    before = resident()
    for number in range(devices):
        name = f"device-{number:07d}"
        scheduler.offer(name, name, 1.0)
        scheduler.finished(name)
    figures = {"bytes for each device": (resident() - before) / devices}
    names = random.Random(2).sample(list(scheduler._devices), min(devices, 100_000))

    def measured(action: Any, count: int) -> float:
        gc.collect()
        gc.disable()
        began = time.process_time()
        action()
        spent = (time.process_time() - began) / count * 1e6
        gc.enable()
        return spent

    def at_once() -> None:
        for name in names:
            scheduler.offer(name, name, 2.0)
            scheduler.finished(name)

    def over() -> None:
        for _ in range(100_000):
            scheduler.offer(NOISY, NOISY, 2.0)

    figures["runs at once"] = min(measured(at_once, len(names)) for _ in range(5))
    scheduler.set_limit(NOISY, Limit.parse("1/min"), 2.0)
    for _ in range(100):
        scheduler.offer(NOISY, NOISY, 2.0)
    figures["over its limit, too many wait already"] = min(measured(over, 100_000) for _ in range(3))
    for waiting in (100, 10_000, 100_000):
        for name, steps in (("room", _turns), ("its limit", _sleeps)):
            comes, runs = min((steps(waiting) for _ in range(3)), key=sum)
            figures[f"is to wait for {name}, {waiting:,} devices wait"] = comes
            figures[f"has waited for {name}, {waiting:,} devices wait"] = runs
    return figures


def _alternating(scheduler: Scheduler[str], step: Callable[[], float], running: deque[str]) -> tuple[float, float]:
    """CPU µs of a message when it comes, and when its turn has come; it comes again at once. `step` says what time it
    is, and has finished what was under way."""
    comes = runs = 0.0
    count = 0
    gc.collect()
    gc.disable()
    while count < 100_000:
        before = time.process_time()
        now = step()
        taken = scheduler.take(now)
        between = time.process_time()
        for name in taken:
            scheduler.offer(name, name, now)
        comes += time.process_time() - between
        runs += between - before
        running.extend(taken)
        count += len(taken)
    gc.enable()
    return comes / count * 1e6, runs / count * 1e6


def _turns(waiting: int) -> tuple[float, float]:
    """Messages that wait for room."""
    scheduler: Scheduler[str] = Scheduler(replace(OPEN, max_in_flight=50, max_waiting=10**9), UNLIMITED)
    names = [f"device-{number:07d}" for number in range(waiting)]
    for name in ["x"] * 100 + names * 2:
        scheduler.offer(name, name, 1.0)
    running = deque(["x"] * scheduler.in_flight)

    def step() -> float:
        for _ in range(20):
            scheduler.finished(running.popleft())
        return 1.0

    return _alternating(scheduler, step, running)


def _sleeps(waiting: int) -> tuple[float, float]:
    """Messages that wait for their devices' limits."""
    classes = (ClassSettings("default", limits=f"{100_000 / waiting * 10:g}/s burst 1"),)
    settings = replace(OPEN, max_in_flight=10**9, max_waiting=10**9, max_hold=900.0)
    scheduler: Scheduler[str] = Scheduler(settings, classes)
    names = [f"device-{number:07d}" for number in range(waiting)]
    now = 1.0
    for number, name in enumerate(names * 2):
        scheduler.offer(name, name, now + number * 1e-9)
    running: deque[str] = deque()

    def step() -> float:
        nonlocal now
        now += 0.002
        while running:
            scheduler.finished(running.popleft())
        return now

    return _alternating(scheduler, step, running)


def resident() -> int:
    """Bytes of memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def plot(waits: dict[str, list[float]], output: Path) -> None:
    """How many of the quiet devices' messages waited how long."""
    import matplotlib as mpl  # noqa: PLC0415  # only for those who want a picture

    mpl.use("agg")
    from matplotlib import pyplot  # noqa: PLC0415

    figure, axes = pyplot.subplots(figsize=(7, 3.6), layout="constrained")
    for name, lengths in waits.items():
        steps = range(0, len(lengths), max(1, len(lengths) // 2000))
        axes.plot([1e3 * lengths[n] + 0.01 for n in steps], [100 * (1 - n / len(lengths)) for n in steps], label=name)
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="milliseconds, or longer",
        ylabel="% of the messages waited",
        ylim=(0.05, 110),
    )
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    axes.set_title("How long messages of 999 quiet devices wait", fontsize=10)
    figure.savefig(output, dpi=80)


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.fairness_core", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--devices", type=int, default=1_000_000, help="known while costs are measured (%(default)s)")
    parser.add_argument("--seconds", type=float, default=60.0, help="of simulated time (%(default)s)")
    parser.add_argument("--json", type=Path, help="a file for all figures")
    parser.add_argument("--plot", type=picture, help="a file for a plot")
    options = parser.parse_args(argv)
    figures = costs(options.devices)
    print(table([(name, f"{figure:.2f}") for name, figure in figures.items()], ("cost", "bytes, or CPU µs")))
    equals = shares_of_equals()
    print(f"\nJain's index of 1,000 equal devices that always have more to send: {equals:.5f}\n")
    outcomes, waits = [], {}
    for scenario in SCENARIOS:
        outcome, lengths = simulate(scenario, options.seconds)
        outcomes.append(outcome)
        waits[scenario.name] = lengths
    rows = [
        (
            o.name,
            f"{o.quiet_rate:,.0f}",
            f"{o.noisy_rate:,.2f}",
            *(f"{1e3 * w:.2f}" for w in (o.median, o.p99, o.longest)),
        )
        for o in outcomes
    ]
    print(table(rows, ("1,000 devices", "quiet/s", "noisy/s", "median ms", "p99 ms", "longest ms")))
    if options.json is not None:
        results = {"costs": figures, "jain": equals, "scenarios": [asdict(outcome) for outcome in outcomes]}
        options.json.write_text(json.dumps(results, indent=1) + "\n")
    if options.plot is not None:
        plot(waits, options.plot)


if __name__ == "__main__":
    main(sys.argv[1:])
