"""A place in the stream for everybody: told at the start and with heartbeats, and quiet ones resume from there."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from amqprouter.counters import Counters
from amqprouter.events import sse
from amqprouter.events.heartbeats import SPOKES
from amqprouter.events.hub import Hub
from amqprouter.events.interest import Interest
from amqprouter.events.subscriber import OLD_PLACE
from amqprouter.identity import Identity
from amqprouter.patterns import TopicPattern
from amqprouter.settings import EventsSettings
from tests.unit.events.test_catch_up import MemoryHistory
from tests.unit.web.harness import BusyClock, MemorySink, event


class PlaceTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.history = MemoryHistory()
        settings = EventsSettings(window=5, max_subscribers_per_user=0)
        self.hub = Hub(settings, Counters(), self.clock, history=self.history)

    def subscribe(self, *patterns: str, last: str = "", capacity: int | None = None) -> MemorySink:
        sink = MemorySink()
        sink.capacity = capacity
        interest = Interest(TopicPattern(text) for text in patterns or ("#",))
        sink.subscriber = self.hub.subscribe(
            Identity("alice"), interest, lambda topics, private: True, sink, last_event_id=last
        )
        sink.subscriber.start()
        self.clock.advance(0)
        return sink

    def publish(self, *offsets: int, key: str = "dev1.up") -> None:
        for offset in offsets:
            self.history.events.append(event(offset, key))
            self.hub.publish(event(offset, key))
        self.clock.advance(0)

    def beat(self) -> None:
        for _ in range(SPOKES):
            self.hub.heartbeat()


class SlowPattern:
    """A pattern that takes a millisecond with each topic."""

    first_word = exact = ""

    def __init__(self, text: str, clock: BusyClock) -> None:
        self._pattern = TopicPattern(text)
        self._clock = clock
        self.text = text
        self.expressions = self._pattern.expressions
        self.kind, self.effort = self._pattern.kind, self._pattern.effort

    def matches(self, topic: str) -> bool:
        self._clock.work(0.001)
        return self._pattern.matches(topic)


class HeartbeatTests(PlaceTestCase):
    def test_with_a_place_where_there_is_another(self) -> None:
        quiet = self.subscribe("nobody.#")
        self.beat()
        self.assertEqual(quiet.written, [b":\n"])  # nothing was ever published: there is no place
        self.publish(7)
        self.beat()
        self.beat()
        self.assertEqual(quiet.written[1:], [sse.place(7), b":\n"])

    def test_who_has_just_had_an_event_knows_its_place(self) -> None:
        busy = self.subscribe()
        self.publish(7)
        self.beat()
        self.assertEqual(busy.written, [sse.encode(event(7)), b":\n"])

    def test_what_is_pending_comes_before(self) -> None:
        """A place says that everything up to it was written."""
        sink = self.subscribe("dev1.#")
        self.hub.publish(event(1))
        self.hub.publish(event(2, "dev2.up"))
        self.beat()
        self.assertEqual(b"".join(sink.written), sse.encode(event(1)) + sse.place(2))

    def test_not_to_one_whose_connection_is_blocked(self) -> None:
        sink = self.subscribe("dev1.#", capacity=1)
        self.publish(1, 2)
        self.publish(3, key="dev2.up")
        self.beat()
        self.assertEqual(sink.ids(), ["1", "2"])
        self.assertNotIn(b"place", b"".join(sink.written))

    def test_while_a_gateway_starts_nobody_has_had_its_history(self) -> None:
        self.hub.fell_behind()
        sink = self.subscribe()
        self.hub.publish(event(5), False)
        self.beat()
        self.assertEqual(sink.written, [b":\n"])
        self.hub.caught_up(5)
        self.beat()
        self.assertEqual(sink.written[1:], [sse.place(5)])
        self.hub.fell_behind()  # the broker is away for a while
        self.publish(6)
        self.beat()
        self.assertEqual(sink.written[2:], [sse.encode(event(6)), b":\n"])

    def test_where_the_stream_ends_is_a_place_too(self) -> None:
        self.hub.fell_behind()
        self.hub.caught_up(99)
        sink = self.subscribe()
        self.beat()
        self.assertEqual(sink.written, [sse.place(99)])

    def test_the_stream_is_made_anew(self) -> None:
        sink = self.subscribe("nobody.#")
        self.publish(50)
        self.beat()
        self.hub.restart()
        self.clock.advance(0)
        self.publish(0)
        self.beat()
        self.assertEqual(sink.written[-1], sse.place(0))

    def test_one_that_catches_up(self) -> None:
        """Its own place, and never one that it has not come to."""
        self.publish(*range(20))
        sink = self.subscribe("#", last="3")
        [reading] = self.history.readings
        self.beat()
        self.assertEqual(sink.written, [b":\n"])
        reading.give()
        self.clock.advance(0)
        self.beat()
        self.assertEqual(sink.ids(), ["4"])
        self.assertNotIn(b"place", b"".join(sink.written))  # for it has just had that


class ResumeTests(PlaceTestCase):
    def test_a_quiet_one_need_not_look_at_what_others_had(self) -> None:
        """Whether it asks by name, by device, or by a pattern."""
        self.publish(0)
        self.publish(*range(1, 100), key="dev2.up")
        for pattern in ("dev1.up", "dev1.#", "*.down"):
            sink = self.subscribe(pattern, last="0")
            self.assertEqual(sink.subscriber.resumed_after, "0")  # type: ignore[union-attr]
            self.assertEqual((sink.ids(), self.history.readings), ([], []), pattern)
        live = [self.subscribe(pattern, last="0") for pattern in ("dev1.up", "dev1.#", "*.up")]
        self.assertEqual(len(self.history.readings), 1)  # the last one has asked for these
        self.publish(100)
        self.assertEqual([sink.ids() for sink in live[:2]], [["100"], ["100"]])

    def test_one_that_missed_something_reads(self) -> None:
        self.publish(0)
        self.publish(1, key="dev1.down")
        self.publish(*range(2, 100), key="dev2.up")
        for pattern in ("dev1.down", "dev1.#", "*.down"):
            self.history.readings.clear()
            sink = self.subscribe(pattern, last="0")
            [reading] = self.history.readings
            while reading.give():
                self.clock.advance(0)
            self.assertEqual(sink.ids(), ["1"], pattern)

    def test_what_comes_while_patterns_are_tried(self) -> None:
        """It comes afterwards; nothing was missed."""
        clock = BusyClock()
        self.hub = Hub(EventsSettings(), Counters(), clock)
        for offset in range(10):
            self.hub.publish(event(offset, f"dev{offset}.up"))
        clock.turns(1.0)

        sink = MemorySink()
        sink.subscriber = self.hub.subscribe(
            Identity("alice"),
            Interest([SlowPattern("*.down", clock)]),
            lambda topics, private: True,
            sink,
            last_event_id="0",
        )
        sink.subscriber.start()
        self.assertTrue(self.hub.slices)
        for offset in (10, 11):
            self.hub.publish(event(offset, "dev1.down"))
        self.assertEqual((sink.ids(), sink.subscriber.resumed_after), ([], None))
        clock.turns(1.0)
        self.assertEqual((sink.ids(), sink.subscriber.resumed_after), (["10", "11"], "0"))

    def test_one_that_leaves_meanwhile(self) -> None:
        self.publish(*range(10), key="dev2.up")
        sink = self.subscribe("*.down", last="0")
        sink.subscriber.close()  # type: ignore[union-attr]
        self.clock.pump([0.1] * 5)
        self.assertEqual((sink.ids(), self.clock.getDelayedCalls()), ([], []))

    def test_who_was_far_behind_is_told_its_place_as_soon_as_it_is_live(self) -> None:
        self.publish(0)
        self.publish(1, key="dev1.down")
        self.publish(*range(2, 2 * OLD_PLACE), key="dev2.up")
        sink = self.subscribe("dev1.down", last="0")
        [reading] = self.history.readings
        while reading.give():
            self.clock.advance(0)
        self.assertEqual(sink.written[-1], sse.place(2 * OLD_PLACE - 1))

    def test_an_id_of_nobody_s_event_resumes(self) -> None:
        """A place is the offset of somebody else's event, which this subscriber may not even see."""
        sink = self.subscribe("dev1.up")
        self.publish(0, key="dev2.secret")
        self.beat()
        self.assertEqual(sink.written, [sse.place(0)])
        self.publish(1)
        self.assertEqual(self.subscribe("dev1.up", last="0").ids(), ["1"])
