"""Limits of those who speak for devices, and turns in which they count as one."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from amqprouter.identity import Identity
from amqprouter.scheduling import policy
from amqprouter.scheduling.decision import Decision
from amqprouter.scheduling.scheduler import Scheduler
from amqprouter.scheduling.turns import IDLE_GROUPS, GroupedTurns
from amqprouter.settings import ClassSettings, PublisherSettings, SchedulerSettings

OPEN = SchedulerSettings(rate=1e6, burst=1e6, max_in_flight=16, max_hold=600)
THROTTLED, RUN, WAIT = Decision.THROTTLED, Decision.RUN, Decision.WAIT


class PublisherTestCase(SynchronousTestCase):
    def make(self, settings: SchedulerSettings = OPEN, *sections: PublisherSettings) -> None:
        self.complaints: list[str] = []
        classes = (ClassSettings("alarms", devices=("alarm-*",), priority="high", limits="none"),)
        self.scheduler: Scheduler[str] = Scheduler(
            settings, classes, complain=self.complaints.append, publishers=sections
        )

    def offer(self, device: str, publisher: str = "bridge", limits: str | None = None, now: float = 0.0) -> Decision:
        return self.scheduler.offer(device, device, now, publisher=publisher, publisher_limits=limits)

    def finish(self, device: str, publisher: str = "bridge") -> None:
        self.scheduler.finished(device, publisher)


class LimitTests(PublisherTestCase):
    def test_of_all_its_devices_together(self) -> None:
        self.make(replace(OPEN, publisher_limits="10/s burst 2"))
        self.assertEqual([self.offer(device) for device in "abc"], [RUN, RUN, THROTTLED])
        self.assertEqual([self.offer(device, "other") for device in "de"], [RUN, RUN])
        self.assertEqual([self.offer(device, "") for device in "fgh"], [RUN] * 3)  # who speaks for itself has none
        self.assertEqual(self.scheduler.held_by("c", 0, 0.0), "publisher default")
        told = self.scheduler.explain("c", 0.0)
        self.assertEqual((told.publisher, told.reason), ("bridge", "10/s burst 2 of publisher bridge, retry in 0.1 s"))
        self.assertEqual(self.scheduler.take(0.09), [])
        self.assertEqual(self.scheduler.take(0.101), ["c"])

    def test_besides_the_devices_own(self) -> None:
        self.make(replace(OPEN, rate=1, burst=1, publisher_limits="10/s"))
        self.assertEqual([self.offer(device) for device in "aab"], [RUN, THROTTLED, RUN])
        self.assertEqual(self.scheduler.held_by("a", 0, 0.0), "device default")

    def test_what_a_checker_told_comes_first_then_the_section(self) -> None:
        sections = PublisherSettings("named", "3/s"), PublisherSettings("shadow", "1/s burst 1", shadow=True)
        self.make(replace(OPEN, publisher_limits="2/s"), *sections)
        for publisher, told, left in (("named", None, 3), ("named", "5/s", 5), ("other", None, 2), ("other", "", 2)):
            self.offer(f"{publisher}-device", publisher, told, 100.0)
            (limit,) = [
                one
                for one in self.scheduler.explain(f"{publisher}-device", 200.0).limits
                if one.key.startswith("publisher")
            ]
            self.assertEqual((limit.key, limit.left), (f"publisher {publisher}", left))
        self.assertEqual([self.offer("x", "shadow") for _ in range(3)], [RUN] * 3)
        self.offer("y", "named", "nonsense")
        self.assertIn("the checker gives named a limit that is none", self.complaints[0])

    def test_what_was_told_last_counts_for_all_its_devices(self) -> None:
        self.make(replace(OPEN, max_in_flight=1000))
        self.assertEqual([self.offer("a") for _ in range(9)], [RUN] * 9)
        self.assertEqual(self.offer("b", limits="1/s burst 1"), RUN)
        self.assertEqual(self.offer("a"), THROTTLED)  # of which nothing was told: what is known stays
        self.assertEqual(self.offer("c", limits="1/s burst 1"), THROTTLED)
        self.assertEqual(len([name for at in (2.0, 4.0) for name in self.scheduler.take(at)]), 2)
        self.assertEqual([self.offer(name, limits="none", now=4.0) for name in "def"], [RUN] * 3)
        self.assertEqual(self.offer("a", now=4.0), RUN)
        self.assertEqual([self.offer(name, limits="1/s burst 1", now=4.0) for name in "gh"], [RUN, THROTTLED])

    def test_siblings_take_turns_at_its_limit(self) -> None:
        self.make(replace(OPEN, publisher_limits="1/s burst 1", max_waiting_per_device=100))
        self.assertEqual([self.offer("chatty") for _ in range(50)].count(THROTTLED), 49)
        self.offer("quiet")
        ran = [name for second in range(1, 5) for name in self.scheduler.take(second + 0.01)]
        self.assertIn("quiet", ran[:3])

    def test_what_waits_leaves_room_for_others(self) -> None:
        self.make(replace(OPEN, rate=1, burst=1, publisher_limits="1/s burst 1", max_waiting=8))
        decisions = [self.offer(f"lamp-{number}") for number in range(20)]
        self.assertEqual(decisions, [RUN] + [THROTTLED] * 6 + [Decision.PARK] * 13)
        self.assertEqual([self.offer("single", "") for _ in range(4)], [RUN, THROTTLED, THROTTLED, Decision.PARK])

    def test_a_reload_keeps_what_was_used(self) -> None:
        settings = replace(OPEN, publisher_limits="10/s burst 10")
        self.make(settings)
        for _ in range(8):
            self.offer("a", limits="20/s burst 10")
        self.scheduler.configure(settings, (), (), 0.0, (PublisherSettings("bridge", "1/s burst 1"),))
        self.assertEqual([self.offer("b", limits="20/s burst 10") for _ in range(3)], [RUN, RUN, THROTTLED])

    def test_a_device_that_changes_its_publisher(self) -> None:
        self.make(replace(OPEN, publisher_limits="1/s burst 1", rate=100, burst=100))
        self.assertEqual([self.offer("a", name) for name in ("one", "two", "", "")], [RUN] * 4)
        self.assertEqual(self.offer("a", "one"), THROTTLED)
        self.assertEqual(self.offer("a", ""), WAIT)  # behind its own, which goes by what holds now
        self.assertEqual(self.scheduler.take(0.0), ["a", "a"])
        for name in ("one", "two", "", "", "one", ""):
            self.finish("a", name)
        self.assertEqual((self.scheduler.in_flight, self.scheduler._in_flight_by), (0, {}))

    def test_those_without_devices_are_forgotten(self) -> None:
        self.patch(policy, "_FIRST_PRUNING", 8)
        self.make(replace(OPEN, publisher_limits="1/s burst 1", max_devices=4))
        for number in range(200):
            self.offer(f"d{number}", f"p{number}", now=float(number))
            self.finish(f"d{number}", f"p{number}")
        self.assertLess(len(self.scheduler._book._publishers), 40)

    def test_a_checkers_words_of_the_device_are_its_own(self) -> None:
        self.make(replace(OPEN, publisher_limits="10/s", tenant_limits="9/s"))
        grant = Identity("a", limits="7/s", tenant="acme")
        self.scheduler.offer("a", "a", 0.0, 0, grant, publisher="bridge")
        keys = {limit.key: limit.text for limit in self.scheduler.explain("a", 0.0).limits}
        self.assertEqual(keys, {"device a": "7/s", "tenant acme": "9/s", "publisher bridge": "10/s"})


class TurnTests(PublisherTestCase):
    def fill(self, publisher: str = "") -> None:
        """Use up the room in flight, the reserve as well."""
        for number in range(OPEN.max_in_flight):
            self.offer(f"full-{number}", publisher)
        self.assertEqual(self.scheduler.in_flight, OPEN.max_in_flight)

    def turns(self, count: int) -> list[str]:
        """Who has the next turns, as one message after the other is finished."""
        taken: list[str] = []
        self.scheduler.budget = 0
        for number in range(3):  # so that the reserve is free
            self.finish(f"full-{number}", "")
        while len(taken) < count:
            self.scheduler.budget = sys.maxsize
            for name in self.scheduler.each(1.0):
                taken.append(name)
                self.scheduler.budget = 0
                self.finish(name, "" if name in self.alone else "bridge")
        return taken

    alone: tuple[str, ...] = ("single", *(f"plug-{number}" for number in range(50)))

    def test_ten_thousand_behind_a_bridge_are_as_one(self) -> None:
        self.make(replace(OPEN, max_devices=100_000))
        self.fill()
        for number in range(10_000):
            self.assertEqual(self.offer(f"lamp-{number}"), WAIT)
        for _ in range(8):
            self.offer("single", "")
        taken = self.turns(16)
        self.assertEqual(taken.count("single"), 8)

    def test_siblings_and_a_chatty_one(self) -> None:
        self.make()
        self.fill()
        for _ in range(100):
            self.offer("chatty")
        for name in ("quiet-1", "quiet-2"):
            self.offer(name)
        taken = self.turns(6)
        self.assertEqual(Counter(taken), {"chatty": 4, "quiet-1": 1, "quiet-2": 1})

    def test_alarms_behind_a_bridge_go_before_others(self) -> None:
        self.make()
        self.fill()
        for number in range(50):
            self.offer(f"lamp-{number}")
            self.offer(f"plug-{number}", "")
        self.offer("alarm-1")
        self.assertIn("alarm-1", self.turns(2))

    def test_the_reserve_is_for_those_who_have_little_under_way(self) -> None:
        """A bridge does not use it up with devices of which each has none."""
        self.make()
        taken = [self.offer(f"lamp-{number}") for number in range(30)].count(RUN)
        self.assertEqual(taken, 14)  # an eighth is left
        self.assertEqual(self.offer("single", ""), RUN)
        self.finish("lamp-0")
        self.assertEqual(len(self.scheduler.take(0.0)), 0)

    def test_each_runs_once_and_all_is_counted(self) -> None:
        self.make()
        for number in range(60):
            self.offer(f"d{number % 20}", ("", "one", "two")[number % 3])
        ran: Counter[str] = Counter()
        waiting = self.scheduler.waiting
        while self.scheduler.waiting:
            for number in range(20):
                for publisher in ("", "one", "two"):
                    if self.scheduler.in_flight:
                        self.finish(f"d{number}", publisher)
            ran.update(self.scheduler.take(1.0))
        self.assertEqual(ran.total(), waiting)


class Someone:
    def __init__(self, name: int, group: str, priority: int) -> None:
        self.name, self.group, self.priority, self.weight, self.size = name, group, priority, 1.0, 100
        self.earned_in, self.earned_with = 0.0, None


class GroupedTurnsTests(SynchronousTestCase):
    @given(st.lists(st.tuples(st.sampled_from(["", "a", "b", "c"]), st.integers(0, 2), st.booleans())))
    def test_all_come_out_once(self, given: list[tuple[str, int, bool]]) -> None:
        turns: GroupedTurns[Someone] = GroupedTurns()
        waiting: set[int] = set()
        for name, (group, priority, takes) in enumerate(given):
            turns.push(Someone(name, group, priority))
            waiting.add(name)
            if takes:
                one = turns.pop()
                waiting.remove(one.name)
                if name % 3 == 0:
                    turns.put_back(one)
                    self.assertIs(turns.pop(), one)
            self.assertEqual(turns.count, len(waiting))
        while turns.count:
            waiting.remove(turns.pop().name)
        self.assertEqual(waiting, set())
        self.assertRaises(IndexError, turns.pop)

    def test_groups_that_nobody_is_in_are_forgotten(self) -> None:
        turns: GroupedTurns[Someone] = GroupedTurns()
        for number in range(1000):
            turns.push(Someone(number, f"g{number}", 0))
            turns.pop()
        self.assertLessEqual(len(turns._groups), IDLE_GROUPS)

    def test_a_group_of_one_is_as_one_alone(self) -> None:
        turns: GroupedTurns[Someone] = GroupedTurns()
        ones = [Someone(0, "", 1), Someone(1, "g", 1)]
        for one in ones:
            turns.push(one)
        taken = []
        for _ in range(1000):
            one = turns.pop()
            taken.append(one.name)
            turns.push(one)
        self.assertAlmostEqual(sum(taken), 500, delta=1)
