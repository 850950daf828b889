"""A million messages waiting at the start: is the daemon's memory flat? ``python -m benchmarks.backlog --help``.

One private broker. The daemon declares its queues and is stopped; messages of 256 bytes are published to its ingress
queue, each with a secret, until the whole backlog waits there; then the daemon is started again and works it off,
through every stage, to an exchange where a bounded queue keeps only the last. Its memory is looked at all the while.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from twisted.internet.task import deferLater

from amqprouter.auth.password_hash import Cost, hash_secret
from amqprouter.broker.topology import Names
from amqprouter.settings import IngressSettings, TopologySettings
from benchmarks.figures import table
from benchmarks.forward import program, say
from benchmarks.layout import DEVICES, SOURCE_EXCHANGE, TARGET_EXCHANGE, TARGET_QUEUE
from benchmarks.traffic import device_secrets
from benchmarks.workbench import Workbench, cpu_seconds, peak_megabytes
from tests.support.gateway import Gateway
from tests.support.process import reactor, until
from tests.support.rabbitmq import PrivateRabbitMQ

LOOK = 0.2
"""Seconds between two looks at the daemon's memory."""
KEPT = 1000
"""Messages that the target queue keeps: the broker's memory is not what is measured."""
MARKS = (0.01, 0.1, 0.25, 0.5, 0.75, 1.0)
"""Parts of the backlog after which memory is told."""


def arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.backlog", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--prefetch", type=int, default=512, help="of each queue's consumer (default 512)")
    parser.add_argument("--queue-type", choices=("quorum", "classic"), default="quorum")
    parser.add_argument("--json", type=Path, help="a file for all figures")
    return parser.parse_args(argv)


def resident_megabytes(pid: int) -> float:
    """What a process has in the machine's memory now (proc(5), ``status``)."""
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmRSS:"))


def gateway_for(folder: Path, bench: Workbench, options: argparse.Namespace, known: dict[str, str]) -> Gateway:
    """The daemon with every stage on, and a route to the target."""
    gateway = Gateway(
        folder,
        bench.uri,
        "mongodb://127.0.0.1:1",  # no route names the store
        "none",
        topology={"queue_type": options.queue_type, "devices_exchange": SOURCE_EXCHANGE},
        ingress={"prefetch": options.prefetch},
        scheduler={"rate": 1_000_000, "burst": 1_000_000},
        route_all={"targets": f"exchange:{TARGET_EXCHANGE}"},
    )
    lines = [f"{device}:{hash_secret(secret.encode(), Cost.RANDOM)}" for device, secret in known.items()]
    gateway.file("devices.passwd", "\n".join(lines) + "\n")
    return gateway


async def declare_target(bench: Workbench) -> None:
    await bench.channel.exchange_declare(exchange=TARGET_EXCHANGE, exchange_type="topic", durable=True)
    await bench.channel.queue_declare(queue=TARGET_QUEUE, durable=True, arguments={"x-max-length": KEPT})
    await bench.channel.queue_bind(queue=TARGET_QUEUE, exchange=TARGET_EXCHANGE, routing_key="#")


async def fill(bench: Workbench, messages: int, known: dict[str, str]) -> None:
    """Publish the backlog by parts, for each part's confirms are kept in memory."""
    part, filled = 50_000, 0
    while filled < messages:
        await bench.fill(min(part, messages - filled), True, known)
        filled = min(filled + part, messages)
        say(f"{filled:,} of {messages:,} messages wait")


async def work_off(gateway: Gateway, messages: int) -> dict[str, Any]:
    """Start the daemon and watch it until everything is settled."""
    began = time.monotonic()
    await gateway.start()
    ready = time.monotonic() - began
    pid = gateway.running.pid
    marks: dict[str, float] = {}
    highest_unacked = 0.0
    settled = 0.0
    while settled < messages:
        await deferLater(reactor, LOOK)
        settled = await gateway.metric("settled_total")
        highest_unacked = max(highest_unacked, await gateway.metric("unacked"))
        for mark in MARKS:
            if settled >= mark * messages and f"{mark:.0%}" not in marks:
                marks[f"{mark:.0%}"] = resident_megabytes(pid)
    seconds = time.monotonic() - began
    return {
        "messages": messages,
        "ready_seconds": ready,
        "seconds": seconds,
        "rate": messages / seconds,
        "cpu_microseconds": cpu_seconds(pid) / messages * 1e6,
        "megabytes_after": marks,
        "peak_megabytes": peak_megabytes(pid),
        "highest_unacked": highest_unacked,
    }


async def main(options: argparse.Namespace) -> None:
    known = device_secrets()
    names = Names.of(TopologySettings(), IngressSettings())
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        async with PrivateRabbitMQ(Path(folder) / "rabbitmq") as broker:
            bench = Workbench(broker.uri)
            await bench.connect()
            await declare_target(bench)
            gateway = gateway_for(Path(folder) / "gateway", bench, options, known)
            try:
                await gateway.start()
                await gateway.stop()
                await fill(bench, options.messages, known)

                async def all_there() -> bool:
                    return bool((await broker.list_queues())[names.ingress] == options.messages)

                await until(all_there, what="the whole backlog waits", timeout=60)
                figures = await work_off(gateway, options.messages)
                queues = (names.ingress, names.rejected, names.dead_letters)

                async def nothing_left() -> bool:
                    counts = await broker.list_queues()
                    return not any(counts[queue] for queue in queues)

                # A quorum queue tells its length every five seconds or so.
                await until(nothing_left, what="no message is left, rejected or dead-lettered", timeout=30)
            finally:
                await gateway.stop()
                await bench.close()
    rows = [(f"after {mark}", f"{megabytes:.1f} MB") for mark, megabytes in figures["megabytes_after"].items()]
    rows += [
        ("at most", f"{figures['peak_megabytes']:.1f} MB"),
        ("unacknowledged, at most", f"{figures['highest_unacked']:,.0f}"),
        ("messages a second", f"{figures['rate']:,.0f}"),
        ("CPU a message", f"{figures['cpu_microseconds']:.1f} µs"),
    ]
    print(table(rows, (f"{options.messages:,} messages of {len(DEVICES)} devices", "")))
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(program(main(arguments(sys.argv[1:]))))
