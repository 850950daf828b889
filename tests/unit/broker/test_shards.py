"""Sharing the shards: which are ours, and handing one over without a message being overtaken or done twice."""

from __future__ import annotations

from typing import Any

from twisted.logger import capturedLogs, formatEvent

from amqprouter.amqp.ack_ledger import AckLedger
from amqprouter.amqp.connection import Connection
from amqprouter.amqp.wire import Delivery
from amqprouter.broker.ingress import LEAVING
from amqprouter.broker.shards import ANSWER_WITHIN, INTERVAL, Membership, Position, make_ingress
from amqprouter.broker.topology import Topology
from amqprouter.counters import Counters
from amqprouter.errors import BrokerRefused
from amqprouter.settings import EventsSettings, IngressSettings, TopologySettings
from amqprouter.testing.amqp import MemoryBroker
from tests.unit.amqp.harness import BrokerTestCase

SETTINGS = IngressSettings(shards=2, prefetch=1, watchdog=0)
OURS, THEIRS = "amqprouter.shard.0", "amqprouter.shard.1"
SEATS = ("amqprouter.seat.0", "amqprouter.seat.1")


class FullBroker(MemoryBroker):
    """Refuses what somebody else has taken between our question and our asking."""

    snatched: frozenset[str] = frozenset()

    def _basic_consume(self, channel: int, command: Any) -> None:
        if command.exclusive and command.queue in self.snatched:
            self.consumer_counts[command.queue] = 1
            self.close_channel(channel, 403, f"ACCESS_REFUSED - queue '{command.queue}' in exclusive use")
        else:
            super()._basic_consume(channel, command)


class SharedIngressTests(BrokerTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.broker: FullBroker = FullBroker(self.clock)
        self.received: list[tuple[bytes, int, AckLedger]] = []
        topology = Topology(TopologySettings(), SETTINGS, EventsSettings())
        self.ingress = make_ingress(self.clock, topology, "amqprouter", SETTINGS, self.receive, counters=Counters())

    def receive(self, deliveries: list[Delivery], ledger: AckLedger) -> None:
        self.received.extend((delivery.body, delivery.delivery_tag, ledger) for delivery in deliveries)

    def attached(self) -> Connection:
        connection = self.connected()
        self.run_now(self.ingress.attach(connection))
        return connection

    def consumed(self, word: str = ".shard.") -> list[str]:
        return sorted(queue for _, queue in self.broker.consumers.values() if word in queue)

    def other_joins(self) -> None:
        self.broker.consumer_counts[SEATS[1]] = 1
        self.pass_time(INTERVAL)

    def settle_all(self) -> None:
        for _, tag, ledger in self.received:
            ledger.settle(tag)
            ledger.flush()
        self.turn()

    def test_alone(self) -> None:
        self.attached()
        self.assertEqual(self.consumed(), [OURS, THEIRS])
        self.assertEqual(self.consumed(".seat."), [SEATS[0]])
        self.assertEqual(self.consumed("amqprouter.re"), ["amqprouter.replay"])
        self.assertEqual(self.ingress.problem(), "")

    def test_the_second_takes_its_half_and_later_all(self) -> None:
        self.broker.consumer_counts[SEATS[0]] = 1
        self.attached()
        self.assertEqual((self.consumed(), self.consumed(".seat.")), ([THEIRS], [SEATS[1]]))
        self.assertEqual(self.ingress.problem(), "", "the other's shards are no trouble of ours")
        del self.broker.consumer_counts[SEATS[0]]
        self.pass_time(INTERVAL)
        self.assertEqual(self.consumed(), [OURS, THEIRS])

    def test_no_seat_no_shard(self) -> None:
        self.broker.consumer_counts.update(dict.fromkeys(SEATS, 1))
        self.attached()
        self.assertEqual((self.consumed(), self.consumed("ingress")), ([], ["amqprouter.ingress"]))
        del self.broker.consumer_counts[SEATS[1]]
        self.pass_time(INTERVAL)
        self.assertEqual(self.consumed(), [THEIRS])

    def test_somebody_was_faster(self) -> None:
        self.broker.snatched = frozenset({SEATS[0]})
        self.attached()
        self.assertEqual((self.consumed(), self.consumed(".seat.")), ([THEIRS], [SEATS[1]]))

    def test_hand_over_of_an_idle_shard(self) -> None:
        self.attached()
        self.other_joins()
        self.turn()
        self.assertEqual(self.consumed(), [OURS])

    def test_hand_over_waits_for_what_is_under_way(self) -> None:
        self.attached()
        self.broker.deliver(THEIRS, b"under way")
        self.other_joins()
        self.assertEqual(self.consumed(), [OURS, THEIRS])
        self.broker.deliver(THEIRS, b"too late")
        self.assertEqual([body for body, *_ in self.received], [b"under way"])
        self.broker.received.clear()
        self.settle_all()
        self.assertEqual(self.consumed(), [OURS])
        self.assertEqual(
            [one.name for _, one in self.broker.received], ["Basic.Ack", "Channel.Close"], "acknowledged, then let go"
        )
        self.assertEqual((self.ingress.unacked, self.ingress.problem()), (0, ""))

    def test_hand_over_does_not_wait_for_ever(self) -> None:
        self.attached()
        self.broker.deliver(THEIRS, b"waits for its rate")
        self.other_joins()
        self.pass_time(LEAVING)
        self.assertEqual(self.consumed(), [OURS])
        self.broker.received.clear()
        self.settle_all()
        self.assertEqual(self.broker.sent("Basic.Ack"), [], "its tag means nothing any more")

    def test_taken_back(self) -> None:
        self.attached()
        self.other_joins()
        del self.broker.consumer_counts[SEATS[1]]
        self.pass_time(INTERVAL)
        self.assertEqual(self.consumed(), [OURS, THEIRS])
        self.broker.deliver(THEIRS, b"again")
        self.assertEqual([body for body, *_ in self.received], [b"again"])

    def test_the_channel_of_a_leaving_shard_is_closed(self) -> None:
        self.attached()
        self.broker.deliver(THEIRS)
        (channel,) = (number for number, queue in self.broker.consumers.values() if queue == THEIRS)
        self.other_joins()
        self.broker.close_channel(channel, 406, "PRECONDITION_FAILED - delivery acknowledgement timed out")
        self.pass_time(LEAVING + 1)
        self.assertEqual(self.consumed(), [OURS])

    def test_seats_out_of_sight(self) -> None:
        """Then every shard is consumed from: others stand by."""
        self.broker.consumer_counts[SEATS[0]] = 1
        self.attached()
        self.broker.refusals["Queue.Declare"] = 404, "NOT_FOUND - home node of durable queue is down"
        self.pass_time(INTERVAL)
        self.assertEqual(self.consumed(), [OURS, THEIRS])
        self.broker.refusals.clear()
        self.pass_time(INTERVAL)
        self.assertEqual(self.consumed(), [THEIRS])

    def test_seats_that_are_refused(self) -> None:
        """It is a state, told of once; one whose node is down is no fault of this broker's."""
        full = "PRECONDITION_FAILED - cannot declare queue 'amqprouter.seat.0': queue limit in vhost '/' (5) is reached"
        self.attached()
        self.broker.refusals["Queue.Declare"] = 406, full
        with capturedLogs() as logs:
            self.pass_time(3 * INTERVAL)
        self.assertEqual(len([log for log in logs if "Cannot see" in formatEvent(log)]), 1)
        self.assertEqual(self.consumed(), [OURS, THEIRS])
        for words in ("cannot share the shards", "queue limit in vhost"):
            self.assertIn(words, self.ingress.problem())
        self.broker.refusals["Queue.Declare"] = (
            404,
            "NOT_FOUND - home node 'n' of durable queue is down or inaccessible",
        )
        self.pass_time(INTERVAL)
        self.assertEqual(self.ingress.problem(), "")
        self.broker.refusals.clear()
        self.pass_time(INTERVAL)
        self.assertEqual((self.ingress.problem(), self.consumed(".seat.")), ("", [SEATS[0]]))

    def test_a_new_connection(self) -> None:
        self.attached()
        self.broker.deliver(THEIRS)
        self.other_joins()
        self.broker.hang_up(ConnectionError("reset"))
        self.turn()
        self.pass_time(INTERVAL)
        self.broker.consumer_counts.clear()
        self.attached()
        self.assertEqual(self.consumed(), [OURS, THEIRS])
        self.broker.deliver(THEIRS, b"again")
        self.assertEqual(self.received[-1][0], b"again")

    def test_stop(self) -> None:
        self.attached()
        self.broker.deliver(THEIRS)
        self.other_joins()
        self.run_now(self.ingress.stop())
        self.assertEqual((self.consumed(), self.consumed("ingress")), ([], []))
        self.broker.received.clear()
        self.pass_time(2 * INTERVAL)
        self.assertEqual(self.broker.sent("Queue.Declare"), [], "it looks no more")
        self.attached()
        self.assertEqual(self.consumed(), [])


class SeatsTests(BrokerTestCase):
    def test_all_shards_have_one_owner_whatever_the_number(self) -> None:
        for gateways in range(1, 6):
            owners = [[rank for rank in range(gateways) if Position(rank, gateways).owns(shard)] for shard in range(8)]
            self.assertEqual({len(owner) for owner in owners}, {1})
            counts = [sum(Position(rank, gateways).owns(shard) for shard in range(8)) for rank in range(gateways)]
            self.assertLessEqual(max(counts) - min(counts), 1)

    def test_no_answer(self) -> None:
        """Its node is down: nothing is asked until there is an answer, which comes when the node is back."""
        membership, connection = Membership("p", 3), self.connected()
        self.run_now(membership.position(connection))
        self.broker.held = []
        looking = self.start(membership.position(connection))
        self.assertNoResult(looking)
        self.clock.advance(ANSWER_WITHIN)
        self.assertIn("is its node down?", str(self.failureResultOf(looking, BrokerRefused).value))
        asked = len(self.broker.received)
        self.failed(membership.position(connection), BrokerRefused)
        self.assertEqual(len(self.broker.received), asked)
        self.broker.release()
        self.broker.held = None
        self.assertEqual(self.run_now(membership.position(connection)), Position(0, 1))

    def test_a_seat_lost_is_taken_again(self) -> None:
        connection, membership = self.connected(), Membership("p", 2)
        self.assertEqual(self.run_now(membership.position(connection)), Position(0, 1))
        self.broker.cancel("p.seat.0")  # the queue was deleted
        self.assertEqual(self.run_now(membership.position(connection)), Position(0, 1))
        self.assertEqual([queue for _, queue in self.broker.consumers.values()], ["p.seat.0"])
