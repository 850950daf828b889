"""Who is busiest of late."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from amqprouter.scheduling.busiest import Busiest, Busy


class BusiestTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.busiest = Busiest()

    def test_rates_are_what_changed_since_the_last_look(self) -> None:
        [first] = self.busiest.compare(9, 10.0, {"a": 100}, {"a": 7}, {})
        self.assertEqual(first, Busy("a", 100, 0, 7, 0.0, 0.0, 0.0))
        [second] = self.busiest.compare(9, 12.0, {"a": 120}, {"a": 11}, {"a": 6})
        self.assertEqual(second, Busy("a", 120, 6, 11, 15.0, 10.0, 2.0))

    def test_who_is_busy_now_comes_first(self) -> None:
        self.busiest.compare(9, 0.0, {"old": 10**6, "new": 0}, {}, {})
        names = [busy.name for busy in self.busiest.compare(2, 1.0, {"old": 10**6, "new": 5, "idle": 0}, {}, {})]
        self.assertEqual(names, ["new", "old"])

    def test_what_only_waits_or_is_only_refused_is_shown(self) -> None:
        self.busiest.compare(9, 0.0, {}, {}, {})
        shown = {busy.name: busy.offered_rate for busy in self.busiest.compare(9, 1.0, {}, {"r": 3}, {"w": 4})}
        self.assertEqual(shown, {"r": 3.0, "w": 4.0})

    def test_counts_that_went_down_are_no_rates(self) -> None:
        """A count makes room for others when more devices send than are counted."""
        self.busiest.compare(9, 0.0, {"a": 10}, {"a": 10}, {"a": 10})
        [busy] = self.busiest.compare(9, 1.0, {"a": 5}, {"a": 9}, {})
        self.assertEqual((busy.offered_rate, busy.passed_rate, busy.refused_rate), (0.0, 0.0, 0.0))
        [again] = self.busiest.compare(9, 1.0, {"a": 50}, {}, {})  # at the same moment
        self.assertEqual(again.offered_rate, 0.0)

    def test_no_more_than_asked_for_and_who_waits_before_who_was_busy_once(self) -> None:
        passed, waiting = {f"old-{number}": 1000 + number for number in range(9)}, {"stuck": 3}
        self.busiest.compare(9, 0.0, passed, {}, waiting)
        shown = self.busiest.compare(3, 1.0, passed, {}, waiting)
        self.assertEqual([busy.name for busy in shown], ["stuck", "old-8", "old-7"])
        self.assertEqual(shown[0], Busy("stuck", 0, 3, 0, 0.0, 0.0, 0.0))
