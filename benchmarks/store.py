"""Storing rates: the whole daemon against programs that only store. ``python -m benchmarks.store --help``.

A private broker for each type of queue, and a private store. Everybody reads the same: 100 device queues, quorum or
classic, full of persistent JSON messages, each with a secret, four properties and two headers. The bare programs
consume the 100 queues on one channel with a prefetch for each, and store; our daemon has them as its ``[ingress]
queues``, and authenticates, authorises, schedules and routes each message to ``store:``. (It also has queues of its
own, which are empty.) A batch has 500 documents at most and one ack, but for ``pika-single``, which has one insert and
one ack a message; the bare programs wait 100 ms for theirs to fill, so they always do as long as messages come.
``before`` is the daemon of another checkout (``--against``).

They store in the sink, which keeps nothing and answers at once, and in the MongoDB-compatible server that the tests
have; that one is slow, and so gets fewer messages. A run begins with every consumer registered behind the benchmark's
own and 2,000 messages stored through a queue apart, and ends when the store has everything. It counts only if every
message is stored once and nothing is left unacknowledged. Acks are counted by the bytes that the broker got: nothing
else is sent to it while one only consumes.

``--latency`` then asks how long it takes from publish to stored at a tenth of each contender's own rate; then all wait
5 ms for a batch to fill.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from twisted.internet.task import deferLater

from amqprouter.amqp.link import connect_once
from amqprouter.settings import BrokerSettings
from benchmarks.contenders import COMPILED, OURS, Contender
from benchmarks.figures import picture, ratios, ratios_table, summarise
from benchmarks.forward import FLAME, PAUSE, SETTLING, Profiler, profile, profiled, program, say
from benchmarks.layout import DEVICES, SOURCE_EXCHANGE
from benchmarks.sink import Server, Sink, Store, Stored, compiler_missing
from benchmarks.store_contenders import LINGER, NAMES, SHORT_LINGER, WARM_UP, Prepared, field, prepare
from benchmarks.store_figures import (
    GOALS,
    P99,
    Latency,
    StoreRun,
    grouped,
    latency,
    latency_table,
    limits,
    plot,
    store_json,
    store_table,
)
from benchmarks.store_traffic import SIZES, Readings
from benchmarks.traffic import device_secrets
from benchmarks.workbench import Stalled, Workbench, cpu_seconds, octets_received, peak_megabytes, quiet, workbench
from tests.support.process import reactor, until
from tests.support.rabbitmq import PrivateRabbitMQ

QUEUE_TYPES = ("classic", "quorum")
STORES: dict[str, Callable[[Path], Store]] = {"sink": Sink, "server": Server}
WARM_UP_MESSAGES = 2000
"""Stored before each run: secrets are checked, code is compiled by those who compile as they go."""
LOOK = 0.02
"""Seconds between two looks at the store. The sink says itself when the last message came."""
PATIENCE = 30.0
"""Seconds without a further message after which a contender has stalled."""
ACK_BYTES = 21
"""A basic.ack: a frame's 8 bytes, the method's 4, a tag of 8 and a bit (AMQP 0-9-1, 4.2.3 and 1.8.3.13)."""
TENTH = 0.1
LEAD_IN = 1.0
"""Seconds at that rate that do not count, before those that do."""
TICK = 0.001
"""Seconds between publishing what is due."""


def arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.store", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--messages", type=int, default=20_000, help="in each run on the sink: full batches (default 20000)"
    )
    parser.add_argument("--server-messages", type=int, default=2000, help="in each run on the server (default 2000)")
    parser.add_argument("--prefetch", type=int, default=32, help="of each of the consumers (default 32)")
    parser.add_argument("--queues", nargs="+", choices=QUEUE_TYPES, default=list(QUEUE_TYPES))
    parser.add_argument("--sizes", nargs="+", type=int, default=list(SIZES), help="of bodies, in bytes (100 256 4096)")
    parser.add_argument("--stores", nargs="+", choices=STORES, default=list(STORES))
    parser.add_argument("--only", nargs="+", choices=NAMES, default=list(NAMES), metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--against", type=Path, help="another checkout of amqprouter, as one more contender: before")
    parser.add_argument("--latency", action="store_true", help="measure latencies, too, on the sink")
    parser.add_argument("--seconds", type=float, default=5.0, help="for each of them (default 5)")
    parser.add_argument("--flame", type=profile, help=FLAME)
    parser.add_argument("--plot", type=picture, help="a file for a plot, such as store.png")
    parser.add_argument("--json", type=Path, help="a file for all figures")
    options = parser.parse_args(argv)
    if min(options.messages, options.server_messages) < len(DEVICES):
        parser.error(f"a run needs {len(DEVICES)} messages at least: one for each queue")
    if min(options.sizes) < min(SIZES):
        parser.error(f"a body has {min(SIZES)} bytes at least")
    if options.against is not None and not (options.against / "amqprouter").is_dir():
        parser.error(f"--against {options.against}: no checkout of amqprouter")
    return options


@dataclass(frozen=True)
class Course:
    """Where runs take place: one broker, one store, and messages of one size."""

    broker: PrivateRabbitMQ
    bench: Workbench
    store: Store
    queue_type: str
    size: int
    known: dict[str, str]

    @property
    def mode(self) -> str:
        return f"{self.queue_type}, {self.size} B, {self.store.name}"

    def readings(self, exchange: str) -> Readings:
        return Readings(self.size, exchange, self.known)

    def field(self, prepared: list[Prepared], folder: Path, prefetch: int, linger: int) -> list[Contender]:
        """The contenders for this broker and this store; those of all sizes are the same."""
        uri, known = self.bench.uri, self.known
        return field(prepared, folder, uri, self.store, self.queue_type, prefetch, linger, known)

    async def begin(self, contender: Contender, consumers: int) -> None:
        """Start a contender with everything empty, and have it store the first messages.

        :raises Stalled: it did not.
        """
        await self.consumers_are(0)
        await self.bench.purge()
        await self.bench.channel.queue_purge(queue=WARM_UP)
        self.store.reset()
        if consumers > 1:
            await self.bench.close_gate(plugged=True)
        await contender.start()
        await self.consumers_are(consumers)
        await self.bench.send(self.readings(WARM_UP).encoder(0, WARM_UP_MESSAGES), WARM_UP_MESSAGES)
        await self.stored(WARM_UP_MESSAGES)
        await quiet(self.broker, self.bench)

    async def consumers_are(self, count: int) -> None:
        """Wait until every device queue has this many consumers. A quorum queue tells clients of active ones alone."""
        others = (
            '[N || Q <- rabbit_amqqueue:list(<<"/">>), {_, _, _, <<"device.", _/binary>>} <- [amqqueue:get_name(Q)],'
            f" N <- [length(rabbit_amqqueue:consumers(Q))], N =/= {count}]"
        )

        async def so_many() -> bool:
            return await self.broker.eval(others) == "[]"

        await until(so_many, what=f"every queue has {count} consumers", timeout=60)

    async def stored(self, count: int) -> tuple[float, Stored]:
        """Wait until this many documents are stored; the moment, on the monotonic clock, and what is there.

        :raises Stalled: fewer, and no more coming.
        """
        seen, since, largest = -1, time.monotonic(), 0
        while True:
            there = self.store.look()
            now = time.monotonic()
            largest = max(largest, there.largest or 0)
            if there.documents >= count:
                found = Stored(there.documents, there.distinct, there.strange, there.inserts, largest or None)
                return (now if there.last_at is None else there.last_at), found
            if there.documents > seen:
                seen, since = there.documents, now
            elif now - since > PATIENCE:
                raise Stalled(f"{seen} of {count} messages were stored, and no more for {PATIENCE:g} s")
            await deferLater(reactor, LOOK)

    async def end(self, contender: Contender, count: int) -> None:
        """See that every message is stored once and acknowledged, and end the contender.

        :raises Stalled: it is not so.
        """
        unacknowledged = "lists:sum([N || P <- rabbit_channel:list(), {_, N} <- rabbit_channel:info(P, [%s])])"

        async def settled() -> bool:
            return await self.broker.eval(unacknowledged % "messages_unacknowledged") == "0"

        await until(settled, what=f"{contender.name} has acknowledged everything", timeout=10)
        await contender.stop()
        await self.consumers_are(0)
        left, fault = await self.bench.left_over(), self.store.check().fault(WARM_UP_MESSAGES + count)
        if left or fault:
            raise Stalled(f"{contender.name}: {left} messages are left in the queues; {fault or 'all are stored'}")


@asynccontextmanager
async def ending(contender: Contender) -> AsyncIterator[None]:
    """Tell the end of the contender's log when something fails, and end it in any case."""
    try:
        yield
    except BaseException:
        say(f"{contender.name} failed; the end of its log:\n{contender.log_tail()}")
        raise
    finally:
        await contender.stop()


async def one_run(course: Course, contender: Contender, number: int, count: int, flame: Path | None = None) -> StoreRun:
    """Fill the queues and have them stored, with a profile of it in `flame`.

    :raises Stalled: not every message was stored once and acknowledged.
    """
    bench, store, broker = course.bench, course.store, course.broker
    await course.begin(contender, 2)  # the gate, and the contender
    await bench.send(course.readings(SOURCE_EXCHANGE).encoder(WARM_UP_MESSAGES, count), count)
    await deferLater(reactor, PAUSE)
    pid = contender.pid
    assert pid is not None
    profiler = Profiler(pid, flame) if flame is not None else None
    octets, inserts = await octets_received(broker, bench), store.look().inserts
    cpu, broker_cpu, store_cpu = cpu_seconds(pid), cpu_seconds(broker.pid), cpu_seconds(store.pid)
    began = await bench.open_gate()
    ended, there = await course.stored(WARM_UP_MESSAGES + count)
    await deferLater(reactor, SETTLING)
    if profiler is not None:
        await profiler.stop()
    cpu, broker_cpu, store_cpu = (
        cpu_seconds(process) - before
        for process, before in ((pid, cpu), (broker.pid, broker_cpu), (store.pid, store_cpu))
    )
    peak, octets = peak_megabytes(pid), await octets_received(broker, bench) - octets
    await course.end(contender, count)
    return StoreRun(
        contender.name,
        course.mode,
        number,
        count,
        ended - began,
        cpu,
        broker_cpu,
        peak,
        store_cpu,
        None if there.inserts is None or inserts is None else there.inserts - inserts,
        there.largest,
        octets // ACK_BYTES,
    )


async def one_latency(course: Course, contender: Contender, rate: float, seconds: float) -> Latency:
    """Publish evenly, at this many messages a second, and see when each was stored.

    :raises Stalled: not every message was stored once and acknowledged.
    """
    assert isinstance(course.store, Sink)
    await course.begin(contender, 1)
    count, readings = int(rate * (LEAD_IN + seconds)), course.readings(SOURCE_EXCHANGE)
    connection = await connect_once(reactor, BrokerSettings(uri=course.bench.uri), "benchmark devices")
    channel = await connection.open_channel()
    messages = [readings.one(channel.id, connection.frame_max, WARM_UP_MESSAGES + each) for each in range(count)]
    sent: list[float] = []
    began = time.monotonic()
    while len(sent) < count:
        now = time.monotonic()
        for message in messages[len(sent) : int((now - began) * rate) + 1]:
            sent.append(time.monotonic())
            channel.write(message)
        await deferLater(reactor, TICK)
    await course.stored(WARM_UP_MESSAGES + count)
    await connection.shut()
    await course.end(contender, count)
    came = course.store.moments(WARM_UP_MESSAGES, count)
    counted = began + LEAD_IN
    waits = [moment - before for moment, before in zip(came, sent, strict=True) if moment and before >= counted]
    return latency(contender.name, course.mode, rate, waits)


async def rates(
    courses: Sequence[Course], prepared: list[Prepared], folder: Path, options: argparse.Namespace
) -> list[StoreRun]:
    """All runs on one broker and one store; contenders take turns, and every round begins with another."""
    contenders = courses[0].field(prepared, folder, options.prefetch, LINGER)
    count = options.messages if isinstance(courses[0].store, Sink) else options.server_messages
    runs: list[StoreRun] = []
    for number in range(options.rounds):
        for course in courses:
            for place in range(len(contenders)):
                contender = contenders[(place + number) % len(contenders)]
                async with ending(contender):
                    run = await one_run(course, contender, number, count, profiled(options.flame, contender.name))
                runs.append(run)
                rate, cpu = run.messages / run.seconds, (run.cpu or 0) / run.messages * 1e6
                say(f"round {number + 1}, {run.mode}: {run.name} {rate:,.0f} messages/s, {cpu:.1f} µs CPU each")
    return runs


async def all_latencies(
    courses: Sequence[Course],
    prepared: list[Prepared],
    folder: Path,
    options: argparse.Namespace,
    runs: Sequence[StoreRun],
) -> list[Latency]:
    """Latencies at a tenth of the medians of `runs`."""
    contenders = courses[0].field(prepared, folder, options.prefetch, SHORT_LINGER)
    medians = {key: median(run.messages / run.seconds for run in of) for key, of in grouped(runs).items()}
    latencies: list[Latency] = []
    for course in courses:
        for contender in contenders:
            rate = TENTH * medians[course.mode, contender.name]
            async with ending(contender):
                latencies.append(await one_latency(course, contender, rate, options.seconds))
            say(f"at {rate:,.0f}/s, {course.mode}: {contender.name} p99 {latencies[-1].p99:.1f} ms")
    return latencies


async def declare_warm_up(bench: Workbench, queue_type: str) -> None:
    """Declare what the first messages go through."""
    await bench.channel.exchange_declare(exchange=WARM_UP, exchange_type="topic", durable=True)
    await bench.channel.queue_declare(queue=WARM_UP, durable=True, arguments={"x-queue-type": queue_type})
    await bench.channel.queue_bind(queue=WARM_UP, exchange=WARM_UP, routing_key="#")


async def measure(options: argparse.Namespace, folder: Path) -> tuple[list[StoreRun], list[Latency]]:
    """Everything that was asked for."""
    runs: list[StoreRun] = []
    latencies: list[Latency] = []
    known = device_secrets()
    prepared = await prepare(options.only, options.against, folder, say)
    for queue_type in options.queues:
        async with PrivateRabbitMQ(folder / queue_type) as broker:
            # As seldom as by default, and not as the tests want it: 100 queues would keep the broker busy with it.
            await broker.eval("application:set_env(rabbit, quorum_tick_interval, 5000)")
            async with workbench(broker.uri, {"x-queue-type": queue_type}) as bench:
                await declare_warm_up(bench, queue_type)
                for name in options.stores:
                    place = folder / f"{queue_type}-{name}"
                    store = STORES[name](place / "store")
                    courses = [Course(broker, bench, store, queue_type, size, known) for size in options.sizes]
                    store.start()
                    try:
                        runs += await rates(courses, prepared, place / "rates", options)
                        if options.latency and isinstance(store, Sink):
                            latencies += await all_latencies(courses, prepared, place / "latencies", options, runs)
                    finally:
                        store.stop()
    return runs, latencies


async def main(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        runs, latencies = await measure(options, Path(folder))
    print(store_table(runs))
    for text in (limits(runs, Sink.name), latency_table(latencies) if latencies else ""):
        if text:
            print(f"\n{text}")
    for ours in (OURS, COMPILED):
        compared = ratios(summarise(runs), ours, GOALS)
        compared += [
            {"goal": f"p99 ≤ {P99:g} ms", "mode": one.mode, "ratio": one.p99, "met": one.p99 <= P99}
            for one in latencies
            if one.name == ours
        ]
        if compared:
            print(f"\n{ours}:\n\n{ratios_table(compared)}")
    if options.plot is not None:
        plot(runs, options.plot)
    if options.json is not None:
        settings = {name: getattr(options, name) for name in ("rounds", "messages", "server_messages", "prefetch")}
        options.json.write_text(json.dumps(store_json(runs, latencies, settings, (OURS, COMPILED)), indent=1) + "\n")


if __name__ == "__main__":
    parsed = arguments(sys.argv[1:])
    if "sink" in parsed.stores and compiler_missing():
        say(f"the sink cannot be built: {compiler_missing()}")
        sys.exit(1)
    sys.exit(program(main(parsed)))
