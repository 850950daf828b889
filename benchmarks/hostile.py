"""What one user or one device does to all others, at its worst: ``python -m benchmarks.hostile``.

Theory of operation. A daemon on a broker of its own; good devices that send evenly, and a subscriber who gets all of
it; and somebody who asks for ``/healthz`` all the time, over one connection. After a while of that a hostile program
(`benchmarks.hostile_acts`) begins, which does as much of one thing as the limits let it. What is compared is the time
before and the time since, in the same run: the slowest answer of ``/healthz``, and the time from a good device's
publish to its subscriber. With ``--against`` the same is done to the daemon of another commit.

The hostile program, and the broker that it keeps busy, take their share of the processors, too, and no daemon can help
that. To tell it from what the daemon does, there is a second daemon on a broker of its own, which nobody else uses:
before the hostile program has its turn at the good devices' daemon, it does the same *elsewhere*, to that one. What
good devices have to wait longer than then is the daemon's doing; what they wait longer than in the quiet is both.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from twisted.internet.task import LoopingCall, deferLater

from amqprouter.amqp.connection import Connection
from amqprouter.amqp.link import connect_once
from amqprouter.amqp.properties import encode_properties
from amqprouter.amqp.wire import encode_publish
from amqprouter.settings import BrokerSettings
from benchmarks.figures import table
from benchmarks.forward import program, say
from benchmarks.hostile_acts import ACTS, DEVICE, PASSWORD, SECRET, USER, Stage, Stream, basic
from tests.support.gateway import ROOT, Gateway
from tests.support.process import Child, reactor, until
from tests.support.rabbitmq import PrivateRabbitMQ
from tests.support.sse_client import request
from tests.support.tokens import jwk, key_set

DEVICES = [f"good-{number}" for number in range(20)]
RATE = 100.0
"""Messages a second of all good devices."""
WARM_UP, SETTLING = 2.0, 1.0
HEALTH_EVERY = 0.01
"""Seconds between an answer of ``/healthz`` and the next request."""
UNANSWERED = 30.0
"""Seconds after which an answer is given up, and a hostile program that is not under way is taken to be."""
SLOWEST_HEALTH, MOST_TIMES = 100.0, 1.5
"""Goals: milliseconds of the slowest ``/healthz``, and how much longer others' 99th percentile may be."""


@dataclass(frozen=True)
class Period:
    """Some seconds of one run. Times are milliseconds; a message that never came has waited until the end."""

    health: float
    p50: float
    p99: float
    sent: int
    came: int


@dataclass(frozen=True)
class Outcome:
    """One act against one daemon."""

    act: str
    daemon: str
    quiet: Period
    elsewhere: Period
    """While the same was done to another daemon on this machine."""
    hostile: Period
    megabytes: float
    """That the daemon's memory has grown by since the act began."""
    let: str
    """What the act was let do."""

    @property
    def times(self) -> float:
        """How much longer others' messages take than in the quiet."""
        return self.hostile.p99 / self.quiet.p99 if self.quiet.p99 else float("nan")

    @property
    def own_times(self) -> float:
        """How much longer they take than when the machine has as much to do, but not the daemon."""
        return self.hostile.p99 / self.elsewhere.p99 if self.elsewhere.p99 else float("nan")

    @property
    def met(self) -> bool:
        """Whether the goals are."""
        return self.hostile.health < SLOWEST_HEALTH and self.times <= MOST_TIMES


class Health(threading.Thread):
    """Asks for ``/healthz`` all the time, in a thread: whatever our own reactor does."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.asked: list[tuple[float, float]] = []
        """When, and for how long."""
        self.over = False
        self._port = port

    def run(self) -> None:
        connection: socket.socket | None = None
        while not self.over:
            began = time.monotonic()
            try:
                if connection is None:
                    connection = socket.create_connection(("127.0.0.1", self._port), UNANSWERED)
                connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
                if not connection.recv(65_536):
                    raise OSError("closed")
            except OSError:
                connection = None
            self.asked.append((began, time.monotonic() - began))
            time.sleep(HEALTH_EVERY)


class Readings:
    """Good devices, and who follows them over ``/events``."""

    _MARK = re.compile(rb'"mark":(\d+)')

    def __init__(self, connection: Connection, channel: Any) -> None:
        self._connection, self.channel = connection, channel
        self._properties = encode_properties(headers={"x-device-secret": SECRET}, content_type="application/json")
        self._loop = LoopingCall(self._send)
        self._rest = b""
        self.sent: list[float] = []
        self.came: dict[int, float] = {}

    def start(self) -> None:
        self._began = time.monotonic()
        self._loop.start(1 / RATE)

    def stop(self) -> None:
        if self._loop.running:
            self._loop.stop()

    def _send(self) -> None:
        while len(self.sent) < (time.monotonic() - self._began) * RATE:
            number = len(self.sent)
            key, body = f"{DEVICES[number % len(DEVICES)]}.up".encode(), b'{"mark":%d}' % number
            self.sent.append(time.monotonic())
            self.channel.write(
                encode_publish(
                    self.channel.id, b"devices", key, self._properties, body, self._connection.frame_max, False
                )
            )

    def received(self, data: bytes) -> None:
        """Bytes of the stream."""
        now = time.monotonic()
        whole, _, self._rest = (self._rest + data).rpartition(b"\n")
        for mark in self._MARK.findall(whole):
            self.came.setdefault(int(mark), now)


class Run:
    """One daemon with its good devices, and in the end the hostile program."""

    def __init__(self, folder: Path, source: Path, act: str) -> None:
        self._folder, self._source, self._act = folder, source, act

    async def outcome(self, name: str, seconds: float) -> Outcome:
        broker, other = PrivateRabbitMQ(self._folder / "rabbitmq"), PrivateRabbitMQ(self._folder / "elsewhere-rabbitmq")
        async with broker, other:
            return await self._outcome(name, seconds, broker.uri, other.uri)

    async def _outcome(self, name: str, seconds: float, uri: str, other_uri: str) -> Outcome:
        gateway, other = self._gateway("gateway", uri), self._gateway("elsewhere", other_uri)
        connection = await connect_once(reactor, BrokerSettings(uri=uri), "benchmark")
        readings = Readings(connection, await connection.open_channel())
        health: Health | None = None
        try:
            await gateway.start()
            await other.start()
            await self._follow(gateway.port, readings)
            await self._follow(other.port, Readings(connection, readings.channel))  # who has as much to read there
            health = Health(gateway.port)
            health.start()
            readings.start()
            await deferLater(reactor, WARM_UP)
            began = time.monotonic()
            await deferLater(reactor, seconds)
            quiet = began, began + seconds
            elsewhere, _ = await self._during(other.port, other_uri, seconds)
            await other.running.kill()
            await deferLater(reactor, SETTLING)
            before = memory(gateway.running.pid)
            hostile, let = await self._during(gateway.port, uri, seconds)
            grown = memory(gateway.running.pid) - before
        except BaseException:
            say(gateway.running.tail())
            raise
        finally:
            if health is not None:
                health.over = True
            readings.stop()
            for daemon in (gateway, other):
                await daemon.running.kill()
            await connection.shut()
        before_it, away, here = (period(health.asked, readings, *span) for span in (quiet, elsewhere, hostile))
        return Outcome(self._act, name, before_it, away, here, grown / 1e6, let)

    async def _during(self, port: int, uri: str, seconds: float) -> tuple[tuple[float, float], str]:
        """Have the hostile program do its worst; from when until when that was, and what it was let do."""
        hostile, let = await self._perform(port, uri)
        try:
            started = time.monotonic()
            await deferLater(reactor, SETTLING + seconds)
            return (started, time.monotonic()), let
        finally:
            say(hostile.tail())
            await hostile.kill()

    def _gateway(self, name: str, uri: str) -> Gateway:
        gateway = Gateway(
            self._folder / name,
            uri,
            "mongodb://127.0.0.1:1",  # no route names the store
            "none",
            route_all={"targets": "events:"},
            mercure={
                "enabled": "yes",
                "subscriber_keys": "keys.json",
                "publisher_keys": "keys.json",
                "subscriptions": "yes",
            },
            logging={"level": "warn"},
        )
        gateway.source = self._source
        gateway.file("keys.json", key_set(jwk("HS256")))
        gateway.passwords("users.passwd", {USER: PASSWORD})
        gateway.devices(*DEVICES, DEVICE, secret=SECRET)
        return gateway

    async def _follow(self, port: int, readings: Readings) -> None:
        class Follower(Stream):
            def dataReceived(self, data: bytes) -> None:
                super().dataReceived(data)
                readings.received(data)

        stage = Stage(port, "")
        stage.protocol = Follower
        stream = await stage.request(request("/events?topic=*.up", basic("ann", "ann's")))
        assert stream.status == 200, stream.status

    async def _perform(self, port: int, uri: str) -> tuple[Child, str]:
        log = self._folder / f"hostile-{port}.log"
        command = [sys.executable, "-m", "benchmarks.hostile_acts", self._act, str(port), uri]
        hostile = Child(command, log=log, env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=ROOT)
        deadline = time.monotonic() + UNANSWERED

        async def begun() -> bool:
            return b"\n" in log.read_bytes() or time.monotonic() > deadline

        await until(begun, what="the hostile program is under way", timeout=2 * UNANSWERED, child=hostile)
        text = log.read_text().splitlines()
        return hostile, text[0] if text else "not under way in time"


def period(asked: list[tuple[float, float]], readings: Readings, began: float, ended: float) -> Period:
    """What happened between these moments."""
    health = [lasted for moment, lasted in list(asked) if moment + lasted >= began and moment < ended]
    if asked and (last := asked[-1][0] + asked[-1][1]) < ended:
        health.append(ended - last)  # it waits still
    sent = {number: moment for number, moment in enumerate(readings.sent) if began <= moment < ended}
    waits = sorted(min(readings.came.get(number, ended), ended) - moment for number, moment in sent.items())
    came = sum(readings.came.get(number, ended) < ended for number in sent)
    return Period(
        1e3 * max(health, default=0.0),
        1e3 * waits[len(waits) // 2],
        1e3 * waits[len(waits) * 99 // 100],
        len(sent),
        came,
    )


def memory(pid: int) -> int:
    """Bytes that a process has resident."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


def report(outcomes: list[Outcome]) -> str:
    """A table."""
    rows = [
        (
            f"{one.act}, {one.daemon}",
            f"{one.quiet.health:,.0f}",
            f"{one.hostile.health:,.0f}",
            f"{one.quiet.p99:,.1f}",
            f"{one.elsewhere.p99:,.1f}",
            f"{one.hostile.p99:,.1f}",
            f"{one.times:,.2f}",
            f"{one.own_times:,.2f}",
            f"{one.megabytes:,.0f}",
            "yes" if one.met else "NO",
        )
        for one in outcomes
    ]
    head = ("act, daemon", "healthz ms", "hostile", "p99 ms", "elsewhere", "hostile", "×", "own ×", "MB more", "met")
    return table(rows, head)


@contextmanager
def checkout(commit: str, folder: Path) -> Iterator[Path]:
    """A folder with the sources of that commit, or that folder."""
    if Path(commit).is_dir():
        yield Path(commit).absolute()
        return
    path = folder / "against"
    subprocess.run(["git", "worktree", "add", "--quiet", "--detach", str(path), commit], cwd=ROOT, check=True)
    try:
        yield path
    finally:
        subprocess.run(["git", "worktree", "remove", "--force", str(path)], cwd=ROOT, check=True)


async def main(options: argparse.Namespace) -> None:
    outcomes: list[Outcome] = []
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="benchmark-") as temporary:
        folder = Path(temporary)
        with checkout(options.against or str(ROOT), folder) as other:
            daemons = {"now": ROOT, **({options.against: other} if options.against else {})}
            for act in options.only:
                for number, (name, source) in enumerate(daemons.items()):
                    run = Run(folder / f"{act}-{number}", source, act)
                    outcomes.append(await run.outcome(name, options.seconds))
                    say(str(outcomes[-1]))
    print(report(outcomes))
    print(f"Goals: /healthz under {SLOWEST_HEALTH:g} ms, others' p99 within {MOST_TIMES:g} times the quiet's; ", end="")
    print(f"load average {load:.1f} before, {os.getloadavg()[0]:.1f} after")
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(one) for one in outcomes], indent=1) + "\n")


def arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.hostile", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10.0, help="of each period (%(default)s)")
    parser.add_argument(
        "--only", nargs="+", choices=list(ACTS), default=list(ACTS), metavar="ACT", help=", ".join(ACTS)
    )
    parser.add_argument("--against", help="a commit, or a folder with another checkout, to do the same to")
    parser.add_argument("--json", type=Path, help="a file for all figures")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(program(main(arguments(sys.argv[1:]))))
