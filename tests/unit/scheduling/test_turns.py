"""Turns: shares by weight and by priority; and the structures beneath, against naive ones."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from hypothesis import given, settings, strategies
from twisted.trial.unittest import SynchronousTestCase

from amqprouter.scheduling.busiest import Talkers
from amqprouter.scheduling.slot_ring import SlotRing
from amqprouter.scheduling.timer_wheel import TICK, TimerWheel
from amqprouter.scheduling.turns import COST_BYTES, Turns


@dataclass(eq=False)
class Someone:
    name: str
    weight: float = 1.0
    priority: int = 1
    size: int = 0
    earned_in: float = 0.0
    earned_with: object = None


def served(waiters: list[Someone], count: int) -> Counter[str]:
    """How many turns each gets that always has more."""
    turns: Turns[Someone] = Turns()
    for waiter in waiters:
        turns.push(waiter)
    order = []
    for _ in range(count):
        waiter = turns.pop()
        order.append(waiter.name)
        turns.push(waiter)
    return Counter(order)


class TurnsTests(SynchronousTestCase):
    def test_equals_take_turns(self) -> None:
        self.assertEqual(set(served([Someone(str(n)) for n in range(50)], 5000).values()), {100})

    @settings(deadline=None, max_examples=50)
    @given(strategies.lists(strategies.integers(1, 100), min_size=2, max_size=8))
    def test_weights(self, weights: list[int]) -> None:
        turns = 50 * sum(weights)
        got = served([Someone(str(n), weight=float(w)) for n, w in enumerate(weights)], turns)
        for number, weight in enumerate(weights):
            self.assertLess(abs(got[str(number)] / (50 * weight) - 1), 0.03)

    def test_large_messages_cost_more(self) -> None:
        got = served([Someone("small"), Someone("large", size=9 * COST_BYTES)], 1100)
        self.assertAlmostEqual(got["small"] / got["large"], 10, delta=0.3)

    def test_beyond_the_largest_that_is_told_apart(self) -> None:
        self.assertGreater(served([Someone("small"), Someone("vast", size=2**40)], 1000)["vast"], 2)

    def test_priorities(self) -> None:
        got = served([Someone(name, priority=n) for n, name in enumerate(("high", "normal", "low"))], 2100)
        self.assertEqual(got, {"high": 1600, "normal": 400, "low": 100})
        got = served([Someone("normal"), Someone("low", priority=2)], 1000)
        self.assertEqual(got, {"normal": 800, "low": 200})

    def test_one_that_comes_late_has_saved_up_nothing(self) -> None:
        turns: Turns[Someone] = Turns()
        turns.push(Someone("normal"))
        for _ in range(1000):
            turns.push(turns.pop())
        turns.push(Someone("low", priority=2))
        turns.push(Someone("alarm", priority=0))
        order = []
        for _ in range(21):
            waiter = turns.pop()
            order.append(waiter.name)
            turns.push(waiter)
        self.assertIn("alarm", order[:2])
        self.assertLessEqual(order.count("low"), 2)
        self.assertLessEqual(order.count("alarm"), 17)

    def test_nobody(self) -> None:
        self.assertRaises(IndexError, Turns().pop)


class SlotRingTests(SynchronousTestCase):
    @settings(deadline=None)
    @given(strategies.lists(strategies.none() | strategies.integers(0, 60), max_size=80))
    def test_against_a_sorted_list(self, steps: list[int | None]) -> None:
        ring: SlotRing[int] = SlotRing(40)
        naive: list[tuple[int, int]] = []
        for number, step in enumerate(steps):
            if step is not None:
                naive.append((min(ring.base + step, ring.base + 39), number))
                ring.push(ring.base + step, number)
            elif naive:
                naive.sort()
                self.assertEqual(ring.pop(), naive.pop(0)[1])
            self.assertEqual((ring.first(), ring.count), (min(naive)[0] if naive else None, len(naive)))


class TimerWheelTests(SynchronousTestCase):
    @settings(deadline=None)
    @given(
        strategies.lists(
            strategies.tuples(
                strategies.floats(0, 3) | strategies.floats(0, 5000),
                strategies.floats(0, 0.01) | strategies.floats(0, 2000),
            ),
            max_size=60,
        ),
        strategies.sampled_from([0.0, 123.456, 1e7]),
    )
    def test_never_early_and_a_tick_late_at_most(self, steps: list[tuple[float, float]], now: float) -> None:
        wheel: TimerWheel[int] = TimerWheel()
        pending: dict[int, float] = {}
        for number, (wait, elapsed) in enumerate(steps):
            wheel.push(now + wait, number, now)
            pending[number] = now + wait
            now += elapsed
            for due, met in wheel.pop_due(now):
                self.assertEqual(pending.pop(met), due)
                self.assertLessEqual(due, now + 1e-8)
            self.assertEqual(len(wheel), len(pending))
            for due in pending.values():
                self.assertGreater(due + TICK + 1e-8, now)
            following = wheel.next()
            self.assertEqual(following is None, not pending)
            if following is not None:
                self.assertLessEqual(following, min(pending.values()) + TICK + 1e-8)
        rounds = 0
        while (following := wheel.next()) is not None:
            now = max(now, following)
            for _, met in wheel.pop_due(now):
                del pending[met]
            rounds += 1
            self.assertLess(rounds, 1000, "it wakes for nothing")
        self.assertEqual(pending, {})


class TalkersTests(SynchronousTestCase):
    @settings(deadline=None)
    @given(strategies.lists(strategies.integers(0, 30), max_size=300))
    def test_counts_are_bounded_and_right_within_what_is_said(self, names: list[int]) -> None:
        talkers = Talkers(10)
        for number in names:
            talkers.count(str(number))
        self.assertLessEqual(len(talkers.counts), 10)
        self.assertLessEqual(talkers.missed, len(names) // 11)
        for name, exact in Counter([str(number) for number in names]).items():
            found = talkers.counts.get(name, 0)
            self.assertTrue(exact - talkers.missed <= found <= exact)
