"""Reading old events again: from an offset, step by step, until it is stopped or the broker ends it."""

from __future__ import annotations

from collections.abc import Iterable
from unittest.mock import patch

from amqprouter.amqp.connection import Connection
from amqprouter.broker.event_stream import HISTORY_PREFETCH, EventHistory, StreamReading, stream_event
from amqprouter.errors import BrokerUnavailable
from amqprouter.events.event import Event
from tests.unit.amqp.harness import BrokerTestCase


class EventHistoryTests(BrokerTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.events: list[Event] = []
        self.failures: list[Exception] = []
        self.connection: Connection | None = self.connected()

    def received(self, events: Iterable[Event]) -> None:
        self.events.extend(events)

    def read(self, offset: int) -> StreamReading:
        history = EventHistory("events", lambda: self.connection)
        reading = history.read(offset, self.received, self.failures.append)
        self.turn()
        return reading

    def deliver(self, offset: int, key: object = "d.t") -> None:
        self.broker.deliver("events", b"{}", headers={"x-stream-offset": offset, "x-amqprouter-key": key})

    def test_from_an_offset(self) -> None:
        self.read(7)
        [consume] = self.broker.sent("Basic.Consume")
        self.assertEqual((consume.arguments["x-stream-offset"], consume.no_ack), (7, False))
        self.assertEqual(self.broker.sent("Basic.Qos")[0].prefetch_count, HISTORY_PREFETCH)
        for offset in (6, 7, 8):
            self.deliver(offset)
        self.deliver(9, 4)  # no event
        self.assertEqual([event.offset for event in self.events], [6, 7, 8])

    def test_they_are_decoded_one_by_one_as_they_are_wanted(self) -> None:
        waiting: list[Iterable[Event]] = []
        EventHistory("events", lambda: self.connection).read(7, waiting.append, self.failures.append)
        self.turn()
        with patch("amqprouter.broker.event_stream.stream_event", wraps=stream_event) as decode:
            self.deliver(7)
            self.deliver(8)
            self.assertEqual(decode.call_count, 0)
            events = [iter(received) for received in waiting]
            self.assertEqual(next(events[0]).offset, 7)
            self.assertEqual(decode.call_count, 1)

    def test_more_comes_when_it_is_asked_for(self) -> None:
        reading = self.read(7)
        self.deliver(7)
        self.deliver(8)
        self.assertEqual(self.broker.sent("Basic.Ack"), [])
        reading.more()
        self.assertEqual([(ack.delivery_tag, ack.multiple) for ack in self.broker.sent("Basic.Ack")], [(2, True)])

    def test_stopped(self) -> None:
        reading = self.read(7)
        reading.stop()
        reading.stop()
        reading.more()
        self.turn()
        self.assertEqual((len(self.broker.sent("Channel.Close")), self.broker.sent("Basic.Ack")), (1, []))
        self.assertEqual(self.failures, [])

    def test_it_cancels_before_it_leaves(self) -> None:
        """RabbitMQ 3.10 counts a stream's consumer for ever that does not, and may still send meanwhile."""
        reading = self.read(7)
        self.broker.held = []
        self.deliver(7)
        reading.stop()
        self.assertEqual(len(self.broker.sent("Basic.Cancel")), 1)
        self.assertEqual(self.broker.sent("Channel.Close"), [])
        self.broker.release()
        self.broker.release()
        self.assertEqual(len(self.broker.sent("Channel.Close")), 1)
        self.assertEqual((self.events, self.failures), ([], []))

    def test_stopped_while_it_begins(self) -> None:
        self.broker.held = []
        history = EventHistory("events", lambda: self.connection)
        reading = history.read(7, self.received, self.failures.append)
        while not self.broker.sent("Basic.Consume"):
            self.broker.release()
        reading.stop()
        self.assertEqual(self.broker.sent("Basic.Cancel") + self.broker.sent("Channel.Close"), [])
        for _ in range(3):
            self.broker.release()
        names = [command.name for _, command in self.broker.received][-3:]
        self.assertEqual(names, ["Basic.Consume", "Basic.Cancel", "Channel.Close"])
        self.assertEqual((self.events, self.failures), ([], []))

    def test_stopped_before_it_began(self) -> None:
        history = EventHistory("events", lambda: self.connection)
        history.read(7, self.received, self.failures.append).stop()
        self.turn()
        self.assertEqual((self.events, self.failures), ([], []))

    def test_whatever_fails_no_channel_is_left_over(self) -> None:
        for offset in (2**63, 10**20 - 1, -1):  # the first two would be no legal arguments
            self.read(offset)
        self.assertEqual([type(failure) for failure in self.failures], [ValueError] * 3)
        self.failures.clear()
        self.read(7)
        self.broker.cancel("events")
        self.turn()
        with patch("amqprouter.amqp.consumer.Consumer.start", side_effect=ValueError("not legal")):
            self.read(8)
        self.assertEqual([type(failure) for failure in self.failures], [BrokerUnavailable, ValueError])
        opened, closed = self.broker.sent("Channel.Open"), self.broker.sent("Channel.Close")
        self.assertEqual((len(opened), len(closed)), (2, 2))

    def test_the_connection_is_lost(self) -> None:
        self.read(7)
        self.broker.hang_up(ConnectionError("reset"))
        self.turn()
        self.assertEqual(len(self.failures), 1)

    def test_the_consumer_is_cancelled(self) -> None:
        self.read(7)
        self.broker.cancel("events")
        self.turn()
        self.assertIsInstance(self.failures[0], BrokerUnavailable)
