"""Work in slices of the reactor's time: nobody's keeps others from their turn."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from amqprouter.events.slices import BURST, MANY_ACCOUNTS, SHARE, SLICE, Slices, Work
from tests.unit.web.harness import BusyClock

STEP = 0.00025
"""Seconds of each step here."""


class SlicesTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = BusyClock()
        self.slices = Slices(self.clock)
        self.done: list[str] = []
        self.spent: dict[str, float] = {}

    def work(self, user: str, steps: int, name: str = "") -> Work:
        for _ in range(steps):
            self.clock.work(STEP)
            self.spent[user] = self.spent.get(user, 0.0) + STEP
            yield
        self.done.append(name or user)
        return name or user

    def submit(self, user: str, steps: int, name: str = "") -> None:
        self.slices.submit(user, self.work(user, steps, name))


class SlicesTests(SlicesTestCase):
    def test_little_work_is_done_at_once(self) -> None:
        results: list[str] = []
        self.slices.submit("ann", self.work("ann", 2)).addCallback(results.append)
        self.assertEqual(results, ["ann"])
        self.clock.advance(0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_no_more_at_once_than_a_burst(self) -> None:
        self.submit("ann", 10_000)
        self.assertLess(self.clock.busy, BURST + 2 * STEP)

    def test_one_user_has_a_share(self) -> None:
        for _ in range(100):
            self.submit("ann", 1000)
        self.clock.longest = 0.0
        self.clock.turns(5.0)
        self.assertLess(abs(self.spent["ann"] / 5.0 - SHARE), 0.05)
        self.assertLessEqual(self.clock.longest, BURST + STEP)

    def test_many_users_have_slices(self) -> None:
        for number in range(100):
            self.submit(f"user{number}", 400)
        self.clock.longest = 0.0
        self.clock.turns(10.0)
        self.assertLessEqual(self.clock.longest, SLICE + BURST + STEP)
        self.assertGreater(self.clock.busy, 9.0)
        self.assertLess(max(self.spent.values()) - min(self.spent.values()), 0.02)

    def test_another_users_work_is_not_pushed_back(self) -> None:
        for _ in range(100):
            self.submit("many", 1000)
        self.clock.turns(1.0)
        self.submit("one", 3)
        self.assertEqual(self.done, ["one"])
        self.submit("one", 10)
        self.clock.turns(0.1)
        self.assertEqual(self.done, ["one", "one"])

    def test_works_of_one_user_take_turns(self) -> None:
        self.submit("ann", 10_000, "long")
        self.submit("ann", 4, "short")
        self.clock.turns(0.5)
        self.assertEqual(self.done, ["short"])

    def test_everything_is_done_in_the_end(self) -> None:
        for number in range(20):
            self.submit(f"user{number % 3}", 100, str(number))
        self.clock.turns(3.0)
        self.assertEqual(sorted(map(int, self.done)), list(range(20)))
        self.assertEqual((len(self.slices), self.clock.getDelayedCalls()), (0, []))

    def test_what_fails_is_told_and_the_rest_goes_on(self) -> None:
        def fails() -> Work:
            yield
            raise KeyError("x")

        for _ in range(10):
            self.submit("ann", 10)
        failed = self.slices.submit("ann", fails())
        self.clock.turns(1.0)
        self.failureResultOf(failed, KeyError)
        self.assertEqual(len(self.done), 10)

    def test_what_is_submitted_at_the_end_of_another(self) -> None:
        self.slices.submit("ann", self.work("ann", 20)).addCallback(lambda _: self.submit("ann", 20, "second"))
        self.clock.turns(1.0)
        self.assertEqual(self.done, ["ann", "second"])

    def test_what_was_done_elsewhere_counts(self) -> None:
        self.assertTrue(self.slices.may_work("ann"))
        self.slices.charge("ann", BURST)
        self.assertFalse(self.slices.may_work("ann"))
        self.assertTrue(self.slices.may_work("bob"))
        self.slices.charge("bob", SLICE)
        self.assertFalse(self.slices.may_work("carl"))  # in this turn of the reactor
        self.assertTrue(self.slices.may_ask("carl"))
        self.assertFalse(self.slices.may_ask("bob"))
        self.clock.advance(0)
        self.assertTrue(self.slices.may_work("carl"))

    def test_accounts_that_are_paid_off_are_forgotten(self) -> None:
        for number in range(MANY_ACCOUNTS + 1):
            self.slices.charge(f"user{number}", 1e-6)
        self.clock.advance(1.0)
        self.slices.charge("ann", 1e-6)
        self.assertEqual(list(self.slices._accounts), ["ann"])
