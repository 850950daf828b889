"""Quiet subscribers that come back behind many events of others: ``python -m benchmarks.resume``.

Theory of operation. A daemon on a broker of its own, and many subscribers, each of a topic of its own that has had one
event. Then come events of other devices, which none of them asked for, and a while in which a daemon may tell its
subscribers where they are. Then all connections are cut off, and the clients come back with the id that each had last,
as libraries do. As soon as all are let in there is one more event for each. What is measured is the time from the first
coming back until the last one has that event, and what the daemon and the broker used of the processors meanwhile. With
``--against`` the same is done to the daemon of another commit.

The clients are in this process, and take their share of that time as well: the same for every daemon.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from twisted.internet.task import deferLater

from amqprouter.amqp.channel import Channel
from amqprouter.amqp.link import connect_once
from amqprouter.amqp.properties import encode_properties
from amqprouter.amqp.wire import encode_publish
from amqprouter.events.event import KEY_HEADER
from amqprouter.settings import BrokerSettings
from benchmarks.figures import table
from benchmarks.forward import program, say
from benchmarks.hostile import checkout
from benchmarks.hostile_acts import PASSWORD, USER, basic
from benchmarks.workbench import cpu_seconds
from tests.support.gateway import ROOT, Gateway
from tests.support.process import reactor, until
from tests.support.rabbitmq import PrivateRabbitMQ
from tests.support.sse_client import SseClient, close_all, connect_all, request

HEARTBEAT = 2
"""Seconds between heartbeats, so that a run is short; 15 by default."""
FOREIGN = 500
"""Devices whose events nobody asked for."""
AT_ONCE = 1000
"""Events that are published in one go."""
UNTIL_ALL = 1800.0
"""Seconds after which those who are not live yet are given up."""
MOST_SECONDS, LEAST_TIMES = 3.0, 20.0
"""Goals: until all are live, and how many times as much of the processors the other daemon uses."""


@dataclass
class Outcome:
    """One daemon's."""

    daemon: str
    subscribers: int
    events: int
    behind: int
    """Events by which the clients' last ids were behind, in the middle."""
    seconds: float
    """Until all were live again."""
    cpu: float
    """Seconds of processor time that the daemon used for that."""
    broker_cpu: float


class Run:
    """One daemon with its subscribers."""

    def __init__(self, folder: Path, source: Path, places: bool) -> None:
        self._folder, self._source, self._places = folder, source, places

    async def outcome(self, name: str, subscribers: int, events: int) -> Outcome:
        async with PrivateRabbitMQ(self._folder / "rabbitmq") as broker:
            gateway = self._gateway(broker.uri)
            connection = await connect_once(reactor, BrokerSettings(uri=broker.uri), "benchmark")
            clients: list[SseClient] = []
            try:
                await gateway.start()
                stream = EventStream(await connection.open_channel(), connection.frame_max)
                topics = [f"quiet-{number}.up" for number in range(subscribers)]
                paths = [f"/events?topic={topic}" for topic in topics]
                clients += await connect_all(gateway.port, [request(path, basic(USER, PASSWORD)) for path in paths])
                await stream.publish(topics)
                await self._all_have(clients, 1)
                for first in range(0, events, AT_ONCE):
                    await stream.publish([f"foreign-{n % FOREIGN}.up" for n in range(first, first + AT_ONCE)])
                witness = await connect_all(gateway.port, [request("/events?topic=witness.up", basic(USER, PASSWORD))])
                clients += witness
                await stream.publish(["witness.up"])
                await self._all_have(witness, 1)
                await deferLater(reactor, 1.5 * HEARTBEAT)
                del clients[-1]
                lasts = [max(client.ids[-1], (client.place or -1) if self._places else -1) for client in clients]
                close_all([*clients, *witness])
                behind = witness[0].ids[-1] - sorted(lasts)[len(lasts) // 2]
                await gateway.metric_reaches("subscribers", 0)
                began, before, broker_before = time.monotonic(), cpu_seconds(gateway.running.pid), broker_cpu(broker)
                again = [request(path, basic(USER, PASSWORD), last) for path, last in zip(paths, lasts, strict=True)]
                clients = await connect_all(gateway.port, again)
                await stream.publish(topics)
                await self._all_have(clients, 1)
                seconds = time.monotonic() - began
                cpu, brokers = cpu_seconds(gateway.running.pid) - before, broker_cpu(broker) - broker_before
                return Outcome(name, subscribers, events, behind, seconds, cpu, brokers)
            except BaseException:
                say(gateway.running.tail())
                raise
            finally:
                close_all(clients)
                await gateway.running.kill()
                await connection.shut()

    async def _all_have(self, clients: list[SseClient], count: int) -> None:
        async def they_have() -> bool:
            assert not any(client.over for client in clients), "a subscriber was disconnected"
            return all(len(client.ids) >= count for client in clients)

        await until(they_have, what=f"{len(clients)} subscribers have {count} events", timeout=UNTIL_ALL)

    def _gateway(self, uri: str) -> Gateway:
        gateway = Gateway(
            self._folder / "gateway",
            uri,
            "mongodb://127.0.0.1:1",  # no route names the store
            "none",
            route_all={"targets": "events:"},
            events={"heartbeat": str(HEARTBEAT), "max_subscribers_per_user": "0"},
            logging={"level": "warn"},
        )
        gateway.source = self._source
        # Or the kernel drops some of the connections that come at once, and tries again a second later.
        gateway.sections["http"]["endpoint"] = f"tcp:{gateway.port}:interface=127.0.0.1:backlog=1024"
        gateway.write_config()
        gateway.file("users.acl", f"{USER} -> #\n")
        gateway.passwords("users.passwd", {USER: PASSWORD})
        gateway.devices("dev1")
        return gateway


class EventStream:
    """Events put on the stream as other gateways put them there."""

    def __init__(self, channel: Channel, frame_max: int) -> None:
        self._channel, self._frame_max = channel, frame_max

    async def publish(self, topics: list[str]) -> None:
        """One event of each topic; returns when the broker has taken them."""
        for topic in topics:
            properties = encode_properties(headers={KEY_HEADER.decode(): topic}, timestamp=int(time.time()))
            body = json.dumps({"device": topic.partition(".")[0], "topic": "up", "body": {"n": 1}}).encode()
            frames = encode_publish(
                self._channel.id, b"", b"amqprouter.events", properties, body, self._frame_max, False
            )
            self._channel.write(frames)
        await self._channel.basic_qos(prefetch_count=1)  # an answer to this comes behind them


def broker_cpu(broker: PrivateRabbitMQ) -> float:
    return cpu_seconds(broker.pid)


def report(outcomes: list[Outcome]) -> str:
    """A table."""
    rows = [
        (
            one.daemon,
            f"{one.subscribers:,}",
            f"{one.events:,}",
            f"{one.behind:,}",
            f"{one.seconds:,.2f}",
            f"{one.cpu:,.2f}",
            f"{one.broker_cpu:,.2f}",
        )
        for one in outcomes
    ]
    return table(rows, ("daemon", "subscribers", "events", "behind", "live after s", "CPU s", "broker's CPU s"))


async def main(options: argparse.Namespace) -> None:
    outcomes: list[Outcome] = []
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="benchmark-") as temporary:
        folder = Path(temporary)
        with checkout(options.against or str(ROOT), folder) as other:
            daemons = {"now": ROOT, **({options.against: other} if options.against else {})}
            for number, (name, source) in enumerate(daemons.items()):
                run = Run(folder / str(number), source, not options.without_places)
                outcomes.append(await run.outcome(name, options.subscribers, options.events))
                say(str(outcomes[-1]))
    print(report(outcomes))
    print(f"Goals: live within {MOST_SECONDS:g} s, 1/{LEAST_TIMES:g} of the CPU; ", end="")
    if len(outcomes) > 1:
        now, before = outcomes
        print(f"the other's CPU is {before.cpu / max(now.cpu, 0.01):,.1f} times ours; ", end="")
    print(f"load average {load:.1f} before, {os.getloadavg()[0]:.1f} after")
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(one) for one in outcomes], indent=1) + "\n")


def arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.resume", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--subscribers", type=int, default=1000, help="that come back (%(default)s)")
    parser.add_argument("--events", type=int, default=100_000, help="of others, which they missed (%(default)s)")
    parser.add_argument(
        "--without-places", action="store_true", help="the clients keep the ids of their own events only"
    )
    parser.add_argument("--against", help="a commit, or a folder with another checkout, to do the same to")
    parser.add_argument("--json", type=Path, help="a file for all figures")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(program(main(arguments(sys.argv[1:]))))
