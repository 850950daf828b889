"""Passing messages to the gateways that have their devices: nothing is lost, nothing overtaken, and the way changes
only when nothing is under way."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from amqprouter.amqp.ack_ledger import AckLedger
from amqprouter.amqp.connection import Connection
from amqprouter.amqp.properties import encode_properties
from amqprouter.amqp.publisher import RETRY_FIRST, Publisher
from amqprouter.amqp.wire import Delivery
from amqprouter.broker.ingress import SURVIVED
from amqprouter.broker.repartition import MOST_OUT, Partitions, Repartition
from amqprouter.broker.repartition_envelope import Envelope
from amqprouter.broker.shards import INTERVAL, Position, SharedIngress, make_ingress
from amqprouter.broker.source_switch import ALONE, EMPTY_WITHIN, FEW
from amqprouter.broker.topology import Topology
from amqprouter.counters import Counters
from amqprouter.pipeline.flush import Flush
from amqprouter.settings import EventsSettings, IngressSettings, TopologySettings
from tests.unit.amqp.harness import BrokerTestCase

PARTITIONS = ("amqprouter.partition.0", "amqprouter.partition.1")
PLAIN = encode_properties()


def device_of(delivery: Delivery) -> str:
    return delivery.routing_key.decode().partition(".")[0]


class PartitionsTests(BrokerTestCase):
    @given(st.text(max_size=30))
    def test_everyone_comes_to_the_same(self, device: str) -> None:
        queue = Partitions(PARTITIONS).queue_of(device)
        self.assertEqual(Partitions(PARTITIONS).queue_of(device), queue)
        self.assertIn(queue.decode(), PARTITIONS)

    def test_for_ever(self) -> None:
        """Another answer after an upgrade would have a device's messages overtake each other."""
        queues = Partitions([f"p.{number}" for number in range(16)])
        found = [queues.queue_of(device) for device in ("lamp", "a1b2c3d4e5f60708", "Küche", "")]
        self.assertEqual(found, [b"p.11", b"p.7", b"p.15", b"p.4"])

    def test_evenly(self) -> None:
        queues = Partitions([f"p.{number}" for number in range(8)])
        shares = Counter(queues.queue_of(f"dev{number}") for number in range(8000))
        self.assertTrue(all(900 < count < 1100 for count in shares.values()), shares)


class RepartitionTestCase(BrokerTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.counters, self.flush, self.envelope = Counters(), Flush(self.clock), Envelope("gateway")
        self.here: list[Delivery] = []
        publisher = Publisher(self.clock, self.counters, max_attempts=3, random=lambda: 1.0)
        self.repartition = Repartition(
            self.clock,
            publisher,
            Partitions(PARTITIONS),
            self.envelope,
            device_of=device_of,
            receive=self.receive_here,
            flush=self.flush,
            counters=self.counters,
            random=lambda: 1.0,
        )

    def receive_here(self, deliveries: list[Delivery], ledger: AckLedger) -> None:
        self.here += deliveries
        self.ledger = ledger

    def passed_on(self) -> list[tuple[str, bytes]]:
        return [(one.routing_key, one.body) for one in self.broker.published]


class RepartitionTests(RepartitionTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.acks: list[tuple[int, bool]] = []
        self.ledger = AckLedger(self.acks.extend)
        self.tag = 0
        self.connection = self.connected()
        self.run_now(self.repartition.attach(self.connection))

    def receive(self, *keys: bytes, properties: bytes = PLAIN) -> None:
        deliveries = []
        for key in keys:
            self.tag += 1
            body = b"%d" % self.tag
            deliveries.append(Delivery(1, b"t", self.tag, False, b"devices", key, properties, body))
        self.ledger.received(len(deliveries))
        self.repartition.receive(deliveries, self.ledger)
        self.turn()

    def test_it_is_acknowledged_once_it_is_there(self) -> None:
        self.broker.confirming = False
        self.receive(b"lamp.up", b"plug.up")
        queue = Partitions(PARTITIONS).queue_of
        expected = [(queue("lamp").decode(), b"1"), (queue("plug").decode(), b"2")]
        self.assertEqual((self.passed_on(), self.acks, self.repartition.under_way), (expected, [], 2))
        self.assertTrue(all(one.exchange == "" for one in self.broker.published))
        self.broker.ack(2, multiple=True)
        self.pass_time(1.0)
        self.assertEqual((self.acks, self.repartition.under_way), ([(2, True)], 0))
        self.assertEqual(self.counters.repartitioned, 2)

    def test_what_is_nobodys_stays(self) -> None:
        self.receive(b".up", b"lamp.up")
        self.assertEqual(([one.body for one in self.here], len(self.broker.published)), ([b"1"], 1))

    def test_what_cannot_be_wrapped_stays(self) -> None:
        """Headers that fill a frame by themselves."""
        self.receive(b"lamp.up", properties=encode_properties(headers={"h": "x" * 131_000}))
        self.assertEqual(([one.body for one in self.here], self.broker.published), ([b"1"], []))
        self.assertEqual(self.repartition.under_way, 0)

    def test_a_queue_that_takes_nothing_is_named_and_the_order_kept(self) -> None:
        self.broker.confirming = False
        self.receive(b"lamp.up", b"lamp.up", b"lamp.up")
        self.broker.ack(1)
        self.broker.ack(2, nack=True)
        self.receive(b"lamp.up")
        queue = Partitions(PARTITIONS).queue_of("lamp").decode()
        self.assertEqual(len(self.broker.published), 3, "it waits behind those")
        self.assertTrue(self.repartition.problem().startswith(f"{queue} takes no messages: nacked"))
        self.broker.ack(3, nack=True)
        self.broker.published.clear()
        self.broker.confirming = True
        self.pass_time(RETRY_FIRST * 4, 0.05)
        self.assertEqual([body for _, body in self.passed_on()], [b"2", b"3", b"4"])
        self.assertEqual((self.repartition.problem(), self.repartition.under_way), ("", 0))
        self.assertEqual(self.acks[-1], (4, True))

    def test_others_go_on(self) -> None:
        devices = {Partitions(PARTITIONS).queue_of(device): device for device in ("lamp", "plug", "tv", "fan")}
        first, second = (device.encode() for device in devices.values())
        self.broker.confirming = False
        self.receive(first)
        self.broker.ack(1, nack=True)
        self.broker.confirming = True
        self.receive(first, second)
        self.assertEqual([body for _, body in self.passed_on()], [b"1", b"3"])

    def test_a_lost_connection_loses_nothing(self) -> None:
        self.broker.confirming = False
        self.receive(b"lamp.up", b"lamp.up")
        self.broker.hang_up(ConnectionError("reset"))
        self.turn()
        self.broker.published.clear()
        self.broker.confirming = True
        self.receive(b"lamp.up")
        self.run_now(self.repartition.attach(self.connected()))
        self.pass_time(1.0)
        self.assertEqual([body for _, body in self.passed_on()], [b"1", b"2", b"3"])
        self.assertEqual(self.acks, [(3, True)])

    def test_draining_waits_for_the_confirms(self) -> None:
        self.broker.confirming = False
        self.receive(b"lamp.up")
        drained: Deferred[None] = self.repartition.drain()
        self.assertNoResult(drained)
        self.broker.ack(1)
        self.successResultOf(drained)
        self.successResultOf(self.repartition.drain())

    def test_draining_does_not_wait_for_a_queue_that_takes_nothing(self) -> None:
        """What waits for it goes back to its source: a stop would take all of its time, and nothing else be drained."""
        self.broker.confirming = False
        self.receive(b"lamp.up", b"lamp.up")
        self.broker.ack(1, nack=True)
        self.receive(b"lamp.up")
        drained: Deferred[None] = self.repartition.drain()
        self.assertNoResult(drained)
        self.broker.ack(2, nack=True)
        self.successResultOf(drained)
        self.broker.published.clear()
        self.receive(b"lamp.up", b"plug.up")
        self.pass_time(60.0)
        self.assertEqual((self.broker.published, self.acks, self.repartition.under_way), ([], [], 0))

    def test_many_that_cannot_be_wrapped_behind_one_that_is_tried_again(self) -> None:
        self.broker.confirming = False
        self.receive(b"lamp.up")
        self.broker.ack(1, nack=True)
        self.broker.confirming = True
        self.receive(*[b"lamp.up"] * 400, properties=encode_properties(headers={"h": "x" * 131_000}))
        self.receive(b"lamp.up")
        self.pass_time(RETRY_FIRST * 4, 0.05)
        self.assertEqual((len(self.here), self.repartition.under_way), (400, 0))
        self.assertEqual(self.repartition.problem(), "")

    def test_more_than_may_be_out(self) -> None:
        """They are passed on in order, as others are confirmed."""
        self.broker.confirming = False
        self.receive(*[b"lamp.up"] * (MOST_OUT + 3))
        self.receive(b"lamp.up")
        self.assertEqual((len(self.broker.published), self.repartition.under_way), (MOST_OUT, MOST_OUT + 4))
        self.broker.ack(2, multiple=True)
        self.broker.ack(3, nack=True)
        self.assertEqual(len(self.broker.published), MOST_OUT + 2, "what is behind the third waits for it")
        self.receive(b"lamp.up")
        self.broker.published.clear()
        self.broker.confirming = True
        for tag in range(4, MOST_OUT + 3):
            self.broker.ack(tag, nack=True)
        self.pass_time(RETRY_FIRST * 20, 0.05)
        self.assertEqual([int(body) for _, body in self.passed_on()], list(range(3, MOST_OUT + 6)))
        self.assertEqual((self.repartition.under_way, self.acks[-1]), (0, (MOST_OUT + 5, True)))

    def test_what_comes_again_and_again_while_nothing_is_confirmed_is_held_once(self) -> None:
        """The broker takes nothing, and the connection of the consumers is lost over and over."""
        self.broker.confirming = False
        for _ in range(10):
            self.tag = 0
            self.receive(*[b"lamp.up"] * MOST_OUT)
            self.ledger.close()
            self.ledger = AckLedger(self.acks.extend)
        self.assertLessEqual(self.repartition.under_way, 4 * MOST_OUT)

    def test_what_comes_again_over_another_channel_is_not_tried_again(self) -> None:
        self.broker.confirming = False
        self.receive(b"lamp.up")
        self.broker.ack(1, nack=True)
        self.ledger.close()
        self.broker.published.clear()
        self.pass_time(RETRY_FIRST * 2, 0.05)
        self.assertEqual((self.broker.published, self.repartition.under_way), ([], 0))
        self.assertEqual(self.repartition.problem(), "")


class SourceSwitchTestCase(RepartitionTestCase):
    choice = "auto"

    def setUp(self) -> None:
        super().setUp()
        self.broker.missing_queues.update(PARTITIONS)
        self.ingress = self.made()

    def made(self, prefetch: int = 1) -> SharedIngress:
        settings = IngressSettings(shards=2, prefetch=prefetch, watchdog=0, repartition=self.choice)
        return make_ingress(
            self.clock,
            Topology(TopologySettings(), settings, EventsSettings()),
            "amqprouter",
            settings,
            self.receive_here,
            counters=self.counters,
            repartition=self.repartition,
            envelope=self.envelope,
        )

    def attached(self) -> Connection:
        connection = self.connected()
        self.run_now(self.repartition.attach(connection))
        self.run_now(self.ingress.attach(connection))
        return connection

    def consumed(self, word: str) -> list[str]:
        return sorted(queue for _, queue in self.broker.consumers.values() if word in queue)

    def send(self, body: bytes) -> None:
        self.broker.deliver_raw("amqprouter.ingress", PLAIN, body, routing_key="lamp.up")

    def settle(self) -> None:
        for delivery in self.here:
            self.ledger.settle(delivery.delivery_tag)
        self.ledger.flush()
        self.turn()

    def others_join(self) -> None:
        self.broker.consumer_counts["amqprouter.seat.1"] = 1
        self.pass_time(INTERVAL)

    def others_leave(self) -> None:
        self.broker.consumer_counts["amqprouter.seat.1"] = 0
        self.pass_time(INTERVAL)


class AutoTests(SourceSwitchTestCase):
    def test_alone_there_are_no_partitions(self) -> None:
        self.attached()
        self.send(b"m")
        self.assertEqual([one.body for one in self.here], [b"m"])
        declared = {command.queue for command in self.broker.sent("Queue.Declare") if not command.passive}
        self.assertEqual((declared & set(PARTITIONS), self.consumed(".partition.")), (set(), []))

    def test_others_join(self) -> None:
        """First what is under way is finished, and meanwhile nothing is taken."""
        self.attached()
        self.send(b"under way")
        self.others_join()
        self.send(b"comes again")
        self.assertEqual(self.passed_on(), [])
        self.assertEqual(self.ingress.problem(), "", "it is for a moment")
        self.settle()
        self.turn()
        self.send(b"new")
        self.assertEqual([body for _, body in self.passed_on()], [b"new"])
        self.assertEqual(self.consumed(".partition."), [PARTITIONS[0]])

    def test_what_is_passed_on_is_taken_out_of_its_envelope(self) -> None:
        self.broker.consumer_counts["amqprouter.seat.1"] = 1
        self.attached()
        inner = Delivery(1, b"t", 1, False, b"devices", b"lamp.up", PLAIN, b"m")
        self.broker.deliver_raw(PARTITIONS[0], self.envelope.wrapped(inner), b"m")
        [found] = self.here
        self.assertEqual((found.exchange, found.routing_key, found.body), (b"devices", b"lamp.up", b"m"))
        self.assertEqual(self.passed_on(), [], "it is passed on once")

    def test_left_alone(self) -> None:
        """The sources are worked on directly once everything that was passed on is done."""
        self.broker.consumer_counts["amqprouter.seat.1"] = 1
        self.attached()
        self.broker.missing_queues.clear()
        self.others_leave()
        self.broker.ready[PARTITIONS[1]] = FEW + 1
        self.pass_time(ALONE)
        self.send(b"1")
        self.broker.ready[PARTITIONS[1]] = 1
        self.pass_time(INTERVAL)
        self.assertEqual((self.consumed("ingress"), self.ingress.problem()), ([], ""), "nothing is taken")
        self.broker.ready.clear()
        self.pass_time(INTERVAL)
        self.send(b"2")
        self.assertEqual(([body for _, body in self.passed_on()], [one.body for one in self.here]), ([b"1"], [b"2"]))

    def test_left_alone_with_what_takes_long(self) -> None:
        self.broker.consumer_counts["amqprouter.seat.1"] = 1
        self.attached()
        self.broker.missing_queues.clear()
        self.broker.ready[PARTITIONS[1]] = 1
        self.others_leave()
        self.pass_time(ALONE + EMPTY_WITHIN + INTERVAL)
        self.send(b"1")
        self.assertEqual([body for _, body in self.passed_on()], [b"1"], "it goes on as it was")

    def test_gateways_that_are_restarted_in_turn_change_nothing(self) -> None:
        self.broker.consumer_counts["amqprouter.seat.1"] = 1
        self.attached()
        self.broker.missing_queues.clear()
        for change in (self.others_leave, self.others_join, self.others_leave):
            change()
            self.pass_time(ALONE / 2)
        self.send(b"1")
        self.assertEqual([body for _, body in self.passed_on()], [b"1"])

    def test_the_broker_does_not_tell(self) -> None:
        """No messages and no consumers are no answer of a queue that we consume from."""
        self.broker.consumer_counts["amqprouter.seat.1"] = 1
        self.attached()
        self.broker.missing_queues.clear()
        self.others_leave()
        self.broker.consumer_counts[PARTITIONS[1]] = 0
        self.pass_time(ALONE + INTERVAL)
        self.send(b"1")
        self.assertEqual([body for _, body in self.passed_on()], [b"1"])
        del self.broker.consumer_counts[PARTITIONS[1]]
        self.pass_time(2 * INTERVAL)
        self.send(b"2")
        self.assertEqual([one.body for one in self.here], [b"2"])

    def test_seats_that_cannot_be_seen_are_no_proof_of_being_alone(self) -> None:
        """Others may have taken what is on its way, of which the broker counts what nobody has."""
        self.broker.consumer_counts["amqprouter.seat.1"] = 1
        self.attached()
        self.broker.missing_queues.clear()
        self.broker.existing["amqprouter.seat.0"] = {"x-queue-type": "stream"}
        self.pass_time(ALONE + EMPTY_WITHIN)
        self.send(b"1")
        self.assertEqual([body for _, body in self.passed_on()], [b"1"])
        self.assertTrue(self.ingress.problem().startswith("cannot share the shards with other gateways"))
        self.broker.existing.clear()
        self.broker.consumer_counts["amqprouter.seat.1"] = 0
        self.pass_time(ALONE - 2 * INTERVAL)
        self.send(b"2")
        self.assertEqual([body for _, body in self.passed_on()], [b"1", b"2"], "only now it is known")
        self.pass_time(5 * INTERVAL)
        self.send(b"3")
        self.assertEqual([one.body for one in self.here], [b"3"])

    def test_without_a_seat_nobody_is_alone(self) -> None:
        position = [Position(None, 1), Position(None, 2), Position(0, 1), Position(1, 2)]
        self.assertEqual([one.others for one in position], [None, True, False, True])

    def test_at_the_start_something_may_be_on_its_way(self) -> None:
        self.broker.missing_queues.clear()
        self.attached()
        self.send(b"1")
        self.assertEqual([body for _, body in self.passed_on()], [b"1"])
        self.assertEqual(self.consumed(".partition."), list(PARTITIONS))

    def test_the_prefetch_grows_when_nothing_is_under_way(self) -> None:
        """Another gateway gets the queue as soon as its consumer is cancelled: it must not overtake what is on its way
        from here."""
        self.broker.confirming = False
        self.broker.consumer_counts["amqprouter.seat.1"] = 1
        self.ingress = self.made(prefetch=8)
        self.attached()
        self.send(b"1")
        self.turn()
        [published] = [one for one in self.broker.published if one.body == b"1"]
        self.pass_time(SURVIVED)
        self.send(b"2")  # it is not taken
        self.assertEqual([body for _, body in self.passed_on()], [b"1"])
        self.assertEqual(self.consumed("ingress"), ["amqprouter.ingress"])
        self.broker.ack(published.sequence, channel=published.channel)
        self.pass_time(1.0, 0.1)
        self.assertEqual([qos.prefetch_count for qos in self.broker.sent("Basic.Qos")][-1], 8)
        self.assertEqual(self.consumed("ingress"), ["amqprouter.ingress"])
        self.send(b"2")
        self.assertEqual([body for _, body in self.passed_on()], [b"1", b"2"])

    def test_so_it_does_when_the_others_cannot_be_seen(self) -> None:
        self.broker.confirming = False
        self.broker.missing_queues.clear()
        self.broker.existing["amqprouter.seat.0"] = {"x-queue-type": "stream"}
        self.ingress = self.made(prefetch=8)
        self.attached()
        self.send(b"1")
        self.pass_time(SURVIVED)
        self.send(b"2")  # it is not taken
        self.assertEqual([body for _, body in self.passed_on()], [b"1"])

    def test_the_connection_is_lost_in_between(self) -> None:
        connection = self.attached()
        self.send(b"under way")
        self.others_join()
        self.broker.hang_up(ConnectionError("reset"))
        self.turn()
        self.assertTrue(connection.closed)
        self.attached()
        self.pass_time(INTERVAL)
        self.send(b"again")
        self.assertEqual([body for _, body in self.passed_on()], [b"again"])

    def test_the_broker_makes_no_queues(self) -> None:
        connection = self.attached()
        self.broker.existing[PARTITIONS[0]] = {"x-queue-type": "stream"}
        self.others_join()
        self.send(b"m")
        self.assertEqual([one.body for one in self.here], [b"m"], "that is no reason to stand still")
        self.assertTrue(self.ingress.problem().startswith("cannot share what comes through other queues"))
        self.assertFalse(connection.closed)
        self.settle()
        self.broker.existing.clear()
        self.pass_time(2 * INTERVAL)
        self.assertEqual(self.ingress.problem(), "")
        self.send(b"m")
        self.assertEqual(len(self.passed_on()), 1)


class UnreadTests(SourceSwitchTestCase):
    """The other gateway is of an earlier version, or does without partitions: it reads none of them."""

    theirs = PARTITIONS[1]

    def setUp(self) -> None:
        super().setUp()
        self.broker.consumer_counts["amqprouter.seat.1"] = 1
        self.attached()
        self.broker.missing_queues.clear()

    def unread(self) -> None:
        self.broker.ready[self.theirs] = 3
        self.pass_time(2 * INTERVAL)

    def test_it_is_read_here(self) -> None:
        self.assertEqual(self.consumed(".partition."), [PARTITIONS[0]])
        self.broker.ready[self.theirs] = 3
        self.pass_time(INTERVAL)
        self.assertEqual(self.consumed(".partition."), [PARTITIONS[0]], "it may be about to be")
        self.pass_time(INTERVAL)
        self.assertEqual(self.consumed(".partition."), list(PARTITIONS))
        self.broker.ready.clear()
        self.pass_time(10 * INTERVAL)
        self.assertEqual(self.consumed(".partition."), list(PARTITIONS), "more may come")

    def test_until_the_other_reads_it(self) -> None:
        self.unread()
        self.broker.consumer_counts[self.theirs] = 2
        self.pass_time(INTERVAL)
        self.turn()
        self.assertEqual(self.consumed(".partition."), [PARTITIONS[0]])
        self.broker.consumer_counts[self.theirs] = 1
        self.pass_time(10 * INTERVAL)
        self.assertEqual(self.consumed(".partition."), [PARTITIONS[0]])

    def test_one_that_is_read_slowly_is_left_alone(self) -> None:
        self.broker.consumer_counts[self.theirs] = 1
        self.broker.ready[self.theirs] = 3
        self.pass_time(10 * INTERVAL)
        self.assertEqual(self.consumed(".partition."), [PARTITIONS[0]])

    def test_no_word_is_no_reason(self) -> None:
        self.pass_time(10 * INTERVAL)
        self.assertEqual(self.consumed(".partition."), [PARTITIONS[0]])

    def test_one_that_is_gone(self) -> None:
        self.broker.missing_queues.add(self.theirs)
        self.pass_time(INTERVAL)
        self.assertEqual(self.consumed(".partition."), [PARTITIONS[0]])


class AlwaysTests(SourceSwitchTestCase):
    choice = "yes"

    def test_alone_as_well(self) -> None:
        self.attached()
        self.send(b"m")
        self.assertEqual(([body for _, body in self.passed_on()], self.here), ([b"m"], []))
        self.assertEqual(self.consumed(".partition."), list(PARTITIONS))


class NeverTests(SourceSwitchTestCase):
    choice = "no"

    def test_whoever_joins(self) -> None:
        self.broker.consumer_counts["amqprouter.seat.1"] = 1
        self.attached()
        self.send(b"m")
        self.assertEqual((self.passed_on(), [one.body for one in self.here]), ([], [b"m"]))

    def test_what_is_left_from_before_is_finished_first(self) -> None:
        self.broker.missing_queues.clear()
        self.broker.ready[PARTITIONS[0]] = 1
        self.attached()
        self.assertEqual(self.consumed(".partition."), list(PARTITIONS))
        self.broker.ready.clear()
        self.pass_time(2 * INTERVAL)
        self.send(b"m")
        self.assertEqual((self.passed_on(), [one.body for one in self.here]), ([], [b"m"]))
