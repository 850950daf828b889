"""Publishing: every message is answered for exactly once, and only by the broker's word or ours that it cannot be."""

from __future__ import annotations

from pamqp import commands

from amqprouter.amqp.connection import BRIEF_PAUSE, Connection
from amqprouter.amqp.properties import encode_properties
from amqprouter.amqp.publisher import (
    CONFIRM_TIMEOUT,
    HOLD_BACK,
    MANY,
    RENEW_EVERY,
    REOPEN_DELAY,
    RETRY_FIRST,
    RETRY_MAX,
    Publisher,
)
from amqprouter.counters import Counters
from amqprouter.errors import BrokerUnavailable
from tests.unit.amqp.harness import BrokerTestCase

PLAIN = b"\x00\x00"


class Answer:
    """A receipt that keeps what it is told; being told twice is an error."""

    def __init__(self) -> None:
        self.said: str | None = None

    def delivered(self) -> None:
        assert self.said is None, f"answered twice: {self.said}"
        self.said = "delivered"

    def refused(self, reason: str) -> None:
        assert self.said is None, f"answered twice: {self.said}"
        self.said = f"refused: {reason}"


class PublisherTestCase(BrokerTestCase):
    max_attempts = 3

    def setUp(self) -> None:
        super().setUp()
        self.counters = Counters()
        self.publisher = Publisher(self.clock, self.counters, max_attempts=self.max_attempts, random=lambda: 1.0)

    def attached(self) -> Connection:
        connection = self.connected()
        self.run_now(self.publisher.attach(connection))
        return connection

    def publish(self, *bodies: bytes, exchange: bytes = b"ex", must_arrive: bool = False) -> list[Answer]:
        answers = [Answer() for _ in bodies]
        for body, answer in zip(bodies, answers, strict=True):
            self.publisher.publish(exchange, b"key", PLAIN, body, answer, must_arrive=must_arrive)
        self.publisher.flush()
        return answers

    def bodies(self) -> list[bytes]:
        """What the broker got since the last call."""
        bodies = [published.body for published in self.broker.published]
        self.broker.published.clear()
        return bodies


class ConfirmTests(PublisherTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.broker.confirming = False
        self.connection = self.attached()

    def test_singly_and_out_of_order(self) -> None:
        one, two = self.publish(b"1", b"2")
        self.assertEqual(self.publisher.outstanding, 2)
        self.broker.ack(2)
        self.assertEqual((one.said, two.said), (None, "delivered"))
        self.broker.ack(1)
        self.assertEqual(one.said, "delivered")
        self.assertEqual((self.publisher.outstanding, self.counters.published), (0, 2))

    def test_multiple(self) -> None:
        answers = self.publish(b"1", b"2", b"3", b"4")
        self.broker.ack(2)
        self.broker.ack(3, multiple=True)
        self.assertEqual([answer.said for answer in answers], ["delivered"] * 3 + [None])

    def test_multiple_of_nought_is_all(self) -> None:
        """Section 1.8.3.13: a delivery tag of zero with multiple stands for all outstanding."""
        answers = self.publish(b"1", b"2")
        self.broker.ack(0, multiple=True)
        self.assertEqual([answer.said for answer in answers], ["delivered"] * 2)

    def test_unknown_and_repeated_confirms(self) -> None:
        (one,) = self.publish(b"1")
        for sequence in (0, 5, 1, 1):
            self.broker.ack(sequence)
        self.assertEqual((one.said, self.counters.published), ("delivered", 1))

    def test_everything_is_mandatory_and_as_given(self) -> None:
        self.publisher.publish(b"ex", b"key", encode_properties(message_id="7"), b"body", Answer())
        self.assertEqual(self.broker.published, [])
        self.publisher.flush()
        (published,) = self.broker.published
        self.assertEqual((published.exchange, published.routing_key, published.body), ("ex", "key", b"body"))
        self.assertEqual((published.properties, published.mandatory), (encode_properties(message_id="7"), True))

    def test_frames_are_no_larger_than_agreed(self) -> None:
        """The broker in memory raises at one that is; the body arrives whole all the same."""
        self.broker.frame_max = 4096
        self.attached()
        body = bytes(range(256)) * 64
        self.publish(body)
        self.assertEqual([published.body for published in self.broker.published], [body])
        big = Answer()
        self.publisher.publish(b"ex", b"key", encode_properties(headers={"a": "b" * 4096}), b"", big)
        assert big.said is not None
        self.assertIn("do not fit in a frame of 4096", big.said)

    def test_send(self) -> None:
        sending = self.start(self.publisher.send("ex", "key", PLAIN, b"body"))
        self.assertNoResult(sending)
        self.broker.ack(1)
        self.successResultOf(sending)
        too_long = self.failed(self.publisher.send("e" * 256, "key", PLAIN, b""), BrokerUnavailable)
        self.assertIn("unencodable", str(too_long))


class RetryTests(PublisherTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.broker.confirming = False
        self.connection = self.attached()

    def test_a_nack_is_tried_again_later_and_later(self) -> None:
        """...and never held against the message: the target is full."""
        (one,) = self.publish(b"1")
        for delay in (RETRY_FIRST, 2 * RETRY_FIRST, 4 * RETRY_FIRST, 8 * RETRY_FIRST):
            sequence = self.broker.published[-1].sequence
            self.bodies()
            self.broker.ack(sequence, nack=True)
            self.assertEqual(self.publisher.outstanding, 1)
            self.clock.advance(delay - 0.01)
            self.assertEqual(self.broker.published, [])
            self.clock.advance(0.02)
            self.assertEqual([published.body for published in self.broker.published], [b"1"])
        self.broker.ack(5)
        self.assertEqual(one.said, "delivered")
        self.assertEqual((self.publisher.outstanding, self.counters.publish_retries), (0, 4))

    def test_nacks_do_not_count_towards_the_attempts_of_a_returned_message(self) -> None:
        (one,) = self.publish(b"1")
        for _ in range(2 * self.max_attempts):
            self.broker.ack(self.broker.published[-1].sequence, nack=True)
            self.clock.advance(RETRY_MAX)
        for tries in range(self.max_attempts):
            self.assertIsNone(one.said, tries)
            self.broker.send_back(self.broker.published[-1])
            self.broker.ack(self.broker.published[-1].sequence)
            self.clock.advance(RETRY_MAX)
        self.assertEqual(one.said, "refused: unroutable: NO_ROUTE")

    def test_must_arrive_never_gives_up(self) -> None:
        (one,) = self.publish(b"1", must_arrive=True)
        for _ in range(20):
            self.broker.ack(self.broker.published[-1].sequence, nack=True)
            self.bodies()
            self.clock.advance(RETRY_MAX)
            self.assertEqual(len(self.broker.published), 1)
        self.broker.ack(self.broker.published[-1].sequence)
        self.assertEqual(one.said, "delivered")

    def channels(self) -> int:
        return len(self.broker.sent("Channel.Open"))

    def test_a_channel_that_goes_on_refusing_is_given_up(self) -> None:
        """...of RabbitMQ 3.10, once nothing is under way on it. The others do not wait for long."""
        one, two = self.publish(b"1", b"2")
        self.broker.ack(1, nack=True)  # it is new, and the queue is full
        self.clock.advance(RENEW_EVERY)
        before = self.channels()
        self.broker.ack(self.broker.published[-1].sequence, nack=True)
        (three,) = self.publish(b"3")
        self.bodies()
        self.assertEqual(self.channels(), before)  # the second is under way
        self.broker.ack(2)
        self.assertEqual((self.channels(), two.said), (before + 1, "delivered"))
        self.assertEqual(self.bodies(), [b"3"])
        self.broker.ack(1)
        self.assertEqual(three.said, "delivered")
        self.clock.advance(RETRY_MAX)
        self.assertEqual(self.bodies(), [b"1"])
        self.broker.ack(2)
        self.assertEqual(one.said, "delivered")

    def test_what_is_never_confirmed_does_not_hold_up_the_others(self) -> None:
        self.publish(b"1", b"2")
        self.clock.advance(RENEW_EVERY)
        self.broker.ack(2, nack=True)
        before = self.channels()
        self.publish(b"3")
        self.bodies()
        self.clock.advance(HOLD_BACK)
        self.assertEqual(self.bodies(), [b"3", b"2"])
        self.assertEqual(self.channels(), before)

    def test_newer_brokers_need_no_other_channel(self) -> None:
        self.broker.version = "4.0.5"
        self.attached()
        self.publish(b"1")
        before = self.channels()
        for _ in range(5):
            self.clock.advance(RENEW_EVERY)
            self.broker.ack(self.broker.published[-1].sequence, nack=True)
        self.assertEqual(self.channels(), before)

    def test_a_nack_of_multiple(self) -> None:
        answers = self.publish(b"1", b"2", b"3")
        self.broker.ack(2, multiple=True, nack=True)
        self.broker.ack(3)
        self.bodies()
        self.clock.advance(RETRY_FIRST)
        self.assertEqual(self.bodies(), [b"1", b"2"])
        self.assertEqual([answer.said for answer in answers], [None, None, "delivered"])

    def test_returned(self) -> None:
        """The ack that follows a return does not count; the second try does."""
        (one,) = self.publish(b"1")
        (published,) = self.broker.published
        self.broker.send_back(published)
        self.broker.ack(1)
        self.assertIsNone(one.said)
        self.clock.advance(RETRY_FIRST)
        self.broker.ack(2)
        self.assertEqual(one.said, "delivered")

    def test_returned_for_good(self) -> None:
        (one,) = self.publish(b"1")
        for sequence in range(1, self.max_attempts + 1):
            self.broker.send_back(self.broker.published[-1])
            self.broker.ack(sequence)
            self.clock.advance(RETRY_MAX)
        self.assertEqual(one.said, "refused: unroutable: NO_ROUTE")

    def test_returned_among_others(self) -> None:
        """Equal in every byte but one: the right one is found."""
        answers = self.publish(b"1", b"2", b"3")
        self.broker.send_back(self.broker.published[1])
        self.broker.ack(3, multiple=True)
        self.assertEqual([answer.said for answer in answers], ["delivered", None, "delivered"])

    def test_equal_messages_returned(self) -> None:
        """Each return stands for one of them, whichever; each is answered for once."""
        answers = self.publish(b"same", b"same", b"same")
        for published in self.broker.published[:2]:
            self.broker.send_back(published)
        self.broker.ack(3, multiple=True)
        self.assertEqual([answer.said for answer in answers].count("delivered"), 1)
        self.bodies()
        self.clock.advance(RETRY_FIRST)
        self.assertEqual(self.bodies(), [b"same", b"same"])
        self.broker.ack(5, multiple=True)
        self.assertEqual([answer.said for answer in answers], ["delivered"] * 3)

    def test_the_unencodable_refuses_only_itself(self) -> None:
        (one,) = self.publish(b"1")
        (two,) = self.publish(b"2", exchange=b"e" * 256)
        big = Answer()
        self.publisher.publish(b"ex", b"", encode_properties(headers={"a": "b" * 200_000}), b"", big)
        (three,) = self.publish(b"3")
        self.broker.ack(2, multiple=True)
        self.assertEqual((one.said, three.said), ("delivered", "delivered"))
        for answer in (two, big):
            assert answer.said is not None
            self.assertTrue(answer.said.startswith("refused: unencodable: "), answer.said)


class Lane:
    """Notes what it is told, by receipt."""

    def __init__(self) -> None:
        self.told: list[tuple[object, str]] = []
        self.together: list[int] = []
        """How many were delivered at once, each time."""

    def delivered_all(self, receipts: list[object]) -> None:
        self.together.append(len(receipts))
        self.told += [(receipt, "delivered") for receipt in receipts]

    def refused(self, receipt: object, reason: str) -> None:
        self.told.append((receipt, f"refused: {reason}"))

    def troubled(self, receipt: object, reason: str) -> None:
        self.told.append((receipt, f"troubled: {reason}"))


class LaneTests(PublisherTestCase):
    """A lane is told in place of the receipts, and gets back what its target cannot take now."""

    def setUp(self) -> None:
        super().setUp()
        self.broker.confirming = False
        self.connection = self.attached()
        self.lane = Lane()

    def send(self, *bodies: bytes, exchange: bytes = b"ex", must_arrive: bool = False) -> list[Answer]:
        receipts = [Answer() for _ in bodies]
        for body, receipt in zip(bodies, receipts, strict=True):
            self.publisher.publish(exchange, b"key", PLAIN, body, receipt, must_arrive=must_arrive, lane=self.lane)
        self.publisher.flush()
        return receipts

    def told(self, receipt: Answer) -> str:
        """What the lane was told of a receipt; the receipt itself was told nothing, and the publisher has let go."""
        self.assertIsNone(receipt.said)
        (told,) = [said for about, said in self.lane.told if about is receipt]
        return told

    def test_confirmed_and_nacked(self) -> None:
        one, two, three = self.send(b"1", b"2", b"3")
        self.broker.ack(1)
        self.broker.ack(2, nack=True)
        self.assertEqual((self.told(one), self.publisher.outstanding), ("delivered", 1))
        self.assertIn("troubled: nacked", self.told(two))
        self.broker.ack(3)
        self.assertEqual(self.told(three), "delivered")
        self.clock.advance(RETRY_MAX)
        self.assertEqual((self.publisher.outstanding, len(self.broker.published)), (0, 3))

    def test_what_one_confirm_answers_for_is_told_at_once(self) -> None:
        ours, others = self.lane, Lane()
        receipts = [*self.send(b"1", b"2")]
        self.lane = others
        receipts += self.send(b"3")
        self.lane = ours
        receipts += self.send(b"4", b"5", b"6")
        self.broker.send_back(self.broker.published[4])
        self.broker.ack(6, multiple=True)
        self.assertEqual((ours.together, others.together), ([2, 1, 1], [1]))
        self.assertEqual([receipt for receipt, _ in ours.told], [receipts[place] for place in (0, 1, 3, 5)])
        self.assertEqual((self.counters.published, self.publisher.outstanding), (5, 1))

    def test_a_message_at_fault(self) -> None:
        """Unencodable at once; unroutable after some tries, unless it must arrive: then it is the lane's to mend."""
        (long,) = self.send(b"", exchange=b"e" * 256)
        self.assertIn("refused: unencodable", self.told(long))
        (one,) = self.send(b"1")
        for _ in range(self.max_attempts):
            self.broker.send_back(self.broker.published[-1])
            self.broker.ack(self.broker.published[-1].sequence)
            self.clock.advance(RETRY_MAX)
        self.assertEqual(self.told(one), "refused: unroutable: NO_ROUTE")
        (two,) = self.send(b"2", must_arrive=True)
        self.broker.send_back(self.broker.published[-1])
        self.broker.ack(self.broker.published[-1].sequence)
        self.assertEqual(self.told(two), "troubled: unroutable: NO_ROUTE")

    def test_a_missing_exchange(self) -> None:
        self.broker.missing_exchanges = {"missing"}
        (lost,) = self.send(b"lost", exchange=b"missing")
        self.assertIn("troubled: 404 NOT_FOUND - no exchange 'missing'", self.told(lost))
        self.assertEqual(self.publisher.outstanding, 0)

    def test_a_confirm_that_never_comes(self) -> None:
        (one,) = self.send(b"1")
        for _ in range(int(2 * CONFIRM_TIMEOUT)):
            self.publish(b"other")
            self.broker.ack(self.broker.published[-1].sequence)
            self.clock.advance(1)
            self.broker.send_bytes(b"\x08\x00\x00\x00\x00\x00\x00\xce")
        self.assertIn("troubled: not confirmed within", self.told(one))

    def test_a_lost_connection_is_the_publishers_own_to_mend(self) -> None:
        (one,) = self.send(b"1")
        self.broker.hang_up(ConnectionError("reset"))
        self.turn()
        self.assertEqual(self.lane.told, [])
        self.broker.confirming = True
        self.attached()
        self.assertEqual(self.told(one), "delivered")


class LossTests(PublisherTestCase):
    def test_before_any_connection(self) -> None:
        answers = self.publish(b"1", b"2")
        self.assertEqual(self.publisher.outstanding, 2)
        self.attached()
        self.assertEqual(self.bodies(), [b"1", b"2"])
        self.assertEqual([answer.said for answer in answers], ["delivered"] * 2)

    def test_what_was_unconfirmed_comes_first_and_in_order(self) -> None:
        self.broker.confirming = False
        self.attached()
        answers = self.publish(b"1", b"2", b"3", b"4")
        self.broker.ack(2)
        self.broker.hang_up(ConnectionError("reset"))
        self.turn()
        answers += self.publish(b"5")
        self.bodies()
        self.broker.confirming = True
        self.attached()
        self.assertEqual(self.bodies(), [b"1", b"3", b"4", b"5"])
        self.assertEqual([answer.said for answer in answers], ["delivered"] * 5)

    def test_written_but_not_flushed(self) -> None:
        self.attached()
        answer = Answer()
        self.publisher.publish(b"ex", b"key", PLAIN, b"1", answer)
        self.broker.hang_up(ConnectionError("reset"))
        self.turn()
        self.publisher.flush()
        self.attached()
        self.assertEqual((self.bodies(), answer.said), ([b"1"], "delivered"))

    def test_a_return_of_the_old_connection_counts_no_more(self) -> None:
        self.broker.confirming = False
        self.attached()
        (one,) = self.publish(b"1")
        self.broker.send_back(self.broker.published[0])
        self.broker.hang_up(ConnectionError("reset"))
        self.turn()
        self.broker.confirming = True
        self.attached()
        self.assertEqual(one.said, "delivered")

    def test_a_confirm_that_never_comes(self) -> None:
        """When no other comes either, the path is dead."""
        self.broker.confirming = False
        connection = self.attached()
        self.publish(b"1")
        self.broker.heartbeat = 0
        self.pass_alive(CONFIRM_TIMEOUT - 1)
        self.assertFalse(connection.closed)
        self.pass_alive(CONFIRM_TIMEOUT / 2)
        self.assertIn("no publisher confirm within", str(connection.end))
        self.broker.confirming = True
        self.attached()
        self.assertEqual(self.publisher.outstanding, 0)

    def test_one_confirm_that_never_comes(self) -> None:
        """While others come, only that message is sent again."""
        self.broker.confirming = False
        connection = self.attached()
        (one,) = self.publish(b"1")
        for _ in range(30):
            self.publish(b"other")
            self.broker.ack(self.broker.published[-1].sequence)
            self.pass_alive(1)
        self.assertFalse(connection.closed)
        self.assertGreater(self.bodies().count(b"1"), 1)
        self.broker.confirming = True
        self.publish(b"other")
        self.pass_alive(RETRY_MAX + CONFIRM_TIMEOUT)
        self.assertEqual(one.said, "delivered")

    def test_a_blocked_broker_may_take_its_time(self) -> None:
        """While it is, and for as long again once it takes publishes: the confirms are on their way then."""
        self.broker.confirming = False
        connection = self.attached()
        (one,) = self.publish(b"1")
        self.broker.send(0, commands.Connection.Blocked("low on memory"))
        self.pass_alive(10 * CONFIRM_TIMEOUT)
        self.broker.send(0, commands.Connection.Unblocked())
        self.pass_alive(CONFIRM_TIMEOUT / 2)
        self.assertFalse(connection.closed)
        self.broker.ack(1)
        self.assertEqual((one.said, len(self.bodies())), ("delivered", 1))
        self.broker.send(0, commands.Connection.Blocked("low on memory"))
        self.publish(b"2")
        self.pass_alive(10 * CONFIRM_TIMEOUT)
        self.broker.send(0, commands.Connection.Unblocked())
        self.pass_alive(CONFIRM_TIMEOUT * 1.5)
        self.assertTrue(connection.closed)

    def pass_alive(self, seconds: float) -> None:
        """Time goes by on a connection with heartbeats."""
        while seconds > 0:
            self.clock.advance(min(1.0, seconds))
            self.broker.send_bytes(b"\x08\x00\x00\x00\x00\x00\x00\xce")
            seconds -= 1.0

    def test_rest(self) -> None:
        """While many confirms are still to come, they are read together; the last ones are read as they come."""
        self.broker.confirming = False
        connection = self.attached()
        answers = self.publish(*[b"1"] * (MANY + 1))
        for sequence in range(1, MANY + 2):
            self.broker.ack(sequence)
        self.assertEqual([answer.said for answer in answers], ["delivered", *[None] * MANY])
        self.clock.advance(BRIEF_PAUSE)
        self.assertEqual([answer.said for answer in answers], ["delivered"] * (MANY + 1))
        self.clock.advance(BRIEF_PAUSE)
        self.publish(*[b"1"] * MANY)
        self.broker.ack(MANY + 2)
        self.assertIsNone(connection.transport.unread)

    def test_stop(self) -> None:
        """Nothing is left in the clock."""
        connection = self.attached()
        self.publish(b"1")
        shutting = self.start(connection.shut())
        self.turn()
        self.successResultOf(shutting)
        self.publisher.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_broker_without_confirms(self) -> None:
        self.broker.refusals["Confirm.Select"] = 540, "NOT_IMPLEMENTED"
        self.failed(self.publisher.attach(self.connected()))


class ChannelErrorTests(PublisherTestCase):
    def test_a_missing_exchange(self) -> None:
        """Its messages are tried again for as long as it takes; the others are sent again at once and arrive."""
        self.broker.missing_exchanges = {"missing"}
        self.broker.confirming = False
        connection = self.attached()
        (other,) = self.publish(b"other")
        (lost,) = self.publish(b"lost", exchange=b"missing")
        self.broker.confirming = True
        self.clock.advance(REOPEN_DELAY)
        self.assertEqual((other.said, lost.said), ("delivered", None))
        self.pass_time(60, 0.1)
        self.assertIsNone(lost.said)
        self.assertGreater(self.bodies().count(b"lost"), self.max_attempts)
        self.assertFalse(connection.closed)
        self.assertEqual(self.publish(b"more")[0].said, "delivered")

    def test_an_exchange_that_comes_back(self) -> None:
        self.broker.missing_exchanges = {"missing"}
        self.attached()
        (one,) = self.publish(b"1", exchange=b"missing")
        self.broker.missing_exchanges.clear()
        self.pass_time(2, 0.1)
        self.assertEqual(one.said, "delivered")

    def test_an_error_that_names_nobody(self) -> None:
        """Ever fewer messages at a time then, until the one that closes the channel is alone on it."""
        for position in (0, 1, 150, 255):
            self.setUp()
            broker = self.broker
            broker.confirming = False
            self.attached()
            bodies = [b"good"] * 256
            bodies[position] = b"bad"
            answers = self.publish(*bodies)
            closings = turns = 0
            while self.publisher.outstanding:
                turns += 1
                for published in broker.published[:]:
                    broker.published.remove(published)
                    if published.body == b"bad":
                        broker.close_channel(published.channel, 406, "PRECONDITION_FAILED - something")
                        broker.published.clear()
                        closings += 1
                        break
                    broker.ack(published.sequence)
                self.clock.advance(0.1)
            refused = answers.pop(position)
            self.assertEqual({answer.said for answer in answers}, {"delivered"})
            self.assertEqual(refused.said, "refused: 406 PRECONDITION_FAILED - something")
            self.assertLess(closings, 40)  # by halves; one by one would be a channel, or a round trip, for each
            self.assertLess(turns, 100)
        broker.confirming = True
        self.assertEqual([answer.said for answer in self.publish(b"4", b"5")], ["delivered"] * 2)

    def test_an_operator_closes_the_connection(self) -> None:
        """320 is nobody's fault, even when one message only was under way."""
        self.broker.confirming = False
        self.attached()
        (one,) = self.publish(b"1")
        for _ in range(self.max_attempts + 1):
            self.broker.close(320, "CONNECTION_FORCED - closed by operator")
            self.turn()
            self.attached()
        self.assertIsNone(one.said)
        self.broker.ack(1)
        self.assertEqual(one.said, "delivered")

    def test_reopening_fails(self) -> None:
        """A connection on which no channel can be opened any more is of no use."""
        connection = self.attached()
        self.broker.refusals["Channel.Open"] = 504, "CHANNEL_ERROR"
        self.broker.close_channel(1, 541, "INTERNAL_ERROR")
        self.clock.advance(REOPEN_DELAY)
        self.turn()
        self.assertTrue(connection.closed)
