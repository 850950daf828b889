"""Consuming: late acks, and consumers that always come back, once each."""

from __future__ import annotations

from amqprouter.amqp.ack_ledger import AckLedger
from amqprouter.amqp.connection import BRIEF_PAUSE, Connection
from amqprouter.amqp.consumer import BATCH
from amqprouter.amqp.consumer_timeout import ARGUMENT, NEVER
from amqprouter.amqp.orphans import SLACK, WITHIN
from amqprouter.amqp.wire import Delivery
from amqprouter.broker.ingress import MISSING_QUEUE_DELAY, RECONSUME_DELAY, SURVIVED, Ingress
from amqprouter.broker.topology import Topology
from amqprouter.counters import Counters
from amqprouter.errors import BrokerRefused, BrokerUnavailable
from amqprouter.settings import EventsSettings, IngressSettings, TopologySettings
from tests.unit.amqp.harness import BrokerTestCase

CLASSIC = 406, "PRECONDITION_FAILED - invalid arg 'x-consumer-timeout' for queue 'q' of queue type rabbit_classic_queue"
WRONG_TYPE = 406, "PRECONDITION_FAILED - invalid arg 'x-consumer-timeout' for queue 'q': expected integer, got longstr"
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
        self.assertEqual([qos.prefetch_count for qos in self.broker.sent("Basic.Qos")], [1])
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


class PauseTests(IngressTestCase):
    """A flow is read in larger batches, by pausing in between."""

    def paused(self, count: int) -> bool:
        """Whether reading pauses after this many deliveries in one read."""
        connection, self.broker.held = self.broker.connection, []
        for _ in range(count):
            self.broker.deliver("amqprouter.ingress", b"body")
        data, self.broker.held = b"".join(self.broker.held), None
        self.broker.send_bytes(data)
        assert connection is not None
        paused = connection.transport.unread is not None
        self.pass_time(BRIEF_PAUSE, BRIEF_PAUSE)
        return paused

    def grown(self) -> None:
        """With a prefetch of 100 for each of the three queues."""
        self.attached()
        for queue in OWN:
            self.broker.deliver(queue)
        _, ledger = self.received[-1]
        for tag in (1, 2, 3):
            ledger.settle(tag)
        ledger.flush()
        self.turn()

    def test_a_flow(self) -> None:
        self.grown()
        self.assertTrue(self.paused(BATCH))
        self.assertEqual(len(self.received), 3 + BATCH)

    def test_a_few(self) -> None:
        """They are not held up for others."""
        self.grown()
        self.assertFalse(self.paused(BATCH - 1))

    def test_much_of_the_window_is_in_use(self) -> None:
        """The consumers may wait for acks, so for confirms, and those may be behind."""
        self.grown()
        self.assertTrue(self.paused(150))
        self.assertFalse(self.paused(BATCH))


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


class GrowingTests(IngressTestCase):
    """The prefetch begins with 1."""

    def work(self, *, redelivered: bool = False, count: int = 1, settle: bool = True) -> None:
        """Deliver to each queue this often, one by one, and settle at once."""
        for _ in range(count):
            for queue in OWN:
                tag = self.broker.deliver(queue, redelivered=redelivered)
                if settle:
                    ledger = self.received[-1][1]
                    ledger.settle(tag)
                    ledger.flush()
        self.turn()

    def prefetches(self) -> list[int]:
        return [qos.prefetch_count for qos in self.broker.sent("Basic.Qos")]

    def test_after_a_clean_end(self) -> None:
        """It grows at once, on another channel, when the first deliveries are acknowledged; the old one is closed."""
        connection = self.attached()
        self.work()
        self.turn()
        self.assertEqual((self.prefetches(), self.queues()), ([1, 100], OWN))
        self.assertEqual({channel for channel, _ in self.broker.consumers.values()}, {2})
        self.assertEqual(sorted(connection.channels), [0, 2])
        self.work(count=50)
        self.assertEqual(self.prefetches(), [1, 100])

    def test_each_consumer_ends_before_the_next(self) -> None:
        """Or two channels would deliver from one queue at once, in no order."""
        self.attached()
        self.broker.received.clear()
        self.work()
        steps = [(channel, one.name) for channel, one in self.broker.received if one.name.startswith("Basic.C")]
        self.assertEqual(steps, [(1, "Basic.Cancel"), (2, "Basic.Consume")] * 3)

    def test_after_an_unclean_end(self) -> None:
        """By steps, while messages come again; a window without such is the last small one."""
        self.attached()
        for window in (1, 4):
            self.work(redelivered=True, count=window)
        self.assertEqual(self.prefetches(), [1, 4, 16])
        self.work(count=15)
        self.assertEqual(self.prefetches(), [1, 4, 16])
        self.work()
        self.assertEqual((self.prefetches(), self.queues()), ([1, 4, 16, 100], OWN))

    def test_never_beyond_what_is_configured(self) -> None:
        self.attached()
        for window in (1, 4, 16, 64, 100, 100):
            self.work(redelivered=True, count=window)
        self.assertEqual(self.prefetches(), [1, 4, 16, 64, 100])

    def test_each_connection_begins_anew(self) -> None:
        self.attached()
        self.work()
        self.broker.hang_up(ConnectionError("reset"))
        self.turn()
        self.attached()
        self.assertEqual(self.prefetches(), [1, 100, 1])

    def test_what_is_under_way_meanwhile(self) -> None:
        """A message that waits for long holds nobody up, and is acknowledged on the channel that it came by."""
        connection = self.attached()
        self.work(settle=False)
        old = self.received[0][1]
        self.clock.advance(SURVIVED - 1)
        self.assertEqual(self.prefetches(), [1])
        self.clock.advance(1)
        self.assertEqual((self.prefetches(), self.queues(), self.ingress.unacked), ([1, 100], OWN, 3))
        self.broker.deliver(OWN[0])
        self.assertEqual(self.ingress.unacked, 4)
        self.acks()
        for tag in (1, 2, 3):
            old.settle(tag)
        old.flush()
        self.assertEqual(self.acks(), [(1, 3, True)])
        self.turn()
        self.assertEqual(sorted(connection.channels), [0, 2])

    def test_nothing_comes(self) -> None:
        """Then it stays small: what comes later may have been another gateway's undoing."""
        self.attached()
        self.pass_time(10 * SURVIVED)
        self.assertEqual(self.prefetches(), [1])

    def growing(self, answers: int) -> Connection:
        """A connection whose prefetch began to grow, and got so many answers on the way."""
        self.setUp()
        connection = self.attached()
        self.work(settle=False)
        self.broker.held = []
        ledger = self.received[0][1]
        for tag in (1, 2, 3):
            ledger.settle(tag)
        ledger.flush()
        self.turn()
        for _ in range(answers):
            self.broker.release()
        return connection

    def test_a_queue_that_goes_away_meanwhile(self) -> None:
        """However far it has got, each queue has one consumer in the end."""
        for answers in range(12):
            self.growing(answers)
            if any(queue == OWN[1] for _, queue in self.broker.consumers.values()):
                self.broker.cancel(OWN[1])
            for _ in range(30):
                self.broker.release()
                self.clock.advance(0.1)
            self.assertEqual(self.queues(), OWN, answers)
            self.assertEqual(self.prefetches(), [1, 100], answers)

    def test_stop_meanwhile(self) -> None:
        """However far it has got, nothing is consumed from in the end, and nothing is planned."""
        for answers in range(12):
            self.growing(answers)
            stopping = self.start(self.ingress.stop())
            for _ in range(30):
                self.broker.release()
            self.successResultOf(stopping)
            self.assertEqual((self.queues(), len(self.ingress._delayed)), ([], 0), answers)

    def test_the_old_channel_is_closed_meanwhile(self) -> None:
        """The broker takes its messages back; the new one goes on."""
        self.attached()
        self.work(settle=False)
        self.clock.advance(SURVIVED)
        self.broker.close_channel(1, 406, "PRECONDITION_FAILED - delivery acknowledgement timed out")
        self.assertEqual((self.ingress.unacked, self.ingress.problem()), (0, ""))
        self.pass_time(3)
        self.assertEqual(self.prefetches(), [1, 100])


class TimeoutTests(IngressTestCase):
    """The consumer timeout of RabbitMQ 4.3, which ends consumers of quorum queues."""

    explicit: tuple[str, ...] = ("mine", "yours")

    def setUp(self) -> None:
        super().setUp()
        self.broker.version = "4.3.6"
        self.broker.refused_arguments["yours"] = CLASSIC
        self.broker.refused_arguments["mine"] = WRONG_TYPE
        self.fresh(60.0)

    def fresh(self, timeout: float, queue_type: str = "quorum") -> None:
        topology = Topology(TopologySettings(queue_type=queue_type), IngressSettings(shards=0), EventsSettings())
        self.ingress = Ingress(self.clock, topology, self.explicit, 100, self.receive, timeout=timeout)

    def timeouts(self) -> dict[str, object]:
        """What each queue's consumer asked for, latest first counting."""
        consumes = [one for one in self.broker.sent("Basic.Consume") if one.arguments.get(ARGUMENT) != "?"]
        return {one.queue: one.arguments.get(ARGUMENT) for one in consumes}

    def bodies(self) -> list[bytes]:
        return [delivery.body for delivery, _ in self.received]

    def come_back(self) -> None:
        self.clock.advance(RECONSUME_DELAY)

    def nacks(self) -> list[int]:
        nacks = self.broker.sent("Basic.Nack")
        self.assertEqual({(one.multiple, one.requeue) for one in nacks}, {(False, True)})
        return [one.delivery_tag for one in nacks]

    def test_what_the_broker_is_told(self) -> None:
        """In milliseconds, and only for those queues that take it; the broker is asked once."""
        self.attached()
        self.assertEqual(self.timeouts(), {"amqprouter.ingress": 60_000, "mine": 60_000, "yours": None})
        self.broker.received.clear()
        self.broker.hang_up(ConnectionError("reset"))
        self.turn()
        self.attached()
        self.assertEqual(len(self.broker.sent("Basic.Consume")), 3)

    def test_never(self) -> None:
        self.fresh(0.0)
        self.attached()
        self.assertEqual(self.timeouts()["mine"], int(NEVER * 1000))

    def test_classic_queues(self) -> None:
        self.fresh(60.0, "classic")
        self.attached()
        self.assertEqual(self.timeouts(), {"amqprouter.ingress": None, "mine": 60_000, "yours": None})

    def test_older_brokers_are_told_nothing(self) -> None:
        for version in ("", "3.10.8", "4.2.1"):
            self.broker.version = version
            self.broker.received.clear()
            self.fresh(60.0)
            self.attached()
            self.assertEqual(set(self.timeouts().values()), {None})
            self.assertEqual(len(self.broker.sent("Basic.Consume")), 3)

    def test_a_queue_that_is_not_what_it_is_declared_as(self) -> None:
        """One connection is lost for it."""
        self.broker.refused_arguments["amqprouter.ingress"] = CLASSIC
        connection = self.connected()
        self.failed(self.ingress.attach(connection), BrokerRefused)
        connection.fail(BrokerUnavailable("as the link does"))
        self.turn()
        self.attached()
        self.assertIsNone(self.timeouts()["amqprouter.ingress"])

    def test_a_queue_that_is_made_anew_as_another(self) -> None:
        """At once, so that nobody sees it missing; a connection is lost for it. Else it is asked again."""
        self.attached()
        self.broker.refused_arguments["mine"] = CLASSIC
        self.broker.cancel("mine")
        self.come_back()
        self.turn()
        self.attached()
        self.assertIsNone(self.timeouts()["mine"])
        self.broker.missing_queues.add("mine")
        self.broker.cancel("mine")
        self.come_back()
        self.broker.missing_queues.clear()
        self.broker.refused_arguments["mine"] = WRONG_TYPE
        self.clock.advance(MISSING_QUEUE_DELAY)
        self.assertEqual(self.timeouts()["mine"], 60_000)

    def test_costs_a_consumer(self) -> None:
        """All that is under way is given back, and the same tag is used again, once it is free."""
        connection = self.attached()
        for body in (b"1", b"2", b"3"):
            self.broker.deliver("mine", body)
        other = self.broker.deliver("amqprouter.ingress")
        self.received[0][1].settle(2)
        self.received[0][1].flush()
        self.broker.received.clear()
        self.broker.time_out("mine")
        self.assertEqual(self.nacks(), [1, 3])
        self.broker.time_out("mine")  # it says so for each message
        self.come_back()
        names = [one.name for _, one in self.broker.received if one.name in ("Basic.Cancel", "Basic.Consume")]
        self.assertEqual(names, ["Basic.Cancel", "Basic.Consume"])
        self.assertEqual((self.queues(), connection.closed), (["amqprouter.ingress", "mine", "yours"], False))
        self.assertEqual((self.nacks(), self.ingress.unacked, other), ([1, 3], 1, 4))

    def test_what_is_worked_on_is_not_worked_on_again(self) -> None:
        """It is acknowledged as what it came again as: when it is settled, or at once if it is."""
        self.attached()
        self.broker.deliver("mine", b"1", headers={"a": 1})
        self.broker.deliver("mine", b"2")
        ledger = self.received[0][1]
        self.broker.time_out("mine")
        self.assertEqual(self.ingress.unacked, 0)
        ledger.settle(2)
        ledger.flush()
        self.come_back()
        self.assertEqual(self.acks(), [])
        self.broker.deliver("mine", b"1", True, headers={"a": 1, "x-acquired-count": 1})
        self.broker.deliver("mine", b"2", True, headers={"x-acquired-count": 1, "x-delivery-count": 1})
        self.assertEqual((self.bodies(), self.acks()), ([b"1", b"2"], [(1, 4, False)]))
        ledger.settle(1)
        ledger.flush()
        self.assertEqual((self.acks(), self.ingress.unacked), ([(1, 3, True)], 0))

    def test_another_message_is(self) -> None:
        """Whatever differs; what was not delivered before; and a second one that is equal."""
        self.attached()
        self.broker.deliver("mine", b"1")
        self.broker.time_out("mine")
        self.come_back()
        self.broker.deliver("mine", b"2", True)
        self.broker.deliver("mine", b"1", True, headers={"a": 1})
        self.broker.deliver("amqprouter.ingress", b"1", True)
        self.broker.deliver("mine", b"1")
        self.assertEqual(len(self.received), 5)
        self.broker.deliver("mine", b"1", True)
        self.assertEqual(len(self.received), 5)
        self.broker.deliver("mine", b"1", True)
        self.assertEqual(len(self.received), 6)

    def test_malformed_properties(self) -> None:
        """They are compared as they are."""
        self.attached()
        self.broker.deliver_raw("mine", b"\xff\xff", b"1")
        self.broker.time_out("mine")
        self.come_back()
        self.broker.deliver_raw("mine", b"\xff\xff", b"1", True)
        self.assertEqual(len(self.received), 1)

    def test_one_that_does_not_come_again(self) -> None:
        """Another gateway got it. Should it come yet, it is worked on anew; its first tag is never acknowledged."""
        self.attached()
        self.broker.deliver("mine", b"1")
        self.broker.deliver("mine", b"2")
        ledger = self.received[0][1]
        self.broker.time_out("mine")
        self.pass_time(WITHIN + 1)
        ledger.settle(1)
        self.broker.deliver("mine", b"1", True)
        self.broker.deliver("mine", b"2", True)
        self.assertEqual(self.bodies(), [b"1", b"2", b"1", b"2"])
        for tag in (2, 3, 4):
            ledger.settle(tag)
        ledger.flush()
        self.assertEqual(self.acks(), [(1, 4, True)])

    def test_over_and_over(self) -> None:
        self.attached()
        self.broker.deliver("mine", b"1")
        for _ in range(3):
            self.broker.time_out("mine")
            self.come_back()
            self.broker.deliver("mine", b"1", True)
        self.assertEqual((self.bodies(), self.nacks()), ([b"1"], [1, 2, 3]))
        self.received[0][1].settle(1)
        self.received[0][1].flush()
        self.assertEqual(self.acks(), [(1, 4, True)])

    def test_what_is_acknowledged_is_forgotten(self) -> None:
        """However long one message is under way before the others."""
        self.attached()
        self.broker.deliver("mine", b"first")
        ledger = self.received[0][1]
        for number in range(3 * SLACK):
            ledger.settle(self.broker.deliver("mine", b"%d" % number))
            ledger.flush()
        assert self.ingress._current is not None
        self.assertLess(self.ingress._current._orphans._remembered, SLACK + 4)
        self.broker.time_out("mine")
        self.assertEqual(self.nacks(), [1])

    def test_the_prefetch_grows_on_the_same_channel(self) -> None:
        """Where a cancelled consumer's delivery would end its channel when its time is over."""
        connection = self.attached()
        for queue in ("amqprouter.ingress", "mine", "yours"):
            tag = self.broker.deliver(queue)
            self.received[-1][1].settle(tag)
            self.received[-1][1].flush()
        self.broker.received.clear()
        self.turn()
        self.assertEqual([one.prefetch_count for one in self.broker.sent("Basic.Qos")], [100])
        names = [one.name for _, one in self.broker.received if one.name in ("Basic.Cancel", "Basic.Consume")]
        self.assertEqual(names, ["Basic.Cancel", "Basic.Consume"] * 3)
        self.assertEqual((sorted(connection.channels), len(self.queues())), ([0, 1], 3))
        # Once: each consumer that starts anew may be given a whole prefetch more.
        self.broker.received.clear()
        self.clock.advance(2 * SURVIVED)
        self.assertEqual(self.broker.sent("Basic.Consume"), [])

    def test_the_prefetch_grows_when_what_came_only_waits(self) -> None:
        """For quarantine, say: nobody waits for that to be acknowledged, nor is it bound by a share of a window."""
        self.explicit = ("yours",)
        self.fresh(60.0, "classic")
        connection = self.attached()
        self.broker.deliver("yours")
        old = self.received[-1][1]
        assert old.widen is not None
        self.assertEqual(old.window, 1)
        for _ in range(2):
            old.widen()
        self.turn()
        self.assertEqual((sorted(connection.channels), len(self.queues())), ([0, 1, 2], 2))
        self.assertEqual((old.window, old.widen), (0, None))
        self.broker.deliver("yours")
        new = self.received[-1][1]
        self.assertEqual((new.window, new.widen), (100, None))
        old.settle(1)
        old.flush()
        self.turn()
        self.assertEqual(sorted(connection.channels), [0, 2])

    def test_the_prefetch_grows_on_the_same_channel_when_what_came_only_waits(self) -> None:
        self.attached()
        self.broker.deliver("mine", redelivered=True)
        ledger = self.received[-1][1]
        for window in (4, 16, 64, 100):
            assert ledger.widen is not None
            ledger.widen()
            self.turn()
            self.assertEqual(ledger.window, window)
            self.broker.deliver("mine", redelivered=True)
        self.assertIsNone(ledger.widen)

    def test_the_prefetch_grows_on_another_channel_where_no_consumer_times_out(self) -> None:
        self.explicit = ("yours",)
        self.fresh(60.0, "classic")
        connection = self.attached()
        for queue in ("amqprouter.ingress", "yours"):
            tag = self.broker.deliver(queue)
            self.received[-1][1].settle(tag)
            self.received[-1][1].flush()
        self.turn()
        self.assertEqual((sorted(connection.channels), len(self.queues())), ([0, 2], 2))


class WatchingTests(IngressTestCase):
    explicit = ("mine",)
    PATIENCE = 30.0

    def setUp(self) -> None:
        super().setUp()
        self.counters = Counters()
        topology = Topology(TopologySettings(), IngressSettings(shards=1), EventsSettings())
        self.ingress = Ingress(
            self.clock, topology, self.explicit, 1, self.receive, watchdog=self.PATIENCE, counters=self.counters
        )

    def deliver(self, queue: str, *, settle: bool = True) -> None:
        tag = self.broker.deliver(queue)
        if settle:
            ledger = self.received[-1][1]
            ledger.settle(tag)
            ledger.flush()

    def consumes(self) -> int:
        return len(self.broker.sent("Basic.Consume"))

    def test_a_stall(self) -> None:
        """The channel is replaced; what helps is forgotten."""
        connection = self.attached()
        self.deliver("mine")
        self.broker.ready["mine"] = 5
        before = self.consumes()
        self.pass_time(1.5 * self.PATIENCE)
        self.assertEqual((self.consumes(), self.counters.stalled_consumers), (before, 0))
        self.pass_time(self.PATIENCE)
        self.assertEqual((self.consumes(), self.counters.stalled_consumers), (before + 3, 1))
        self.assertEqual(self.ingress.problem(), "")
        self.deliver("mine")
        self.broker.ready.clear()
        self.pass_time(10 * self.PATIENCE)
        self.assertEqual((self.ingress.problem(), self.counters.stalled_consumers), ("", 1))
        self.assertFalse(connection.closed)

    def test_a_stall_that_stays(self) -> None:
        """is reported, and tried again ever less often."""
        self.attached()
        self.deliver("mine")
        self.broker.ready["mine"] = 5
        self.pass_time(4 * self.PATIENCE)
        self.assertEqual(
            self.ingress.problem(),
            "queue mine: 5 messages wait and none is delivered, though its consumer was started again (1 times): "
            "look at rabbitmqctl list_consumers and list_queues",
        )
        self.pass_time(3600, step=15)
        self.assertIn("5 messages wait", self.ingress.problem())
        self.assertLess(self.counters.stalled_consumers, 13)
        self.deliver("mine")
        self.pass_time(self.PATIENCE)
        self.assertEqual(self.ingress.problem(), "")

    def test_a_full_window(self) -> None:
        """What waits for a rate or a target is nobody's fault."""
        self.attached()
        self.deliver("mine", settle=False)
        self.broker.ready["mine"] = 5
        self.pass_time(10 * self.PATIENCE)
        self.assertEqual((self.counters.stalled_consumers, self.ingress.problem()), (0, ""))

    def test_a_steady_flow(self) -> None:
        """Queues from which something comes are not even asked about."""
        self.attached()
        self.broker.ready = dict.fromkeys(("mine", *OWN[:2]), 1000)
        self.broker.received.clear()
        for _ in range(20):
            for queue in self.queues():
                self.deliver(queue)
            self.pass_time(self.PATIENCE / 2)
        self.assertEqual((self.counters.stalled_consumers, self.broker.sent("Queue.Declare")), (0, []))

    def test_standing_by(self) -> None:
        """Another gateway is the single active consumer: the messages grow fewer."""
        self.attached()
        for ready in range(1000, 0, -1):
            self.broker.ready["amqprouter.ingress"] = ready
            self.pass_time(self.PATIENCE / 2, step=15)
        self.assertEqual((self.counters.stalled_consumers, self.ingress.problem()), (0, ""))

    def test_standing_by_for_one_that_is_stuck(self) -> None:
        """Nothing that is under way here is given back for it."""
        self.attached()
        self.deliver("mine", settle=False)
        self.broker.ready["amqprouter.ingress"] = 7
        self.broker.received.clear()
        self.pass_time(2 * self.PATIENCE)
        self.assertEqual([one.queue for one in self.broker.sent("Basic.Consume")], ["amqprouter.ingress"])
        self.assertEqual((self.counters.stalled_consumers, self.ingress.unacked), (1, 1))

    def test_a_consumer_that_the_broker_forgot(self) -> None:
        """Even while nothing waits."""
        self.attached()
        self.broker.consumer_counts["mine"] = 0
        self.pass_time(5 * self.PATIENCE)
        self.assertEqual(self.counters.stalled_consumers, 3)
        self.assertIn("queue mine: the broker knows of no consumer", self.ingress.problem())
        del self.broker.consumer_counts["mine"]
        self.pass_time(self.PATIENCE)
        self.assertEqual(self.ingress.problem(), "")

    def test_no_answer(self) -> None:
        """A broker that says nothing of its queues gets a new connection."""
        connection = self.attached()
        self.broker.silent = True
        self.pass_time(3 * self.PATIENCE)
        self.assertIn("no answer about the queues", str(connection.end))

    def test_a_queue_that_is_gone(self) -> None:
        connection = self.attached()
        self.broker.missing_queues = {"mine"}
        self.pass_time(3 * self.PATIENCE)
        self.assertEqual((self.counters.stalled_consumers, connection.closed), (0, False))

    def test_turned_off(self) -> None:
        self.ingress = Ingress(self.clock, self.ingress._topology, (), 1, self.receive, watchdog=0)
        self.attached()
        self.assertEqual(len(self.ingress._delayed), 0)
