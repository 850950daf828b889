"""The demonstration: private servers, a real daemon, a fleet of devices, and an account of every message.

Started by script/demo. Everything that it starts is its own child and ends with it, however it ends. The first Ctrl-C
(or SIGTERM) ends the show in order: the fleet stops, the queues drain, the account is drawn up. A second one just
stops.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import shutil
import signal
import sys
import sysconfig
import tempfile
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import treq
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater, react

from amqprouter.cli.fleet import DeviceKind, device_ids
from demo_screen import Screen
from tests.support.fleet_ledger import Closed, close_ledger
from tests.support.mongo import PrivateMongo
from tests.support.process import Child, free_ports, run, until
from tests.support.rabbitmq import PrivateRabbitMQ

ROOT = Path(__file__).parents[1]
FLEET = {"devices": 30, "noisy": 2, "unauthenticated": 2, "unauthorised": 2, "malformed": 1}
DATABASE, COLLECTION = "amqprouter", "readings"
SOURCES = ("amqprouter.ingress", ".shard.", ".parked.device.")
"""In the names of the queues that hold what is not delivered yet."""
STUCK = 30.0
"""Seconds without a message less, once the fleet has stopped, after which nobody waits for the rest of them."""

CONFIG = """\
# Made by script/demo, for servers that run only as long as it does.
[broker]
uri = {broker}
[topology]
queue_type = classic
[auth]
device_checker = file:{fleet}/devices.passwd
user_checker = file:{fleet}/users.passwd
[control]
socket = {socket}
[acl]
devices = {fleet}/devices.acl
users = {fleet}/users.acl
[scheduler]
rate = 20
burst = 40
max_waiting_per_device = 50
[route readings]
topic = sensor.#
targets = store:{collection}, events:
[store]
uri = {store}
database = {database}
[http]
endpoint = tcp:{port}:interface=127.0.0.1
"""


def say(text: str) -> None:
    """For people, who read standard error; standard output is for the account."""
    print(text, file=sys.stderr, flush=True)


class Failed(Exception):
    """The demonstration cannot go on; the text says why."""


@dataclass
class Stop:
    """Whether somebody asked for the end, and whether it can come in order: with an account of what there was."""

    asked: bool = False
    in_order: bool = False


class Daemon:
    """The daemon under demonstration, as its web endpoint shows it."""

    def __init__(self, folder: Path, port: int, password: str) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._login = ("demo", password)
        twistd = Path(sysconfig.get_path("scripts")) / "twistd"
        command = [sys.executable, str(twistd), "-n", "--pidfile=", "amqprouter", "-c", str(folder / "config.ini")]
        self.child = Child(command, log=folder / "daemon.log", cwd=folder)

    async def ready(self) -> bool:
        try:
            response = await treq.get(f"{self.url}/readyz", persistent=False)
            await response.content()
        except CancelledError:
            raise
        except Exception:
            return False
        return bool(response.code == 200)

    async def status(self) -> dict[str, Any]:
        """The figures behind the live page."""
        response = await treq.get(f"{self.url}/status", auth=self._login, persistent=False, timeout=10)
        if response.code != 200:
            raise Failed(f"{self.url}/status answers with status {response.code}: {await response.text()}")
        answer: dict[str, Any] = await response.json()
        return answer

    async def stop(self) -> None:
        """Stop it in order.

        :raises Failed: it did not end well.
        """
        status = await self.child.stop(30)
        if status != -signal.SIGTERM:  # which twistd ends itself with once everything is closed; SIGKILL was too late
            raise Failed(f"the daemon ended with status {status}; the end of its log:\n{self.child.tail(20)}")


class Demo:
    """One run in `folder`."""

    def __init__(self, reactor: Any, folder: Path, seconds: float | None, stop: Stop) -> None:
        self._reactor = reactor
        self._folder = folder
        self._seconds = seconds
        self._stop = stop

    async def run(self) -> dict[str, int]:
        """From nothing to the account, and back to nothing."""
        folder = self._folder
        async with AsyncExitStack() as stack:
            say("starting RabbitMQ and a MongoDB-compatible server…")
            store = stack.enter_context(PrivateMongo(folder / "mongo"))
            broker = await stack.enter_async_context(PrivateRabbitMQ(folder / "rabbitmq"))
            await _command("simulate", "--prepare", str(folder / "fleet"), *_counts())
            password = (folder / "fleet" / "user.password").read_text().strip()
            (port,) = free_ports(1)
            # Not in our own folder: the path of a socket must be short.
            sockets = stack.enter_context(tempfile.TemporaryDirectory(prefix="amqprouter-demo-"))
            self._write_config(broker, store, port, Path(sockets))
            say("starting the daemon…")
            daemon = Daemon(folder, port, password)
            stack.push_async_callback(daemon.child.stop)
            await until(daemon.ready, what="the daemon is ready", timeout=60, child=daemon.child)
            say(f"live page: {daemon.url}/   user: demo   password: {password}")

            events = folder / "events.jsonl"
            follower = self._amqprouter(events, "tail", "--json", "--url", f"{daemon.url}/events", *_login(folder))
            stack.push_async_callback(follower.stop)
            await self._until_gauge(daemon, "subscribers", "the subscriber is there", follower)
            status = await self._show(stack, daemon)
            say("the fleet has stopped; waiting until everything is delivered…")
            await self._lift_limits(daemon)
            unacked = await self._drain(broker)
            await self._events_arrive(daemon, events)
            throttled = (await daemon.status())["counters"]["throttled"]
            await follower.stop()
            await daemon.stop()
            closed = await close_ledger(
                folder / "ledger.jsonl",
                store.uri,
                DATABASE,
                COLLECTION,
                broker,
                rejected="amqprouter.rejected",
                dead_letters="amqprouter.dead-letters",
            )
            _explain(closed, status)
            return {
                "published": closed.published,
                "stored": closed.stored,
                "rejected": closed.rejected,
                "dead_lettered": closed.dead_lettered,
                "throttled": throttled,
                "events_delivered": _count_events(events),
                "unacked": unacked,
                "lost": len(closed.lost) + len(closed.doubled),
            }

    def _write_config(self, broker: PrivateRabbitMQ, store: PrivateMongo, port: int, sockets: Path) -> None:
        text = CONFIG.format(
            broker=broker.uri,
            fleet=self._folder / "fleet",
            collection=COLLECTION,
            database=DATABASE,
            store=store.uri,
            port=port,
            socket=sockets / "control",
        )
        (self._folder / "config.ini").write_text(text)

    def _amqprouter(self, log: Path, *arguments: str) -> Child:
        return Child([sys.executable, "-m", "amqprouter.cli.main", *arguments], log=log, cwd=self._folder)

    async def _show(self, stack: AsyncExitStack, daemon: Daemon) -> int:
        """Run the fleet, with its figures on the screen, to its end; the fleet's exit status."""
        folder = self._folder
        arguments = ["-c", "config.ini", "--secrets", "fleet/secrets", "--ledger", "ledger.jsonl", *_counts()]
        if self._seconds is not None:
            arguments += ["--seconds", f"{self._seconds:g}"]
        fleet = self._amqprouter(folder / "fleet.log", "simulate", *arguments)
        stack.push_async_callback(fleet.stop)
        self._stop.in_order = True
        with Screen(sys.stderr) as screen:
            while fleet.running and not self._stop.asked:
                if not daemon.child.running:
                    raise Failed(f"the daemon has ended; the end of its log:\n{daemon.child.tail(20)}")
                screen.show(await daemon.status())
                await deferLater(self._reactor, screen.pause)
        fleet.signal("INT")
        status = await fleet.wait(40)
        if status not in (0, 130):
            raise Failed(f"the fleet ended with status {status}:\n{fleet.tail(20)}")
        return status

    async def _lift_limits(self, daemon: Daemon) -> None:
        """What the noisy devices sent over their rate is stored at that rate: minutes of it, after minutes of show."""
        parked = (await daemon.status())["gauges"]["parked_messages"]
        if not parked:
            return
        say(f"{parked:g} messages of noisy devices wait for their turn. Lifting their limits, so that it comes now:")
        for device in device_ids({DeviceKind.NOISY: FLEET["noisy"]}):
            command = ("limits", "set", device, "none")
            say(f"  amqprouter {' '.join(command)}")
            await _command(*command, "-c", str(self._folder / "config.ini"))

    async def _drain(self, broker: PrivateRabbitMQ) -> int:
        """Wait until nothing is left at the source; what is unacknowledged then, the event stream's included."""
        least, deadline = None, 0.0
        while True:
            waiting = await broker.list_queues()
            left = sum(n for name, n in waiting.items() if any(mark in name for mark in SOURCES))
            unacked = sum((await broker.list_queues(column="messages_unacknowledged")).values())
            if not left and not unacked:
                return 0
            now = self._reactor.seconds()
            if least is None or left + unacked < least:
                least, deadline = left + unacked, now + STUCK
            elif now > deadline:
                say(f"stuck for {STUCK:g} s: {left} messages wait, {unacked} are unacknowledged")
                return unacked
            await deferLater(self._reactor, 0.2)

    async def _until_gauge(self, daemon: Daemon, name: str, what: str, child: Child) -> None:
        async def there() -> bool:
            return bool((await daemon.status())["gauges"][name])

        await until(there, what=what, timeout=20, child=child)

    async def _events_arrive(self, daemon: Daemon, events: Path) -> None:
        """Wait until the subscriber has all events, or none came for a while."""
        expected: int = (await daemon.status())["counters"]["events_published"]

        async def all_there() -> bool:
            return _count_events(events) >= expected

        with suppress(TimeoutError):
            await until(all_there, what="the events are delivered", timeout=10)


async def _command(*arguments: str) -> None:
    await run(sys.executable, "-m", "amqprouter.cli.main", *arguments, cwd=ROOT)


def _counts() -> list[str]:
    return [text for name, count in FLEET.items() for text in (f"--{name}", str(count))]


def _login(folder: Path) -> list[str]:
    return ["--user", "demo", "--password-file", str(folder / "fleet" / "user.password")]


def _count_events(path: Path) -> int:
    return sum(line.startswith("{") for line in path.read_text().splitlines())


def _explain(closed: Closed, fleet_status: int) -> None:
    for reason, count in closed.reasons.most_common():
        say(f"  {count:>6} × {reason}")
    for text, ids in (("lost", closed.lost), ("stored more than once", closed.doubled)):
        if ids:
            say(f"{len(ids)} messages are {text}, such as {', '.join(ids[:5])}")


def _closes(account: dict[str, int]) -> bool:
    whereabouts = account["stored"] + account["rejected"] + account["dead_lettered"]
    return (
        account["published"] > 0 and account["published"] == whereabouts and not (account["lost"] + account["unacked"])
    )


def _handle_signals(reactor: Any, stop: Stop, running: Callable[[], Deferred[Any]]) -> None:
    """The first signal asks for the end, the second (or one during the start) cancels whatever goes on."""

    def signalled(number: int, _: object) -> None:
        if stop.asked or not stop.in_order:
            reactor.callFromThread(running().cancel)
        else:
            stop.asked = True
            reactor.callFromThread(say, "stopping; once more to stop without an account")

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signalled)


def _main(reactor: Any, options: argparse.Namespace, folder: Path) -> Deferred[None]:
    stop = Stop()

    async def main() -> None:
        try:
            account = await Demo(reactor, folder, options.seconds, stop).run()
        except CancelledError:
            raise SystemExit(130) from None
        except Exception as error:
            say(f"demo: {error}")
            raise SystemExit(1) from None
        print(json.dumps(account), flush=True)
        if not _closes(account):
            say("the account does not close")
            raise SystemExit(1)

    running = Deferred.fromCoroutine(main())
    reactor.callWhenRunning(_handle_signals, reactor, stop, lambda: running)
    return running


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 1 <= seconds <= 86_400:
        raise ValueError
    return seconds


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser("script/demo", description=__doc__)
    parser.add_argument("--seconds", metavar="N", type=_seconds, help="end by itself after so long")
    parser.add_argument("--folder", metavar="DIR", type=Path, default=ROOT / ".run" / "demo", help="(%(default)s)")
    options = parser.parse_args()
    folder = options.folder.absolute()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(f"{folder}.lock", "w", encoding="ascii") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit(f"demo: another one runs in {folder}; use --folder for a second")
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir()
        os.chmod(folder, 0o700)
        react(_main, (options, folder))


if __name__ == "__main__":
    main()
