"""A warning about quorum queues of the operator's that would lose messages."""

from __future__ import annotations

from twisted.logger import capturedLogs, formatEvent

from amqprouter.amqp.properties import encode_properties
from amqprouter.amqp.quorum_check import ReturnWatch
from amqprouter.amqp.wire import Delivery
from tests.unit.amqp.harness import BrokerTestCase

AGAIN = encode_properties(headers={"x-delivery-count": 1})
NONE = (
    "PRECONDITION_FAILED - inequivalent arg 'x-dead-letter-exchange' for queue 'mine' in vhost '/': received the value "
    "'0' of type 'signedint' but current is none"
)


class ReturnWatchTests(BrokerTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.connection = self.connected()
        self.watch = ReturnWatch(["mine", "yours"])
        self.broker.refusals["Queue.Declare"] = 406, NONE

    def warnings(self, queue: str, properties: bytes = AGAIN) -> list[str]:
        """What is logged when a message comes from this queue again."""
        with capturedLogs() as logs:
            self.watch.returned(queue, Delivery(1, b"tag", 1, True, b"", b"key", properties), self.connection)
            self.turn()
        return [str(formatEvent(event)) for event in logs]

    def asked(self) -> list[tuple[str, object]]:
        asked = [(one.queue, one.arguments["x-dead-letter-exchange"]) for one in self.broker.sent("Queue.Declare")]
        self.broker.received.clear()
        return asked

    def test_without(self) -> None:
        """Once, by a question that cannot make a queue."""
        (warning,) = self.warnings("mine")
        self.assertIn("the quorum queue mine, which has no dead-letter exchange", warning)
        self.assertEqual(self.asked(), [("mine", 0)])
        self.assertEqual((self.warnings("mine"), self.asked()), ([], []))
        self.assertEqual(len(self.warnings("yours")), 1)
        self.assertFalse(self.connection.closed)

    def test_with(self) -> None:
        text = NONE.replace("is none", "is the value 'dead' of type 'longstr'")
        for answer in (text, "PRECONDITION_FAILED - inequivalent arg 'durable' for queue 'mine'", "ACCESS_REFUSED"):
            self.watch = ReturnWatch(["mine"])
            self.broker.refusals["Queue.Declare"] = 406, answer
            self.assertEqual(self.warnings("mine"), [])
            self.assertEqual(len(self.asked()), 1)

    def test_not_asked(self) -> None:
        """About the daemon's own queues, and about those that do not count."""
        for queue, properties in (("ours", AGAIN), ("", AGAIN), ("mine", b"\x00\x00"), ("mine", b"\xff")):
            self.assertEqual((self.warnings(queue, properties), self.asked()), ([], []))

    def test_each_version(self) -> None:
        """4.3 counts each delivery, in a header of its own; 4.0 and later bring counts along from another queue."""
        acquired = encode_properties(headers={"x-acquired-count": 1})
        dead = encode_properties(headers={"x-acquired-count": 2, "x-delivery-count": 1, "x-death": [{"count": 1}]})
        for version, limit, of_the_dead in (
            ("3.10.8", "delivery limit, if it has one.", 1),
            ("4.0.5", "delivery limit, 20 unless it has another, which counts every return.", 0),
            ("4.3.6", "20 unless it has another, which counts rejections and consumers that died.", 0),
        ):
            self.broker.version = version
            self.connection = self.connected()
            for properties, count in ((AGAIN, 1), (acquired, 1), (dead, of_the_dead)):
                self.watch = ReturnWatch(["mine"])
                warnings = self.warnings("mine", properties)
                self.assertEqual(len(warnings), count, (version, properties))
                self.assertTrue(all(limit in warning for warning in warnings), warnings)

    def test_lost_meanwhile(self) -> None:
        """It is asked on the next connection."""
        self.broker.hang_up(ConnectionError("reset"))
        self.assertEqual(self.warnings("mine"), [])
        self.connection = self.connected()
        self.assertEqual(len(self.warnings("mine")), 1)
