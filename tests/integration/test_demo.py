"""The demonstration: its account closes, and nothing of it stays behind."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from tests.support import mongo, rabbitmq
from tests.support.process import Child, reactor, run, until

ROOT = Path(__file__).parents[2]
DEMO = str(ROOT / "script" / "demo.py")


def _running(mark: str) -> list[str]:
    """Command lines of the processes, zombies aside, that have this text in their environment."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (entry / "environ").read_bytes() and entry.name != str(os.getpid()):
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                found += [command] if command else []
        except OSError:
            continue
    return found


class DemoTests(TestCase):
    timeout = 150
    skip = rabbitmq.missing or mongo.missing or None

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        short = TemporaryDirectory(prefix="demo-")  # for sockets; what is killed cannot tidy up
        self.addCleanup(short.cleanup)
        # In the environment of all that the demonstration starts: the test support passes it on to servers too.
        self.mark = f"demo-{self.folder.name}-{os.getpid()}"
        mine = {"PYTHONPATH": str(ROOT), "AMQPROUTER_TEST_RUN": self.mark, "TMPDIR": short.name}
        self.environment = {**os.environ, **mine}

    async def nothing_is_left(self) -> None:
        async def nothing() -> bool:
            return not _running(f"AMQPROUTER_TEST_RUN={self.mark}")

        await until(nothing, what="all processes of the demonstration have ended", timeout=10)

    async def test_the_account_closes(self) -> None:
        command = (sys.executable, DEMO, "--folder", str(self.folder), "--seconds", "6")
        shown = await run(*command, env=self.environment, cwd=ROOT, timeout=120)
        account = json.loads(shown.stdout)
        self.assertEqual(
            list(account),
            [
                *("published", "stored", "rejected", "dead_lettered"),
                *("throttled", "events_delivered", "unacked", "lost"),
            ],
        )
        self.assertEqual((account["unacked"], account["lost"]), (0, 0))
        settled = account["stored"] + account["rejected"] + account["dead_lettered"]
        self.assertEqual(account["published"], settled)
        for name in ("stored", "rejected", "dead_lettered", "throttled", "events_delivered"):
            self.assertGreater(account[name], 0, name)
        self.assertIn("live page: http://127.0.0.1:", shown.stderr)
        # However much the noisy devices have sent over their rates, nobody waits for that.
        self.assertIn("Lifting their limits", shown.stderr)
        await self.nothing_is_left()

    async def test_sigterm_ends_it_with_an_account(self) -> None:
        log = Path(self.mktemp()).absolute()
        command = [sys.executable, DEMO, "--folder", str(self.folder)]
        demo = Child(command, log=log, env=self.environment, cwd=ROOT)

        async def flowing() -> bool:
            return "busiest: noisy" in log.read_text()

        await until(flowing, what="messages flow", timeout=60, child=demo)
        demo.signal("TERM")
        self.assertEqual(await demo.wait(60), 0, demo.tail())
        self.assertEqual(json.loads(log.read_text().splitlines()[-1])["lost"], 0)
        await self.nothing_is_left()

    async def test_a_signal_while_it_starts_just_stops_it(self) -> None:
        log = Path(self.mktemp()).absolute()
        demo = Child([sys.executable, DEMO, "--folder", str(self.folder)], log=log, env=self.environment, cwd=ROOT)

        async def starting() -> bool:
            return (self.folder / "rabbitmq" / "rabbitmq.log").exists()

        await until(starting, what="RabbitMQ starts", timeout=60, child=demo)
        demo.signal("INT")
        self.assertEqual(await demo.wait(60), 130, demo.tail())
        await self.nothing_is_left()

    async def test_even_kill_9_leaves_nothing_running(self) -> None:
        log = Path(self.mktemp()).absolute()
        command = [sys.executable, DEMO, "--folder", str(self.folder)]
        demo = Child(command, log=log, env=self.environment, cwd=ROOT)

        async def started() -> bool:
            return "live page" in log.read_text()

        await until(started, what="the daemon runs", timeout=60, child=demo)
        self.assertGreater(len(_running(f"AMQPROUTER_TEST_RUN={self.mark}")), 2)
        await deferLater(reactor, 0.5)  # in the midst of whatever comes next
        await demo.kill()
        await self.nothing_is_left()
