"""Who is to be told, and how often."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from amqprouter.events.limit_events import Notices


class NoticesTests(SynchronousTestCase):
    def test_once_in_an_interval_with_what_came_meanwhile(self) -> None:
        notices = Notices(10.0, 100)
        self.assertEqual([notices.due("a", now) for now in (0.0, 1.0, 9.9, 10.0, 11.0, 30.0)], [1, 0, 0, 3, 0, 2])
        self.assertEqual(notices.due("b", 30.0), 1)

    def test_no_more_names_than_allowed_in_an_interval(self) -> None:
        notices = Notices(10.0, 2)
        self.assertEqual([notices.due(name, 5.0) for name in "abca"], [1, 1, 0, 0])
        self.assertEqual(notices.due("c", 14.9), 0)
        self.assertEqual([notices.due(name, 15.0) for name in "cda"], [1, 1, 0])

    def test_turned_off(self) -> None:
        for notices in (Notices(0.0, 100), Notices(10.0, 0)):
            self.assertEqual([notices.due("a", now) for now in (0.0, 100.0)], [0, 0])
