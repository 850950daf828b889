"""The hashing threads stop without losing a question."""

from __future__ import annotations

import threading

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from amqprouter.auth.threads import HashingThreads
from amqprouter.errors import CheckerUnavailable

PATIENCE = 10.0
"""Seconds until a test that hangs fails."""


class HashingThreadsTests(TestCase):
    def setUp(self) -> None:
        from twisted.internet import reactor  # noqa: PLC0415

        self.threads = HashingThreads(reactor, threads=1)  # type: ignore[arg-type]

    async def test_results_and_errors_come_back(self) -> None:
        self.threads.startService()
        self.addCleanup(self.threads.stopService)
        self.assertEqual(await self.threads.run(lambda: 6 * 7), 42)
        with self.assertRaises(ZeroDivisionError):
            await self.threads.run(lambda: 1 // 0)

    async def test_work_given_before_the_start_waits_for_it(self) -> None:
        answer = self.threads.run(lambda: 1)
        self.assertNoResult(answer)
        self.threads.startService()
        self.addCleanup(self.threads.stopService)
        self.assertEqual(await answer, 1)

    async def test_at_the_stop_the_work_under_way_ends_and_the_rest_fails(self) -> None:
        self.threads.startService()
        begun, may_end = threading.Event(), threading.Event()

        def slow() -> str:
            begun.set()
            may_end.wait(PATIENCE)
            return "done"

        first = self.threads.run(slow)
        rest: list[Deferred[str]] = [self.threads.run(lambda: "never") for _ in range(5)]
        begun.wait(PATIENCE)
        threading.Timer(0.05, may_end.set).start()  # while the stop below waits
        self.threads.stopService()
        self.assertEqual(await first, "done")
        for answer in rest:
            with self.assertRaises(CheckerUnavailable):
                await answer

    async def test_after_the_stop_work_fails(self) -> None:
        self.threads.startService()
        self.threads.stopService()
        with self.assertRaises(CheckerUnavailable):
            await self.threads.run(lambda: 1)
