"""The hub: who gets what, in which order, and what becomes of those who do not keep up."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from amqprouter.counters import Counters
from amqprouter.events import sse
from amqprouter.events.event import Event
from amqprouter.events.heartbeats import SPOKES
from amqprouter.events.hub import CLOSE_WITHIN, Hub
from amqprouter.events.interest import Interest
from amqprouter.events.published_ids import PublishedIds
from amqprouter.events.window import ENTRY_BYTES, WINDOW_BYTES
from amqprouter.identity import Identity
from amqprouter.interfaces import IReloadable
from amqprouter.patterns import TopicPattern
from amqprouter.settings import EventsSettings
from amqprouter.web.sse_resource import by_acl
from tests.unit.web.harness import MemorySink, event


class HubTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.hidden: set[tuple[str, str]] = set()
        self.asked = 0
        self.written: list[float] = []
        self.make_hub()

    def make_hub(
        self,
        *,
        window: int = 10,
        buffer_bytes: int = 100,
        window_bytes: int = WINDOW_BYTES,
        max_remembered: int = 100_000,
        throttle: Callable[[bool], None] = lambda wait: None,
    ) -> None:
        self.counters = Counters()
        settings = EventsSettings(window=window, buffer_bytes=buffer_bytes, max_subscribers=2)
        self.clock = Clock()
        self.hub = Hub(
            settings,
            self.counters,
            self.clock,
            window_bytes=window_bytes,
            replay_bytes=1,
            max_remembered=max_remembered,
            throttle=throttle,
            written=self.written.append,
        )

    def allows(self, user: Identity, key: str) -> bool:
        self.asked += 1
        return (user.name, key) not in self.hidden

    def subscribe(self, *patterns: str, user: str = "alice", last: str = "", capacity: int | None = None) -> MemorySink:
        sink = MemorySink()
        sink.capacity = capacity
        sink.subscriber = self.hub.subscribe(
            Identity(user),
            Interest(TopicPattern(text) for text in patterns or ("#",)),
            by_acl(self.allows, Identity(user)),
            sink,
            address="192.0.2.1",
            last_event_id=last,
        )
        sink.subscriber.start()
        return sink

    def publish(self, *offsets: int, key: str = "dev1.up") -> None:
        """Each in a turn of the reactor of its own."""
        for offset in offsets:
            self.hub.publish(event(offset, key))
            self.clock.advance(0)


class WrittenTests(HubTestCase):
    def told(self, offset: int, second: int) -> Event:
        data = b'{"device":"dev1","topic":"up","received_at":"2023-11-14T22:13:%02d.500Z","body":1}' % second
        return event(offset, data=data)

    def test_each_write_counts_with_its_oldest(self) -> None:
        self.make_hub(buffer_bytes=10_000)
        for _ in range(2):
            self.subscribe()
        for offset, second in ((1, 20), (2, 21)):
            self.hub.publish(self.told(offset, second))
        self.assertEqual(self.written, [])
        self.clock.advance(0)
        self.assertEqual(self.written, [1_700_000_000.5] * 2)
        self.hub.publish(self.told(3, 22))
        self.clock.advance(0)
        self.assertEqual(self.written[2:], [1_700_000_002.5] * 2)

    def test_history_and_heartbeats_do_not(self) -> None:
        self.make_hub(buffer_bytes=10_000)
        self.hub.publish(self.told(1, 20))
        self.subscribe(last="earliest")
        self.clock.advance(0)
        for _ in range(100):
            self.hub.heartbeat()
        self.publish(2)
        self.assertEqual(self.written, [])


class MatchingTests(HubTestCase):
    def test_interface(self) -> None:
        verifyObject(IReloadable, self.hub)

    def test_only_what_was_asked_for(self) -> None:
        one, two = self.subscribe("dev1.#", "dev3.*"), self.subscribe("dev2.up")
        for offset, key in enumerate(["dev1.up", "dev2.up", "dev2.down", "dev3.a", "dev3.a.b"]):
            self.publish(offset, key=key)
        self.assertEqual(one.ids(), ["0", "3"])
        self.assertEqual(two.ids(), ["1"])
        self.assertEqual(self.counters.events_delivered, 3)

    def test_two_patterns_one_event(self) -> None:
        sink = self.subscribe("dev1.#", "#")
        self.publish(0)
        self.assertEqual(sink.ids(), ["0"])

    def test_only_what_is_allowed(self) -> None:
        self.hidden.add(("bob", "dev1.up"))
        alice, bob = self.subscribe(), self.subscribe(user="bob")
        self.publish(0)
        self.assertEqual(alice.ids(), ["0"])
        self.assertEqual(bob.ids(), [])

    def test_answers_are_remembered_until_reload(self) -> None:
        sink = self.subscribe()
        self.publish(0, 1, 2)
        self.assertEqual(self.asked, 1)
        self.hidden.add(("alice", "dev1.up"))
        self.hub.reload()
        self.publish(3)
        self.hidden.clear()
        self.hub.reload()
        self.publish(4)
        self.assertEqual(sink.ids(), ["0", "1", "2", "4"])

    def test_only_newcomers_are_asked_about(self) -> None:
        self.subscribe()
        self.publish(0)
        late = self.subscribe()
        self.publish(1)
        self.assertEqual(self.asked, 2)
        self.assertEqual(late.ids(), ["1"])

    def test_who_left_gets_nothing(self) -> None:
        sink = self.subscribe()
        self.publish(0)
        assert sink.subscriber is not None
        sink.subscriber.close()
        sink.subscriber.close()
        self.publish(1)
        self.assertEqual(sink.ids(), ["0"])
        self.assertEqual(len(self.hub.subscribers), 0)
        self.assertEqual(self.hub._audiences.of(("dev1.up",), True, self.hub._ask).members, {})

    def test_memory_of_answers_is_bounded(self) -> None:
        self.make_hub(max_remembered=10)
        sink = self.subscribe()
        for offset in range(100):
            self.publish(offset, key=f"dev{offset}.up")
            self.assertLessEqual(len(self.hub._audiences), 11)
        self.assertEqual(len(sink.ids()), 100)

    def test_an_event_is_serialised_once(self) -> None:
        one, two = self.subscribe(), self.subscribe()
        self.publish(0)
        self.assertIs(one.written[0], two.written[0])

    def test_repeats_of_the_stream_are_ignored(self) -> None:
        sink = self.subscribe()
        self.publish(4, 5, 4, 5, 6)
        self.assertEqual(sink.ids(), ["4", "5", "6"])

    def test_topics_by_name_are_looked_up_and_others_not_asked(self) -> None:
        """Nobody who asked for another topic by name is even looked at."""
        self.make_hub()
        named = [self.subscribe(f"dev{number}.up") for number in range(50)]
        self.publish(0, key="dev7.up")
        self.assertEqual(self.asked, 1)
        self.assertEqual([sink.ids() for sink in named], [["0"] if n == 7 else [] for n in range(50)])

    def test_who_joins_and_leaves_by_name(self) -> None:
        first, second = self.subscribe("dev1.up"), self.subscribe("dev1.up", "dev2.up", "dev3.*")
        self.publish(0)
        late = self.subscribe("dev1.up")
        first.subscriber.close()  # type: ignore[union-attr]
        self.publish(1)
        self.publish(2, key="dev2.up")
        self.publish(3, key="dev3.up")
        self.assertEqual((first.ids(), second.ids(), late.ids()), (["0"], ["0", "1", "2", "3"], ["1"]))
        for sink in (second, late):
            sink.subscriber.close()  # type: ignore[union-attr]
        self.assertEqual((self.hub._audiences._named, self.hub._audiences._with_patterns), ({}, {}))

    def test_alternate_topics_count_for_interest_and_permission(self) -> None:
        self.hidden.update({("alice", "a.b"), ("bob", "a.b"), ("bob", "c.d")})
        alice, bob, other = self.subscribe("a.b"), self.subscribe("c.*", user="bob"), self.subscribe("a.b", "c.d")
        self.hub.publish(Event(0, ("a.b", "c.d"), b"{}"))
        self.hub.publish(Event(1, ("a.b",), b"{}"))
        self.hub.publish(Event(2, ("a.b", "c.d"), b"{}", private=False))
        self.clock.advance(0)
        self.assertEqual((alice.ids(), bob.ids(), other.ids()), (["0", "2"], ["2"], ["0", "2"]))

    def test_events_of_one_turn_are_one_write(self) -> None:
        one, two = self.subscribe("dev1.#"), self.subscribe("#")
        for offset, key in enumerate(["dev1.up", "dev2.up", "dev1.up"]):
            self.hub.publish(event(offset, key))
        self.assertEqual((one.written, two.written), ([], []))
        self.clock.advance(0)
        self.assertEqual((one.ids(), two.ids()), (["0", "2"], ["0", "1", "2"]))
        self.assertEqual((len(one.written), len(two.written)), (1, 1))
        self.assertEqual(self.counters.events_delivered, 5)

    def test_a_long_write_is_sliced_and_the_source_waits(self) -> None:
        waits: list[tuple[bool, int]] = []
        sinks: list[MemorySink] = []
        self.make_hub(throttle=lambda wait: waits.append((wait, sum(bool(sink.written) for sink in sinks))))
        sinks += [self.subscribe() for _ in range(100)]
        self.hub.publish(event(0))
        seconds = self.clock.seconds
        moments = itertools.count()
        self.clock.seconds = lambda: seconds() + next(moments)  # type: ignore[method-assign]  # every look is late
        while self.clock.getDelayedCalls():
            self.clock.advance(0)
        self.assertEqual(waits, [(True, 32), (False, 100)])

    def test_what_waits_for_the_daemon_itself_makes_nobody_slow(self) -> None:
        sink = self.subscribe()
        for offset in range(100):
            self.hub.publish(event(offset))
        self.clock.advance(0)
        self.assertEqual((len(sink.ids()), sink.state), (100, "open"))

    def test_limits(self) -> None:
        self.hub.settings = EventsSettings(max_subscribers_per_user=2, max_subscribers_per_address=3)
        sink = self.subscribe()
        self.subscribe()
        self.assertEqual(self.hub.refusal("alice", ""), (429, "this user has 2 subscriptions, the most"))
        self.assertIsNone(self.hub.refusal("bob", "192.0.2.1"))
        self.subscribe(user="bob")
        self.assertEqual(self.hub.refusal("bob", "192.0.2.1"), (429, "this address has 3 subscriptions, the most"))
        self.assertIsNone(self.hub.refusal("bob", "192.0.2.2"))
        sink.subscriber.close()  # type: ignore[union-attr]
        self.assertIsNone(self.hub.refusal("alice", "192.0.2.1"))

    def test_one_ipv6_network_is_one_address(self) -> None:
        self.hub.settings = EventsSettings(max_subscribers_per_address=2)
        sinks = [MemorySink(), MemorySink()]
        for number, sink in enumerate(sinks):
            address = f"2001:db8::{number}"
            sink.subscriber = self.hub.subscribe(
                Identity("alice"), Interest([TopicPattern("#")]), lambda topics, private: True, sink, address=address
            )
        self.assertIsNotNone(self.hub.refusal("bob", "2001:db8::7"))
        self.assertIsNone(self.hub.refusal("bob", "2001:db8:0:1::7"))
        sinks[0].subscriber.close()  # type: ignore[union-attr]
        self.assertIsNone(self.hub.refusal("bob", "2001:db8::7"))

    def test_anonymous_is_many(self) -> None:
        self.hub.settings = EventsSettings(max_subscribers_per_user=1)
        self.subscribe(user="anonymous")
        self.assertIsNone(self.hub.refusal("anonymous", ""))

    def test_full(self) -> None:
        self.subscribe()
        self.assertIsNone(self.hub.refusal("bob", "192.0.2.1"))
        self.subscribe()
        self.assertEqual(self.hub.refusal("bob", "192.0.2.1"), (503, "too many subscribers"))

    def test_close(self) -> None:
        sinks = [self.subscribe(), self.subscribe()]
        self.assertIsNone(self.successResultOf(self.hub.close()))
        self.assertTrue(self.hub.closed)
        self.assertEqual([sink.state for sink in sinks], ["finished", "finished"])
        self.assertEqual(len(self.hub.subscribers), 0)

    def test_many_are_closed_over_a_while(self) -> None:
        sinks = [self.subscribe() for _ in range(10_000)]
        closing = self.hub.close()
        self.assertEqual(self.hub.refusal("bob", ""), (503, "shutting down"))
        counts = []
        while not closing.called:
            self.clock.advance(0.05)
            counts.append(sum(sink.state == "finished" for sink in sinks))
        self.assertEqual(counts[0], 250)
        self.assertEqual(counts[-1], 10_000)
        self.assertLessEqual(self.clock.seconds(), CLOSE_WITHIN)


class ResumeTests(HubTestCase):
    def gap_of(self, sink: MemorySink) -> dict[str, object]:
        data = next(line for line in sink.written[0].decode().splitlines() if line.startswith("data: "))
        gap: dict[str, object] = json.loads(data[6:])
        return gap

    def test_without_an_id_only_news(self) -> None:
        self.publish(0, 1)
        sink = self.subscribe()
        self.publish(2)
        self.assertEqual(sink.ids(), ["2"])

    def test_history_then_news(self) -> None:
        self.publish(5, 6, 7, 8)
        sink = self.subscribe(last="6")
        self.publish(9)
        self.assertEqual(sink.ids(), ["7", "8", "9"])

    def test_up_to_date(self) -> None:
        self.publish(5, 6)
        sink = self.subscribe(last="6")
        self.publish(7)
        self.assertEqual(sink.ids(), ["7"])

    def test_the_window_s_edge_is_no_gap(self) -> None:
        self.publish(*range(100, 130))  # 120–129 are left
        self.assertEqual(self.subscribe(last="119").ids(), [str(n) for n in range(120, 130)])

    def test_beyond_the_window_s_edge(self) -> None:
        self.publish(*range(100, 130))
        sink = self.subscribe(last="118")
        self.publish(130)
        self.assertEqual(sink.ids(), ["gap 119", *(str(n) for n in range(120, 131))])
        self.assertEqual(self.gap_of(sink), {"reason": "too old", "resumes_after": 119})

    def test_holes_between_offsets(self) -> None:
        self.publish(10, 20, 30)
        self.assertEqual(self.subscribe(last="15").ids(), ["20", "30"])

    def test_unknown_ids(self) -> None:
        self.publish(5)
        for last in ("x", "-1", "6a", "99999999999999999999"):
            sink = self.subscribe(last=last)
            self.assertEqual(sink.ids(), ["gap 5"], last)
            self.assertEqual(self.gap_of(sink), {"reason": "unknown id", "resumes_after": 5})

    def test_an_id_before_anything_was_read(self) -> None:
        sink = self.subscribe(last="6")
        self.assertEqual(sink.ids(), ["gap"])
        self.assertEqual(self.gap_of(sink), {"reason": "unknown id", "resumes_after": None})

    def test_replay_is_filtered_and_permitted(self) -> None:
        self.hidden.add(("alice", "dev2.up"))
        for offset, key in enumerate(["dev0.up", "dev1.up", "dev2.up", "dev1.down", "dev1.up"]):
            self.publish(offset, key=key)
        self.assertEqual(self.subscribe("*.up", last="0").ids(), ["1", "4"])

    def test_a_blocked_replay_waits_for_the_connection(self) -> None:
        self.publish(0, 1, 2, 3)
        sink = self.subscribe(last="0", capacity=1)
        self.publish(4)
        self.assertEqual(sink.ids(), ["1"])
        for expected in (["1", "2"], ["1", "2", "3"], ["1", "2", "3", "4"]):
            sink.capacity = 1
            sink.subscriber.resume()  # type: ignore[union-attr]
            self.assertEqual(sink.ids(), expected)
        sink.capacity = None
        sink.subscriber.resume()  # type: ignore[union-attr]
        self.publish(5)
        self.assertEqual(sink.ids(), ["1", "2", "3", "4", "5"])

    def test_a_replay_larger_than_the_buffer_goes_through(self) -> None:
        self.make_hub(window=50, buffer_bytes=1)
        self.publish(*range(50))
        sink = self.subscribe(last="0", capacity=1)
        for _ in range(60):
            sink.capacity = 1
            sink.subscriber.resume()  # type: ignore[union-attr]
        self.assertEqual(sink.ids(), [str(n) for n in range(1, 50)])
        self.assertEqual(sink.state, "open")

    def test_a_replay_overtaken_by_the_window_is_cut(self) -> None:
        self.publish(0, 1, 2)
        sink = self.subscribe(last="0", capacity=1)
        self.publish(*range(3, 20))
        self.assertEqual(sink.state, "cut")
        self.assertEqual(self.counters.slow_subscribers, 1)
        self.assertEqual(sink.ids(), ["1"])

    def test_a_replay_overtaken_by_events_it_does_not_want_is_cut_when_it_reads(self) -> None:
        self.publish(0, 1, 2)
        sink = self.subscribe("dev1.#", last="0", capacity=1)
        self.publish(*range(3, 20), key="other.up")
        self.assertEqual(sink.state, "open")
        sink.subscriber.resume()  # type: ignore[union-attr]
        self.assertEqual(sink.state, "cut")
        self.assertEqual(sink.ids(), ["1"])

    def test_the_connection_may_block_before_the_start(self) -> None:
        self.publish(0, 1)
        sink = MemorySink()
        subscriber = self.hub.subscribe(
            Identity("alice"),
            Interest([TopicPattern("#")]),
            by_acl(self.allows, Identity("alice")),
            sink,
            last_event_id="0",
        )
        subscriber.pause()
        subscriber.start()
        self.publish(2)
        self.assertEqual(sink.written, [])
        subscriber.resume()
        self.assertEqual(sink.ids(), ["1", "2"])

    @given(
        st.lists(st.sampled_from(["wanted", "other", "block", "read one", "read all"]), max_size=80), st.integers(0, 9)
    )
    def test_whatever_happens_order_holds_and_nothing_is_skipped(self, steps: list[str], last: int) -> None:
        """What it wants from behind its id on, in order: all of it, or all of it up to where it was cut."""
        self.make_hub(window=8, buffer_bytes=60)
        self.publish(*range(10))
        wanted = [offset for offset in range(2, 10) if offset > last]  # 0 and 1 have left the window
        sink = self.subscribe("dev1.#", last=str(last))
        subscriber = sink.subscriber
        assert subscriber is not None
        for offset, step in enumerate(steps, start=10):
            if step in ("wanted", "other"):
                self.publish(offset, key="dev1.up" if step == "wanted" else "other.up")
                wanted += [offset] if step == "wanted" else []
            elif sink.state == "open" and step == "block":
                subscriber.pause()
            elif sink.state == "open":
                sink.capacity = 1 if step == "read one" else None
                subscriber.resume()
        if sink.state == "open":
            sink.capacity = None
            subscriber.resume()
        got = [int(text) for text in sink.ids() if not text.startswith("gap")]
        self.assertEqual(got, wanted if sink.state == "open" else wanted[: len(got)])
        self.assertEqual(sink.ids()[:1] == ["gap 1"], last < 1)


class OwnIdTests(HubTestCase):
    """Ids that publishers gave their events."""

    def setUp(self) -> None:
        super().setUp()
        for offset in range(5):
            self.hub.publish(Event(offset, ("a",), b"{}", id=f"urn:{offset}"))

    def test_they_are_what_subscribers_see_and_resume_from(self) -> None:
        sink = self.subscribe(last="urn:2")
        self.assertEqual(sink.ids(), ["urn:3", "urn:4"])
        self.assertEqual(sink.subscriber.resumed_after, "urn:2")  # type: ignore[union-attr]

    def test_offsets_work_too(self) -> None:
        self.assertEqual(self.subscribe(last="3").ids(), ["urn:4"])

    def test_they_are_known_for_longer_than_their_events(self) -> None:
        self.publish(*range(5, 17))
        self.assertEqual(self.subscribe(last="urn:4").ids(), ["gap 6", *map(str, range(7, 17))])

    def test_the_latest_are_known_and_not_all(self) -> None:
        ids = PublishedIds(3)
        for offset, name in enumerate(["a", "b", "c", "a", "d"]):
            ids.add(Event(offset, ("t",), b"{}", id=name))
        self.assertIsNone(ids.find("b"))
        self.assertEqual(ids.find("a"), (3, ("t",), True))
        self.assertEqual(len(ids), 3)

    def test_of_one_that_comes_again_the_earliest_counts(self) -> None:
        ids = PublishedIds(5)
        for offset, name in enumerate("abab"):
            ids.add(Event(offset, ("t",), b"{}", id=name))
        self.assertEqual([ids.find(name)[0] for name in "ab"], [0, 1])  # type: ignore[index]
        for offset, name in enumerate("acdd", 4):
            ids.add(Event(offset, ("t",), b"{}", id=name))
        self.assertEqual([ids.find(name)[0] for name in "abcd"], [4, 3, 5, 6])  # type: ignore[index]
        for offset, name in enumerate("eeeee", 8):
            ids.add(Event(offset, ("t",), b"{}", id=name))
        self.assertEqual([ids.find(name) is None for name in "abcde"], [True, True, True, True, False])
        self.assertEqual(len(ids), 5)

    def test_who_resumes_from_one_that_came_again_gets_that_too(self) -> None:
        self.hub.publish(Event(5, ("a",), b"{}", id="urn:3"))
        self.assertEqual(self.subscribe(last="urn:3").ids(), ["urn:4", "urn:3"])

    def test_long_topics_leave_room_for_fewer(self) -> None:
        ids = PublishedIds(50_000, 1_000_000)
        for offset in range(100):
            topics = tuple(f"{offset}/{number}".ljust(1024, "x") for number in range(100))
            ids.add(Event(offset, topics, b"{}", id=str(offset)))
            ids.add(Event(offset, topics, b"{}", id=str(offset)))
        self.assertEqual(len(ids), 9)
        self.assertLessEqual(ids.bytes, 1_000_000)
        self.assertIsNotNone(ids.find("99"))
        ids.clear()
        self.assertEqual(ids.bytes, 0)


class SlowReaderTests(HubTestCase):
    FRAME = len(sse.encode(event(10)))
    ENTRY = FRAME + sys.getsizeof("dev1.up") + ENTRY_BYTES

    def test_a_blocked_subscriber_s_events_wait(self) -> None:
        sink = self.subscribe(capacity=1)
        self.publish(10, 11, 12)
        assert sink.subscriber is not None
        self.assertEqual(sink.ids(), ["10"])
        self.assertEqual(sink.subscriber.buffered, 2 * self.FRAME)
        sink.capacity = None
        sink.subscriber.resume()
        self.publish(13)
        self.assertEqual(sink.ids(), ["10", "11", "12", "13"])
        self.assertEqual(sink.subscriber.buffered, 0)

    def test_the_buffer_s_last_byte_may_be_used_and_no_more(self) -> None:
        self.make_hub(buffer_bytes=2 * self.FRAME)
        slow, quick = self.subscribe(capacity=1), self.subscribe()
        self.publish(10, 11, 12)
        self.assertEqual(slow.state, "open")
        self.publish(13)
        self.assertEqual(slow.state, "cut")
        self.assertEqual(quick.ids(), ["10", "11", "12", "13"])
        self.assertEqual(self.counters.slow_subscribers, 1)
        self.assertEqual(len(self.hub.subscribers), 1)
        self.assertEqual(slow.subscriber.buffered, 0)  # type: ignore[union-attr]

    def test_the_window_is_bounded_in_bytes(self) -> None:
        self.make_hub(window=1000, window_bytes=3 * self.ENTRY)
        self.publish(*range(10, 20))
        self.assertEqual(self.hub.window.bytes, 3 * self.ENTRY)
        self.assertEqual(self.subscribe(last="16").ids(), ["17", "18", "19"])

    def test_topics_count_as_well(self) -> None:
        """Of 500 updates with a hundred topics of a thousand characters, 53 MB."""
        self.make_hub(window=1000, window_bytes=1_000_000)
        for offset in range(500):
            topics = tuple(f"{offset}/{number}/".ljust(1024, "x") for number in range(100))
            self.hub.publish(Event(offset, topics, b"{}", id=f"urn:{offset}"))
        self.assertLessEqual(self.hub.window.bytes, 1_000_000)
        self.assertEqual(len(self.hub.window), 9)

    def test_one_event_larger_than_the_window(self) -> None:
        self.make_hub(window_bytes=10)
        sink = self.subscribe()
        self.publish(10, 11)
        self.assertEqual(sink.ids(), ["10", "11"])
        self.assertEqual(self.hub.window.bytes, self.ENTRY)

    def test_heartbeats_go_where_nothing_waits(self) -> None:
        free, blocked = self.subscribe(), self.subscribe(capacity=1)
        self.publish(10)
        for _ in range(SPOKES):
            self.hub.heartbeat()
        self.assertEqual(free.written[-1], b":\n")
        self.assertEqual(len(blocked.written), 1)


class HistoryTests(HubTestCase):
    def test_what_is_not_live_is_only_for_those_who_resume(self) -> None:
        early = self.subscribe()
        self.hub.publish(event(1, "dev1.up"), live=False)
        self.hub.publish(event(2, "dev1.up"), live=False)
        self.publish(3)
        resumed = self.subscribe(last="1")
        self.assertEqual((early.ids(), resumed.ids()), (["3"], ["2", "3"]))


class RestartTests(HubTestCase):
    """The stream was made anew."""

    GAP = b'event: gap\ndata: {"reason": "stream restarted", "resumes_after": null}\n\n'

    def test_live(self) -> None:
        """Everybody is told, and offsets that had been before are news."""
        self.publish(500, 501)
        sink = self.subscribe()
        self.publish(502)
        self.hub.restart()
        self.clock.advance(0)
        self.publish(0, 1)
        self.assertEqual(sink.ids(), ["502", "gap", "0", "1"])
        self.assertEqual(sink.written[1], self.GAP)

    def test_the_window_is_empty(self) -> None:
        self.publish(500, 501)
        self.hub.restart()
        self.clock.advance(0)
        self.assertEqual(self.hub.window.bytes, 0)
        self.assertEqual(self.subscribe(last="500").ids(), ["gap"])
        self.publish(0, 1)
        self.assertEqual(self.subscribe(last="0").ids(), ["1"])

    def test_while_it_replays(self) -> None:
        """What it had not yet replayed is gone; it is not cut for that."""
        self.publish(10, 11, 12)
        sink = self.subscribe(last="10", capacity=1)
        self.hub.restart()
        self.clock.advance(0)
        self.publish(0)
        sink.capacity = None
        assert sink.subscriber is not None
        sink.subscriber.resume()
        self.assertEqual((sink.ids(), sink.state), (["11", "gap", "0"], "open"))

    def test_too_slow_for_it(self) -> None:
        self.make_hub(buffer_bytes=40)
        sink = self.subscribe(capacity=1)
        self.publish(10)
        self.hub.restart()
        self.clock.advance(0)
        self.assertEqual((sink.state, self.counters.slow_subscribers), ("cut", 1))
