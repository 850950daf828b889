"""Events of the daemon's own."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from amqprouter.amqp.properties import Properties
from amqprouter.broker.event_publisher import MOST_OUTSTANDING, EventPublisher
from amqprouter.counters import Counters
from amqprouter.events.event import Event


class Publisher:
    """Notes what is published and confirms nothing."""

    def __init__(self) -> None:
        self.published: list[tuple[bytes, bytes, bytes, bytes]] = []
        self.flushed = 0

    def publish(self, exchange: bytes, key: bytes, properties: bytes, body: bytes, receipt: Any) -> None:
        self.published.append((exchange, key, properties, body))

    def flush(self) -> None:
        self.flushed = len(self.published)


class AnnouncerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.publisher, self.counters = Publisher(), Counters()
        self.events = EventPublisher(self.publisher, "stream", self.counters, lambda: 1_800_000_000.5)  # type: ignore[arg-type]

    def test_an_event_is_published_at_once_with_its_type(self) -> None:
        event = Event(7, ("dev1.limits",), b"{}", type="limits")
        self.assertTrue(self.events.tell(event))
        [(exchange, key, properties, body)] = self.publisher.published
        self.assertEqual((exchange, key, self.publisher.flushed), (b"", b"stream", 1))
        self.assertEqual(
            Properties(properties).headers, {"x-amqprouter-key": "dev1.limits", "x-amqprouter-type": "limits"}
        )
        self.assertEqual((body, Properties(properties).timestamp), (b"{}", 1_800_000_000))
        self.events.delivered()
        self.assertEqual((self.counters.events_published, self.counters.announcements_lost), (1, 0))

    def test_no_more_than_so_many_wait_for_the_broker(self) -> None:
        event = Event(0, ("dev1.limits",), b"{}")
        self.assertEqual([self.events.tell(event) for _ in range(MOST_OUTSTANDING + 1)][-2:], [True, False])
        self.events.refused("returned")
        self.assertTrue(self.events.tell(event))
        self.assertEqual(self.counters.announcements_lost, 2)

    def test_a_topic_that_is_too_long(self) -> None:
        self.assertFalse(self.events.tell(Event(0, ("d" * 16_385,), b"{}")))
        self.assertEqual((self.publisher.published, self.counters.announcements_lost), ([], 1))
