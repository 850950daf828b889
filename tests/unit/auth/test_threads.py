"""The hashing threads stop without losing a question."""

from __future__ import annotations

import threading
from functools import partial

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import TestCase

from amqprouter.auth.asking import asking_for
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

    async def order(self, *asked: tuple[str, str, str]) -> list[tuple[str, str, str]]:
        """In which order the one thread does what these ask for at the same time."""
        done: list[tuple[str, str, str]] = []
        shares = {audience: self.threads.share(audience) for audience, _, _ in asked}

        def ask(who: tuple[str, str, str]) -> Deferred[None]:
            return shares[who[0]](lambda: done.append(who))

        answers = [asking_for(who[1], who[2], partial(ask, who)) for who in asked]
        self.threads.startService()
        self.addCleanup(self.threads.stopService)
        for answer in answers:
            await answer
        return done

    async def test_a_crowd_holds_up_nobody_else(self) -> None:
        crowd = [("users", "192.0.2.9", f"guess {number}") for number in range(100)]
        user, device, token = ("users", "192.0.2.1", "alice"), ("devices", "", "dev1"), ("tokens", "", "")
        order = await self.order(*crowd, user, device, token)
        self.assertLess(max(map(order.index, (user, device, token))), 5)
        self.assertEqual(len(order), 103)

    async def test_a_name_holds_up_no_other_from_there(self) -> None:
        order = await self.order(*[("devices", "mqtt", "dev1")] * 50, ("devices", "mqtt", "dev2"))
        self.assertEqual(order.index(("devices", "mqtt", "dev2")), 1)

    async def test_who_asks_is_known_when_a_coroutine_goes_on(self) -> None:
        turn: Deferred[None] = Deferred()
        run = self.threads.share("devices")
        seen: list[str] = []

        async def ask(word: str, times: int) -> None:
            await turn  # as a checker does that asks something else first
            answers = [run(lambda: seen.append(word)) for _ in range(times)]
            for answer in answers:
                await answer

        crowd = asking_for("a", "x", lambda: Deferred.fromCoroutine(ask("crowd", 20)))
        alone = asking_for("b", "y", lambda: Deferred.fromCoroutine(ask("alone", 1)))
        turn.callback(None)
        self.threads.startService()
        self.addCleanup(self.threads.stopService)
        await crowd
        await alone
        self.assertEqual(seen.index("alone"), 1)

    async def test_who_does_not_wait_any_more_is_passed_over(self) -> None:
        done: list[str] = []
        first, second = (self.threads.run(partial(done.append, word)) for word in ("first", "second"))
        first.cancel()
        self.threads.startService()
        self.addCleanup(self.threads.stopService)
        await second
        self.assertEqual(done, ["second"])
        self.failureResultOf(first, CancelledError)

    async def test_after_the_stop_work_fails(self) -> None:
        self.threads.startService()
        self.threads.stopService()
        with self.assertRaises(CheckerUnavailable):
            await self.threads.run(lambda: 1)
