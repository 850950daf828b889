"""Turns and rates, on a clock that the tests hold."""

from __future__ import annotations

import sys
import tracemalloc
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from amqprouter.scheduling.decision import Decision
from amqprouter.scheduling.limit import Limit
from amqprouter.scheduling.scheduler import MAX_OVERRIDES, Scheduler
from amqprouter.settings import ClassSettings, SchedulerSettings

SETTINGS = SchedulerSettings(
    rate=10, burst=5, max_waiting_per_device=20, max_waiting=30, max_in_flight=1000, max_devices=100
)


def make(**changes: Any) -> Scheduler[str]:
    return Scheduler(replace(SETTINGS, **changes))


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
        scheduler.finished_all(["a"])
        self.assertIs(scheduler.offer("c", "c0", 0.0), Decision.WAIT)
        self.assertEqual(scheduler.take(0.0), ["b0"])

    def test_waiting_for_room_has_no_bound_of_its_own(self) -> None:
        scheduler = make(max_in_flight=1, burst=10_000)
        decisions = {scheduler.offer("a", str(n), 0.0) for n in range(500)}
        self.assertEqual(decisions, {Decision.RUN, Decision.WAIT})

    def test_a_stop_gives_everything_back(self) -> None:
        scheduler = make(max_in_flight=6)
        for n in range(8):
            scheduler.offer("a", f"a{n}", 0.0)
        scheduler.offer("b", "b0", 0.0)
        scheduler.offer("b", "b1", 0.0)
        self.assertEqual(sorted(scheduler.withdraw()), ["a5", "a6", "a7", "b1"])
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

    def test_idle_devices_are_forgotten_after_a_while(self) -> None:
        scheduler = make(max_devices=100_000)
        for n in range(5000):
            scheduler.offer(f"device{n}", "x", float(n))
            scheduler.finished(f"device{n}")
        self.assertLess(scheduler.known_devices, 1000)
        for _ in range(1000):
            scheduler.tidy(9999.0)
        self.assertEqual(scheduler.known_devices, 0)

    def test_one_that_waits_or_is_in_flight_or_has_used_its_limit_is_kept(self) -> None:
        scheduler = make(max_in_flight=2)
        for name in ("flying", "flying", "waiting"):
            scheduler.offer(name, "x", 0.0)
        for _ in range(10):
            scheduler.tidy(1e6)
        self.assertEqual(scheduler.known_devices, 2)

    def test_a_million_devices_take_less_than_200_bytes_each(self) -> None:
        """A tenth of a million, so that it is quick: the size of a dictionary follows their number in steps."""
        count = 87_000  # five sixths of a power of two, times two thirds: neither the best case nor the worst
        names = [f"device-{n:07d}" for n in range(count)]
        tracemalloc.start()
        try:
            scheduler = make(max_devices=10**6)
            for name in names:
                scheduler.offer(name, "x", 1.0)
                scheduler.finished(name)
            used = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
        self.assertLess(used / count + sys.getsizeof(names[0]), 200)

    def test_tenants_and_policies_that_nobody_uses_are_forgotten(self) -> None:
        scheduler = make(max_devices=50, tenant_limits="5/s")
        for n in range(5000):
            scheduler.offer(f"d{n}", "x", float(n), 0, Granted(tenant=f"t{n}"))
            scheduler.finished(f"d{n}")
        self.assertLess(len(scheduler._book._policies), 2500)
        self.assertLess(len(scheduler._book._tenants), 2500)


@dataclass(frozen=True)
class Granted:
    limits: str = ""
    device_class: str = ""
    tenant: str = ""
    groups: tuple[str, ...] = ()


class ClassTests(SynchronousTestCase):
    CLASSES = (
        ClassSettings("alarms", devices=("alarm-*",), groups=("vip",), limits="2/s", priority="high"),
        ClassSettings("lossy", devices=("cam-*",), limits="1/s", over="drop"),
        ClassSettings("strict", devices=("tap-*",), limits="1/s", over="reject"),
        ClassSettings("trial", devices=("try-*",), limits="1/s", over="reject", shadow=True),
    )

    def setUp(self) -> None:
        self.counts: defaultdict[str, int] = defaultdict(int)
        self.complaints: list[str] = []
        self.scheduler: Scheduler[str] = Scheduler(
            SETTINGS, self.CLASSES, (), counts=self.counts, complain=self.complaints.append
        )

    def class_of(self, name: str, **granted: Any) -> str:
        self.scheduler.offer(name, "x", 0.0, 0, Granted(**granted))
        return self.scheduler.explain(name, 0.0).device_class

    def test_the_checker_decides_then_the_first_that_has_it(self) -> None:
        self.assertEqual(self.class_of("alarm-1"), "alarms")
        self.assertEqual(self.class_of("alarm-2", device_class="lossy"), "lossy")
        self.assertEqual(self.class_of("cam-1", groups=("vip",)), "alarms")
        self.assertEqual(self.class_of("meter-1"), "default")
        self.assertEqual(self.complaints, [])

    def test_what_is_wrong_with_a_grant_is_told_once_and_the_class_counts(self) -> None:
        for name in ("a", "b", "a"):
            self.assertEqual(self.class_of(name, device_class="no such", limits="fast"), "default")
        self.assertEqual(len(self.complaints), 2)
        self.assertIn("there is no [class no such]", self.complaints[0])
        self.assertIn("'fast' is not AMOUNT/PERIOD", self.complaints[1])
        self.assertEqual(self.scheduler.explain("a", 0.0).limits[0].text, "10/s burst 5")

    def test_over_a_limit(self) -> None:
        for name, over in {"cam-1": Decision.DROP, "tap-1": Decision.REFUSED, "try-1": Decision.RUN}.items():
            self.assertEqual([self.scheduler.offer(name, "x", 0.0) for _ in range(2)], [Decision.RUN, over])
        self.assertEqual(
            self.counts,
            {"run lossy": 1, "drop lossy": 1, "run strict": 1, "refused strict": 1, "run trial": 2, "shadow trial": 1},
        )

    def test_a_grant_takes_effect_for_what_waits(self) -> None:
        slow, quick = Granted(limits="3/min burst 1"), Granted(limits="1000/s")
        said = [self.scheduler.offer("a", str(n), 0.0, 0, slow) for n in range(2)]
        self.assertEqual(said, [Decision.RUN, Decision.THROTTLED])
        self.assertEqual(self.scheduler.take(1.0), [])
        self.scheduler.offer("a", "2", 1.0, 0, quick)
        self.assertEqual(self.scheduler.take(1.0), ["1", "2"])

    def test_what_was_granted_when_a_message_was_parked_changes_nothing(self) -> None:
        self.scheduler.offer("a", "new", 0.0, 0, Granted(limits="1000/s"))
        self.scheduler.offer("a", "old", 0.0, 0, Granted(limits="3/h burst 1"), from_parking=True)
        self.scheduler.offer("a", "older", 0.0, from_parking=True)
        self.assertEqual(self.scheduler.explain("a", 0.0).limits[0].text, "1000/s")
        # Unless nothing is known of the device, as after a restart.
        self.scheduler.offer("b", "old", 0.0, 0, Granted(limits="3/h burst 1"), from_parking=True)
        self.assertEqual(self.scheduler.explain("b", 0.0).limits[0].text, "3/h burst 1")

    def test_a_grant_takes_effect_at_once_and_what_was_used_stays_used(self) -> None:
        for _ in range(5):
            self.scheduler.offer("a", "x", 0.0)
        self.assertIs(self.scheduler.offer("a", "x", 0.0), Decision.THROTTLED)
        self.scheduler.take(0.1)
        granted = Granted(limits="1000/s burst 100")
        self.assertIs(self.scheduler.offer("a", "x", 0.1, 0, granted), Decision.RUN)
        self.assertAlmostEqual(self.scheduler.explain("a", 0.1).limits[0].left, 94, places=3)
        self.assertIs(self.scheduler.offer("a", "x", 0.1), Decision.THROTTLED)

    def test_a_new_configuration_wakes_what_waits(self) -> None:
        for _ in range(7):
            self.scheduler.offer("a", "x", 0.0)
        self.assertEqual(self.scheduler.take(0.01), [])
        self.scheduler.configure(replace(SETTINGS, rate=1000.0), self.CLASSES, (), 0.02)
        self.assertEqual(len(self.scheduler.take(0.05)), 2)
        self.assertEqual((self.scheduler.throttled_waiting, self.scheduler.due()), (0, None))

    def test_what_was_used_before_a_new_configuration_stays_used(self) -> None:
        for _ in range(5):
            self.scheduler.offer("a", "x", 0.0)
        self.scheduler.configure(replace(SETTINGS, burst=7.0), self.CLASSES, (), 0.0)
        self.assertEqual([self.scheduler.offer("a", "x", 0.0) for _ in range(3)].count(Decision.RUN), 2)

    def test_limits_set_by_hand(self) -> None:
        self.scheduler.set_limit("a", Limit.parse("1/s"), 0.0)
        decisions = [self.scheduler.offer("a", str(n), 0.0) for n in range(3)]
        self.assertEqual(decisions, [Decision.RUN, Decision.THROTTLED, Decision.THROTTLED])
        self.assertTrue(self.scheduler.explain("a", 0.0).is_override)
        self.scheduler.set_limit("a", Limit.parse("1000/s"), 0.01)
        self.assertEqual(self.scheduler.take(0.02), ["1", "2"])
        self.scheduler.set_limit("a", None, 0.02)
        self.assertEqual(self.scheduler.explain("a", 0.02).limits[0].text, "10/s burst 5")

    def test_nobody_overtakes_those_who_wait_for_a_shared_limit(self) -> None:
        scheduler: Scheduler[str] = Scheduler(replace(SETTINGS, gateway_limits="1/s burst 1"))
        offered = [("a", "a0", 0.0), ("a", "a1", 0.0), ("b", "b0", 1.0), ("c", "c0", 1.0)]
        decisions = [scheduler.offer(name, item, now) for name, item, now in offered]
        self.assertEqual(decisions, [Decision.RUN] + [Decision.THROTTLED] * 3)
        self.assertEqual([scheduler.take(now) for now in (1.0, 1.5, 2.0, 3.0)], [["a1"], [], ["b0"], ["c0"]])

    def test_what_would_wait_too_long_under_a_lower_limit_is_let_go_of(self) -> None:
        for name in "ab":
            for n in range(8):
                self.scheduler.offer(name, f"{name}{n}", 0.0)
        self.assertEqual(self.scheduler.set_limit("a", Limit.parse("1/min burst 5"), 0.0), ["a5", "a6", "a7"])
        self.assertEqual((self.scheduler.waiting, self.scheduler.throttled_waiting), (3, 3))
        rare = replace(SETTINGS, rate=1 / 3600)
        self.assertEqual(self.scheduler.configure(rare, self.CLASSES, (), 0.0), ["b5", "b6", "b7"])
        self.assertEqual((self.scheduler.waiting, self.scheduler.throttled_waiting), (0, 0))
        self.assertEqual(self.scheduler.take(1e5), [])
        self.assertIs(self.scheduler.offer("b", "new", 1e5), Decision.RUN)

    def test_limits_set_by_hand_are_bounded(self) -> None:
        limit = Limit.parse("1/s")
        for n in range(MAX_OVERRIDES):
            self.scheduler.set_limit(str(n), limit, 0.0)
        self.assertRaises(ValueError, self.scheduler.set_limit, "one more", limit, 0.0)
        self.scheduler.set_limit("7", limit, 0.0)

    def test_it_explains(self) -> None:
        settings = replace(SETTINGS, tenant_limits="3/min", gateway_limits="1000/s")
        scheduler: Scheduler[str] = Scheduler(settings)
        for n in range(4):
            scheduler.offer("a", str(n), 0.0, 0, Granted(tenant="acme"))
        explained = scheduler.explain("a", 0.5)
        self.assertEqual(explained.reason, "3/min of tenant acme, retry in 19.5 s")
        self.assertEqual((explained.state, explained.tenant), ("waiting for a limit", "acme"))
        self.assertEqual((explained.waiting, explained.oldest, explained.in_flight), (1, 0.5, 3))
        self.assertEqual([limit.key for limit in explained.limits], ["device a", "tenant acme", "gateway"])
        self.assertEqual(scheduler.explain("nobody", 0.0).reason, "")
        self.assertEqual(scheduler.known_devices, 1)

    def test_it_explains_what_holds_the_first_message_up(self) -> None:
        """There is room for a message, but not for one as large."""
        settings = replace(SETTINGS, max_hold=3600.0)
        scheduler: Scheduler[str] = Scheduler(settings, [ClassSettings("default", limits="1kB/h")])
        for n in range(4):
            scheduler.offer("a", str(n), 0.0, 300)
        self.assertEqual(scheduler.explain("a", 0.0).reason, "1kB/h of device a, retry in 12 min 0 s")
        self.assertEqual(scheduler.explain("a", 0.0, 1).reason, "")

    def test_one_that_would_wait_too_long_is_to_be_parked(self) -> None:
        scheduler = make(max_hold=1.0)
        decisions = [scheduler.offer("a", str(n), 0.0) for n in range(5 + 12)]
        self.assertEqual(decisions[5:].count(Decision.THROTTLED), 10)
        self.assertEqual(decisions[-2:], [Decision.PARK] * 2)


class ParkingTests(SynchronousTestCase):
    def test_what_comes_goes_behind_what_is_parked(self) -> None:
        scheduler = make()
        for n in range(6):
            scheduler.offer("a", f"held {n}", 0.0)
        scheduler.park("a", 0.0)
        self.assertIs(scheduler.offer("a", "new", 0.0), Decision.PARK)
        self.assertIs(scheduler.offer("a", "parked", 0.0, from_parking=True), Decision.THROTTLED)
        self.assertEqual(scheduler.take(1.0), ["held 5", "parked"])
        self.assertEqual(scheduler.explain("a", 1.0).state, "parked")
        self.assertIs(scheduler.offer("a", "new", 9.0), Decision.PARK)
        self.assertIs(scheduler.offer("a", "parked 2", 9.0, from_parking=True), Decision.RUN)
        scheduler.unpark("a")
        self.assertIs(scheduler.offer("a", "new", 9.0), Decision.RUN)

    def test_one_that_is_unparked_while_messages_wait(self) -> None:
        scheduler = make()
        scheduler.park("a", 0.0)
        for n in range(6):
            scheduler.offer("a", f"parked {n}", 0.0, from_parking=True)
        scheduler.unpark("a")
        self.assertIs(scheduler.offer("a", "new", 0.0), Decision.THROTTLED)
        self.assertEqual(scheduler.take(1.0), ["parked 5", "new"])
        scheduler.unpark("nobody")

    def test_parked_ones_are_remembered_and_wait_even_where_others_are_dropped(self) -> None:
        scheduler: Scheduler[str] = Scheduler(SETTINGS, ClassTests.CLASSES)
        scheduler.park("cam-1", 0.0)
        decisions = [scheduler.offer("cam-1", "x", 0.0, from_parking=True) for _ in range(2)]
        self.assertEqual(decisions, [Decision.RUN, Decision.THROTTLED])
        scheduler.finished("cam-1")
        self.assertEqual(scheduler.take(5.0), ["x"])
        scheduler.finished("cam-1")
        for _ in range(9):
            scheduler.tidy(1e6)
        self.assertIs(scheduler.offer("cam-1", "new", 1e6), Decision.PARK)
