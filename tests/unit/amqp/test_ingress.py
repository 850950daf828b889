"""Consuming: late acks, and consumers that always come back, once each."""

from __future__ import annotations

from amqprouter.amqp.connection import Connection
from amqprouter.amqp.ingress import MISSING_QUEUE_DELAY, RECONSUME_DELAY, Ingress
from amqprouter.amqp.topology import Topology
from amqprouter.core.settlement import AckLedger
from amqprouter.core.wire import Delivery
from amqprouter.settings import EventsSettings, IngressSettings, TopologySettings
from tests.unit.amqp.harness import BrokerTestCase

OWN = ["amqprouter.ingress", "amqprouter.shard.0", "amqprouter.shard.1"]


class IngressTestCase(BrokerTestCase):
    explicit: tuple[str, ...] = ()

    def setUp(self) -> None:
        super().setUp()
        self.received: list[tuple[Delivery, AckLedger]] = []
        topology = Topology(TopologySettings(), IngressSettings(shards=2), EventsSettings())
        self.ingress = Ingress(self.clock, topology, self.explicit, 100, self.receive)

    def receive(self, deliveries: list[Delivery], ledger: AckLedger) -> None:
        self.received.extend((delivery, ledger) for delivery in deliveries)

    def attached(self) -> Connection:
        connection = self.connected()
        self.run_now(self.ingress.attach(connection))
        return connection

    def queues(self) -> list[str]:
        """What is consumed from at present."""
        return sorted(queue for _, queue in self.broker.consumers.values())

    def acks(self) -> list[tuple[int, int, bool]]:
        """Channel, tag and multiple of the acks that came since the last call."""
        acks = [(c, one.delivery_tag, one.multiple) for c, one in self.broker.received if one.name == "Basic.Ack"]
        self.broker.received.clear()
        return acks


class ConsumingTests(IngressTestCase):
    def test_consumes(self) -> None:
        self.attached()
        self.assertEqual(self.queues(), OWN)
        self.assertEqual([qos.prefetch_count for qos in self.broker.sent("Basic.Qos")], [100])
        self.assertEqual(self.ingress.problem(), "")
        for consume in self.broker.sent("Basic.Consume"):
            self.assertEqual((consume.no_ack, consume.exclusive), (False, False))

    def test_acks_by_ledger(self) -> None:
        self.attached()
        for body in (b"1", b"2", b"3"):
            self.broker.deliver("amqprouter.shard.0", body)
        self.assertEqual([delivery.body for delivery, _ in self.received], [b"1", b"2", b"3"])
        self.assertEqual(self.ingress.unacked, 3)
        ledger = self.received[0][1]
        ledger.settle(1)
        ledger.settle(2)
        self.assertEqual(self.acks(), [])
        ledger.flush()
        self.assertEqual(self.acks(), [(1, 2, True)])
        self.assertEqual(self.ingress.unacked, 1)

    def test_acks_out_of_order(self) -> None:
        self.attached()
        for _ in range(3):
            self.broker.deliver("amqprouter.ingress")
        ledger = self.received[0][1]
        ledger.settle(3)
        ledger.settle(1)
        ledger.flush()
        self.assertEqual(self.acks(), [(1, 1, True), (1, 3, False)])

    def test_an_old_ledger_is_silent_on_a_new_connection(self) -> None:
        self.attached()
        self.broker.deliver("amqprouter.shard.0")
        (_, old), *_ = self.received
        self.broker.hang_up(ConnectionError("reset"))
        self.turn()
        self.assertEqual((self.ingress.problem(), self.ingress.unacked), ("not consuming", 0))
        self.attached()
        self.broker.deliver("amqprouter.shard.0")
        self.assertFalse(old.settle(1))
        old.flush()
        self.assertEqual(self.acks(), [])
        self.received[1][1].settle(1)
        self.received[1][1].flush()
        self.assertEqual(self.acks(), [(1, 1, True)])

    def test_a_long_name(self) -> None:
        """Queues may have names of 255 bytes; consumer tags have no more room than that."""
        topology = Topology(TopologySettings(), IngressSettings(shards=0), EventsSettings())
        names = ("q" * 255, "q" * 254 + "r", "kleine Größe")
        self.ingress = Ingress(self.clock, topology, names, 1, self.receive)
        self.attached()
        self.assertEqual(self.queues(), sorted(("amqprouter.ingress", *names)))

    def test_stop(self) -> None:
        """No more deliveries, but what came can be acknowledged; a new connection consumes nothing."""
        self.attached()
        self.broker.deliver("amqprouter.shard.0")
        self.run_now(self.ingress.stop())
        self.assertEqual(self.queues(), [])
        self.received[0][1].settle(1)
        self.received[0][1].flush()
        self.assertEqual(self.acks(), [(1, 1, True)])
        self.attached()
        self.assertEqual(self.queues(), [])

    def test_stop_while_the_broker_closes_the_channel(self) -> None:
        self.attached()
        self.broker.silent = True
        stopping = self.start(self.ingress.stop())
        self.broker.close_channel(1, 406, "PRECONDITION_FAILED - delivery acknowledgement timed out")
        self.successResultOf(stopping)
        self.pass_time(5)
        self.assertEqual(self.queues(), [])


class ComingBackTests(IngressTestCase):
    def test_a_cancelled_consumer(self) -> None:
        """The topology is declared anew before the queue is consumed from again."""
        self.attached()
        self.broker.received.clear()
        self.broker.cancel("amqprouter.shard.1")
        self.assertNotIn("amqprouter.shard.1", self.queues())
        self.clock.advance(RECONSUME_DELAY)
        self.assertEqual(self.queues(), OWN)
        names = [command.name for _, command in self.broker.received]
        self.assertIn("amqprouter.shard.1", [declare.queue for declare in self.broker.sent("Queue.Declare")])
        self.assertLess(names.index("Queue.Declare"), names.index("Basic.Consume"))
        self.assertEqual(names.count("Basic.Consume"), 1)

    def test_two_cancelled_at_once(self) -> None:
        connection = self.attached()
        self.broker.cancel("amqprouter.shard.0")
        self.broker.cancel("amqprouter.shard.1")
        self.clock.advance(RECONSUME_DELAY)
        self.assertEqual(self.queues(), OWN)
        self.assertFalse(connection.closed)

    def test_cancelled_and_lost(self) -> None:
        """The new connection's consumers are not started twice, which would end it."""
        self.attached()
        self.broker.cancel("amqprouter.shard.0")
        self.broker.hang_up(ConnectionError("reset"))
        self.turn()
        connection = self.attached()
        self.clock.advance(RECONSUME_DELAY)
        self.turn()
        self.assertFalse(connection.closed)
        self.assertEqual(self.queues(), OWN)

    def test_a_closed_channel(self) -> None:
        """Another is opened on the same connection, with a ledger of its own."""
        connection = self.attached()
        self.broker.deliver("amqprouter.shard.0")
        self.broker.close_channel(1, 406, "PRECONDITION_FAILED - delivery acknowledgement timed out")
        self.assertEqual((self.queues(), self.ingress.problem()), ([], "not consuming"))
        self.clock.advance(RECONSUME_DELAY)
        self.assertEqual((self.queues(), self.ingress.problem()), (OWN, ""))
        self.assertFalse(connection.closed)
        self.broker.deliver("amqprouter.shard.0")
        (_, old), (_, new) = self.received
        self.assertIsNot(old, new)
        self.assertFalse(old.settle(1))

    def test_what_cannot_be_mended(self) -> None:
        """ends the connection: the link's back-off takes over."""
        connection = self.attached()
        self.broker.refusals["Queue.Declare"] = 403, "ACCESS_REFUSED - configure access refused"
        self.broker.cancel("amqprouter.shard.0")
        self.clock.advance(RECONSUME_DELAY)
        self.turn()
        self.assertTrue(connection.closed)

    def test_the_broker_closes_the_connection(self) -> None:
        """Nothing is tried on it any more."""
        self.attached()
        self.broker.close(320, "CONNECTION_FORCED - closed by operator")
        self.turn()
        self.assertEqual(self.clock.getDelayedCalls(), [])


class ExplicitQueueTests(IngressTestCase):
    explicit = ("mine", "yours")

    def test_consumed(self) -> None:
        self.attached()
        self.assertEqual(self.queues(), [*OWN, "mine", "yours"])
        self.assertNotIn("mine", [one.queue for one in self.broker.sent("Queue.Declare") if not one.passive])

    def test_missing(self) -> None:
        """It is reported and looked for again, and the others are consumed from meanwhile."""
        self.broker.missing_queues = {"yours"}
        self.attached()
        self.assertEqual(self.queues(), [*OWN, "mine"])
        self.assertEqual(self.ingress.problem(), "no queue yours: declare it, or take it out of [ingress] queues")
        self.pass_time(3 * MISSING_QUEUE_DELAY)
        self.broker.missing_queues.clear()
        self.pass_time(MISSING_QUEUE_DELAY)
        self.assertEqual((self.queues(), self.ingress.problem()), ([*OWN, "mine", "yours"], ""))

    def test_missing_over_many_connections(self) -> None:
        """There is one search, however often the connection was lost meanwhile."""
        self.broker.missing_queues = {"yours"}
        for _ in range(5):
            self.attached()
            self.broker.hang_up(ConnectionError("reset"))
            self.turn()
        self.attached()
        self.broker.received.clear()
        self.pass_time(MISSING_QUEUE_DELAY)
        self.assertEqual(len([one for one in self.broker.sent("Queue.Declare") if one.queue == "yours"]), 1)

    def test_both_deleted_and_made_again(self) -> None:
        connection = self.attached()
        self.broker.missing_queues = {"mine", "yours"}
        self.broker.cancel("mine")
        self.broker.cancel("yours")
        self.pass_time(RECONSUME_DELAY + MISSING_QUEUE_DELAY)
        self.assertEqual(self.queues(), OWN)
        self.assertIn("no queue mine, yours", self.ingress.problem())
        self.broker.missing_queues.clear()
        self.broker.received.clear()
        self.pass_time(2 * MISSING_QUEUE_DELAY)
        self.assertEqual(self.queues(), [*OWN, "mine", "yours"])
        self.assertEqual(len(self.broker.sent("Basic.Consume")), 2)
        self.assertFalse(connection.closed)

    def test_two_searches_at_once(self) -> None:
        """However the broker's answers to two searches mix, no queue is consumed from twice."""
        connection = self.attached()
        self.broker.missing_queues = {"mine", "yours"}
        self.broker.cancel("mine")
        self.broker.cancel("yours")
        self.pass_time(RECONSUME_DELAY)
        self.broker.missing_queues.clear()
        self.broker.held = []
        for _ in range(30):
            self.clock.advance(MISSING_QUEUE_DELAY / 10)
            self.broker.release()
        self.assertIsNone(connection.end)
        self.assertEqual(self.queues(), [*OWN, "mine", "yours"])

    def test_no_right_to_read(self) -> None:
        """is not the same as missing: the operator is told by the link, in the broker's own words."""
        self.broker.refusals["Queue.Declare"] = 403, "ACCESS_REFUSED - access to queue 'mine' refused"
        error = self.failed(self.ingress.attach(self.connected()))
        self.assertEqual(str(error), "403 ACCESS_REFUSED - access to queue 'mine' refused")
