"""What every parking queue keeps to; `ParkingQueueContract` is mixed with a test case that says how to drive one."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from amqprouter.amqp.ack_ledger import AckLedger
from amqprouter.amqp.properties import Properties
from amqprouter.pipeline.message import Message
from amqprouter.pipeline.ports import IParkingQueue
from amqprouter.pipeline.settlement import Settlement


class ParkingQueueContract(SynchronousTestCase):
    """`parking_queue` is used by `setUp`; the others are the subclass's."""

    parking_queue: IParkingQueue
    PREFETCH = 3

    def confirm(self) -> None:
        """The broker confirms what was written."""
        raise NotImplementedError

    def come_out(self, count: int) -> None:
        """Messages come out, as far as the prefetch allows."""
        raise NotImplementedError

    def use(self, parking_queue: IParkingQueue) -> None:
        self.parking_queue = parking_queue
        self.out: list[Settlement] = []
        self.settled: list[bytes] = []
        self.changes = 0
        parking_queue.use(lambda message, settlement: self.out.append(settlement), self.changed)

    def changed(self) -> None:
        self.changes += 1

    def park(self, *bodies: bytes) -> None:
        for body in bodies:
            message = Message("dev1", "up", body, Properties(), routing_key=b"dev1.up")
            self.parking_queue.park(
                message, Settlement(message, 1, AckLedger(), lambda s: self.settled.append(s.message.body))
            )
        self.parking_queue.flush()

    def test_settled_at_the_source_once_it_is_confirmed(self) -> None:
        verifyObject(IParkingQueue, self.parking_queue)
        self.park(b"1", b"2")
        self.assertEqual(self.parking_queue.backlog, 2)
        self.confirm()
        self.assertEqual((self.settled, self.parking_queue.backlog), ([b"1", b"2"], 2))

    def test_out_in_order_and_gone_once_settled(self) -> None:
        self.park(b"1", b"2", b"3", b"4")
        self.confirm()
        self.come_out(4)
        self.assertEqual([s.message.body for s in self.out], [b"1", b"2", b"3"])
        self.assertEqual((self.out[0].message.key, self.parking_queue.backlog), ("dev1.up", 4))
        for settlement in self.out:
            self.assertTrue(self.parking_queue.owns(settlement))
            settlement.delivered()
        self.assertEqual(self.parking_queue.backlog, 1)
        stranger = Settlement(self.out[0].message, 1, AckLedger(), lambda _: None)
        self.assertFalse(self.parking_queue.owns(stranger))

    def test_given_back_and_out_again_in_order(self) -> None:
        self.park(b"1", b"2", b"3", b"4")
        self.confirm()
        self.come_out(3)
        first, *others = self.out
        first.delivered()
        for settlement in others:
            self.parking_queue.requeue(settlement)
        self.assertEqual(self.parking_queue.backlog, 3)
        del self.out[:]
        self.come_out(4)
        self.assertEqual([s.message.body for s in self.out], [b"2", b"3", b"4"])
        for settlement in self.out:
            settlement.delivered()
        self.assertEqual(self.parking_queue.backlog, 0)
