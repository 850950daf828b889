"""Turns and rates, on a clock that the tests hold."""

from __future__ import annotations

from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

from amqprouter.core.decision import Decision
from amqprouter.core.scheduler import Scheduler
from amqprouter.settings import SchedulerSettings

SETTINGS = SchedulerSettings(
    rate=10, burst=5, max_waiting_per_device=20, max_waiting=30, max_in_flight=1000, max_devices=100
)


def make(**changes: float) -> Scheduler[str]:
    return Scheduler(replace(SETTINGS, **changes))  # type: ignore[arg-type]


class RateTests(SynchronousTestCase):
    def test_a_burst_runs_at_once_and_the_rest_at_the_rate(self) -> None:
        scheduler = make()
        decisions = [scheduler.offer("a", f"a{n}", 0.0) for n in range(8)]
        self.assertEqual(decisions, [Decision.RUN] * 5 + [Decision.THROTTLED] * 3)
        self.assertEqual(scheduler.take(0.09), [])
        self.assertAlmostEqual(scheduler.due() or 0, 0.1)
        self.assertEqual(scheduler.take(0.1), ["a5"])
        self.assertEqual(scheduler.take(0.3), ["a6", "a7"])
        self.assertIsNone(scheduler.due())
        self.assertEqual((scheduler.waiting, scheduler.throttled_waiting, scheduler.in_flight), (0, 0, 8))

    def test_a_device_over_its_rate_does_not_hold_up_another(self) -> None:
        scheduler = make()
        for n in range(10):
            scheduler.offer("noisy", f"n{n}", 0.0)
        self.assertIs(scheduler.offer("quiet", "q", 0.0), Decision.RUN)

    def test_one_too_many_of_a_device_is_to_be_parked(self) -> None:
        scheduler = make()
        decisions = [scheduler.offer("a", str(n), 0.0) for n in range(5 + 20 + 2)]
        self.assertEqual(decisions[-3:], [Decision.THROTTLED, Decision.PARK, Decision.PARK])

    def test_one_too_many_of_all_devices_is_to_be_parked(self) -> None:
        scheduler = make()
        for name in "ab":
            for n in range(5 + 15):
                scheduler.offer(name, str(n), 0.0)
        self.assertEqual(scheduler.throttled_waiting, 30)
        for n in range(5):
            self.assertIs(scheduler.offer("c", str(n), 0.0), Decision.RUN)
        self.assertIs(scheduler.offer("c", "one more", 0.0), Decision.PARK)

    def test_a_new_rate_counts_at_once(self) -> None:
        scheduler = make()
        for n in range(6):
            scheduler.offer("a", str(n), 0.0)
        scheduler.take(0.1)
        scheduler.configure(replace(SETTINGS, rate=1000.0), (), (), 0.1)
        self.assertIs(scheduler.offer("a", "next", 0.2), Decision.RUN)


class TurnTests(SynchronousTestCase):
    def test_devices_that_wait_for_room_take_turns(self) -> None:
        scheduler = make(max_in_flight=1)
        self.assertIs(scheduler.offer("a", "a0", 0.0), Decision.RUN)
        for item in ("a1", "a2", "a3", "b1", "b2", "c1"):
            self.assertIs(scheduler.offer(item[0], item, 0.0), Decision.WAIT)
        running = ["a0"]
        for _ in range(6):
            scheduler.finished(running[-1][0])
            running += scheduler.take(0.0)
        order = running[1:]
        self.assertEqual(order, ["a1", "b1", "c1", "a2", "b2", "a3"])

    def test_nobody_overtakes_those_who_wait(self) -> None:
        scheduler = make(max_in_flight=1)
        scheduler.offer("a", "a0", 0.0)
        scheduler.offer("b", "b0", 0.0)
        scheduler.finished("a")
        self.assertIs(scheduler.offer("c", "c0", 0.0), Decision.WAIT)
        self.assertEqual(scheduler.take(0.0), ["b0"])

    def test_waiting_for_room_has_no_bound_of_its_own(self) -> None:
        scheduler = make(max_in_flight=1, burst=10_000)
        decisions = {scheduler.offer("a", str(n), 0.0) for n in range(500)}
        self.assertEqual(decisions, {Decision.RUN, Decision.WAIT})

    def test_a_stop_gives_everything_back(self) -> None:
        scheduler = make(max_in_flight=10)
        for n in range(8):
            scheduler.offer("a", f"a{n}", 0.0)
        for n in range(5):
            scheduler.offer("b", f"b{n}", 0.0)
        self.assertEqual(sorted(scheduler.withdraw()), ["a5", "a6", "a7", "b3", "b4"])
        self.assertEqual((scheduler.waiting, scheduler.take(100.0)), (0, []))


class MemoryTests(SynchronousTestCase):
    def test_idle_devices_are_forgotten_first(self) -> None:
        scheduler = make(max_devices=8)
        for n in range(5):
            scheduler.offer("busy", str(n), 9.9)
        for n in range(200):
            for name in (f"device{n}", "busy"):
                scheduler.offer(name, "x", 10.0 + n)
                scheduler.finished(name)
            self.assertLessEqual(scheduler.known_devices, 8)
