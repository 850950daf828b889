"""What a checker answers is counted, and its failures are told apart."""

from __future__ import annotations

from collections.abc import Mapping

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import ICredentials
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred
from twisted.logger import ILogObserver, LogEvent, LogLevel, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from amqprouter.auth.checkers.watched import WatchedChecker
from amqprouter.auth.credentials import DeviceSecret
from amqprouter.counters import Counters
from amqprouter.errors import CheckerFailed, CheckerNotAsked, CheckerUnavailable, NotKnown
from amqprouter.identity import Identity
from amqprouter.interfaces import IConnects, IReadiness, IReloadable
from amqprouter.testing.auth import MemoryChecker
from tests.unit.auth.checkers.contract import CheckerContract


class ContractTests(CheckerContract, SynchronousTestCase):
    def make_checker(self, secrets: Mapping[str, bytes]) -> ICredentialsChecker:
        return WatchedChecker("devices/memory", MemoryChecker(secrets), Counters(), lambda: 0.0)

    def test_other_credentials_are_refused(self) -> None:
        """As an error, like any other of the checker's."""
        self.patch(self, "failureResultOf", lambda answer, _: SynchronousTestCase.failureResultOf(self, answer))
        super().test_other_credentials_are_refused()


class PartlyBroken(MemoryChecker):
    """Fails on one name, in words that nobody should see."""

    broken: str = ""
    error: Exception = KeyError("hunter2")

    def requestAvatarId(self, credentials: ICredentials) -> Deferred[str | Identity]:
        if getattr(credentials, "device_id", "") == self.broken:
            self.asked.append(self.broken)
            raise self.error
        return super().requestAvatarId(credentials)


class WatchedTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.now = 0.0
        self.inner = PartlyBroken({"good": b"1", "bad": b"2"})
        self.counters = Counters()
        self.checker = WatchedChecker("devices/memory", self.inner, self.counters, lambda: self.now, max_tries=3)
        self.lines: list[LogEvent] = []

        @implementer(ILogObserver)
        def observe(event: LogEvent) -> None:
            self.lines.append(event)

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)

    def ask(self, name: str, secret: bytes = b"1") -> Deferred[object]:
        return self.checker.requestAvatarId(DeviceSecret(name, secret))

    def outcomes(self) -> dict[str, int]:
        return {key.removeprefix("devices/memory "): count for key, count in self.counters.checker_answers.items()}

    def test_interfaces(self) -> None:
        for interface in (ICredentialsChecker, IReloadable, IReadiness, IConnects):
            verifyObject(interface, self.checker)
        self.assertEqual(self.checker.name, "checker devices/memory")

    def test_each_outcome_is_counted(self) -> None:
        self.successResultOf(self.ask("good"))
        self.failureResultOf(self.ask("good", b"2"), UnauthorizedLogin)
        self.failureResultOf(self.ask("nobody"), NotKnown)
        self.inner.unavailable = True
        self.failureResultOf(self.ask("good"), CheckerUnavailable)
        self.inner.unavailable, self.inner.broken, self.inner.error = False, "bad", CheckerNotAsked("leave it alone")
        self.failureResultOf(self.ask("bad"), CheckerNotAsked)
        self.assertEqual(self.outcomes(), {"allowed": 1, "denied": 1, "unknown": 1, "error": 1, "not-asked": 1})

    def test_time_is_counted_too(self) -> None:
        self.inner.slow = True
        answer = self.ask("good")
        self.now = 0.25
        self.inner.release()
        self.successResultOf(answer)
        self.assertEqual(self.counters.checker_seconds, {"devices/memory": 0.25})

    def test_the_text_of_a_strangers_error_goes_nowhere(self) -> None:
        self.inner.broken = "bad"
        for _ in range(5):
            failure = self.failureResultOf(self.ask("bad"), CheckerUnavailable)
            self.assertEqual(str(failure.value), "checker devices/memory: it failed with KeyError")
        self.assertNotIn("hunter2", self.checker.problem() + repr(self.lines))

    def test_one_that_fails_while_others_are_answered_will_never_be(self) -> None:
        self.inner.broken = "bad"
        self.failureResultOf(self.ask("bad"), CheckerUnavailable)
        for kind in (CheckerUnavailable, CheckerFailed):
            self.successResultOf(self.ask("good"))
            self.assertIs(self.failureResultOf(self.ask("bad")).type, kind)
        self.assertEqual(self.checker.problem(), "")
        asked = len(self.inner.asked)
        self.failureResultOf(self.ask("bad"), CheckerFailed)  # and is not asked for a while
        self.assertEqual(len(self.inner.asked), asked)
        self.failureResultOf(self.ask("bad", b"another secret"), CheckerUnavailable)  # which has yet to be tried
        self.now = 60.0
        self.inner.broken = ""
        self.successResultOf(self.ask("bad", b"2"))

    def test_an_outage_is_told_once_and_so_is_its_end(self) -> None:
        self.inner.unavailable = True
        for number in range(6):
            self.assertEqual(bool(self.checker.problem()), number >= 3)
            self.assertIs(self.failureResultOf(self.ask(f"dev{number}")).type, CheckerUnavailable)
        self.assertIn("6 questions failed in a row): the checker was told to be unavailable", self.checker.problem())
        self.inner.unavailable = False
        self.successResultOf(self.ask("good"))
        self.assertEqual(self.checker.problem(), "")
        levels = [event["log_level"] for event in self.lines if event["log_namespace"].startswith("amqprouter")]
        self.assertEqual(levels, [LogLevel.error, LogLevel.info])

    def test_questions_that_were_not_put_blame_nobody(self) -> None:
        self.inner.broken, self.inner.error = "bad", CheckerNotAsked("leave it alone")
        for _ in range(10):
            self.successResultOf(self.ask("good"))
            self.assertIs(self.failureResultOf(self.ask("bad")).type, CheckerNotAsked)

    def test_a_reload_forgets_who_is_to_blame(self) -> None:
        self.test_one_that_fails_while_others_are_answered_will_never_be()
        self.checker.reload()
        self.assertEqual(self.inner.reloads, 1)
