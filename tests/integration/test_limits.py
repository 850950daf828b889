"""Limits set, explained and watched on a running daemon, and events that tell of them."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import sysconfig
import termios
import time
from pathlib import Path
from typing import Any

from pymongo import MongoClient
from twisted.internet.defer import Deferred

from amqprouter.control.kept_limits import LimitsCollection
from tests.integration.test_cli import amqprouter
from tests.integration.test_control import ControlTestCase
from tests.integration.test_mongo import MongoTestCase
from tests.support.gateway import Fleet, Gateway
from tests.support.mongo import TestDatabase
from tests.support.process import reactor, until
from tests.support.servers import Vhost
from tests.unit.control import kept_limits_contract


class LimitsTests(ControlTestCase):
    devices: tuple[str, ...] = ("dev1", "dev2")

    def setUp(self) -> None:
        super().setUp()
        self.file = self.folder / "limits.json"

    async def limits(self, action: str, *arguments: str) -> str:
        return await self.says("limits", action, "--socket", self.socket, *arguments)

    async def bad(self, *arguments: str) -> str:
        return (await self.fails("limits", *arguments, "--socket", self.socket)).stderr

    def test_set_counts_at_once_and_after_a_restart(self) -> Deferred[None]:
        async def test(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            told = await self.limits("set", "dev1", "5/min")
            self.assertIn("dev1: 5/min, from now on, on this gateway only", told)
            for number in range(8):
                fleet.reading("dev1", number)
                fleet.reading("dev2", number)
            await fleet.all_confirmed()
            await gateway.metric_reaches("stored_total", 13)
            await gateway.metric_reaches('limited_total{class="default",limit="device"}', 3)
            told = await self.limits("explain", "dev1")
            self.assertRegex(told, r"5/min +device dev1 +0\.\d+  in [\d.]+ s \(set by hand")
            self.assertIn("3 messages wait", told)
            self.assertIn("held up by 5/min of device dev1", told)
            self.assertEqual(await self.limits("ls"), "dev1  5/min\n")
            self.assertEqual(json.loads(self.file.read_text()), {"dev1": "5/min"})

            await gateway.stop()
            await gateway.start()
            self.assertEqual(await self.limits("ls"), "dev1  5/min\n")
            await gateway.metric_reaches("stored_total", 3)  # a full bucket again, for it is another process
            # Those that wait go at once when the limit goes.
            for number in range(8):
                fleet.reading("dev1", number)
            await fleet.all_confirmed()
            await gateway.metric_reaches("stored_total", 5)
            self.assertIn("is taken away", await self.limits("clear", "dev1"))
            await gateway.metric_reaches("stored_total", 11)
            self.assertEqual(await self.limits("ls"), "")

            self.assertIn("'5' is not AMOUNT/PERIOD; legal: ", await self.bad("set", "dev1", "5"))
            self.assertIn("'a.b' is no device id", await self.bad("explain", "a.b"))
            self.file.write_text("{")
            failed = await self.fails("reload", "--socket", self.socket)
            self.assertIn("the file of limits set by hand is not JSON", failed.stderr)

        return self.run_with(test, control=self.control, scheduler={"overrides": self.file})

    def test_without_a_file_they_last_until_the_restart(self) -> Deferred[None]:
        async def test(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            finished = await amqprouter("limits", "set", "--socket", self.socket, "dev1", "none")
            self.assertIn("dev1: none, from now on", finished.stdout)
            self.assertIn("lasts until the daemon's restart: [scheduler] overrides is empty", finished.stderr)
            await gateway.stop()
            await gateway.start()
            self.assertEqual(await self.limits("ls"), "")

        return self.run_with(test, control=self.control, scheduler={"overrides": ""})

    def test_whoever_may_see_the_device_is_told(self) -> Deferred[None]:
        async def test(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            password = self.folder / "password"
            password.write_text("ann's\n")
            tail = amqprouter(
                "tail", "--url", f"{gateway.url}/events", "--user", "ann", "--password-file", str(password),
                "--topic", "*.limits", "--json", "--count", "1",
            )  # fmt: skip
            waiting = Deferred.fromCoroutine(tail)
            await gateway.metric_reaches("subscribers", 1)
            for number in range(5):
                fleet.reading("dev1", number)
            await fleet.all_confirmed()
            await gateway.metric_reaches("events_published_total", 3)
            event = json.loads((await waiting).stdout)["event"]
            self.assertEqual((event["device"], event["topic"]), ("dev1", "limits"))
            self.assertEqual((event["body"]["limit"], event["body"]["of"]), ("1/s burst 2", "device dev1"))
            self.assertGreater(event["body"]["retry_after"], 0)

        return self.run_with(test, scheduler={"rate": 1, "burst": 2, "overrides": ""})


class SharedLimitsTests(ControlTestCase):
    """Kept in the document store, for two gateways."""

    devices: tuple[str, ...] = ("dev1", "dev2")

    def test_set_on_one_gateway_and_in_force_on_the_other(self) -> Deferred[None]:
        async def test(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            other_socket = str(self.folder / "other")
            options = {**self.options, "control": {"socket": other_socket}}
            second = Gateway(Path(self.mktemp()), vhost.uri, database.uri, database.name, **options)
            second.devices(*self.devices)
            await second.start()
            try:
                told = await self.says("limits", "set", "--socket", self.socket, "dev1", "5/min")
                self.assertIn("dev1: 5/min, from now on; on the other gateways within 5 s", told)
                self.assertEqual(database.documents("limits"), [{"_id": "dev1", "limits": "5/min"}])

                async def listed(expected: str) -> None:
                    async def so() -> bool:
                        return await self.says("limits", "ls", "--socket", other_socket) == expected

                    await until(so, what=f"the other gateway says {expected!r}", timeout=20, child=second.running)

                await listed("dev1  5/min\n")
                told = await self.says("limits", "explain", "dev1", "--socket", other_socket)
                self.assertIn("(set by hand, on all gateways)", told)
                # Whichever gateway has a message, it is the device's limit that counts.
                await gateway.stop()
                for number in range(8):
                    fleet.reading("dev1", number)
                await fleet.all_confirmed()
                await second.metric_reaches("stored_total", 5)
                await second.metric_reaches("waiting", 3)
                await gateway.start()
                self.assertEqual(await self.says("limits", "ls", "--socket", self.socket), "dev1  5/min\n")
                told = await self.says("limits", "clear", "--socket", self.socket, "dev1")
                self.assertIn("is taken away; on the other gateways within 5 s", told)
                await second.metric_reaches("stored_total", 8)  # what waited there goes
                await listed("")
                if database.server is not None:
                    database.server.kill()
                    failed = await self.fails("limits", "set", "--socket", self.socket, "dev2", "1/s")
                    self.assertIn("the limits of dev2 are as they were here (none set by hand)", failed.stderr)
                    self.assertEqual(await self.says("limits", "ls", "--socket", self.socket), "")
            finally:
                await second.stop()

        self.options: dict[str, Any] = {
            "scheduler": {"overrides": "mongodb:limits"},
            "store": {"timeout": 2},
            "route_all": {"targets": "store:readings"},
        }
        return self.run_with(test, control=self.control, **self.options)


class LimitsCollectionContractTests(kept_limits_contract.KeptLimitsContract, MongoTestCase):
    """The collection on a real server."""

    async def make(self) -> LimitsCollection:
        self.real = self.store()
        await self.real.connect()
        return LimitsCollection(self.real, "limits")

    async def put(self, entries: dict[str, Any]) -> None:
        client: MongoClient[dict[str, Any]]
        with MongoClient(self.database.uri) as client:
            collection: Any = client[self.database.name]["limits"]
            collection.delete_many({})
            collection.insert_many([{"_id": device, "limits": text} for device, text in entries.items()])

    async def break_down(self) -> None:
        await self.real.close()


class Terminal:
    """A command in a terminal of 80 by 24."""

    def __init__(self, *arguments: str) -> None:
        self.master, self.slave = pty.openpty()
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.before = termios.tcgetattr(self.slave)
        program = str(Path(sysconfig.get_path("scripts")) / "amqprouter")
        self.child = subprocess.Popen(
            [sys.executable, program, *arguments],
            stdin=self.slave, stdout=self.slave, stderr=self.slave, env={**os.environ, "TERM": "xterm-256color"},
        )  # fmt: skip
        os.set_blocking(self.master, False)
        self.screen = ""

    def read(self) -> str:
        """All that was shown until now."""
        try:
            while data := os.read(self.master, 65_536):
                self.screen += data.decode(errors="replace")
        except BlockingIOError:
            pass
        return self.screen

    async def shows(self, text: str) -> None:
        async def shown() -> bool:
            return text in self.read()

        await until(shown, what=f"the terminal shows {text!r}", timeout=20)

    async def end(self) -> int:
        async def ended() -> bool:
            self.read()  # or it waits for room in the terminal
            return self.child.poll() is not None

        await until(ended, what="the command ends", timeout=20)
        self.read()
        return int(self.child.wait())

    def close(self) -> None:
        if self.child.poll() is None:
            self.child.kill()
            self.child.wait()
        os.close(self.master)
        os.close(self.slave)


class TopTests(ControlTestCase):
    devices: tuple[str, ...] = ("dev1", "dev2")

    def setUp(self) -> None:
        super().setUp()
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a shell's background jobs: children inherit it
            self.addCleanup(signal.signal, signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def test_live_in_a_small_terminal(self) -> Deferred[None]:
        async def test(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            for number in range(90):  # one a second goes: some wait to the end
                fleet.reading("dev1", number)
            fleet.reading("dev2", 1)
            await fleet.all_confirmed()
            await gateway.metric_reaches("settled_total", 3)
            for ending in ("q", signal.SIGINT, signal.SIGTERM):
                terminal = Terminal("top", "--socket", self.socket)
                try:
                    await terminal.shows("1/s burst 2 of d")
                    os.write(terminal.master, b"w")
                    await terminal.shows("7mwaiting")
                    if isinstance(ending, str):
                        os.write(terminal.master, ending.encode())
                    else:
                        terminal.child.send_signal(ending)
                    self.assertEqual(await terminal.end(), 0 if ending == "q" else 130)
                    self.assertIn("\x1b[?1049l", terminal.screen)  # the screen as it was
                    self.assertIn("\x1b[?25h", terminal.screen[-40:])  # and the cursor
                    self.assertEqual(termios.tcgetattr(terminal.slave), terminal.before)
                finally:
                    terminal.close()

        return self.run_with(test, control=self.control, scheduler={"rate": 1, "burst": 2, "overrides": ""})

    def test_for_scripts(self) -> Deferred[None]:
        async def test(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            started = time.monotonic()
            running = Deferred.fromCoroutine(self.says("top", "--once", "--json", "--socket", self.socket))
            sending = True

            def send() -> None:
                if sending:
                    fleet.reading("dev1", 1)
                    fleet.flush()
                    reactor.callLater(0.02, send)

            send()
            answer: dict[str, Any] = json.loads(await running)
            sending = False
            self.assertGreater(time.monotonic() - started, 1)
            [device] = answer["devices"]
            self.assertEqual((device["device"], device["state"], device["waiting"]), ("dev1", "running", 0))
            self.assertGreater(device["rate"], 5)
            text = await self.says("top", "--socket", self.socket)
            self.assertRegex(text, r"dev1 +\d")
            await fleet.all_confirmed()
            await gateway.metric_reaches("settled_total", fleet.sent)
            await gateway.stop()
            self.assertIn("there is no socket", (await self.fails("top", "--socket", self.socket)).stderr)

        return self.run_with(test, control=self.control)
