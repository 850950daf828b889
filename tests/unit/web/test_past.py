"""What is remembered of the day."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from amqprouter.web.past import EVERY, MOST, Flow, Past, Point, Troubles


class PastTests(SynchronousTestCase):
    def test_a_point_a_minute(self) -> None:
        past = Past()
        for second in range(0, 121, 2):
            past.note(Flow(second * 10, second * 5, second, second * 3), float(second))
        self.assertEqual(list(past.points), [Point(60.0, 10, 5, 1, 180), Point(120.0, 10, 5, 1, 360)])

    def test_no_more_than_a_day(self) -> None:
        past = Past()
        for minute in range(MOST + 11):
            past.note(Flow(0, 0, 0, 0), minute * EVERY)
        self.assertEqual(len(past.points), MOST)
        self.assertEqual((past.points[0].time, past.points[-1].time), (11 * EVERY, (MOST + 10) * EVERY))

    def test_what_is_settled_late_is_no_negative_rate(self) -> None:
        past = Past()
        past.note(Flow(0, 100, 0, 0), 0.0)
        past.note(Flow(0, 40, 0, 60), EVERY)
        self.assertEqual(past.points[0].settled, 0)

    def test_a_clock_that_is_set_back(self) -> None:
        """Points go on from there, rather than an hour later."""
        past = Past()
        past.note(Flow(0, 0, 0, 0), 7200.0)
        past.note(Flow(600, 0, 0, 0), 3600.0)
        past.note(Flow(1200, 0, 0, 0), 3600.0 + EVERY)
        self.assertEqual(list(past.points), [Point(3600.0 + EVERY, 10, 0, 0, 0)])

    def test_a_look_that_came_late(self) -> None:
        """The machine slept: one point, with the mean rate of all that time."""
        past = Past()
        past.note(Flow(0, 0, 0, 0), 0.0)
        past.note(Flow(6000, 0, 0, 0), 600.0)
        self.assertEqual(list(past.points), [Point(600.0, 10, 0, 0, 0)])


class TroublesTests(SynchronousTestCase):
    def test_since_the_first_of_them(self) -> None:
        troubles = Troubles()
        troubles.note({"broker": "", "store": "down"}, 5.0)
        troubles.note({"broker": "refused", "store": "down, still"}, 7.0)
        self.assertEqual(troubles.since, {"store": 5.0, "broker": 7.0})
        troubles.note({"broker": "refused", "store": ""}, 9.0)
        troubles.note({"broker": "refused", "store": "down"}, 11.0)
        self.assertEqual(troubles.since, {"store": 11.0, "broker": 7.0})

    def test_a_part_that_is_no_more(self) -> None:
        troubles = Troubles()
        troubles.note({"store": "down"}, 5.0)
        troubles.note({}, 6.0)
        self.assertEqual(troubles.since, {})
