"""Lengths of time, as people read them."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from amqprouter.text import span


class SpanTests(SynchronousTestCase):
    def test_the_largest_two_units_that_matter(self) -> None:
        for seconds, text in {
            0: "0 s",
            0.00171: "0.00171 s",
            1.749: "1.75 s",
            119.4: "119 s",
            120: "2 min 0 s",
            1205.5: "20 min 5 s",
            3600: "1 h 0 min",
            3 * 3600 + 1259: "3 h 20 min",
            86_400: "1 d 0 h",
            86_400 * 40 + 3600 * 23 + 3599: "40 d 23 h",
        }.items():
            self.assertEqual(span(seconds), text)
