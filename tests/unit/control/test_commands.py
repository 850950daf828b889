"""The commands about the daemon as a whole, without a socket."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from amqprouter.auth.user_authenticator import UserAuthenticator
from amqprouter.control.commands import Control
from amqprouter.control.reloader import Reloaded
from amqprouter.counters import Counters
from amqprouter.identity import Identity
from amqprouter.web.status import StatusReport


class Checker:
    """Knows ann, with her tenant."""

    asked = 0

    def requestAvatarId(self, credentials: Any) -> object:
        self.asked += 1
        if credentials.username == "ann" and credentials.password == b"ann's":
            return Identity("ann", valid_for=60, tenant="plant")
        raise UnauthorizedLogin


class ControlTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.flushes = 0
        self.checker = Checker()
        ages = {"cache_size": 100, "cache_seconds": 300, "negative_cache_seconds": 10}
        self.users, self.devices = (UserAuthenticator(self.checker, **ages) for _ in range(2))  # type: ignore[arg-type]
        self.outcome = Reloaded()
        reloader: Any = SimpleNamespace(reload=lambda: self.outcome)
        report = StatusReport(Counters(received=3), [], [], self.clock)
        top = [{"device": "dev1", "passed": 3}]
        self.control = Control(
            self.clock, self.devices, self.users, reloader, report, lambda: top, flushed=[self.flushed]
        )

    def flushed(self) -> None:
        self.flushes += 1

    def log_in(self, name: str, password: str) -> bool:
        asked = Deferred.fromCoroutine(self.users.authenticate(name, password.encode(), self.clock.seconds()))
        return self.successResultOf(asked).allowed

    def test_status(self) -> None:
        self.clock.advance(5)
        status = self.control.status()
        self.assertEqual((status["uptime"], status["devices"]), (5, [{"device": "dev1", "passed": 3}]))
        self.assertEqual(status["counters"]["received"], 3)  # type: ignore[index]

    def test_reload(self) -> None:
        self.assertEqual(self.control.reload(), {"problems": (), "restart": ()})
        self.outcome = Reloaded(("bad rate",), ("http",))
        self.assertEqual(self.control.reload(), {"problems": ("bad rate",), "restart": ("http",)})

    def test_one_answer_is_forgotten_or_all(self) -> None:
        for name in ("ann", "bob"):
            self.log_in(name, "ann's")
        self.assertEqual(self.control.auth_flush("ann"), {"forgotten": 1})
        self.assertTrue(self.log_in("ann", "ann's"))
        self.assertFalse(self.log_in("bob", "ann's"))
        self.assertEqual(self.checker.asked, 3)
        self.assertEqual(self.control.auth_flush(), {"forgotten": 2})
        self.assertEqual(self.control.auth_flush(), {"forgotten": 0})
        self.assertEqual(self.flushes, 3)
        self.log_in("bob", "ann's")
        self.assertEqual(self.checker.asked, 4)

    def test_what_is_remembered_and_no_secret(self) -> None:
        self.log_in("ann", "ann's")
        self.log_in("ann", "hunter2")
        self.clock.advance(4)
        answer = self.control.auth_explain("ann")
        identity = {"name": "ann", "valid_for": 60, "tenant": "plant"}
        self.assertEqual(
            answer["user"],
            [
                {"proof": "password", "allowed": True, "identity": identity, "age": 4, "asked_again_in": 56},
                {"proof": "password", "allowed": False, "reason": "bad-secret", "age": 4, "asked_again_in": 6},
            ],
        )
        self.assertNotIn("hunter2", str(answer))
        self.assertEqual(self.control.auth_explain("bob"), {"name": "bob", "device": [], "user": []})
        self.clock.advance(6)
        self.assertEqual(len(self.control.auth_explain("ann")["user"]), 1)  # type: ignore[arg-type]
