"""Reading the event stream: in order, from where the last connection ended, whatever else is in it."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from amqprouter.amqp.connection import Connection
from amqprouter.broker.event_stream import ACK_EVERY, ACK_WITHIN, LOOK_BACK, PREFETCH, QUIET, VERIFY_WITHIN, EventReader
from amqprouter.events.event import Event
from tests.unit.amqp.harness import BrokerTestCase

NOW = 1_700_000_000.5

END = "amqprouter:end:events"
"""The tag of whoever asks where the stream ends."""


class EventReaderTests(BrokerTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.events: list[tuple[Event, bool]] = []
        self.restarts = 0
        self.told: list[Any] = []
        """The latest offset each time that the reader has caught up, and "behind" each time that it is not."""
        self.reader = EventReader(
            "events",
            self.publish,
            lambda: NOW,
            self.restart,
            lambda: self.told.append("behind"),
            self.told.append,
        )

    def publish(self, event: Event, live: bool) -> None:
        self.events.append((event, live))

    def restart(self) -> None:
        self.restarts += 1
        self.events.clear()

    def attached(self) -> Connection:
        connection = self.connected()
        self.run_now(self.reader.attach(connection))
        return connection

    def event(self, offset: Any, key: Any = "d.t", timestamp: int | None = int(NOW), body: bytes = b"{}") -> None:
        headers = {name: v for name, v in (("x-stream-offset", offset), ("x-amqprouter-key", key)) if v is not None}
        self.broker.deliver("events", body, headers=headers, timestamp=timestamp)

    def ends_at(self, *offsets: int) -> None:
        """The broker's answer to the question where the stream ends: the messages of the last chunk."""
        self.broker.held = []
        for offset in offsets:
            self.broker.deliver_to(END, b"{}", headers={"x-stream-offset": offset, "x-amqprouter-key": "d.t"})
        held, self.broker.held = self.broker.held, None
        self.broker.send_bytes(b"".join(held))
        self.turn()
        self.assertNotIn(END, self.broker.consumers)

    def acks(self) -> list[tuple[int, bool]]:
        return [(ack.delivery_tag, ack.multiple) for ack in self.broker.sent("Basic.Ack")]

    def start_of(self) -> Any:
        tag = "amqprouter:events"
        return [c for c in self.broker.sent("Basic.Consume") if c.consumer_tag == tag][-1].arguments["x-stream-offset"]

    def offsets(self) -> list[int]:
        return [event.offset for event, _ in self.events]

    def test_starts_a_while_back(self) -> None:
        self.attached()
        self.assertEqual(self.start_of(), datetime.fromtimestamp(int(NOW) - LOOK_BACK, timezone.utc))
        self.assertEqual(self.broker.sent("Basic.Qos")[0].prefetch_count, PREFETCH)
        self.assertFalse(self.broker.sent("Basic.Consume")[0].no_ack)

    def test_hands_on_and_acknowledges(self) -> None:
        self.attached()
        self.event(7, body=b'{"a":1}')
        self.assertEqual(self.events, [(Event(7, ("d.t",), b'{"a":1}'), True)])
        self.assertEqual(self.acks(), [])
        self.clock.advance(ACK_WITHIN)
        self.assertEqual(self.acks(), [(1, True)])
        self.clock.advance(ACK_WITHIN)
        self.assertEqual(len(self.acks()), 1)

    def test_many_are_acknowledged_together(self) -> None:
        """Before the broker has nothing more to send, and what is left over by and by."""
        self.attached()
        for offset in range(ACK_EVERY + 1):
            self.event(offset)
        self.assertEqual(self.acks(), [(ACK_EVERY, True)])
        self.assertLess(2 * ACK_EVERY, PREFETCH)
        self.clock.advance(ACK_WITHIN)
        self.assertEqual(self.acks(), [(ACK_EVERY, True), (ACK_EVERY + 1, True)])

    def test_nothing_of_an_earlier_channel_is_acknowledged(self) -> None:
        self.attached()
        self.event(1)
        self.broker.hang_up(ConnectionError("reset"))
        self.turn()
        self.attached()
        self.clock.advance(ACK_WITHIN)
        self.assertEqual(self.acks(), [])

    def test_history_is_not_live(self) -> None:
        """What was published before the reader first started, or nobody knows when, is no news."""
        self.attached()
        self.event(1, timestamp=int(NOW) - 1)
        self.event(2, timestamp=None)
        self.event(3, timestamp=int(NOW))
        self.assertEqual([live for _, live in self.events], [False, False, True])

    def test_where_the_stream_ended_tells_history_from_news(self) -> None:
        """Whatever the clocks of the publishers say."""
        self.attached()
        self.ends_at(1, 2)
        for offset, timestamp in ((1, int(NOW) - 1), (2, int(NOW) + 10), (3, int(NOW) - 10), (4, None)):
            self.event(offset, timestamp=timestamp)
        self.assertEqual([live for _, live in self.events], [False, False, True, True])

    def test_all_is_news_in_an_empty_stream(self) -> None:
        self.attached()
        self.clock.advance(QUIET)
        self.event(0, timestamp=int(NOW) - 10)
        self.assertEqual([live for _, live in self.events], [True])

    def test_it_has_caught_up_when_it_has_come_to_the_end(self) -> None:
        self.attached()
        self.assertEqual(self.told, ["behind"])
        self.event(6)
        self.ends_at(7, 8)
        self.event(7)
        self.assertEqual(self.told, ["behind"])
        self.event(8, key=None)  # no event, but the stream's last message
        self.assertEqual(self.told, ["behind", 8])
        self.event(9)
        self.pass_time(2 * QUIET)
        self.assertEqual(self.told, ["behind", 8])
        self.broker.hang_up(ConnectionError("reset"))
        self.turn()
        self.attached()
        self.assertEqual(self.told, ["behind", 8, "behind", "behind"])
        self.event(9)
        self.ends_at(9)
        self.assertEqual(self.told, ["behind", 8, "behind", "behind", 9])

    def test_nothing_comes(self) -> None:
        """There is nothing, or nothing of late."""
        self.attached()
        self.assertIn(END, self.broker.consumers)
        self.pass_time(QUIET)
        self.turn()
        self.assertEqual(self.told, ["behind", None])
        self.assertNotIn(END, self.broker.consumers)  # nobody waits for a first message
        self.broker.hang_up(ConnectionError("reset"))
        self.turn()
        self.attached()
        self.ends_at(7)
        self.pass_time(QUIET)
        self.assertEqual(self.told[2:], ["behind", "behind", 7])

    def test_it_has_not_caught_up_while_it_is_held_up(self) -> None:
        self.attached()
        self.ends_at(7)
        self.reader.throttle(True)
        self.pass_time(3 * QUIET)
        self.assertEqual(self.told, ["behind"])
        self.reader.throttle(False)
        self.pass_time(QUIET)
        self.assertEqual(self.told, ["behind", 7])

    def test_goes_on_where_it_was(self) -> None:
        """A stream begins at the chunk that holds the offset: what comes again is left out."""
        self.attached()
        self.event(7)
        self.event(8)
        self.broker.hang_up(ConnectionError("reset"))
        self.turn()
        self.attached()
        self.assertEqual(self.start_of(), 8)
        for offset in (7, 8, 9):
            self.event(offset)
        self.pass_time(2 * VERIFY_WITHIN)
        self.assertEqual((self.offsets(), self.restarts), ([7, 8, 9], 0))

    def read_and_lost(self) -> None:
        self.attached()
        self.event(7)
        self.event(8, timestamp=int(NOW) + 1000)
        self.broker.hang_up(ConnectionError("reset"))
        self.turn()

    def reads_anew(self, connection: Connection) -> None:
        """The connection was given up; the next one begins from the start, and only what is newer is live."""
        self.turn()
        self.assertTrue(connection.closed)
        self.assertEqual((self.offsets(), self.restarts), ([], 1))
        self.attached()
        self.assertEqual(self.start_of(), datetime.fromtimestamp(int(NOW) + 1000 - LOOK_BACK, timezone.utc))
        self.event(0, timestamp=int(NOW) + 999)
        self.event(1, timestamp=int(NOW) + 1000)
        self.assertEqual([(event.offset, live) for event, live in self.events], [(0, False), (1, True)])
        self.pass_time(2 * VERIFY_WITHIN)
        self.assertEqual(self.restarts, 1)

    def test_a_stream_made_anew_and_shorter(self) -> None:
        """Nothing comes, whatever is published to it."""
        self.read_and_lost()
        connection = self.attached()
        self.pass_time(VERIFY_WITHIN)
        self.reads_anew(connection)

    def test_a_stream_made_anew_and_longer(self) -> None:
        """There is another event at the last one's offset."""
        self.read_and_lost()
        connection = self.attached()
        self.broker.held = []
        for offset in (7, 8, 9):
            self.event(offset, body=b'{"new":1}', timestamp=int(NOW) + 1000)
        held, self.broker.held = self.broker.held, None
        self.broker.send_bytes(b"".join(held))
        self.reads_anew(connection)

    def test_retention_took_the_last_event(self) -> None:
        self.read_and_lost()
        self.attached()
        self.event(9)
        self.pass_time(2 * VERIFY_WITHIN)
        self.assertEqual((self.offsets(), self.restarts), ([7, 8, 9], 0))

    def test_lost_again_before_it_is_known(self) -> None:
        self.read_and_lost()
        for _ in range(3):
            self.attached()
            self.broker.hang_up(ConnectionError("reset"))
            self.turn()
            self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual((self.start_of(), self.restarts), (8, 0))

    def test_what_is_no_event_is_skipped_and_acknowledged(self) -> None:
        connection = self.attached()
        for offset, key in ((1, None), (None, "d.t"), ("2", "d.t"), (3, b"\xff"), (4, 4)):
            self.event(offset, key)
        self.event(5)
        self.assertEqual(self.offsets(), [5])
        self.clock.advance(ACK_WITHIN)
        self.assertEqual(self.acks(), [(6, True)])
        self.assertFalse(connection.closed)

    def test_malformed_properties(self) -> None:
        connection = self.attached()
        deliver = b"\x00\x3c\x00\x3c\x11amqprouter:events" + (1).to_bytes(8, "big") + b"\x00\x00\x00"
        header = b"\x00\x3c\x00\x00" + bytes(8) + b"\x20\x00\x00\x00\x00\x09"
        for kind, payload in ((1, deliver), (2, header)):
            self.broker.send_bytes(bytes((kind, 0, 1)) + len(payload).to_bytes(4, "big") + payload + b"\xce")
        self.assertEqual((self.events, connection.closed), ([], False))
        self.clock.advance(ACK_WITHIN)
        self.assertEqual(self.acks(), [(1, True)])

    def test_whatever_ends_it_a_new_connection_reads_on(self) -> None:
        connection = self.attached()
        self.broker.cancel("events")
        self.turn()
        self.assertTrue(connection.closed)
        connection = self.attached()
        self.broker.close_channel(1, 406, "PRECONDITION_FAILED - no such segment")
        self.turn()
        self.assertTrue(connection.closed)
