"""Pauses between tries."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from amqprouter.clock import Backoff


class BackoffTests(SynchronousTestCase):
    def test_each_is_twice_as_long_up_to_the_longest(self) -> None:
        backoff = Backoff(0.5, 3.0, random=None)
        self.assertEqual([backoff.pause(failures) for failures in range(5)], [0.5, 1.0, 2.0, 3.0, 3.0])

    def test_for_however_long_it_fails(self) -> None:
        self.assertEqual(Backoff(0.5, 3600.0, random=None).pause(10**6), 3600.0)

    def test_a_first_one_that_is_longer_than_the_longest(self) -> None:
        """Somebody else may say how long to wait at first."""
        self.assertEqual(Backoff(60.0, 30.0, random=None).pause(0), 30.0)

    def test_half_is_left_to_chance(self) -> None:
        for drawn, pause in ((0.0, 2.0), (0.5, 3.0), (1.0, 4.0)):
            self.assertEqual(Backoff(1.0, 9.0, iter((drawn,)).__next__).pause(2), pause)

    def test_all_is_left_to_chance(self) -> None:
        for drawn, pause in ((0.0, 0.0), (0.25, 1.0)):
            self.assertEqual(Backoff(1.0, 9.0, iter((drawn,)).__next__, chance=1).pause(2), pause)

    def test_each_pause_is_drawn_anew(self) -> None:
        backoff = Backoff(1.0, 1.0, iter((0.0, 1.0)).__next__)
        self.assertEqual([backoff.pause(0), backoff.pause(0)], [0.5, 1.0])
