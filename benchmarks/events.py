"""How many events reach subscribers, how soon, and what a subscriber costs: ``python -m benchmarks.events``.

Theory of operation. For each contender in turn a server is started, then subscribers in a process of their own
(`peers/sse_load.c`). *At saturation* the publisher keeps a fixed number of events under way: one more goes out for each
that all of its subscribers have; so nobody is flooded, and what is measured is the slowest link. *At half load* events
go out evenly, at half the rate that this contender has just shown, and the latency of each is from just before its
bytes are written by the publisher to just after they are read by the subscriber; both on one clock.

On few cores the load client and the publisher take their share of them; what the client takes is in the results.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from benchmarks.contenders import BEFORE, ROOT
from benchmarks.events_load import Load, compile_client, quantile
from benchmarks.events_peers import Nchan, OurDaemon, Peer, Pushpin, cpu_seconds, memory, stolen_time
from benchmarks.forward import FLAME, Profiler, profile, profiled, program, say
from tests.support.process import reactor, run

SCENARIOS = {"1,000 on one topic": (1000, 1), "5,000 on one topic": (5000, 1), "5,000 on 5,000 topics": (5000, 5000)}
UNDER_WAY = {1: 20, 5000: 2000}
"""Events under way at saturation, by the number of topics."""
SAME_RATE = {1: 20_000.0, 5000: 2_000.0}
"""Events a second over all subscribers, at which latencies are compared too, as half of one's own rate differs much: so
few that everybody keeps up with them, also on slow machines."""
TICK = 0.0005
PACKAGES = "nginx-light libnginx-mod-nchan pushpin condure zurl"
WARM_UP, SETTLING = 1.0, 1.5
IDLE = 10_000
IDLE_SECONDS = 20.0


@dataclass(frozen=True)
class Run:
    """One contender in one scenario. Memory is bytes, latencies are milliseconds, CPU is seconds a second; `stolen` is
    the share of all CPU time that the hypervisor gave to others while latencies were measured."""

    peer: str
    scenario: str
    rate: float
    p50: float
    p99: float
    half_rate: float
    same_p50: float
    same_p99: float
    same_rate: float
    cpu: float
    cpu_microseconds: float
    broker_cpu: float
    client_cpu: float
    stolen: float
    memory: float
    lost: int
    stream: tuple[float, float] | None = None
    """Median and 99th percentile of the stream alone, at the half rate: the broker and somebody who reads."""


class Stage:
    """One server with its subscribers."""

    def __init__(self, peer: Peer, load: Load, topics: int) -> None:
        self.peer, self.load, self.topics = peer, load, topics
        self.receivers = load.connections // topics
        self.published = 0

    def send(self, count: int) -> None:
        if count > 0:
            first = self.published
            self.peer.publish([number % self.topics for number in range(first, first + count)])
            self.published += count

    async def saturate(self, seconds: float) -> None:
        """Keep events under way for as long."""
        end, base = time.monotonic() + seconds, self.load.received - self.published * self.receivers
        while time.monotonic() < end:
            arrived = (self.load.received - base) // self.receivers
            self.send(UNDER_WAY[self.topics] - (self.published - arrived))
            await deferLater(reactor, TICK)

    async def pace(self, rate: float, seconds: float) -> None:
        """Send this many events a second, evenly."""
        began, base = time.monotonic(), self.published
        while (passed := time.monotonic() - began) < seconds:
            self.send(int(passed * rate) - (self.published - base))
            await deferLater(reactor, TICK)


async def latencies(stage: Stage, rate: float, seconds: float) -> tuple[float, float, float]:
    """The rate that was had, the median and the 99th percentile, at so many events a second over all subscribers."""
    await deferLater(reactor, SETTLING)
    await stage.pace(rate / stage.receivers, WARM_UP)
    earlier, began = stage.load.snapshot(), time.monotonic()
    await stage.pace(rate / stage.receivers, seconds)
    buckets = stage.load.snapshot().since(earlier)
    return sum(buckets) / (time.monotonic() - began), quantile(buckets, 0.5), quantile(buckets, 0.99)


async def stream_alone(stage: Stage, peer: OurDaemon, rate: float, seconds: float) -> tuple[float, float]:
    """What the broker takes of our latencies: its stream, read in a process of its own, once the daemon is gone."""
    assert peer.child is not None
    await peer.child.stop()
    await deferLater(reactor, SETTLING)
    command = (sys.executable, "-m", "benchmarks.peers.stream_reader", peer.broker.uri, str(seconds + 2 * WARM_UP))
    reading = Deferred.fromCoroutine(run(*command, cwd=ROOT, timeout=seconds + 60))
    await stage.pace(rate, seconds + 2 * WARM_UP)
    median_, slowest = (float(text) for text in (await reading).stdout.split())
    return median_, slowest


async def one_run(
    peer: Peer, program_: Path, folder: Path, scenario: str, seconds: float, flame: Path | None = None
) -> Run:
    subscribers, topics = SCENARIOS[scenario]
    try:
        await peer.start()
        await deferLater(reactor, SETTLING)
        before = memory(peer.pids)
        path = peer.path if topics > 1 else peer.path.replace("%d", "0")
        load = Load(program_, folder, peer.port, subscribers, path)
        try:
            await load.all_connected()
            await deferLater(reactor, SETTLING)
            each = (memory(peer.pids) - before) / subscribers
            stage = Stage(peer, load, topics)
            await stage.saturate(WARM_UP)
            pids, broker = peer.pids, [peer.broker.pid] if isinstance(peer, OurDaemon) else []
            cpu, broker_cpu, client_cpu = cpu_seconds(pids), cpu_seconds(broker), cpu_seconds([load.child.pid])
            profiler = None if flame is None else Profiler(pids[0], flame)
            received, began = load.received, time.monotonic()
            await stage.saturate(seconds)
            if profiler is not None:
                await profiler.stop()
            passed, count = time.monotonic() - began, load.received - received
            cpu, broker_cpu = cpu_seconds(pids) - cpu, cpu_seconds(broker) - broker_cpu
            client_cpu = cpu_seconds([load.child.pid]) - client_cpu
            await deferLater(reactor, SETTLING)
            before_latencies = stolen_time()
            half_rate, p50, p99 = await latencies(stage, count / passed / 2, seconds)
            same_rate, same_p50, same_p99 = await latencies(stage, SAME_RATE[topics], seconds)
            stolen, total = (late - early for late, early in zip(stolen_time(), before_latencies, strict=True))
            lost = load.lost
            stream = None
            if isinstance(peer, OurDaemon) and topics > 1:
                stream = await stream_alone(stage, peer, count / passed / 2, seconds)
            return Run(
                peer.name,
                scenario,
                count / passed,
                p50,
                p99,
                half_rate,
                same_p50,
                same_p99,
                same_rate,
                cpu / passed,
                cpu / max(count, 1) * 1e6,
                broker_cpu / passed,
                client_cpu / passed,
                stolen / total,
                each,
                lost,
                stream,
            )
        finally:
            await load.stop()
    finally:
        await peer.stop()


async def hold_idle(program_: Path, folder: Path) -> dict[str, float]:
    """Our daemon with `IDLE` subscribers of as many topics, and nothing to tell them but heartbeats."""
    peer = OurDaemon(folder / "idle")
    try:
        await peer.start()
        await deferLater(reactor, SETTLING)
        before = memory(peer.pids)
        load = Load(program_, folder, peer.port, IDLE, peer.path)
        try:
            await load.all_connected()
            await deferLater(reactor, SETTLING)
            after, cpu = memory(peer.pids), cpu_seconds(peer.pids)
            await deferLater(reactor, IDLE_SECONDS)
            cpu = (cpu_seconds(peer.pids) - cpu) / IDLE_SECONDS
            return {"held": load.connected, "bytes_each": (after - before) / IDLE, "cpu": cpu}
        finally:
            await load.stop()
    finally:
        await peer.stop()


def table(runs: list[Run]) -> str:
    """Medians, and what we are against the others."""
    lines = [f"{'':24}{'':12}{'events/s':>12}{'CPU µs':>8}{'p50 ms':>9}{'p99 ms':>9}{'same p99':>9}{'kB each':>9}"]
    for scenario in SCENARIOS:
        for peer in dict.fromkeys(one.peer for one in runs):
            mine = [one for one in runs if (one.peer, one.scenario) == (peer, scenario)]
            if mine:
                rate, cpu, p50, p99, same, kilobytes = (
                    median(getattr(one, name) for one in mine)
                    for name in ("rate", "cpu_microseconds", "p50", "p99", "same_p99", "memory")
                )
                lines.append(
                    f"{scenario:24}{peer:12}{rate:12,.0f}{cpu:8.2f}{p50:9.2f}{p99:9.2f}{same:9.2f}"
                    f"{kilobytes / 1000:9.1f}"
                )
    return "\n".join(lines)


async def main(options: argparse.Namespace) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    runs: list[Run] = []
    idle: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="benchmark-") as name:
        folder = Path(name)
        program_ = compile_client(folder)
        peers: list[Peer] = [OurDaemon(folder / "ours")]
        if options.against is not None:
            peers.append(OurDaemon(folder / "before", options.against.absolute(), BEFORE))
        for kind in (Nchan, Pushpin):
            if kind.available():
                peers.append(kind(folder / kind.name))
            else:
                say(f"{kind.name} IS NOT INSTALLED AND NOT MEASURED; apt-get install {PACKAGES}")
        peers = [peer for peer in peers if peer.name in (*options.only, BEFORE)]
        for number in range(options.rounds):
            for scenario in (list(SCENARIOS)[which - 1] for which in options.scenarios):
                for place in range(len(peers)):
                    peer = peers[(place + number) % len(peers)]
                    try:
                        flame = profiled(options.flame, peer.name)
                        one = await one_run(peer, program_, folder, scenario, options.seconds, flame)
                    except Exception as error:
                        if isinstance(peer, OurDaemon):
                            raise
                        say(f"{scenario}: {peer.name} FAILED, AND IS LEFT OUT: {error}")
                        continue
                    runs.append(one)
                    say(
                        f"{scenario}: {peer.name} {one.rate:,.0f} events/s (CPU {one.cpu:.2f}, broker "
                        f"{one.broker_cpu:.2f}, client {one.client_cpu:.2f}), at {one.half_rate:,.0f}/s "
                        f"p50 {one.p50:.2f} ms p99 {one.p99:.2f} ms, at {one.same_rate:,.0f}/s "
                        f"p50 {one.same_p50:.2f} ms p99 {one.same_p99:.2f} ms, {one.memory / 1000:.1f} kB each, "
                        f"{one.lost} lost; load {os.getloadavg()[0]:.1f}, {one.stolen:.0%} of the CPU time stolen"
                    )
        if options.idle:
            idle = await hold_idle(program_, folder)
            say(f"idle: {idle['held']:.0f} held, {idle['bytes_each'] / 1000:.1f} kB each, CPU {idle['cpu']:.3f}")
    print(table(runs))
    alone = [run.stream for run in runs if run.stream is not None]
    if alone:
        p50, p99 = (median(figures) for figures in zip(*alone, strict=True))
        print(f"the stream alone, at the half rate of 5,000 topics: p50 {p50:.2f} ms p99 {p99:.2f} ms")
    if options.json is not None:
        options.json.write_text(json.dumps({"runs": [asdict(run) for run in runs], "idle": idle}, indent=1) + "\n")


def arguments(argv: list[str]) -> Any:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.events", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    every = range(1, len(SCENARIOS) + 1)
    parser.add_argument("--scenarios", type=int, nargs="+", choices=every, default=every, help="by number (all)")
    parser.add_argument("--only", nargs="+", default=["amqprouter", "nchan", "Pushpin"])
    parser.add_argument("--idle", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--against", type=Path, help="another checkout of amqprouter, as one more contender: before")
    parser.add_argument("--flame", type=profile, help=FLAME)
    parser.add_argument("--json", type=Path)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(program(main(arguments(sys.argv[1:]))))
