"""What every parking lot keeps to; `LotContract` is mixed with a test case that says how to drive one."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from amqprouter.amqp.ack_ledger import AckLedger
from amqprouter.amqp.properties import Properties
from amqprouter.pipeline.message import Message
from amqprouter.pipeline.ports import IParkingQueue
from amqprouter.pipeline.settlement import Settlement


class LotContract(SynchronousTestCase):
    """`lot` is used by `setUp`; the others are the subclass's."""

    lot: IParkingQueue
    PREFETCH = 3

    def confirm(self) -> None:
        """The broker confirms what was written."""
        raise NotImplementedError

    def come_out(self, count: int) -> None:
        """Messages come out, as far as the prefetch allows."""
        raise NotImplementedError

    def use(self, lot: IParkingQueue) -> None:
        self.lot = lot
        self.out: list[Settlement] = []
        self.settled: list[bytes] = []
        self.changes = 0
        lot.use(lambda message, settlement: self.out.append(settlement), self.changed)

    def changed(self) -> None:
        self.changes += 1

    def park(self, *bodies: bytes) -> None:
        for body in bodies:
            message = Message("dev1", "up", body, Properties(), routing_key=b"dev1.up")
            self.lot.park(message, Settlement(message, 1, AckLedger(), lambda s: self.settled.append(s.message.body)))
        self.lot.flush()

    def test_settled_at_the_source_once_it_is_confirmed(self) -> None:
        verifyObject(IParkingQueue, self.lot)
        self.park(b"1", b"2")
        self.assertEqual(self.lot.backlog, 2)
        self.confirm()
        self.assertEqual((self.settled, self.lot.backlog), ([b"1", b"2"], 2))

    def test_out_in_order_and_gone_once_settled(self) -> None:
        self.park(b"1", b"2", b"3", b"4")
        self.confirm()
        self.come_out(4)
        self.assertEqual([s.message.body for s in self.out], [b"1", b"2", b"3"])
        self.assertEqual((self.out[0].message.key, self.lot.backlog), ("dev1.up", 4))
        for settlement in self.out:
            self.assertTrue(self.lot.owns(settlement))
            settlement.delivered()
        self.assertEqual(self.lot.backlog, 1)
        stranger = Settlement(self.out[0].message, 1, AckLedger(), lambda _: None)
        self.assertFalse(self.lot.owns(stranger))

    def test_given_back_and_out_again_in_order(self) -> None:
        self.park(b"1", b"2", b"3", b"4")
        self.confirm()
        self.come_out(3)
        first, *others = self.out
        first.delivered()
        for settlement in others:
            self.lot.give_back(settlement)
        self.assertEqual(self.lot.backlog, 3)
        del self.out[:]
        self.come_out(4)
        self.assertEqual([s.message.body for s in self.out], [b"2", b"3", b"4"])
        for settlement in self.out:
            settlement.delivered()
        self.assertEqual(self.lot.backlog, 0)
