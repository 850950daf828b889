"""Fairness on a real broker: ``python -m benchmarks.fairness [--seconds N] [--json FILE] [--plot FILE]``.

1,000 devices, of which one is noisy: it sends a hundred times its limit. What is behind takes a fixed number of
messages a second in all, more than the quiet devices need and less than all send together. Measured is how long
messages of the quiet devices are on their way, from before they are published until they are read from the target, with
the noisy device and without it: through the whole daemon, through one FIFO queue and through a queue per device with
pika, and through Celery with ``rate_limit``. And what the queues of either way cost the broker in memory.
"""

from __future__ import annotations

import argparse
import heapq
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from twisted.internet.task import LoopingCall, deferLater

from amqprouter.amqp.connection import Connection
from amqprouter.amqp.link import connect_once
from amqprouter.amqp.wire import Delivery, encode_ack
from amqprouter.settings import BrokerSettings
from benchmarks.fairness_core import jain, plot
from benchmarks.fairness_field import CAPACITY, FIELD, LIMIT, Entrant
from benchmarks.figures import picture, table
from benchmarks.forward import program, say
from benchmarks.layout import TARGET_EXCHANGE, TARGET_QUEUE
from tests.support.process import reactor, until
from tests.support.rabbitmq import PrivateRabbitMQ

QUIET = [f"quiet-{number:03d}" for number in range(999)]
NOISY = "noisy"
QUIET_RATE = 0.2
"""Messages a second of each quiet device, at random moments: 200 of all."""
NOISY_RATE = 100 * LIMIT
WARM_UP = 5.0
"""Seconds before what is measured: secrets are checked, programs have started, and the noisy device's burst is over."""
TICK = 0.005
"""Seconds between two writes of the publisher."""
MANY, FEW = 10_000, 105
"""Queues whose memory is measured: one per device; and 4 shards, the ingress queue, and parking for 100 devices."""
DEVICES = 100_000


@dataclass(frozen=True)
class Outcome:
    """Of one program, with or without the noisy device. Times are seconds, rates are messages a second."""

    name: str
    noisy: bool
    quiet_sent: int
    quiet_arrived: int
    """Of those sent while it was measured, before the end of that."""
    median: float
    p99: float
    """Of all sent; one that has not arrived counts as having waited until the end."""
    noisy_rate: float
    jain: float
    """Of the parts of each quiet device's messages that arrived."""


class Course:
    """One run: sends, reads and remembers."""

    def __init__(self, entrant: Entrant, connection: Connection, seconds: float, noisy: bool) -> None:
        self._entrant, self._connection, self._seconds, self._noisy = entrant, connection, seconds, noisy
        self._sent: dict[str, tuple[str, float]] = {}
        self._came: dict[str, float] = {}

    async def run(self) -> None:
        self._reading = reading = await self._connection.open_channel()
        self._writing = await self._connection.open_channel()
        reading.on_deliveries = self._take
        await reading.basic_consume(queue=TARGET_QUEUE, consumer_tag="reader")
        self._moments = self._schedule()
        self._next = next(self._moments)
        await self._warmed()
        self._began = time.monotonic()
        loop = LoopingCall(self._send)
        loop.start(TICK)
        await deferLater(reactor, WARM_UP + self._seconds)
        self._ended = time.monotonic()
        loop.stop()
        await reading.shut()

    async def _warmed(self) -> None:
        """Wait until the program forwards."""

        async def forwards() -> bool:
            self._publish(QUIET[0], "warm-up")
            return "warm-up" in self._came

        await until(forwards, what=f"{self._entrant.name} forwards", timeout=60, child=self._entrant.child)

    def _schedule(self) -> Iterator[tuple[float, str]]:
        """When which device sends. Quiet devices send the same in every run."""
        chance = random.Random(1)
        moments = [(chance.expovariate(QUIET_RATE), device) for device in QUIET]
        if self._noisy:
            moments.append((0.0, NOISY))
        heapq.heapify(moments)
        while True:
            moment, device = moments[0]
            yield moment, device
            wait = 1 / NOISY_RATE if device == NOISY else chance.expovariate(QUIET_RATE)
            heapq.heapreplace(moments, (moment + wait, device))

    def _send(self) -> None:
        elapsed = time.monotonic() - self._began
        while self._next[0] <= elapsed:
            moment, device = self._next
            number = str(len(self._sent))
            self._sent[number] = device, self._began + moment
            self._publish(device, number)
            self._next = next(self._moments)

    def _publish(self, device: str, number: str) -> None:
        writing = self._writing
        writing.write(self._entrant.message(writing, self._connection.frame_max, device, f'{{"n": "{number}"}}'))

    def _take(self, deliveries: list[Delivery]) -> None:
        now = time.monotonic()
        for delivery in deliveries:
            self._came.setdefault(json.loads(delivery.body)["n"], now)
        self._reading.write(encode_ack(self._reading.id, deliveries[-1].delivery_tag, True))

    def outcome(self) -> tuple[Outcome, list[float]]:
        """What was measured, and how long each quiet message took, in order of length."""
        start = self._began + WARM_UP
        measured = {n: sent for n, sent in self._sent.items() if sent[0] != NOISY and sent[1] >= start}
        waits = sorted(max(0.0, self._came.get(n, self._ended) - moment) for n, (_, moment) in measured.items())
        # What was sent in the last moments may be under way; it is late only when others of its age have come.
        due = {n: device for n, (device, moment) in measured.items() if moment < self._ended - 0.5}
        sent = Counter(due.values())
        arrived = Counter(device for n, device in due.items() if n in self._came)
        noisy = [n for n, (device, _) in self._sent.items() if device == NOISY and self._came.get(n, 0.0) >= start]
        outcome = Outcome(
            self._entrant.name,
            self._noisy,
            len(due),
            arrived.total(),
            waits[len(waits) // 2],
            waits[len(waits) * 99 // 100],
            len(noisy) / (self._ended - start),
            jain([arrived[device] / count for device, count in sent.items()]) if arrived else 0.0,
        )
        return outcome, waits


async def one_run(kind: type[Entrant], folder: Path, seconds: float, noisy: bool) -> tuple[Outcome, list[float]]:
    """One program on a broker of its own."""
    async with PrivateRabbitMQ(folder / "rabbitmq") as broker:
        connection = await connect_once(reactor, BrokerSettings(uri=broker.uri), "benchmark")
        channel = await connection.open_channel()
        await channel.exchange_declare(exchange=TARGET_EXCHANGE, exchange_type="topic", durable=True)
        await channel.queue_declare(queue=TARGET_QUEUE, durable=True)
        await channel.queue_bind(queue=TARGET_QUEUE, exchange=TARGET_EXCHANGE, routing_key="#")
        await channel.exchange_declare(
            exchange="devices",
            exchange_type="topic",
            durable=True,
            arguments={"alternate-exchange": "amqprouter.unrouted"},
        )
        entrant = kind(folder / "entrant", broker.uri, [*QUIET, NOISY])
        await entrant.prepare(channel)
        await entrant.start()
        course = Course(entrant, connection, seconds, noisy)
        try:
            await course.run()
        except BaseException:
            say("" if entrant.child is None else entrant.child.tail())
            raise
        finally:
            await entrant.stop()
            await connection.shut()
        return course.outcome()


async def memory(folder: Path) -> dict[str, float]:
    """Bytes of the broker's memory for `MANY` and for `FEW` queues, with a consumer each, and for `DEVICES` of them."""
    used: dict[int, float] = {}
    for count in (FEW, MANY):
        async with PrivateRabbitMQ(folder / f"memory-{count}") as broker:
            connection = await connect_once(reactor, BrokerSettings(uri=broker.uri), "benchmark")
            channel = await connection.open_channel()
            before = await _settled_memory(broker)
            for number in range(count):
                await channel.queue_declare(queue=f"device.{number}", durable=True)
                await channel.basic_consume(queue=f"device.{number}", consumer_tag=f"device.{number}")
            used[count] = await _settled_memory(broker) - before
            await connection.shut()
    each = used[MANY] / MANY
    return {
        f"{MANY:,} queues": used[MANY],
        f"{FEW:,} queues": used[FEW],
        "each of many": each,
        f"{DEVICES:,} queues, extrapolated": each * DEVICES,
        "part": used[FEW] / (each * DEVICES),
    }


async def _settled_memory(broker: PrivateRabbitMQ) -> float:
    await deferLater(reactor, 2.0)
    return float(await broker.eval("[erlang:garbage_collect(P) || P <- erlang:processes()], erlang:memory(total)."))


def report(outcomes: list[Outcome]) -> str:
    """A table, with and without the noisy device."""
    alone = {outcome.name: outcome for outcome in outcomes if not outcome.noisy}
    rows = []
    for outcome in outcomes:
        first = alone[outcome.name]
        share = outcome.quiet_arrived / outcome.quiet_sent * first.quiet_sent / max(1, first.quiet_arrived)
        rows.append(
            (
                outcome.name + (", and a noisy device" if outcome.noisy else ""),
                f"{outcome.median * 1e3:,.1f}",
                f"{outcome.p99 * 1e3:,.1f}",
                f"{outcome.p99 / first.p99:,.2f}" if outcome.noisy else "",
                f"{share:.3f}" if outcome.noisy else "",
                f"{outcome.noisy_rate:.2f}" if outcome.noisy else "",
                f"{outcome.jain:.4f}",
            )
        )
    return table(rows, ("quiet devices' messages", "p50 ms", "p99 ms", "p99 ×", "arrived ×", "noisy/s", "Jain"))


async def main(options: argparse.Namespace) -> None:
    outcomes: list[Outcome] = []
    waits: dict[str, list[float]] = {}
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="benchmark-") as temporary:
        folder = Path(temporary)
        for kind in FIELD:
            if kind.name.split()[0].strip(",") not in options.only:
                continue
            for noisy in (False, True):
                outcome, lengths = await one_run(kind, folder / f"{kind.__name__}-{noisy}", options.seconds, noisy)
                outcomes.append(outcome)
                waits[outcome.name + (", and a noisy device" if noisy else "")] = lengths
                say(str(outcome))
        queues = await memory(folder) if options.memory else {}
    print(report(outcomes))
    for name, figure in queues.items():
        print(f"{name}: {figure:.5f}" if name == "part" else f"{name}: {figure / 1024:,.0f} KiB")
    print(f"Capacity {CAPACITY:g}/s, limit {LIMIT:g}/s; load average {load:.1f} before, {os.getloadavg()[0]:.1f} after")
    if options.json is not None:
        results = {"outcomes": [asdict(one) for one in outcomes], "memory": queues, "load": load}
        options.json.write_text(json.dumps(results, indent=1) + "\n")
    if options.plot is not None:
        plot(waits, options.plot)


def arguments(argv: list[str]) -> argparse.Namespace:
    names = [kind.name.split()[0].strip(",") for kind in FIELD]
    parser = argparse.ArgumentParser(prog="benchmarks.fairness", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=30.0, help="measured in each run (%(default)s)")
    parser.add_argument("--only", nargs="+", choices=names, default=names, help="first words of programs' names")
    parser.add_argument("--no-memory", dest="memory", action="store_false", help="leave the broker's memory out")
    parser.add_argument("--json", type=Path, help="a file for all figures")
    parser.add_argument("--plot", type=picture, help="a file for a plot")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(program(main(arguments(sys.argv[1:]))))
