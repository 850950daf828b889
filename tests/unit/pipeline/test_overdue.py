"""Who is told of overdue deliveries, and when."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from amqprouter.amqp.ack_ledger import OVERDUE, AckLedger
from amqprouter.pipeline.overdue import CHECKS, Overdue
from amqprouter.pipeline.ports import IHoldsDeliveries

TIMEOUT = 100.0


@implementer(IHoldsDeliveries)
class Holder:
    def __init__(self, clock: Clock) -> None:
        self.told: list[float] = []
        self._clock = clock

    def release_overdue(self) -> None:
        self.told.append(self._clock.seconds())


class OverdueTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.holder = Holder(self.clock)
        self.ledgers = [AckLedger(), AckLedger()]

    def start(self, timeout: float) -> Overdue:
        overdue = Overdue(self.clock, timeout, lambda: self.ledgers, [self.holder])
        overdue.startService()
        self.addCleanup(overdue.stopService)
        return overdue

    def test_well_before_the_timeout(self) -> None:
        overdue = self.start(TIMEOUT)
        self.clock.pump([1.0] * 33)
        self.ledgers[1].received()
        self.clock.pump([1.0] * 40)
        self.assertEqual(self.holder.told, [])
        self.assertTrue(40 - TIMEOUT * OVERDUE / CHECKS <= overdue.oldest <= 40, overdue.oldest)
        self.clock.pump([1.0] * 20)
        first = self.holder.told[0]
        self.assertGreaterEqual(first - 33, TIMEOUT * OVERDUE)
        self.assertLessEqual(first - 33, TIMEOUT * OVERDUE * (1 + 1 / CHECKS))
        told = len(self.holder.told)
        self.ledgers[1].settle(1)
        self.ledgers[1].acks()
        self.clock.pump([1.0] * 100)
        self.assertEqual((len(self.holder.told), overdue.oldest), (told, 0.0))

    def test_a_broker_that_waits_for_ever(self) -> None:
        self.start(0)
        self.ledgers[0].received()
        self.clock.pump([10.0] * 1000)
        self.assertEqual((self.holder.told, self.clock.getDelayedCalls()), ([], []))
