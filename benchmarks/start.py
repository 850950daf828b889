"""What does a long history of parked devices cost a start? ``python -m benchmarks.start --help``.

One private broker, and the daemon as it is for many devices. Starts are timed, from the process to ``/readyz``;
of that, what the registry of parking queues takes, by the daemon's log; and what it read:

* with no history, a few times: what everything else costs;
* after so many devices were parked once an hour for so many days, under a release that takes no snapshots: the records
  are published as it would have left them. That is the first start after an upgrade, which reads them all;
* when the daemon was killed after one more hour of that: every other start;
* with so many parking queues in use, each with a message in it: ready, and when all have been emptied.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from amqprouter.amqp.channel import Channel
from amqprouter.amqp.connection import Connection
from amqprouter.amqp.delayed_calls import at_once
from amqprouter.amqp.link import connect_once
from amqprouter.amqp.properties import Properties, encode_properties
from amqprouter.amqp.wire import Confirm, encode_publish
from amqprouter.broker.parked_message import parked_properties
from amqprouter.broker.parking import parking_queue_name
from amqprouter.identity import Verdict
from amqprouter.pipeline.message import Message
from amqprouter.settings import BrokerSettings, TopologySettings
from benchmarks.figures import table
from benchmarks.forward import program, say
from tests.support.gateway import Gateway
from tests.support.process import reactor, until
from tests.support.rabbitmq import VERSION, PrivateRabbitMQ

PREFIX = TopologySettings().prefix
STREAM = f"{PREFIX}.parked"
DECLARED_AT_ONCE = 20
"""Queues whose declarations are under way together, while the benchmark makes them."""
SAID = re.compile(r"Read which devices have parking queues: (\d+) records, in ([\d.]+) s")
BLOCK = 20_000
"""Records that are published before their confirms are waited for."""
SETTLING = 12.0
"""Seconds in which the daemon has written a snapshot that is due."""


def arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.start", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--devices", type=int, default=10_000)
    parser.add_argument("--days", type=float, default=7.0, help="for which each is parked once an hour (default 7)")
    parser.add_argument("--in-use", type=int, default=500, help="parking queues with a message each (default 500)")
    parser.add_argument("--queue-type", choices=("quorum", "classic"), default="quorum")
    parser.add_argument("--rounds", type=int, default=3, help="of the starts that can be repeated (default 3)")
    parser.add_argument("--json", type=Path, help="a file for all figures")
    return parser.parse_args(argv)


class Publishing:
    """Publishes to queues, and waits for the confirms."""

    def __init__(self, connection: Connection, channel: Channel) -> None:
        self._connection = connection
        self._channel = channel
        self._sent = 0
        self._answered = 0
        self._waiting: Deferred[None] | None = None
        channel.on_confirm = self._confirmed

    def _confirmed(self, confirm: Confirm) -> None:
        self._answered += confirm.delivery_tag - self._answered if confirm.multiple else 1
        if self._waiting is not None and self._answered >= self._sent:
            waiting, self._waiting = self._waiting, None
            waiting.callback(None)

    async def send(self, messages: list[tuple[str, bytes, bytes]]) -> None:
        """Queue, properties and body of each; returns when the broker has all."""
        limit = self._connection.frame_max
        self._sent += len(messages)
        self._waiting = Deferred()
        waiting = self._waiting
        self._channel.write(
            b"".join(encode_publish(self._channel.id, b"", q.encode(), p, b, limit) for q, p, b in messages)
        )
        await waiting


@asynccontextmanager
async def publishing(uri: str) -> AsyncIterator[Publishing]:
    connection = await connect_once(reactor, BrokerSettings(uri=uri), "benchmark")
    channel = await connection.open_channel()
    await channel.confirm_select()
    try:
        yield Publishing(connection, channel)
    finally:
        await connection.shut()


async def an_hour(sender: Publishing, devices: int) -> None:
    """Every device is parked, and later it is not."""
    properties = encode_properties(content_type="application/json")
    records = [
        (STREAM, properties, json.dumps({"lot": f"device{number:05}", "used": used, "by": "0123456789abcdef"}).encode())
        for number in range(devices)
        for used in (True, False)
    ]
    for start in range(0, len(records), BLOCK):
        await sender.send(records[start : start + BLOCK])


@dataclass(frozen=True)
class Start:
    """Seconds until the daemon is ready, and of these in the registry; and the records that were read there."""

    ready: float
    registry: float
    records: int


async def timed_start(gateway: Gateway, timeout: float = 60.0) -> Start:
    """Start the daemon and wait until it is ready."""
    began = time.monotonic()
    await gateway.start(ready=False)
    await until(gateway.is_ready, what="the gateway is ready", timeout=timeout, child=gateway.running)
    ready = time.monotonic() - began
    said = SAID.findall(gateway.running.log.read_text("utf-8", "replace"))[-1]
    return Start(ready, float(said[1]), int(said[0]))


async def main(options: argparse.Namespace) -> None:
    figures: dict[str, Any] = {"version": ".".join(map(str, VERSION)), "devices": options.devices, "days": options.days}
    hours = round(options.days * 24)
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        async with PrivateRabbitMQ(Path(folder) / "rabbitmq") as broker:
            gateway = Gateway(
                Path(folder) / "gateway",
                broker.uri,
                "mongodb://127.0.0.1:1",  # no route names the store
                "none",
                topology={"queue_type": options.queue_type},
                route_all={"targets": "events:"},
            )
            gateway.file("devices.passwd", "")
            try:
                await timed_start(gateway)  # declares everything
                await gateway.stop()
                figures["empty"] = [await restarted(gateway) for _ in range(options.rounds)]
                say(f"no history: {typical(figures['empty'])}")
                async with publishing(broker.uri) as sender:
                    for hour in range(hours):
                        await an_hour(sender, options.devices)
                        if hour % 24 == 23:
                            say(f"{2 * options.devices * (hour + 1):,} records")
                figures["records"] = 2 * options.devices * hours
                figures["upgrade"] = await timed_start(gateway, timeout=600)
                say(f"the first start after an upgrade: {figures['upgrade']}")
                figures["after"] = []
                for _ in range(options.rounds):
                    async with publishing(broker.uri) as sender:
                        await an_hour(sender, options.devices)
                    await deferLater(reactor, SETTLING)
                    await gateway.running.kill()
                    figures["after"].append(await timed_start(gateway))
                say(f"another start: {typical(figures['after'])}")
                await gateway.stop()
                figures["in_use"] = options.in_use
                if options.in_use:
                    figures |= await with_parking_queues(gateway, broker.uri, options)
            finally:
                await gateway.stop()
                if "after" in figures:
                    print(report(figures))
                    if options.json is not None:
                        options.json.write_text(json.dumps(figures, indent=1, default=asdict) + "\n")


async def restarted(gateway: Gateway) -> Start:
    start = await timed_start(gateway)
    await gateway.stop()
    return start


def typical(starts: list[Start]) -> Start:
    """The one of the median time."""
    return sorted(starts, key=lambda start: start.ready)[len(starts) // 2]


def parked(number: int) -> tuple[str, bytes, bytes]:
    """A message in a device's parking queue, as the daemon puts it there."""
    device = f"device{number:05}"
    message = Message(device, "up", b"{}", Properties(), routing_key=f"{device}.up".encode())
    message.verdict = Verdict(True, checker="benchmark")
    return parking_queue_name(PREFIX, "device", device), parked_properties(message, "guest"), message.body


async def make_parking_queues(uri: str, options: argparse.Namespace) -> None:
    """Parking queues with a message in each, known as another gateway would have made them known."""
    connection = await connect_once(reactor, BrokerSettings(uri=uri), "benchmark")
    arguments = {"x-queue-type": options.queue_type, "x-single-active-consumer": True, "x-max-length": 10_000}
    channel = await connection.open_channel()
    messages = [parked(number) for number in range(options.in_use)]
    for start in range(0, len(messages), DECLARED_AT_ONCE):
        await at_once(
            channel.queue_declare(queue=queue, durable=True, arguments=arguments)
            for queue, _, _ in messages[start : start + DECLARED_AT_ONCE]
        )
    await connection.shut()
    properties = encode_properties(content_type="application/json")
    records = [
        (STREAM, properties, json.dumps({"lot": f"device{number:05}", "used": True, "by": "fedcba9876543210"}).encode())
        for number in range(options.in_use)
    ]
    async with publishing(uri) as sender:
        for batch in (records, messages):
            for start in range(0, len(batch), BLOCK):
                await sender.send(batch[start : start + BLOCK])


async def with_parking_queues(gateway: Gateway, uri: str, options: argparse.Namespace) -> dict[str, Any]:
    """Starts with parking queues in use, and the seconds until no device counts as parked."""
    await make_parking_queues(uri, options)
    say(f"{options.in_use:,} parking queues with a message in each")
    figures: dict[str, Any] = {}
    for what in ("full", "emptied"):
        began = time.monotonic()
        figures[what] = await timed_start(gateway)
        say(f"{what}: {figures[what]}")

        async def nothing_parked() -> bool:
            return not await gateway.metric("parked_devices") and not await gateway.metric("parked_messages")

        await until(nothing_parked, what="no device is parked", timeout=600, child=gateway.running)
        figures[f"{what}_done"] = time.monotonic() - began
        say(f"no device is parked after {figures[f'{what}_done']:.2f} s")
        await gateway.running.kill()  # before any of them has been idle for long enough to be left
    return figures


def report(figures: dict[str, Any]) -> str:
    empty = typical(figures["empty"]).ready

    def row(what: str, start: Start) -> tuple[str, ...]:
        more = f"{start.ready - empty:+.2f} s"
        return what, f"{start.ready:.2f} s", more, f"{start.registry:.2f} s", f"{start.records:,}"

    rows = [
        row("no history", typical(figures["empty"])),
        row("an hour more, and a kill", typical(figures["after"])),
        row("the first after an upgrade", figures["upgrade"]),
    ]
    for what, words in (("full", "a message in each"), ("emptied", "all empty")):
        if what in figures:
            rows.append(row(f"{figures['in_use']:,} in use, {words}", figures[what]))
            done = figures[f"{what}_done"]
            rows.append(("… until no device is parked", f"{done:.2f} s", f"{done - empty:+.2f} s", "", ""))
    heads = f"RabbitMQ {figures['version']}, {figures['records']:,} records", "ready", "more", "registry", "read"
    return table(rows, heads)


if __name__ == "__main__":
    sys.exit(program(main(arguments(sys.argv[1:]))))
