"""Messages that nobody could judge, parked: what goes in, behind whom, and that it is judged when it comes out."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from amqprouter.amqp.ack_ledger import AckLedger
from amqprouter.amqp.properties import Properties, encode_properties
from amqprouter.pipeline.message import Message
from amqprouter.pipeline.pending_overflow import EMPTIED_HERE, Answering, PendingOverflow
from amqprouter.pipeline.settlement import Settlement
from amqprouter.testing.parking import MemoryParkingQueue


class OverflowTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.parking_queue = MemoryParkingQueue(prefetch=2)
        self.back: list[tuple[Message, AckLedger]] = []
        self.parked: list[int] = []
        self.now = 100.0
        self.overflow = PendingOverflow(
            self.parking_queue,
            credential=lambda message: (message.device, message.properties.raw),
            seconds=lambda: self.now,
            readmit=lambda message, ledger: self.back.append((message, ledger)),
            parked=self.finish,
        )
        self.refusals: list[str] = []
        self.ledger = AckLedger()

    def finish(self, settlement: Settlement) -> None:
        self.parked.append(settlement.tag)
        self.refusals.extend(settlement.refusals)

    def message(self, device: str = "dev1", properties: bytes = b"\0\0") -> Message:
        return Message(device, "up.x", b"1", Properties(properties))

    def settlement(self, tag: int, device: str = "dev1", properties: bytes = b"\0\0") -> Settlement:
        return Settlement(self.message(device, properties), tag, self.ledger, lambda settlement: None)

    def test_in_and_out(self) -> None:
        """It is settled at its source once the parking queue has it, and in the parking queue once it is settled behind
        it."""
        self.overflow.park(self.settlement(1))
        self.assertEqual(self.parked, [])
        self.overflow.flush()
        self.assertEqual((self.parked, self.overflow.messages), ([1], 1))
        self.parking_queue.let_out()
        ((message, ledger),) = self.back
        self.assertIsNone(message.verdict)
        self.assertFalse(ledger.closed)
        self.assertTrue(ledger.settle(1))
        self.assertIsNone(ledger.flush(0.0))
        self.assertEqual(self.overflow.messages, 0)

    def test_a_parking_queue_that_is_refused(self) -> None:
        """Nobody goes behind what is not there."""
        self.overflow.park(self.settlement(1))
        self.parking_queue.refuse("queue limit in vhost")
        self.overflow.park(self.settlement(2))
        self.assertEqual((self.parked, self.refusals), ([1, 2], ["cannot-park: queue limit in vhost"] * 2))
        self.assertFalse(self.overflow.is_behind(self.settlement(3)) or self.overflow.ours)

    def test_whoever_is_proven_when_parked_is_not_so_afterwards(self) -> None:
        message = self.message()
        self.parking_queue.find(message)
        message.verdict = object()
        self.parking_queue.let_out()
        self.assertIsNone(self.back[0][0].verdict)

    def test_newer_ones_go_behind(self) -> None:
        self.assertFalse(self.overflow.is_behind(self.settlement(1)))
        self.overflow.park(self.settlement(1))
        self.overflow.flush()
        self.assertTrue(self.overflow.is_behind(self.settlement(2)))
        self.assertFalse(self.overflow.is_behind(self.settlement(3, "dev2")))
        self.parking_queue.let_out()
        message, ledger = self.back[0]
        self.assertTrue(self.overflow.is_behind(self.settlement(2)))
        self.assertFalse(self.overflow.is_behind(Settlement(message, 1, ledger, lambda settlement: None)))
        ledger.settle(1)
        self.assertFalse(self.overflow.is_behind(self.settlement(2)))

    def test_what_was_there_before(self) -> None:
        """Nobody knows whose it is: everybody goes behind, until it has come out."""
        self.parking_queue.find(self.message("dev9"))
        self.assertTrue(self.overflow.is_behind(self.settlement(1)))
        self.parking_queue.let_out()
        self.assertFalse(self.overflow.is_behind(self.settlement(1)))
        self.assertTrue(self.overflow.is_behind(self.settlement(2, "dev9")))
        self.back[0][1].settle(1)
        self.assertFalse(self.overflow.is_behind(self.settlement(2, "dev9")))

    def test_who_is_known_goes_behind_its_own_while_the_parking_queue_is_emptied_here(self) -> None:
        for tag in (1, 2, 3):
            self.overflow.park(self.settlement(tag))
        self.overflow.flush()
        self.assertFalse(self.overflow.is_behind(self.settlement(4), known=True))  # another gateway may get it
        self.parking_queue.let_out()
        self.now += 3600.0
        self.assertTrue(self.overflow.is_behind(self.settlement(4), known=True))  # one is out, however long
        self.assertFalse(self.overflow.is_behind(self.settlement(5, "dev2"), known=True))
        self.back[0][1].settle(1)
        self.now += EMPTIED_HERE - 0.1
        self.assertTrue(self.overflow.is_behind(self.settlement(4), known=True))  # the next is on its way
        self.now += 0.1
        self.assertFalse(self.overflow.is_behind(self.settlement(4), known=True))
        self.assertTrue(self.overflow.is_behind(self.settlement(4)))

    def test_strangers_with_the_same_id_hold_up_nobody(self) -> None:
        wrong = encode_properties(app_id="wrong")
        self.overflow.park(self.settlement(1, properties=wrong))
        self.overflow.flush()
        self.parking_queue.let_out()
        self.assertFalse(self.overflow.is_behind(self.settlement(2)))
        self.assertFalse(self.overflow.is_behind(self.settlement(2), known=True))
        self.assertTrue(self.overflow.is_behind(self.settlement(3, properties=wrong)))

    def test_a_proof_of_another_kind_goes_behind_nobody(self) -> None:
        self.overflow.park(self.settlement(1))
        self.overflow.flush()
        self.parking_queue.let_out()
        proven = self.settlement(2)
        proven.message.verdict = object()
        self.assertFalse(self.overflow.is_behind(proven, known=True))

    def test_what_another_gateway_got(self) -> None:
        self.overflow.park(self.settlement(1))
        self.overflow.flush()
        self.parking_queue.messages.clear()
        self.parking_queue.find()  # the broker says that nothing is there
        self.assertFalse(self.overflow.is_behind(self.settlement(2)))
        self.assertFalse(self.overflow.ours)

    def test_a_lost_channel(self) -> None:
        """The message comes again out of the parking queue: what is done with this copy settles nothing."""
        self.parking_queue.find(self.message())
        self.parking_queue.let_out()
        ledger = self.back[0][1]
        self.parking_queue.ledger.close()
        self.assertTrue(ledger.closed)
        self.assertFalse(ledger.settle(1))
        self.assertIsInstance(ledger, Answering)

    def test_deferred(self) -> None:
        """What came out of the parking queue goes back to its place, and anything else goes in behind it."""
        self.parking_queue.find(self.message("dev1"), self.message("dev2"))
        self.parking_queue.let_out()
        message, ledger = self.back[0]
        self.assertFalse(ledger.is_overdue(1))
        self.parking_queue.ledger.age(0.0, 10.0)
        self.parking_queue.ledger.age(10.0, 10.0)
        self.assertTrue(ledger.is_overdue(1))
        self.overflow.defer(self.settlement(1, "dev3"))
        self.overflow.defer(Settlement(message, 1, ledger, lambda settlement: None))
        self.overflow.flush()
        self.assertEqual([message.device for message in self.parking_queue.messages], ["dev1", "dev2", "dev3"])
        self.assertTrue(self.overflow.is_behind(self.settlement(2, "dev1")))
