"""What a service manager is told, when, and that it is no trouble if nobody listens."""

from __future__ import annotations

import os
from typing import Any
from uuid import uuid4

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from amqprouter.daemon.service_manager import MOST_STATUS, STATUS_EVERY, Notifier, ServiceManager
from amqprouter.interfaces import IReadiness
from tests.support.notify_socket import NotifySocket


@implementer(IReadiness)
class _Part:
    name = "broker-consume"

    def __init__(self) -> None:
        self.wrong = "not connected yet"

    def problem(self) -> str:
        return self.wrong


class NotifierTests(SynchronousTestCase):
    def socket(self, address: str) -> NotifySocket:
        listening = NotifySocket(address)
        self.addCleanup(listening.close)
        return listening

    def test_paths_and_abstract_names(self) -> None:
        for address in (f"/tmp/{uuid4().hex}", f"@amqprouter-test-{uuid4().hex}"):
            listening = self.socket(address)
            if address.startswith("/"):
                self.addCleanup(os.unlink, address)
            notifier = Notifier(address)
            self.addCleanup(notifier.close)
            notifier.tell(READY=1, STATUS="all is well")
            self.assertEqual(listening.read(), [{"READY": "1", "STATUS": "all is well"}])

    def test_the_environment(self) -> None:
        """The variables are ours alone: no child process is to speak for us."""
        environment = {"NOTIFY_SOCKET": "@x", "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "7", "HOME": "/"}
        notifier = Notifier.of(environment)
        self.assertEqual((notifier.watchdog, notifier.watched, environment), (3.0, 7, {"HOME": "/"}))
        self.assertTrue(notifier)
        for other in ({}, {"NOTIFY_SOCKET": "vsock:2:1", "WATCHDOG_USEC": "1"}, {"WATCHDOG_USEC": "5"}):
            notifier = Notifier.of(dict(other))
            self.assertEqual((bool(notifier), notifier.watchdog), (False, 0.0))
        self.assertEqual(Notifier.of({"NOTIFY_SOCKET": "@x", "WATCHDOG_USEC": "-1"}).watchdog, 0.0)

    def test_nobody_listens(self) -> None:
        for address in ("", "/nowhere/at/all", "@" + "x" * 300, "@nobody"):
            notifier = Notifier(address)
            notifier.tell(READY=1)
            notifier.close()
            notifier.tell(READY=1)

    def test_a_full_socket(self) -> None:
        """What it has no room for goes with the next message."""
        listening = self.socket(f"@amqprouter-test-{uuid4().hex}")
        notifier = Notifier(listening.address)
        self.addCleanup(notifier.close)
        for number in range(10_000):
            notifier.tell(WATCHDOG=number)
        notifier.tell(READY=1)
        self.assertEqual(listening.count("READY"), 0)
        notifier.tell()
        self.assertEqual(listening.read()[-1], {"WATCHDOG": "9999", "READY": "1"})


class ServiceManagerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.socket = NotifySocket(f"@amqprouter-test-{uuid4().hex}")
        self.addCleanup(self.socket.close)
        self.reactor: Any = MemoryReactorClock()
        self.part = _Part()

    def manager(self, watchdog: float = 0.0, watched: int = 0) -> ServiceManager:
        notifier = Notifier(self.socket.address, watchdog, watched)
        manager = ServiceManager(self.reactor, notifier, [self.part], monotonic=lambda: 5_000_000)
        self.addCleanup(manager.stopping, 1)
        return manager

    def started(self, **options: Any) -> ServiceManager:
        manager = self.manager(**options)
        manager.start()
        self.assertEqual(self.socket.read(), [])  # not before the reactor turns
        self.reactor.run()
        return manager

    def status(self) -> str:
        return [fields["STATUS"] for fields in self.socket.read() if "STATUS" in fields][-1]

    def test_ready_once_it_is_started(self) -> None:
        """And what it waits for is told in the status, whenever that changes."""
        self.started()
        self.assertEqual(
            self.socket.read(), [{"READY": "1", "STATUS": "Not ready for work: broker-consume: not connected yet"}]
        )
        self.reactor.advance(STATUS_EVERY)
        self.assertEqual(len(self.socket.read()), 1)
        self.part.wrong = ""
        self.reactor.advance(STATUS_EVERY)
        self.assertEqual(self.socket.read()[1:], [{"STATUS": "Ready for work"}])

    def test_a_status_is_one_line(self) -> None:
        """What a broker says is quoted there: it begins no field of its own."""
        self.part.wrong = "x\nSTOPPING=1\r\x1b[2J" + "y" * 1000
        self.started()
        (fields,) = self.socket.read()
        self.assertEqual(set(fields), {"READY", "STATUS"})
        self.assertEqual(len(fields["STATUS"]), MOST_STATUS)

    def test_reloads(self) -> None:
        manager = self.started()
        self.part.wrong = ""
        manager.reloading()
        self.assertEqual(self.socket.read()[1], {"RELOADING": "1", "MONOTONIC_USEC": "5000"})
        manager.reloaded(["a", "b"])
        told = "Ready for work. The configuration was not taken over, for it has problems: 2"
        self.assertEqual(self.socket.read()[2], {"READY": "1", "STATUS": told})
        manager.reloading()
        manager.reloaded([])
        self.assertEqual(self.socket.read()[4], {"READY": "1", "STATUS": "Ready for work"})

    def test_a_reload_before_it_is_ready(self) -> None:
        """That would be told as ready."""
        manager = self.manager()
        manager.reloading()
        manager.reloaded([])
        self.assertEqual(self.socket.read(), [])

    def test_the_stop(self) -> None:
        manager = self.started(watchdog=4.0)
        manager.stopping(28)
        told = {"STOPPING": "1", "STATUS": "Finishing what is under way", "EXTEND_TIMEOUT_USEC": "28000000"}
        self.assertEqual(self.socket.read()[1:], [told])
        manager.reloading()
        self.reactor.advance(60)
        self.assertEqual(len(self.socket.read()), 2)
        self.assertEqual((self.reactor.readers, self.reactor.getDelayedCalls()), (set(), []))

    def test_pings(self) -> None:
        """One for each byte that went through the reactor, twice in the time; none while it reads nothing."""
        self.started(watchdog=4.0)
        (beat,) = self.reactor.readers
        for count in range(1, 4):
            self.assertEqual(self.socket.count("WATCHDOG"), count - 1)
            beat.doRead()
            self.assertEqual(self.socket.count("WATCHDOG"), count)
            beat.doRead()  # there is nothing to be read: no progress
            self.reactor.advance(2.0)
        self.reactor.advance(1000)
        self.assertEqual(self.socket.count("WATCHDOG"), 3)

    def test_another_process_is_watched(self) -> None:
        self.started(watchdog=4.0, watched=os.getpid() + 1)
        self.assertEqual(self.reactor.readers, set())
