"""What the fairness benchmark makes of what it saw."""

from __future__ import annotations

from itertools import takewhile
from typing import Any, cast

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.fairness import NOISY, NOISY_RATE, QUIET, QUIET_RATE, WARM_UP, Course, Outcome, report


class CourseTests(SynchronousTestCase):
    def course(self, noisy: bool = True) -> Course:
        entrant: Any = cast(Any, type("Entrant", (), {"name": "x"}))
        return Course(entrant, cast(Any, None), 10.0, noisy)

    def test_quiet_devices_send_the_same_with_a_noisy_one(self) -> None:
        alone, both = (
            list(takewhile(lambda sent: sent[0] < 2.0, self.course(noisy)._schedule())) for noisy in (False, True)
        )
        self.assertEqual([sent for sent in both if sent[1] != NOISY], alone)
        self.assertIn(len(both) - len(alone), (2 * NOISY_RATE, 2 * NOISY_RATE + 1))
        expected = 2 * QUIET_RATE * len(QUIET)
        self.assertTrue(0.8 * expected < len(alone) < 1.2 * expected)

    def test_outcome(self) -> None:
        """What was sent while warming up does not count; what never came has waited until the end."""
        course = self.course()
        course._began, course._ended = 100.0, 100.0 + WARM_UP + 10.0
        start = 100.0 + WARM_UP
        course._sent = {
            "0": (QUIET[0], start - 1),
            "1": (QUIET[0], start + 1),
            "2": (QUIET[1], start + 2),
            "3": (NOISY, start + 3),
        }
        course._came = {"0": start - 0.5, "1": start + 1.25, "3": start + 9}
        outcome, waits = course.outcome()
        self.assertEqual(waits, [0.25, 8.0])
        self.assertEqual((outcome.quiet_sent, outcome.quiet_arrived, outcome.noisy_rate), (2, 1, 0.1))
        self.assertEqual(outcome.jain, 0.5)

    def test_report(self) -> None:
        alone = Outcome("x", False, 100, 100, 0.010, 0.020, 0.0, 1.0)
        noisy = Outcome("x", True, 100, 95, 0.010, 0.030, 9.9, 0.99)
        row = report([alone, noisy]).splitlines()[-2].split()
        self.assertEqual(row[-6:], ["10.0", "30.0", "1.50", "0.950", "9.90", "0.9900"])
