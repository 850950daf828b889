"""Parking queues: made on demand, found again, in order, and never believed empty while they are not."""

from __future__ import annotations

from typing import Any

from pamqp import commands
from twisted.logger import capturedLogs, formatEvent

from amqprouter.amqp.ack_ledger import AckLedger
from amqprouter.amqp.declare import MANY_RETURNS
from amqprouter.amqp.properties import Properties, encode_properties
from amqprouter.amqp.publisher import CONFIRM_TIMEOUT, Publisher
from amqprouter.broker.parking import COUNT_EVERY, PASSING_FOR, REOPEN_DELAY, SAFE_AFTER, Parking, parking_queue_name
from amqprouter.broker.parking_queue import STILL_FULL
from amqprouter.broker.parking_refusals import FIRST_PAUSE, LONGEST_PAUSE
from amqprouter.counters import Counters
from amqprouter.pipeline.breaker import DOWN_AFTER
from amqprouter.pipeline.message import Message
from amqprouter.pipeline.settlement import Settlement
from tests.unit.amqp.harness import BrokerTestCase
from tests.unit.broker.parking_queue_contract import ParkingQueueContract

QUEUE = "p.parked.target.exchange:work"
LIMIT = f"queue '{QUEUE}': queue limit in vhost '/' (5) is reached"


class Receipt:
    """For publishes of which nobody need know what becomes."""

    def delivered(self) -> None:
        pass

    def refused(self, reason: str) -> None:
        pass


class ParkingTests(BrokerTestCase, ParkingQueueContract):
    """The publisher's and the consumers' connections are served by two brokers in memory."""

    def setUp(self) -> None:
        super().setUp()
        self.publishing, counters = self.broker, Counters()
        self.publisher = Publisher(self.clock, counters, max_attempts=3, random=lambda: 1.0)
        self.publishing.confirming = False
        self.run_now(self.publisher.attach(self.connected()))
        self.broker = type(self.publishing)(self.clock)
        self.broker.missing_queues = {QUEUE}
        self.finished: list[list[str]] = []
        self.parking = Parking(
            self.clock,
            self.publisher,
            counters,
            prefix="p",
            queue_type="quorum",
            max_parked=7,
            account="gateway",
            random=lambda: 1.0,
            wake=lambda: None,
            finish=self.finish,
        )
        self.entered = self.came_out = self.requeued = 0
        self.inside: list[Any] = []
        self.by_tag: dict[int, Any] = {}
        self.use(self.parking.parking_queue("target", "exchange:work", prefetch=self.PREFETCH))
        self.run_now(self.parking.attach(self.connected()))

    def finish(self, settlement: Settlement) -> None:
        self.finished.append(list(settlement.refusals))
        settlement.ledger.settle(settlement.tag)
        settlement.ledger.acks()

    def park(self, *bodies: bytes) -> None:
        super().park(*bodies)
        self.turn()  # the queue is declared
        self.broker.missing_queues.clear()
        if not self.parking.parking_queues[0].declared:
            self.clock.advance(SAFE_AFTER)
        self.parking_queue.flush()

    def confirm(self) -> None:
        for published in self.publishing.published[self.entered :]:
            self.publishing.ack(published.sequence)
        self.entered = len(self.publishing.published)

    def come_out(self, count: int) -> None:
        for nack in self.broker.sent("Basic.Nack")[self.requeued :]:
            self.assertEqual((nack.multiple, nack.requeue), (False, True))
            self.inside.insert(0, self.by_tag[nack.delivery_tag])
            self.requeued += 1
        self.inside.sort(key=lambda published: published.sequence)  # the broker puts each back in its place
        self.inside += self.publishing.published[self.came_out :]
        self.came_out = len(self.publishing.published)
        for _ in range(min(count, self.PREFETCH - self.parking.ledgers[0].unacked, len(self.inside))):
            published = self.inside.pop(0)
            tag = self.broker.deliver_raw(QUEUE, published.properties, published.body)
            self.by_tag[tag] = published

    def declared(self) -> list[Any]:
        return [command for command in self.broker.sent("Queue.Declare") if not command.passive]

    def test_made_on_demand(self) -> None:
        self.assertEqual((self.declared(), self.broker.sent("Basic.Consume")), ([], []))
        self.park(b"1")
        (declare,) = self.declared()
        self.assertEqual((declare.queue, declare.durable), (QUEUE, True))
        self.assertEqual(
            declare.arguments,
            {
                "x-queue-type": "quorum",
                "x-single-active-consumer": True,
                "x-max-length": 7,
                "x-overflow": "reject-publish",
                "x-delivery-limit": MANY_RETURNS,
            },
        )
        (qos,) = self.broker.sent("Basic.Qos")
        self.assertEqual(qos.prefetch_count, self.PREFETCH)
        (published,) = self.publishing.published
        self.assertEqual((published.exchange, published.routing_key, published.mandatory), ("", QUEUE, True))

    def be_full(self, refusal: str = f"406 PRECONDITION_FAILED - cannot declare {LIMIT}") -> None:
        """The virtual host has no room for another queue."""
        code, text = refusal.split(" ", 1)
        self.full = True
        answer = type(self.broker)._queue_declare

        def declare(channel: int, command: Any) -> None:
            if command.passive or not self.full:
                answer(self.broker, channel, command)
            else:
                self.broker.close_channel(channel, int(code), text)

        self.broker._queue_declare = declare  # type: ignore[method-assign]

    def park_in_vain(self, *bodies: bytes) -> None:
        super().park(*bodies)
        self.turn()

    def test_a_virtual_host_that_is_full(self) -> None:
        """It is said what the matter is, once; the messages are their user's again, and the connection, on which all
        else is consumed, stays."""
        self.be_full()
        away: list[bytes] = []
        self.parking_queue.use(
            lambda message, settlement: None, self.changed, lambda s, reason: away.append(s.message.body)
        )
        with capturedLogs() as logs:
            self.park_in_vain(b"1", b"2")
            self.park_in_vain(b"3")
            self.pass_time(60)
        self.assertEqual((self.publishing.published, self.broker.connection.closed), ([], False))
        self.assertEqual((away, self.parking_queue.backlog, self.parking_queue.confirmed), ([b"1", b"2", b"3"], 0, 0))
        (text,) = map(formatEvent, logs)
        for words in (QUEUE, "queue limit in vhost", "set_vhost_limits"):
            self.assertIn(words, text)
            self.assertIn(words, self.parking.problem())
        self.assertNotIn("as it is", text)
        asked = len(self.declared())
        self.assertLess(asked, 1 + 5 + 60 / LONGEST_PAUSE, "it is asked for ever more seldom")

    def test_a_full_virtual_host_has_room_again(self) -> None:
        self.be_full()
        self.parking_queue.use(lambda message, settlement: None, self.changed, lambda s, reason: None)
        self.park_in_vain(b"1")
        self.full = False
        with capturedLogs() as logs:
            self.clock.advance(FIRST_PAUSE)
            self.broker.missing_queues.clear()
            self.clock.advance(SAFE_AFTER)
        self.assertIn("all parking queues again", formatEvent(logs[0]))
        self.assertEqual((self.parking_queue.refusal, self.parking.problem(), len(logs)), ("", "", 1))
        super().park(b"2")
        self.confirm()
        self.assertEqual((self.settled, self.parking_queue.confirmed), ([b"2"], 1))

    def test_a_queue_that_is_deleted_and_cannot_be_made_again(self) -> None:
        away: list[bytes] = []
        self.parking_queue.use(
            lambda message, settlement: None, self.changed, lambda s, reason: away.append(s.message.body)
        )
        self.park(b"1", b"2")
        self.be_full()
        self.broker.missing_queues = {QUEUE}
        for published in self.publishing.published[:2]:
            self.publishing.send_back(published)
            self.publishing.ack(published.sequence)
            self.turn()
        self.assertEqual((away, self.parking_queue.backlog), ([b"1", b"2"], 0))

    def test_what_is_likely_to_pass_is_waited_out(self) -> None:
        """A node has just come back, say: nothing is turned away for a few seconds."""
        away: list[bytes] = []
        self.parking_queue.use(
            lambda message, settlement: None, self.changed, lambda s, reason: away.append(s.message.body)
        )
        self.be_full("404 NOT_FOUND - home node 'n' of durable queue is down or inaccessible")
        with capturedLogs() as logs:
            self.park_in_vain(b"1")
            self.pass_time(PASSING_FOR - 1)
            self.assertEqual((away, self.parking_queue.refusal, len(logs)), ([], "", 0))
            self.full = False
            self.pass_time(2)
            self.broker.missing_queues.clear()
            self.clock.advance(SAFE_AFTER)
            self.parking_queue.flush()
            self.confirm()
        self.assertEqual((away, self.settled, len(logs)), ([], [b"1"], 0))

    def test_what_was_likely_to_pass_and_does_not(self) -> None:
        away: list[bytes] = []
        self.parking_queue.use(
            lambda message, settlement: None, self.changed, lambda s, reason: away.append(s.message.body)
        )
        self.be_full("404 NOT_FOUND - home node 'n' of durable queue is down or inaccessible")
        self.park_in_vain(b"1")
        self.pass_time(PASSING_FOR + 1)
        self.assertEqual(away, [b"1"])
        self.assertIn("is down or inaccessible", self.parking.problem())

    def test_gone_between_the_look_and_the_consumer(self) -> None:
        """It closes the channel of all parking queues, and is nobody's refusal."""
        self.broker.missing_queues.clear()
        consume, gone = type(self.broker)._basic_consume, True

        def vanishing(channel: int, command: Any) -> None:
            nonlocal gone
            if gone:
                gone = False
                self.broker.close_channel(channel, 404, f"NOT_FOUND - no queue '{QUEUE}' in vhost '/'")
            else:
                consume(self.broker, channel, command)

        self.broker._basic_consume = vanishing  # type: ignore[method-assign]
        self.run_now(self.parking.attach(self.connected()))
        self.pass_time(2 * REOPEN_DELAY)
        self.assertEqual((self.parking.problem(), self.parking_queue.refusal), ("", ""))
        self.assertEqual([queue for _, queue in self.broker.consumers.values()], [QUEUE])

    def test_no_right_to_consume(self) -> None:
        """It ends the channel of all parking queues, once, and is then tried on another."""
        self.broker.missing_queues.clear()
        consume, refused = type(self.broker)._basic_consume, True

        def refusing(channel: int, command: Any) -> None:
            if refused:
                self.broker.close_channel(channel, 403, f"ACCESS_REFUSED - access to queue '{QUEUE}' refused for user")
            else:
                consume(self.broker, channel, command)

        self.broker._basic_consume = refusing  # type: ignore[method-assign]
        other = self.parking.parking_queue("target", "store:readings", prefetch=1)
        self.run_now(self.parking.attach(self.connected()))
        self.pass_time(30)
        self.assertIn("ACCESS_REFUSED", self.parking.problem())
        self.assertNotIn("store:readings", self.parking.problem())
        self.assertEqual((self.broker.connection.closed, other.refusal), (False, ""))
        channels = [channel for channel, command in self.broker.received if command.name == "Basic.Qos"]
        refused = False
        self.pass_time(LONGEST_PAUSE)
        self.assertEqual((self.parking.problem(), self.parking.parking_queues[0].declared), ("", True))
        self.assertGreater(len(channels), 3)

    def test_of_what_a_full_queue_does_not_take_the_oldest_may_wait(self) -> None:
        away: list[bytes] = []
        self.parking_queue.use(
            lambda message, settlement: None, self.changed, lambda s, reason: away.append(s.message.body), lambda: 2
        )
        ledger = AckLedger()
        for tag in range(5):
            message = Message("dev1", "up", str(tag).encode(), Properties(), routing_key=b"dev1.up")
            self.parking_queue.park(
                message, Settlement(message, tag, ledger, lambda s: self.settled.append(s.message.body))
            )
        self.park()
        for _ in range(DOWN_AFTER):
            for published in self.publishing.published[self.entered :]:
                self.publishing.ack(published.sequence, nack=True)
            self.entered = len(self.publishing.published)
            self.assertEqual(away, [])
            self.clock.advance(1)
            self.parking_queue.flush()
        self.assertEqual((away, self.parking_queue.backlog, self.parking_queue.confirmed), ([b"2", b"3", b"4"], 2, 0))
        for _ in range(3):
            self.confirm()
            self.clock.advance(5)
            self.parking_queue.flush()
        self.assertEqual(self.settled, [b"0", b"1"])

    def test_an_alarm_is_waited_out(self) -> None:
        """A broker that takes no publishes from anybody refuses nobody."""
        away: list[bytes] = []
        self.parking_queue.use(
            lambda message, settlement: None, self.changed, lambda s, reason: away.append(s.message.body), lambda: 0
        )
        self.park(b"0")
        self.confirm()
        self.publishing.send(0, commands.Connection.Blocked("low on disk"))
        super().park(b"1", b"2")
        for _ in range(3):
            self.pass_time(CONFIRM_TIMEOUT)
            self.parking_queue.flush()
        self.assertEqual(
            (away, self.settled, self.parking_queue.backlog, self.parking_queue.confirmed), ([], [b"0"], 3, 1)
        )
        self.publishing.send(0, commands.Connection.Unblocked())
        self.confirm()
        self.assertEqual((away, self.settled), ([], [b"0", b"1", b"2"]))

    def test_a_queue_that_confirms_nothing(self) -> None:
        """After the first that is late, there is one message at a time that finds out whether it does again."""
        away: list[bytes] = []
        self.parking_queue.use(
            lambda message, settlement: None, self.changed, lambda s, reason: away.append(s.message.body), lambda: 0
        )
        self.park(b"0")
        for _ in range(2 * int(CONFIRM_TIMEOUT)):
            if away:
                break
            self.clock.advance(1)
            self.publisher.publish(b"x", b"", b"\0\0", b"", Receipt())  # which is confirmed
            self.publisher.flush()
            self.publishing.ack(self.publishing.published[-1].sequence)
        self.assertEqual(away, [b"0"])
        self.assertIn("not confirmed", self.parking.problem())
        super().park(b"1", b"2", b"3")
        self.assertEqual(away, [b"0", b"2", b"3"])
        self.publishing.ack(next(one.sequence for one in self.publishing.published if one.body == b"1"))
        super().park(b"4", b"5")
        self.assertEqual((away, self.parking_queue.backlog), ([b"0", b"2", b"3"], 3))

    def test_what_may_not_wait_is_tried_once(self) -> None:
        away: list[bytes] = []
        self.parking_queue.use(
            lambda message, settlement: None, self.changed, lambda s, reason: away.append(s.message.body), lambda: 0
        )
        self.park(b"0", b"1", b"2")
        self.publishing.ack(1)
        with capturedLogs() as logs:
            self.publishing.ack(3, multiple=True, nack=True)
        self.assertEqual((self.settled, away, self.parking_queue.backlog), ([b"0"], [b"1", b"2"], 1))
        self.assertEqual(len(logs), 1)
        self.assertIn("nacked", self.parking.problem())
        self.clock.advance(STILL_FULL)
        self.assertEqual(self.parking.problem(), "")
        self.entered = 3
        super().park(b"3")
        self.confirm()
        self.assertEqual((self.settled, self.parking_queue.confirmed), ([b"0", b"3"], 2))

    def test_a_queue_that_is_gone_turns_nothing_away(self) -> None:
        """Nor for what may not wait for a full one: it is made again, however long that takes."""
        away: list[bytes] = []
        self.parking_queue.use(
            lambda message, settlement: None, self.changed, lambda s, reason: away.append(s.message.body), lambda: 0
        )
        self.park(b"1", b"2")
        returned = 0
        for _ in range(8):
            for published in self.publishing.published[returned:]:
                self.publishing.send_back(published)
                self.publishing.ack(published.sequence)
                returned += 1
            self.clock.advance(1.0)
            self.parking_queue.flush()
        self.assertGreater(returned, 4)
        self.assertEqual((away, self.parking_queue.backlog), ([], 2))
        self.entered = returned
        for _ in range(8):
            self.confirm()
            self.clock.advance(1.0)
            self.parking_queue.flush()
        self.assertEqual(self.settled, [b"1", b"2"])

    def test_what_goes_into_a_young_queue_waits(self) -> None:
        """A node that is killed within its first second forgets the queue, and all that was confirmed."""
        super().park(b"1", b"2")
        self.turn()
        self.broker.missing_queues.clear()
        self.parking_queue.flush()
        self.clock.advance(SAFE_AFTER - 0.1)
        super().park(b"3")
        self.turn()
        self.parking_queue.flush()
        self.assertEqual((len(self.declared()), self.parking_queue.backlog), (1, 3))
        self.assertEqual((self.publishing.published, self.broker.sent("Basic.Consume")), ([], []))
        self.clock.advance(0.1)
        self.parking_queue.flush()
        self.confirm()
        self.assertEqual((self.settled, self.parking_queue.backlog), ([b"1", b"2", b"3"], 3))
        self.assertEqual(len(self.broker.sent("Basic.Consume")), 1)

    def test_a_young_queue_over_a_connection_lost(self) -> None:
        """It is no older for it."""
        super().park(b"1")
        self.turn()
        self.broker.missing_queues.clear()
        self.clock.advance(SAFE_AFTER / 2)
        self.broker.hang_up(ConnectionError("reset"))
        self.turn()
        self.run_now(self.parking.attach(self.connected()))
        self.parking_queue.flush()
        self.assertEqual((self.publishing.published, len(self.declared())), ([], 1))
        self.clock.advance(SAFE_AFTER / 2)
        self.parking_queue.flush()
        self.assertEqual(len(self.publishing.published), 1)

    def test_stopped_while_the_queue_is_young(self) -> None:
        """What waits for it has not set out: nobody waits for it, and it comes again."""
        super().park(b"1")
        self.turn()
        self.assertEqual(
            (self.parking_queue.withdraw(), self.parking.parking_queues[0].entering, self.parking_queue.backlog),
            (1, 0, 0),
        )

    def test_found_again(self) -> None:
        self.broker.missing_queues.clear()
        self.broker.ready[QUEUE] = 5
        self.run_now(self.parking.attach(self.connected()))
        self.assertEqual((self.parking_queue.backlog, self.changes, self.declared()), (5, 1, []))
        self.assertEqual(len(self.broker.sent("Basic.Consume")), 1)

    def test_a_full_queue_takes_its_time(self) -> None:
        self.park(b"1", b"2", b"3")
        self.publishing.ack(1)
        self.publishing.ack(3, multiple=True, nack=True)
        self.assertEqual((self.settled, self.parking_queue.backlog), ([b"1"], 3))
        for _ in range(3):
            self.clock.advance(1)
            self.parking_queue.flush()
            self.publishing.ack(self.publishing.published[-1].sequence)
        self.parking_queue.flush()
        self.assertEqual(self.settled, [b"1", b"2", b"3"])

    def test_what_was_not_parked_is_refused(self) -> None:
        self.park(b"1")
        self.broker.deliver_raw(QUEUE, encode_properties(), b"?")
        ((reason,),) = self.finished
        self.assertIn("not parked", reason)
        self.assertEqual(self.out, [])

    def test_what_another_account_put_there_is_refused(self) -> None:
        """Though it looks like what the daemon parks: it might say that any device was proven."""
        self.park(b"1")
        (ours,) = self.publishing.published
        self.assertEqual(Properties(ours.properties).text("user_id"), "gateway")
        headers = Properties(ours.properties).headers
        for user_id in ("", "evil"):
            self.broker.deliver_raw(QUEUE, encode_properties(headers=headers, user_id=user_id), b"1")
        self.assertEqual(self.finished, [["not parked: the broker does not vouch for our account as its sender"]] * 2)
        self.assertEqual(self.out, [])

    def test_seen_empty_twice(self) -> None:
        """Another gateway empties it: that counts only once nothing can be under way any more."""
        self.park(b"1")
        self.confirm()
        self.clock.advance(COUNT_EVERY)
        self.assertEqual(self.parking_queue.backlog, 1)
        self.clock.advance(COUNT_EVERY)
        self.assertEqual(self.parking_queue.backlog, 0)
        self.broker.ready[QUEUE] = 4
        self.clock.advance(COUNT_EVERY)
        self.assertEqual(self.parking_queue.backlog, 4)

    def test_the_channel_is_closed(self) -> None:
        """What was out comes out again, and its old settlement is nobody's."""
        self.park(b"1")
        self.confirm()
        self.come_out(1)
        (old,) = self.out
        self.broker.ready[QUEUE] = 1
        self.broker.close_channel(self.broker.consumers[f"amqprouter:{QUEUE}"][0], 406, "PRECONDITION_FAILED - timeout")
        self.assertEqual((old.ledger.closed, self.parking_queue.backlog), (True, 1))
        self.clock.advance(REOPEN_DELAY)
        self.assertEqual(self.parking_queue.backlog, 1)
        old.delivered()
        self.assertEqual(self.parking_queue.backlog, 1)
        self.assertEqual(len(self.broker.sent("Basic.Consume")), 2)

    def test_a_consumer_timeout(self) -> None:
        """From RabbitMQ 4.3 on. What is in there still counts, and what is out is not taken for another message."""
        self.broker.version = "4.3.6"
        self.run_now(self.parking.attach(self.connected()))
        self.park(b"1", b"2")
        self.confirm()
        self.come_out(2)
        self.assertEqual((self.bodies(), self.parking_queue.backlog), ([b"1", b"2"], 2))
        self.broker.time_out(QUEUE)
        self.assertEqual(self.parking_queue.backlog, 2)
        self.broker.ready[QUEUE] = 2
        self.clock.advance(REOPEN_DELAY)
        for published in self.publishing.published:
            self.broker.deliver_raw(QUEUE, published.properties, published.body, True)
        self.assertEqual((self.bodies(), self.parking_queue.backlog), ([b"1", b"2"], 2))
        for settlement in self.out:
            settlement.delivered()
        self.assertEqual((self.parking.ledgers[0].floor, self.parking_queue.backlog), (4, 0))

    def bodies(self) -> list[bytes]:
        return [settlement.message.body for settlement in self.out]

    def test_names(self) -> None:
        self.assertEqual(parking_queue_name("p", "device", "meter-17"), "p.parked.device.meter-17")
        long = parking_queue_name("p" * 100, "device", "é" * 127)
        self.assertLessEqual(len(long.encode()), 255)
        self.assertNotEqual(long, parking_queue_name("p" * 100, "device", "é" * 126 + "e"))


del ParkingQueueContract
