"""A daemon under a service manager, which is a socket of the test's; there is no broker to connect to."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

from twisted.trial.unittest import TestCase

from tests.support.gateway import ROOT, Gateway
from tests.support.notify_socket import NotifySocket
from tests.support.process import Child, free_ports, until

UNIT = (ROOT / "etc/systemd/amqprouter.service").read_text()
WATCHDOG = 0.4
"""Seconds."""


class SupervisionTests(TestCase):
    timeout = 120

    @asynccontextmanager
    async def daemon(self, *before: str) -> AsyncIterator[tuple[Child, NotifySocket, Gateway]]:
        """A daemon that is being started; `before` stands in front of its command."""
        (port,) = free_ports(1)
        gateway = Gateway(Path(self.mktemp()), f"amqp://127.0.0.1:{port}/", f"mongodb://127.0.0.1:{port}", "test")
        gateway.devices("dev1")
        notified = NotifySocket(f"@amqprouter-test-{uuid4().hex}")
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "NOTIFY_SOCKET": notified.address}
        environment["WATCHDOG_USEC"] = str(round(WATCHDOG * 1e6))
        command = [*before, *gateway.command()]
        child = Child(command, log=gateway.folder / "daemon.log", env=environment, cwd=gateway.folder)
        try:
            yield child, notified, gateway
        finally:
            await child.stop()
            notified.close()

    async def told(self, child: Child, notified: NotifySocket, name: str, count: int = 1) -> None:
        async def so_often() -> bool:
            return notified.count(name) >= count

        await until(so_often, what=f"{name} is told ({count})", timeout=40, child=child)

    async def test_its_states(self) -> None:
        async with self.daemon() as (child, notified, gateway):
            await self.told(child, notified, "READY")
            first = next(fields for fields in notified.read() if "READY" in fields)
            self.assertIn("Not ready for work: broker-consume: ", first["STATUS"])
            self.assertIn("not connected yet", first["STATUS"])
            await self.told(child, notified, "WATCHDOG", 4)

            child.signal("HUP")
            await self.told(child, notified, "RELOADING")
            await self.told(child, notified, "READY", 2)
            reloading = next(fields for fields in notified.read() if "RELOADING" in fields)
            self.assertTrue(reloading["MONOTONIC_USEC"].isdigit())
            gateway.file("config.ini", "[brokr]\n")
            child.signal("HUP")
            await self.told(child, notified, "READY", 3)
            last = [fields for fields in notified.read() if "READY" in fields][-1]
            self.assertIn("The configuration was not taken over", last["STATUS"])

            child.signal("TERM")
            await self.told(child, notified, "STOPPING")
            self.assertEqual(await child.wait(30), -signal.SIGTERM)  # by which twistd ends itself when all is done
            self.assertIn("Stopped", child.tail(50))

    async def hang_up_from_the_beginning(self, before: Sequence[str], mask: str) -> None:
        """Send SIGHUP again and again, from when the kernel says that the process does not die of it."""
        async with self.daemon(*before) as (child, notified, _):

            async def safe() -> bool:
                return _has(child.pid, mask, signal.SIGHUP) and "twistd" in _command(child.pid)

            await until(safe, what="SIGHUP is safe", timeout=20, child=child)
            self.assertEqual(notified.read(), [])
            for _ in range(20):
                child.signal("HUP")

            async def ready() -> bool:
                child.signal("HUP")
                return notified.count("READY") > 0

            await until(ready, what="it is ready", timeout=40, child=child)
            await self.told(child, notified, "RELOADING")  # what came before is made good
            self.assertTrue(child.running)

    async def test_sighup_while_it_starts(self) -> None:
        """From before it reads its configuration, it waits."""
        await self.hang_up_from_the_beginning((), "SigCgt")

    async def test_sighup_as_the_unit_starts_it(self) -> None:
        """From before Python starts, it is ignored."""
        (start,) = [line for line in UNIT.splitlines() if line.startswith("ExecStart=")]
        before = shlex.split(start.removeprefix("ExecStart="))
        before = before[: before.index("/opt/amqprouter/bin/twistd")]
        self.assertEqual(before, ["/usr/bin/env", "--ignore-signal=HUP"])
        await self.hang_up_from_the_beginning(before, "SigIgn")

    async def stopped(self, hanging: str) -> tuple[int, str]:
        """Stop a daemon of which something hangs, as these lines of Python have it; its status, and the log."""
        lines = (
            "import sys, time, amqprouter.daemon.lifecycle as lifecycle",
            "from amqprouter.events.hub import Hub",
            "from twisted.internet import reactor",
            "from twisted.internet.defer import Deferred",
            "from twisted.scripts.twistd import run",
            "lifecycle.STEP_LIMIT = lifecycle.CLOSING = lifecycle.GRACE = 1.0",
            "def hang(*_):\n    time.sleep(600)",
            hanging,
            "sys.argv = ['twistd', *sys.argv[1:]]",
            "run()",
        )
        (port,) = free_ports(1)
        gateway = Gateway(Path(self.mktemp()), f"amqp://127.0.0.1:{port}/", f"mongodb://127.0.0.1:{port}", "test")
        gateway.devices("dev1")
        gateway.sections["limits"] = {"shutdown_deadline": 1}
        gateway.write_config()
        notified = NotifySocket(f"@amqprouter-test-{uuid4().hex}")
        self.addCleanup(notified.close)
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "NOTIFY_SOCKET": notified.address}
        command = [sys.executable, "-c", "\n".join(lines), *gateway.command()[2:]]
        child = Child(command, log=gateway.folder / "daemon.log", env=environment, cwd=gateway.folder)
        await self.told(child, notified, "READY")
        child.signal("TERM")
        try:
            return await child.wait(30), child.tail(200)
        finally:
            await child.kill()

    async def test_a_thread_that_hangs(self) -> None:
        """It does not keep the process from ending in time, and the log says where it stood."""
        status, log = await self.stopped("reactor.callWhenRunning(reactor.callInThread, hang)")
        self.assertEqual(status, 1)
        self.assertIn("in hang", log)

    async def test_a_step_that_holds_up_the_reactor(self) -> None:
        """Likewise."""
        status, log = await self.stopped("Hub.close = hang")
        self.assertEqual(status, 1)
        self.assertIn("in hang", log)

    async def test_a_step_that_never_ends(self) -> None:
        """The others have their turn."""
        status, log = await self.stopped("Hub.close = lambda self: Deferred(lambda _: None)")
        self.assertEqual(status, -signal.SIGTERM)
        self.assertIn("Closing the subscriptions took over", log)
        self.assertIn("Stopped", log)


def _has(pid: int, mask: str, number: int) -> bool:
    """Whether a signal is in this mask of a process, as Linux tells it."""
    status = Path(f"/proc/{pid}/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith(f"{mask}:")]
    return bool(int(line.split()[1], 16) >> (number - 1) & 1)


def _command(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().decode()
