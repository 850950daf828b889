"""One consumer on a channel of its own: what it asks for, what it is given, and what its end does."""

from __future__ import annotations

from amqprouter.amqp.consumer import Consumer
from amqprouter.amqp.consumer_timeout import ConsumerTimeout
from amqprouter.amqp.wire import Delivery
from amqprouter.errors import BrokerRefused, BrokerUnavailable
from tests.unit.amqp.harness import BrokerTestCase


class ConsumerTests(BrokerTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.broker.version = "4.3.0"
        self.connection = self.connected()
        self.ends: list[Exception] = []
        self.bodies: list[bytes] = []

    def received(self, consumer: Consumer, deliveries: list[Delivery]) -> None:
        consumer.ledger.received(len(deliveries))
        self.bodies += [delivery.body for delivery in deliveries]

    def consumer(self, *, tells: bool = False) -> Consumer:
        channel = self.run_now(self.connection.open_channel())
        return Consumer(self.connection, channel, 7, self.received, self.ends.append if tells else None)

    def test_what_is_asked_for(self) -> None:
        self.run_now(self.consumer().start("q"))
        self.run_now(self.consumer().start("q", tag="mine", arguments={"x-stream-offset": 5}))
        asked = [(consume.consumer_tag, consume.arguments) for consume in self.broker.sent("Basic.Consume")]
        self.assertEqual(asked, [("amqprouter:q", {}), ("mine", {"x-stream-offset": 5})])
        self.assertEqual([qos.prefetch_count for qos in self.broker.sent("Basic.Qos")], [7, 7])

    def test_a_long_name(self) -> None:
        """Of a queue's 255 bytes and what is put in front of them no tag can be made."""
        self.run_now(self.consumer().start("q" * 255))
        [consume] = self.broker.sent("Basic.Consume")
        self.assertLess(len(consume.consumer_tag), 255)

    def test_acknowledged_one_by_one_or_all(self) -> None:
        consumer = self.consumer()
        self.run_now(consumer.start("q"))
        for body in (b"1", b"2", b"3"):
            self.broker.deliver("q", body)
        consumer.ledger.settle(2)
        consumer.ledger.flush()
        consumer.acknowledge(3)
        self.assertEqual(self.bodies, [b"1", b"2", b"3"])
        acks = [(ack.delivery_tag, ack.multiple) for ack in self.broker.sent("Basic.Ack")]
        self.assertEqual(acks, [(2, False), (3, True)])

    def test_a_refusal_is_the_callers(self) -> None:
        """Something that the rest can do without may be refused, and nobody else is any the worse for it."""
        self.broker.refused_arguments["q"] = 406, "PRECONDITION_FAILED - invalid arg 'x-consumer-timeout'"
        for tells in (False, True):
            consumer = self.consumer(tells=tells)
            self.failed(consumer.start("q", timeout=ConsumerTimeout(9, "quorum")), BrokerRefused)
            self.assertTrue(consumer.ledger.closed)
        self.assertEqual((self.connection.end, self.ends), (None, []))

    def test_cancelled(self) -> None:
        consumer = self.consumer()
        self.run_now(consumer.start("q"))
        self.broker.cancel("q")
        self.turn()
        self.assertTrue(consumer.ledger.closed)
        self.assertIsInstance(self.connection.end, BrokerUnavailable)
        self.assertIn("is q gone?", str(self.connection.end))

    def test_whoever_asked_is_told_of_the_end(self) -> None:
        consumer = self.consumer(tells=True)
        self.run_now(consumer.start("q"))
        self.broker.close_channel(consumer.channel.id, 406, "PRECONDITION_FAILED - timeout")
        self.turn()
        self.assertEqual([type(end) for end in self.ends], [BrokerRefused])
        self.assertTrue(consumer.ledger.closed)
        self.assertIsNone(self.connection.end)
