"""A small fleet on a few gateways, of which one is lost: what the simulation says can be told from what it was."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from amqprouter.broker.shards import INTERVAL
from benchmarks.scale_simulation import Plan, Simulation, report

PLAN = Plan(devices=3000, gateways=4, shards=16, capacity=100.0, seconds=45.0)


class SimulationTests(SynchronousTestCase):
    def test_the_promises_hold(self) -> None:
        outcome = Simulation(PLAN).run()
        self.assertEqual((outcome.out_of_order, outcome.beyond_limit), (0, 0))
        self.assertEqual(outcome.done + outcome.dropped + outcome.left, outcome.sent)
        self.assertGreater(outcome.dropped, 100, "the noisy one is over its limit")
        self.assertLess(outcome.left, 100)
        self.assertLess(outcome.calm[1], outcome.lost[1], "who is lost is noticed after a while")
        self.assertLess(outcome.lost[2], 2 * INTERVAL + 1.0)
        self.assertGreaterEqual(outcome.moved_lost, 4, "its own at the least")
        self.assertIn("3,000 devices", report(PLAN, outcome))

    def test_the_same_seed_is_the_same_run(self) -> None:
        first, second = Simulation(PLAN).run(), Simulation(PLAN).run()
        first.cpu = second.cpu = 0.0
        self.assertEqual(first, second)
