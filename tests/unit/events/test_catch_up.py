"""Resuming from before the window: older events are read, then the window, then news."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from unittest.mock import patch

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from amqprouter.counters import Counters
from amqprouter.errors import BrokerRefused, BrokerUnavailable
from amqprouter.events.catch_up import HOLD, MOST_FOR_USER, MOST_READINGS, QUIET, STALLED, TURN
from amqprouter.events.event import Event
from amqprouter.events.hub import MOST_AHEAD, Hub
from amqprouter.events.interest import Interest
from amqprouter.identity import Identity
from amqprouter.patterns import TopicPattern
from amqprouter.settings import EventsSettings
from tests.unit.web.harness import MemorySink, event

STEP = 3
"""Events that a reading gives at a time."""


class MemoryReading:
    """A reading of `MemoryHistory`; goes on when the test calls `give`, if it was asked to."""

    def __init__(
        self,
        history: MemoryHistory,
        offset: int,
        received: Callable[[Sequence[Event]], None],
        failed: Callable[[Exception], None],
    ) -> None:
        # As a stream does, it starts a little before.
        self.at = max(offset - 1, history.events[0].offset if history.events else 0)
        self.history, self.received, self.failed = history, received, failed
        self.asked, self.stopped = True, False

    def more(self) -> None:
        self.asked = True

    def stop(self) -> None:
        self.stopped = True

    def give(self) -> bool:
        """One step, if it may take one; whether there was anything."""
        events = [event for event in self.history.events if event.offset >= self.at][:STEP]
        if not events or not self.asked or self.stopped:
            return False
        self.asked, self.at = False, events[-1].offset + 1
        self.received(events)
        return True


class MemoryHistory:
    """All events there are."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.readings: list[MemoryReading] = []

    def read(
        self, offset: int, received: Callable[[Sequence[Event]], None], failed: Callable[[Exception], None]
    ) -> MemoryReading:
        self.readings.append(MemoryReading(self, offset, received, failed))
        return self.readings[-1]


class CatchUpTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.history = MemoryHistory()
        settings = EventsSettings(window=5, max_subscribers_per_user=0)
        self.hub = Hub(settings, Counters(), self.clock, history=self.history)
        self.hidden: set[str] = set()

    def test_from_a_publishers_own_id(self) -> None:
        """Which is known although the event is in memory no longer; not to those who may not see it."""
        named = Event(0, ("dev1.up",), b"{}", id="urn:x")
        self.history.events.append(named)
        self.hub.publish(named)
        self.publish(*range(1, 21))
        sink = self.subscribe("urn:x")
        self.read()
        self.assertEqual(sink.ids(), [str(offset) for offset in range(1, 21)])
        self.hidden.add("dev1.up")
        self.assertEqual(self.subscribe("urn:x").ids(), ["gap 20"])
        self.hub.restart()
        self.assertEqual(self.subscribe("urn:x").ids(), ["gap"])

    def publish(self, *offsets: int, key: str = "dev1.up") -> None:
        for offset in offsets:
            self.history.events.append(event(offset, key))
            self.hub.publish(event(offset, key))
        self.clock.advance(0)

    def subscribe(self, last: str, *patterns: str, capacity: int | None = None, user: str = "alice") -> MemorySink:
        sink = MemorySink()
        sink.capacity = capacity
        sink.subscriber = self.hub.subscribe(
            Identity(user),
            Interest(TopicPattern(text) for text in patterns or ("#",)),
            lambda topics, private: topics[0] not in self.hidden,
            sink,
            last_event_id=last,
        )
        sink.subscriber.start()
        self.clock.advance(0)
        return sink

    def read(self) -> None:
        while any(reading.give() for reading in self.history.readings):
            pass

    def numbers(self, first: int, last: int) -> list[str]:
        return [str(number) for number in range(first, last + 1)]

    def test_history_then_the_window_then_news(self) -> None:
        self.publish(*range(100))
        sink = self.subscribe("50")
        self.history.readings[0].give()
        self.publish(*range(100, 110))  # they come while it reads, and wait
        self.assertEqual(sink.ids(), self.numbers(51, 51))
        self.read()
        self.publish(110)
        self.assertEqual(sink.ids(), self.numbers(51, 110))
        self.assertTrue(self.history.readings[0].stopped)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_the_window_needs_no_reading(self) -> None:
        self.publish(*range(100))
        for last in ("94", "99"):
            self.subscribe(last)
        self.assertEqual(self.history.readings, [])

    def test_filter_and_permission(self) -> None:
        for offset in range(100):
            self.publish(offset, key=("dev1.up", "dev2.up", "dev1.secret")[offset % 3])
        self.hidden.add("dev1.secret")
        sink = self.subscribe("10", "dev1.#")
        self.read()
        self.assertEqual(sink.ids(), [str(number) for number in range(12, 100, 3)])

    def test_what_retention_took_is_told(self) -> None:
        self.publish(*range(100))
        del self.history.events[:40]
        sink = self.subscribe("10")
        self.read()
        self.assertEqual(sink.ids(), ["gap 39", *self.numbers(40, 99)])

    def test_nothing_is_missing_where_the_stream_begins_right_behind(self) -> None:
        """As for one that was cut off behind a gap, whose id is of no event that is there."""
        self.publish(*range(100))
        del self.history.events[:40]
        sink = self.subscribe("10")
        self.read()
        self.assertEqual(sink.ids()[0], "gap 39")
        again = self.subscribe("39")
        self.read()
        self.assertEqual(again.ids(), self.numbers(40, 99))
        assert again.subscriber is not None
        self.assertEqual(again.subscriber.resumed_after, "39")
        one_off = self.subscribe("38")
        self.read()
        self.assertEqual(one_off.ids(), ["gap 39", *self.numbers(40, 99)])

    def test_it_reads_at_the_subscriber_s_pace(self) -> None:
        self.publish(*range(100))
        sink = self.subscribe("10", capacity=1)
        self.read()
        self.assertLess(len(sink.ids()), 10)
        before = len(sink.ids())
        self.clock.advance(STALLED - 1)  # it may take its time
        self.assertEqual((len(sink.ids()), sink.state), (before, "open"))
        sink.capacity = None
        sink.subscriber.resume()  # type: ignore[union-attr]
        self.clock.advance(0)
        self.read()
        self.assertEqual(sink.ids(), self.numbers(11, 99))

    def test_who_takes_nothing_gives_the_turn_up(self) -> None:
        """Subscribers that resume from long ago and do not read: others catch up all the same."""
        self.publish(*range(100))
        deaf = [self.subscribe("10", user=f"deaf{number}", capacity=1) for number in range(MOST_READINGS)]
        self.read()
        sink = self.subscribe("10")
        self.read()
        self.assertEqual(sink.ids(), [])
        self.clock.pump([HOLD, 0])
        self.assertTrue(all(reading.stopped for reading in self.history.readings[:MOST_READINGS]))
        self.read()
        self.assertEqual(sink.ids(), self.numbers(11, 99))
        first = deaf[0]
        first.capacity = None
        first.subscriber.resume()  # type: ignore[union-attr]
        self.clock.advance(0)
        self.read()
        self.assertEqual(first.ids(), self.numbers(11, 99))
        self.assertEqual({each.state for each in deaf}, {"open"})
        self.clock.advance(STALLED)
        self.assertEqual([each.state for each in deaf], ["open"] + ["cut"] * (MOST_READINGS - 1))
        self.assertEqual(self.hub.counters.slow_subscribers, MOST_READINGS - 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_who_takes_a_little_now_and_then_is_not_cut(self) -> None:
        self.publish(*range(100))
        sink = self.subscribe("10", capacity=1)
        for _ in range(100):
            self.read()
            self.clock.advance(STALLED - 1)
            sink.capacity = 1
            sink.subscriber.resume()  # type: ignore[union-attr]
            self.clock.advance(0)
        self.assertEqual((sink.ids(), sink.state), (self.numbers(11, 99), "open"))

    def test_turns_go_round_by_user(self) -> None:
        """Whoever has a hundred that wait does not push another's single one back."""
        self.publish(*range(100))
        many = [self.subscribe("10", user="many") for _ in range(100)]
        self.assertEqual(len(self.history.readings), MOST_FOR_USER)
        one = self.subscribe("10", user="one")
        self.read()
        self.assertEqual(one.ids(), self.numbers(11, 99))
        for _ in range(50):
            self.clock.advance(0)
            self.read()
        self.assertEqual({tuple(sink.ids()) for sink in many}, {tuple(self.numbers(11, 99))})

    def test_a_long_reading_lets_others_go_first(self) -> None:
        self.publish(*range(400))
        sinks = [self.subscribe("10", user=f"user{number}") for number in range(MOST_READINGS)]
        late = self.subscribe("380", user="late")
        self.history.readings[0].give()
        self.assertEqual(late.ids(), [])
        self.assertEqual(len(self.history.readings), MOST_READINGS)
        self.clock.pump([QUIET / 2] * int(2 * TURN / QUIET + 1))
        self.history.readings[0].give()
        self.clock.advance(0)
        self.assertTrue(self.history.readings[0].stopped)
        self.read()
        self.assertEqual(late.ids(), self.numbers(381, 399))
        for _ in range(3):
            self.clock.advance(0)
            self.read()
        self.assertEqual({tuple(sink.ids()) for sink in sinks}, {tuple(self.numbers(11, 399))})

    def test_a_channel_that_is_lost_while_the_subscriber_does_not_read(self) -> None:
        self.publish(*range(100))
        sink = self.subscribe("10", capacity=1)
        self.history.readings[0].give()
        self.history.readings[0].failed(BrokerUnavailable("reset"))
        self.clock.advance(HOLD)
        sink.capacity = None
        sink.subscriber.resume()  # type: ignore[union-attr]
        self.clock.advance(0)
        self.read()
        self.assertEqual(sink.ids(), self.numbers(11, 99))

    def test_blocked_from_the_start(self) -> None:
        self.publish(*range(20))
        sink = MemorySink()
        subscriber = self.hub.subscribe(
            Identity("alice"), Interest([TopicPattern("#")]), lambda topics, private: True, sink, last_event_id="5"
        )
        subscriber.pause()
        subscriber.start()
        self.clock.advance(0)
        self.read()
        self.assertEqual(sink.written, [])
        subscriber.resume()
        self.read()
        self.assertEqual(sink.ids(), self.numbers(6, 19))

    def test_only_a_few_at_a_time_and_all_in_the_end(self) -> None:
        self.publish(*range(50))
        sinks = [self.subscribe("10", user=f"user{number}") for number in range(3 * MOST_READINGS)]
        self.assertEqual(len(self.history.readings), MOST_READINGS)
        for _ in range(5):
            self.read()
            self.clock.advance(0)
        self.assertEqual({tuple(sink.ids()) for sink in sinks}, {tuple(self.numbers(11, 49))})

    def test_who_leaves_makes_room(self) -> None:
        self.publish(*range(50))
        sinks = [self.subscribe("10", user=f"user{number}") for number in range(MOST_READINGS + 2)]
        sinks[-2].subscriber.close()  # type: ignore[union-attr]
        sinks[0].subscriber.close()  # type: ignore[union-attr]
        self.clock.advance(0)
        self.assertTrue(self.history.readings[0].stopped)
        self.assertEqual(len(self.history.readings), MOST_READINGS + 1)
        self.read()
        self.assertEqual(sinks[-1].ids(), self.numbers(11, 49))

    def test_after_a_restart_the_window_is_empty_at_first(self) -> None:
        self.history.events = [event(offset) for offset in range(100)]
        sink = self.subscribe("97")
        self.read()
        self.assertEqual(sink.ids(), ["98", "99"])
        self.publish(100)
        self.clock.pump([1.0, 1.0])
        self.publish(101)
        self.assertEqual(sink.ids(), ["98", "99", "100", "101"])

    def test_after_a_restart_with_nothing_new(self) -> None:
        self.history.events = [event(offset) for offset in range(100)]
        sink = self.subscribe("99")
        self.read()
        self.clock.pump([1.0, 1.0])
        self.publish(100)
        self.assertEqual(sink.ids(), ["100"])

    def test_a_gateway_that_is_behind_another(self) -> None:
        self.publish(*range(10))
        self.history.events.extend(event(offset) for offset in range(10, 13))
        sink = self.subscribe("11")
        self.read()
        for offset in range(10, 14):
            self.hub.publish(event(offset))
        self.clock.advance(2)
        self.assertEqual(sink.ids(), ["12", "13"])

    def test_an_id_that_never_comes(self) -> None:
        """It may be on its way from another gateway, but not for long; until then nothing is said of it."""
        self.publish(*range(10))
        sink = self.subscribe("500")
        self.clock.pump([0.1] * 19)
        self.assertEqual((sink.ids(), sink.subscriber.resumed_after), ([], None))  # type: ignore[union-attr]
        self.clock.pump([0.1] * 2)
        self.publish(10)
        self.assertEqual((sink.ids(), sink.subscriber.resumed_after), (["gap 9", "10"], "9"))  # type: ignore[union-attr]
        self.assertEqual(self.history.readings, [])

    def test_one_that_leaves_while_its_id_is_awaited(self) -> None:
        self.publish(*range(10))
        sink = self.subscribe("500")
        sink.subscriber.close()  # type: ignore[union-attr]
        self.clock.pump([0.1] * 30)
        self.assertEqual((sink.ids(), self.clock.getDelayedCalls()), ([], []))

    def test_a_gateway_that_has_just_started_knows_no_id_yet(self) -> None:
        """Neither a publisher's own, nor one far ahead of what it has read so far: they wait until it has caught up."""
        self.hub.fell_behind()
        self.hidden.add("dev2.up")
        names = ("urn:a", "urn:hidden", "urn:unknown", str(3 * MOST_AHEAD))
        self.hub.publish(event(0), False)
        sinks = [self.subscribe(name) for name in names]
        self.clock.pump([1.0] * 30)
        self.hub.publish(Event(1, ("dev1.up",), b"{}", id="urn:a"), False)
        self.hub.publish(Event(2, ("dev2.up",), b"{}", id="urn:hidden"), False)
        for offset in (3, 3 * MOST_AHEAD, 3 * MOST_AHEAD + 1):
            self.hub.publish(event(offset), False)
        self.clock.advance(0)
        self.assertEqual([sink.ids() for sink in sinks], [[]] * 4)
        self.hub.caught_up(3 * MOST_AHEAD + 1)
        last = str(3 * MOST_AHEAD + 1)
        known = [["3", names[3], last], [f"gap {last}"], [f"gap {last}"], [last]]
        self.assertEqual([sink.ids() for sink in sinks], known)
        resumed_after = [sink.subscriber.resumed_after for sink in sinks]  # type: ignore[union-attr]
        self.assertEqual(resumed_after, ["urn:a", last, last, names[3]])

    def test_nothing_was_published_for_long(self) -> None:
        """The window is empty, but where the stream ends is known: nothing need be read, and nothing is missing."""
        self.hub.fell_behind()
        self.hub.caught_up(99)
        sink = self.subscribe("99")
        self.assertEqual(sink.subscriber.resumed_after, "99")  # type: ignore[union-attr]
        self.publish(100)
        self.assertEqual((sink.ids(), self.history.readings), (["100"], []))

    def test_an_id_behind_the_end_while_the_window_is_empty(self) -> None:
        self.history.events = [event(offset) for offset in range(100)]
        self.hub.fell_behind()
        self.hub.caught_up(99)
        sink = self.subscribe("97")
        self.read()
        self.assertEqual(sink.ids(), ["98", "99"])
        self.publish(100)
        self.assertEqual(sink.ids(), ["98", "99", "100"])

    def test_the_stream_is_made_anew_while_an_id_is_awaited(self) -> None:
        self.hub.fell_behind()
        sink = self.subscribe("urn:x")
        self.hub.restart()
        self.hub.caught_up(None)
        self.publish(0)
        self.assertEqual((sink.ids(), sink.subscriber.resumed_after), (["gap", "0"], ""))  # type: ignore[union-attr]

    def test_an_id_beyond_all_reason(self) -> None:
        self.publish(*range(10))
        self.assertEqual(self.subscribe(str(10 + MOST_AHEAD)).ids(), ["gap 9"])
        self.assertEqual(self.history.readings, [])

    def test_an_id_that_no_event_can_have(self) -> None:
        """Also at a gateway that knows of no event yet."""
        for last in (2**63, 10**20 - 1):
            self.assertEqual(self.subscribe(str(last)).ids(), ["gap"])
        self.assertEqual(self.history.readings, [])

    def test_the_broker_is_away(self) -> None:
        """Nobody can tell what is missing, and nothing new comes either: it waits, and then goes on where it was."""
        self.publish(*range(50))
        sink = self.subscribe("10")
        self.history.readings[0].give()
        for _ in range(100):
            self.history.readings[-1].failed(BrokerUnavailable("reset"))
            self.clock.advance(0.5)
        self.assertEqual(sink.ids(), ["11"])
        self.read()
        self.assertEqual(sink.ids(), self.numbers(11, 49))
        self.assertEqual(len(self.history.readings), 1 + 100)  # one for each try

    def test_there_is_no_connection_for_long(self) -> None:
        """The reading fails before it has begun."""
        self.publish(*range(50))

        class NoConnection(MemoryReading):
            def __init__(self, history: MemoryHistory, offset: int, received: Any, failed: Any) -> None:
                super().__init__(history, offset, received, failed)
                failed(BrokerUnavailable("there is no connection"))

        with patch("tests.unit.events.test_catch_up.MemoryReading", NoConnection):
            sink = self.subscribe("10")
            self.clock.pump([0.5] * 100)
        self.assertEqual(sink.ids(), [])
        self.clock.advance(0.5)
        self.read()
        self.assertEqual(sink.ids(), self.numbers(11, 49))

    def test_the_broker_refuses_for_long(self) -> None:
        self.publish(*range(50))
        sink = self.subscribe("10")
        for _ in range(100):
            reading = self.history.readings[-1]
            if not reading.stopped and sink.ids() == []:
                reading.failed(BrokerRefused(404, "NOT_FOUND - no queue 'events'"))
            self.clock.advance(0.5)
        self.assertEqual(sink.ids(), ["gap 44", *self.numbers(45, 49)])

    def test_all_come_back_to_a_gateway_that_has_just_started(self) -> None:
        """It reads the latest events anyway: there is no need to read for each, nor to wait for a turn."""
        sinks = [self.subscribe(str(number % 3), user=f"user{number}") for number in range(3 * MOST_READINGS)]
        for reading in self.history.readings:
            reading.failed(BrokerUnavailable("there is no connection to the broker"))
        self.publish(*range(5))
        self.clock.pump([0.5] * 4)
        for number, sink in enumerate(sinks):
            self.assertEqual(sink.ids(), self.numbers(number % 3 + 1, 4))
        self.assertEqual(len(self.history.readings), MOST_READINGS)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_the_stream_is_made_anew_meanwhile(self) -> None:
        self.publish(*range(50))
        sink = self.subscribe("10")
        self.history.readings[0].give()
        self.hub.restart()
        self.clock.advance(0)
        self.hub.publish(event(0))
        self.clock.advance(0)
        self.assertEqual(sink.ids(), ["11", "gap", "0"])
        self.assertTrue(self.history.readings[0].stopped)
