"""The fake checker keeps the contract, and can be told to misbehave."""

from __future__ import annotations

from collections.abc import Mapping

from twisted.trial.unittest import SynchronousTestCase

from amqprouter.errors import CheckerUnavailable
from amqprouter.testing.auth import MemoryChecker
from tests.unit.auth.checkers.contract import CheckerContract


class MemoryCheckerTests(CheckerContract, SynchronousTestCase):
    checker: MemoryChecker

    def make_checker(self, secrets: Mapping[str, bytes]) -> MemoryChecker:
        return MemoryChecker(secrets)

    def test_unavailable(self) -> None:
        self.checker.unavailable = True
        self.failureResultOf(self.ask_device("dev1", b"sesame"), CheckerUnavailable)

    def test_slow(self) -> None:
        self.checker.slow = True
        answer = self.ask_device("dev1", b"sesame")
        self.assertNoResult(answer)
        self.assertEqual(self.checker.asked, ["dev1"])
        self.checker.release()
        self.assertEqual(self.successResultOf(answer), "dev1")
