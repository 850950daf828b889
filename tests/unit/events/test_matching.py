"""Finding out who wants an event takes time, in slices: whoever asks for much, or publishes much, waits alone."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

from amqprouter.counters import Counters
from amqprouter.events.event import Event
from amqprouter.events.hub import CHARACTERS_EACH, EXPRESSIONS_EACH, LITTLE_EFFORT, Hub
from amqprouter.events.interest import Interest
from amqprouter.events.slices import BURST
from amqprouter.events.subscriber import Scrutiny
from amqprouter.events.topic_selector import TopicSelector
from amqprouter.identity import Identity
from amqprouter.patterns import TopicPattern
from amqprouter.settings import EventsSettings
from tests.unit.web.harness import BusyClock, MemorySink, event

TRY = 0.0003
"""Seconds that trying one template on one topic takes here: the worst there is."""
LONG = tuple(f"https://example.com/{number}/".ljust(1000, "x") for number in range(100))
"""Topics of an update, of as many characters as there may be."""


class MatchingTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = BusyClock()
        self.counters = Counters()
        self.hub = Hub(EventsSettings(window=50, max_subscribers_per_user=100), self.counters, self.clock)
        self.hidden: set[str] = set()
        self.tried = 0
        matches = TopicSelector.matches

        def matches_slowly(selector: TopicSelector, topic: str) -> bool:
            self.tried += 1
            self.clock.work(TRY)
            return matches(selector, topic)

        patching = patch.object(TopicSelector, "matches", matches_slowly)
        patching.start()
        self.addCleanup(patching.stop)

    def subscribe(self, user: str, *selectors: str, pattern: str = "", last: str = "", **more: Any) -> MemorySink:
        sink = MemorySink()
        sink.subscriber = self.hub.subscribe(
            Identity(user),
            Interest([TopicPattern(pattern)] if pattern else map(TopicSelector, selectors)),
            lambda topics, private: not private or not self.hidden.issuperset(topics),
            sink,
            last_event_id=last,
            **more,
        )
        sink.subscriber.start()
        return sink

    def greedy(self, user: str = "eve", last: str = "", mark: str = "") -> MemorySink:
        """One that takes long to ask."""
        return self.subscribe(user, *(f"{{+a}}{mark}{number}{{+b}}never" for number in range(100)), "a{b}", last=last)

    def publish(self, offset: int, *topics: str, private: bool = True) -> None:
        self.hub.publish(Event(offset, topics, b"{}", private))


class SlicesOfMatchingTests(MatchingTestCase):
    def test_others_are_not_held_up(self) -> None:
        for number in range(100):
            self.greedy(mark=str(number))
        good = self.subscribe("ann", pattern="#")
        for offset in range(3):
            self.publish(offset, f"new{offset}", *LONG)
        self.clock.longest = 0.0
        self.assertLess(self.clock.busy, 0.01)
        self.clock.turns(0.01)
        self.assertEqual(good.ids(), ["0", "1", "2"])
        self.clock.turns(5.0)
        self.assertLess(self.clock.longest, BURST + 2 * TRY)
        self.assertLess(self.clock.busy / 5.0, 0.25)

    def test_they_get_everything_in_order(self) -> None:
        sink = self.greedy()
        for offset in range(20):
            self.publish(offset, f"a{offset}", "x" * 100)
            self.clock.turns(0.001)
        self.assertLess(len(sink.ids()), 5)
        self.clock.turns(10.0)
        self.assertEqual(sink.ids(), [str(offset) for offset in range(20)])
        self.publish(20, "a0", "x" * 100)  # known by now
        self.clock.turns(0.001)
        self.assertEqual(sink.ids()[-1], "20")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_live_events_before_it_fell_behind_come_first(self) -> None:
        sink = self.subscribe("eve", "a", "b", *(f"{{+a}}{number}never" for number in range(100)), "{x}")
        self.publish(0, "a")
        self.clock.turns(1.0)
        self.publish(1, "a")
        self.publish(2, *LONG, "y")
        self.publish(3, "a")
        self.clock.turns(30.0)
        self.assertEqual(sink.ids(), ["0", "1", "2", "3"])

    def test_what_cannot_be_seen_is_not_tried(self) -> None:
        self.hidden.add("secret")
        sink = self.greedy()
        self.publish(0, "secret")
        self.clock.turns(1.0)
        self.assertEqual((self.tried, sink.ids()), (0, []))

    def test_who_is_overtaken_by_the_window_is_cut(self) -> None:
        sink = self.greedy()
        for offset in range(60):
            self.publish(offset, *(f"{offset}{topic}" for topic in LONG))
        self.clock.turns(10.0)
        self.assertEqual((sink.state, self.counters.slow_subscribers), ("cut", 1))

    def test_permissions_that_change_meanwhile(self) -> None:
        sink = self.greedy()
        self.publish(0, "a1", "x" * 100)
        self.clock.turns(0.01)
        self.hidden.update(("a1", "x" * 100))
        self.hub.reload()
        self.clock.turns(10.0)
        self.assertEqual(sink.ids(), [])

    def test_who_leaves_meanwhile(self) -> None:
        sink = self.greedy()
        self.publish(0, "a1", *LONG)
        assert sink.subscriber is not None
        sink.subscriber.close()
        tried = self.tried
        self.clock.turns(10.0)
        self.publish(1, "a1", *LONG)
        self.assertLess(self.tried, tried + 5)
        self.assertEqual((len(self.hub.slices), sink.ids()), (0, []))

    def test_the_stream_is_made_anew_meanwhile(self) -> None:
        sink = self.greedy()
        self.publish(5, "a1", "x" * 100)
        self.hub.restart()
        self.publish(0, "a2", "x" * 100)
        self.clock.turns(10.0)
        self.assertEqual(sink.ids(), ["gap", "0"])

    def test_resuming_takes_slices_too(self) -> None:
        for offset in range(50):
            self.publish(offset, f"a{offset}", f"x{offset}" * 30)
        good = self.subscribe("ann", pattern="#", last="0")
        for _ in range(20):
            sink = self.greedy(last="earliest")
        self.clock.longest = 0.0
        self.clock.turns(60.0)
        self.assertLess(self.clock.longest, BURST + 2 * TRY)
        self.assertEqual(len(good.ids()), 49)
        self.clock.turns(300.0)
        self.assertEqual(len(sink.ids()), 50)

    def test_tokens_are_tried_in_steps(self) -> None:
        selectors = Interest(TopicSelector(f"{{+a}}{number}never") for number in range(300))
        sink = self.subscribe("eve", "{+x}", scrutiny=Scrutiny(300, selectors.tries))
        self.publish(0, "a1", *LONG)
        self.clock.turns(1.0)
        self.assertLess(self.clock.longest, BURST + 2 * TRY)
        self.clock.turns(60.0)
        self.assertEqual(sink.ids(), [])

    def test_an_id_that_takes_long_to_look_into_is_unknown(self) -> None:
        """Whether it may be known must not take long."""
        selectors = Interest(TopicSelector(f"{{+a}}{number}never") for number in range(300))
        self.hub.publish(Event(0, LONG, b"{}", id="urn:x"))
        before = self.clock.busy
        sink = self.subscribe("eve", "a", last="urn:x", scrutiny=Scrutiny(300, selectors.tries))
        self.assertLess(self.clock.busy - before, BURST + 2 * TRY)
        self.clock.turns(0.1)
        self.assertEqual(sink.ids(), ["gap 0"])

    def test_a_fault_ends_one_subscription(self) -> None:
        def broken(topics: tuple[str, ...]) -> Any:
            raise KeyError(topics)
            yield

        sink, good = self.subscribe("eve", "{+x}", scrutiny=Scrutiny(300, broken)), self.subscribe("ann", pattern="#")
        self.publish(0, "a", "x" * 1000)
        self.clock.turns(0.1)
        self.assertEqual((sink.state, good.ids()), ("cut", ["0"]))
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

    def test_short_ones_are_answered_at_once(self) -> None:
        sink = self.subscribe("ann", "a{x}", "b{x}")
        self.publish(0, "a1")
        self.assertEqual(len(self.hub.slices), 0)
        self.clock.turns(0.001)
        self.assertEqual(sink.ids(), ["0"])

    def test_what_many_ask_for_is_remembered_whoever_was_asked_late(self) -> None:
        sinks = [self.greedy() for _ in range(5)]
        self.publish(0, "a1", "x" * 100)
        self.clock.turns(20.0)
        tried = self.tried
        for offset in range(1, 100):
            self.publish(offset, "a1", "x" * 100)
            self.clock.turns(0.001)
        self.assertEqual(self.tried, tried)
        self.assertEqual({len(sink.ids()) for sink in sinks}, {100})


class LimitTests(MatchingTestCase):
    def test_all_selectors_of_a_user_are_bounded(self) -> None:
        templates = Interest(TopicSelector(f"{number}" + "{x}" * 16) for number in range(20))
        for _ in range(EXPRESSIONS_EACH * 100 // 320):
            self.assertIsNone(self.hub.refusal("eve", "", templates))
            sink = MemorySink()
            last = self.hub.subscribe(Identity("eve"), templates, lambda topics, private: True, sink)
        refusal = self.hub.refusal("eve", "", templates)
        assert refusal is not None
        self.assertEqual(refusal.status, 429)
        self.assertIn(f"{EXPRESSIONS_EACH * 100} are the most", refusal.problem)
        self.assertIsNone(self.hub.refusal("ann", "", templates))
        self.assertIsNone(self.hub.refusal("anonymous", "", templates))
        last.close()
        self.assertIsNone(self.hub.refusal("eve", "", templates))

    def test_their_characters_too(self) -> None:
        names = Interest(TopicSelector(f"{number}".ljust(1024, "x")) for number in range(100))
        for _ in range(CHARACTERS_EACH * 100 // 102_400):
            self.assertIsNone(self.hub.refusal("eve", "", names))
            self.hub.subscribe(Identity("eve"), names, lambda topics, private: True, MemorySink())
        refusal = self.hub.refusal("eve", "", names)
        assert refusal is not None
        self.assertIn("characters", refusal.problem)

    def test_no_limit_for_those_who_have_none(self) -> None:
        hub = Hub(EventsSettings(max_subscribers_per_user=0), self.counters, self.clock)
        templates = Interest(TopicSelector(f"{number}" + "{x}" * 16) for number in range(1000))
        self.assertIsNone(hub.refusal("eve", "", templates))

    def test_the_same_selector_counts_once(self) -> None:
        self.assertEqual(Interest([TopicSelector("{x}")] * 100).expressions, 1)

    def test_little_is_little(self) -> None:
        """An answer that is given at once takes no longer than a step."""
        self.assertLessEqual(LITTLE_EFFORT * TRY / 1000, BURST)

    def test_what_is_tiny_is_answered_whatever_the_user_has_used(self) -> None:
        """To put thousands of them off would take longer: they may all be the same user, behind one proxy."""
        self.hub.slices.charge("ann", 10.0)
        sinks = [self.subscribe("ann", pattern="#") for _ in range(100)]
        self.hub.publish(event(0, "dev1.up.x"))
        self.assertEqual(len(self.hub.slices), 0)
        self.clock.turns(0.001)
        self.assertEqual({tuple(sink.ids()) for sink in sinks}, {("0",)})

    def test_device_events_of_ordinary_subscribers_wait_for_nothing(self) -> None:
        sinks = [self.subscribe(f"user{number}", pattern="dev1.up.*") for number in range(100)]
        self.hub.publish(event(0, "dev1.up.x"))
        self.clock.turns(0.001)
        self.assertEqual({tuple(sink.ids()) for sink in sinks}, {("0",)})
