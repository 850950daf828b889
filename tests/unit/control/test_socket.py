"""The control socket's file: made for the owner alone, replaced when it is left over, and never in the daemon's way."""

from __future__ import annotations

import os
import shutil
import socket
import stat
from pathlib import Path
from tempfile import mkdtemp

from twisted.internet.defer import ensureDeferred
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.trial.unittest import TestCase
from zope.interface import provider

from amqprouter.control.socket import ControlSocket
from tests.support.process import reactor


class SocketTests(TestCase):
    def setUp(self) -> None:
        self.folder = Path(mkdtemp(prefix="amqprouter-"))  # trial's own is too long a name for a socket
        self.addCleanup(shutil.rmtree, self.folder)
        self.path = self.folder / "control.sock"
        self.warnings: list[str] = []

        @provider(ILogObserver)
        def observe(event: LogEvent) -> None:
            if event.get("log_namespace") == ControlSocket.log.namespace:
                self.warnings.append(str(event["error"]))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)

    def started(self) -> ControlSocket:
        service = ControlSocket(reactor, str(self.path), Factory.forProtocol(Protocol))
        service.startService()
        self.addCleanup(lambda: ensureDeferred(self.stopped(service)))
        return service

    async def stopped(self, service: ControlSocket) -> None:
        if service.running:
            await service.stopService()

    def answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as client:
            try:
                client.connect(str(self.path))
            except OSError:
                return False
        return True

    async def test_for_the_owner_alone_and_gone_at_the_end(self) -> None:
        before = os.umask(0)
        try:
            service = self.started()
        finally:
            os.umask(before)
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o600)
        self.assertTrue(self.answers())
        await service.stopService()
        self.assertFalse(self.path.exists())
        self.started()
        self.assertTrue(self.answers())
        self.assertEqual(self.warnings, [])

    def test_what_a_killed_daemon_left_is_replaced(self) -> None:
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(self.path))
        self.assertFalse(self.answers())
        self.started()
        self.assertTrue(self.answers())

    def test_a_living_daemons_is_not(self) -> None:
        self.started()
        before = self.path.stat().st_ino
        self.started()
        self.assertEqual(self.path.stat().st_ino, before)
        self.assertIn("another daemon listens", self.warnings[0])
        self.assertTrue(self.answers())

    async def test_taken_away_by_somebody(self) -> None:
        service = self.started()
        self.path.unlink()
        await service.stopService()
        self.assertFalse(self.path.exists())

    def test_trouble_is_told_and_nothing_more(self) -> None:
        self.path.write_text("precious")
        self.started()
        self.path = self.folder / "missing" / "control.sock"
        self.started()
        self.path = self.folder / ("x" * 200)
        self.started()
        self.path = self.folder / "link.sock"
        Path(f"{self.path}.lock").symlink_to(self.folder / "elsewhere")
        self.started()
        self.assertEqual((self.folder / "control.sock").read_text(), "precious")
        self.assertFalse((self.folder / "elsewhere").exists())
        for warning, expected in zip(
            self.warnings,
            ("is there, and is no socket", "missing is not there", "too long", "symbolic links"),
            strict=True,
        ):
            self.assertIn(expected, warning)
