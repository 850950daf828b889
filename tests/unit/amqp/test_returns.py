"""What RabbitMQ returns, in its every spelling, is never taken for delivered."""

from __future__ import annotations

from twisted.logger import LogEvent, Logger, LogLevel

from amqprouter.amqp.field_table import encode_entry
from amqprouter.amqp.properties import Properties, encode_properties
from amqprouter.amqp.publisher import CONFIRM_TIMEOUT, RETRY_MAX
from amqprouter.amqp.returns import REPORT_EVERY, Returns
from amqprouter.amqp.wire import HEARTBEAT_FRAME
from amqprouter.testing.amqp import PublishedMessage
from tests.unit.amqp.test_publisher import PLAIN, Answer, PublisherTestCase

UNORDERED = encode_properties(message_id="1", headers={"unit": "C", "site": "x"})
UNROUTABLE = "refused: unroutable: NO_ROUTE"
IN_DOUBT = "refused: unroutable: NO_ROUTE, or taken for one that was"


def routed_by(properties: bytes) -> bytes:
    """As RabbitMQ's interceptor ``set_header_routing_node`` does."""
    entry = encode_entry("x-routed-by", "rabbit@here")
    return Properties(properties).spliced(0, (b"x-routed-by",), entry)


class ReturnsTestCase(PublisherTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.logged: list[LogEvent] = []
        self.patch(Returns, "log", Logger("returns", observer=self.logged.append))  # type: ignore[arg-type]
        self.broker.confirming = False
        self.connection = self.attached()

    def send(self, *properties: bytes, body: bytes = b"", key: bytes = b"key", exchange: bytes = b"ex") -> list[Answer]:
        answers = [Answer() for _ in properties]
        for each, answer in zip(properties, answers, strict=True):
            self.publisher.publish(exchange, key, each, body, answer)
        self.publisher.flush()
        return answers

    def taken(self) -> list[PublishedMessage]:
        """What the broker got since the last call."""
        published, self.broker.published = self.broker.published, []
        return published

    def return_for_good(self) -> None:
        """Return everything as often as it comes."""
        for _ in range(self.max_attempts):
            for published in self.taken():
                self.broker.send_back(published)
                self.broker.ack(published.sequence)
            self.clock.advance(RETRY_MAX)


class VersionTests(ReturnsTestCase):
    def test_each_version(self) -> None:
        for version in ("3.10.8", "4.0.5", "4.3.6"):
            for interceptor in (lambda properties: properties, routed_by):
                self.broker.version, self.broker.interceptor = version, interceptor
                answers = self.send(UNORDERED, PLAIN, encode_properties(headers={"z": 1 << 63, "a": [1]}))
                self.return_for_good()
                self.assertEqual([answer.said for answer in answers], [UNROUTABLE] * 3, version)
        self.assertEqual(self.counters.returned, {"one": 6 * 3 * self.max_attempts})
        self.assertEqual((self.counters.published, self.logged), (0, []))

    def test_an_ack_of_many(self) -> None:
        """Those returned are among them."""
        self.broker.version = "4.3.6"
        answers = self.send(*(encode_properties(message_id=str(n), headers={"b": n, "a": n}) for n in range(4)))
        published = self.taken()
        self.broker.send_back(published[1])
        self.broker.send_back(published[2])
        self.broker.ack(4, multiple=True)
        self.assertEqual([answer.said for answer in answers], ["delivered", None, None, "delivered"])
        self.clock.advance(RETRY_MAX)
        self.assertEqual([one.properties for one in self.taken()], [published[1].properties, published[2].properties])

    def test_while_cautious(self) -> None:
        """A window of messages is out after the broker closed the channel; what is returned of it counts as such."""
        self.broker.version = "4.3.6"
        answers = self.send(*(encode_properties(message_id=str(n), headers={"b": n, "a": n}) for n in range(8)))
        self.broker.close_channel(1, 406, "PRECONDITION_FAILED - invalid expiration")
        self.clock.advance(1)
        self.taken()
        for _ in range(12):
            for published in self.taken() or self.broker.published:
                self.broker.send_back(published)
                self.broker.ack(published.sequence, channel=published.channel)
            self.clock.advance(RETRY_MAX)
        self.assertNotIn("delivered", [answer.said for answer in answers])


class DoubtTests(ReturnsTestCase):
    def test_a_return_of_nothing_of_ours(self) -> None:
        """Whatever it was, it is not delivered: so what may have become it is sent again."""
        (one,), (two,) = self.send(PLAIN, body=b"1"), self.send(PLAIN, exchange=b"far")
        published, _ = self.taken()
        published.body = b"other"
        self.broker.send_back(published)
        self.broker.ack(2, multiple=True)
        self.assertEqual((one.said, two.said), (None, "delivered"))
        self.assertEqual(self.counters.returned, {"none": 1})
        (line,) = self.logged
        self.assertEqual((line["log_level"], line["count"]), (LogLevel.error, 1))
        self.assertEqual((line["exchange"], line["key"]), ("ex", "key"))
        self.clock.advance(RETRY_MAX)
        self.broker.ack(3)
        self.assertEqual(one.said, "delivered")

    def test_one_of_several(self) -> None:
        """They differ in nothing but what an interceptor overwrote: all are sent again, and given up with the doubt."""
        answers = self.send(*(encode_properties(headers={"x-routed-by": name}) for name in "ab"))
        self.broker.interceptor = routed_by
        for _ in range(self.max_attempts):
            first, _ = published = self.taken()
            self.broker.send_back(first)
            self.broker.ack(published[-1].sequence, multiple=True)
            self.clock.advance(RETRY_MAX)
        self.assertEqual([answer.said for answer in answers], [IN_DOUBT] * 2)
        self.assertEqual(self.counters.returned, {"several": self.max_attempts})
        self.assertEqual([(line["log_level"], line["count"]) for line in self.logged], [(LogLevel.warn, 2)])

    def test_a_nack_of_one_in_doubt(self) -> None:
        """It has a queue, which is full: so another one was returned, and it is not to blame."""
        answers = self.send(*(encode_properties(headers={"x-routed-by": name}) for name in "ab"))
        self.broker.interceptor = routed_by
        for _ in range(2 * self.max_attempts):
            published = self.taken()
            if len(published) > 1:
                self.broker.send_back(published[0])
                self.broker.ack(published[0].sequence)
            self.broker.ack(published[-1].sequence, nack=True)
            self.clock.advance(RETRY_MAX)
        self.assertEqual([answer.said for answer in answers], [IN_DOUBT, None])

    def test_a_flood_is_a_line_a_minute(self) -> None:
        for unreported in (0, 99, 199):  # in the second round, the first one's come again
            self.send(*(encode_properties(message_id=str(number)) for number in range(100)))
            for published in self.taken():
                published.body = b"other"
                self.broker.send_back(published)
            self.assertEqual(self.logged[-1]["unreported"], unreported)
            self.broker.send_bytes(HEARTBEAT_FRAME)
            self.broker.ack(0, multiple=True)
            self.clock.advance(REPORT_EVERY)
        self.assertEqual(len(self.logged), 3)


class LateTests(ReturnsTestCase):
    def test_a_publish_that_was_given_up(self) -> None:
        """Its return comes after its confirm was overdue: nobody else is marked, and the next try counts."""
        (one,) = self.send(UNORDERED, body=b"1")
        (published,) = self.taken()
        while self.publisher._retrying == 0:
            self.send(PLAIN)
            self.broker.ack(self.taken()[-1].sequence)
            self.clock.advance(CONFIRM_TIMEOUT / 4)
            self.broker.send_bytes(HEARTBEAT_FRAME)
        (other,) = self.send(PLAIN, body=b"2")
        self.broker.send_back(published)
        self.broker.ack(self.taken()[-1].sequence)
        self.assertEqual((one.said, other.said), (None, "delivered"))
        self.assertEqual((self.counters.returned, self.logged), ({"late": 1}, []))
        self.clock.advance(RETRY_MAX)
        self.broker.ack(self.taken()[-1].sequence)
        self.assertEqual(one.said, "delivered")
