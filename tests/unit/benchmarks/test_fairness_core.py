"""The simulation says what a glance at its scenario tells."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.fairness_core import LIMIT, Scenario, jain, shares_of_equals, simulate


class SimulationTests(SynchronousTestCase):
    def test_jain(self) -> None:
        self.assertEqual((jain([3.0] * 7), jain([1.0, 0.0, 0.0, 0.0])), (1.0, 0.25))

    def test_a_noisy_device_gets_its_limit_and_the_quiet_do_not_notice(self) -> None:
        alone, _ = simulate(Scenario("", has_noisy=False), 3.0)
        with_noisy, waits = simulate(Scenario(""), 3.0)
        self.assertLess(abs(with_noisy.noisy_rate - LIMIT), 0.5)
        self.assertGreater(with_noisy.quiet_rate, 0.99 * alone.quiet_rate)
        self.assertEqual(waits, sorted(waits))
        self.assertLess(with_noisy.p99, 0.05)

    def test_equals(self) -> None:
        self.assertGreater(shares_of_equals(50, 2000), 0.99)
