"""Who is subscribed, and the end of one user's streams."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from amqprouter.control.subscriptions import SubscriptionCommands
from amqprouter.counters import Counters
from amqprouter.errors import ControlRefused
from amqprouter.events.hub import Hub
from amqprouter.events.interest import Interest
from amqprouter.events.subscription_list import AT_ONCE, TOPICS_SHOWN
from amqprouter.identity import Identity
from amqprouter.patterns import TopicPattern
from amqprouter.settings import EventsSettings
from tests.unit.web.harness import MemorySink


class SubscriptionCommandTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.hub = Hub(EventsSettings(max_subscribers_per_user=0), Counters(), self.clock)
        self.commands = SubscriptionCommands(self.hub)

    def subscribe(self, user: str, *patterns: str) -> MemorySink:
        sink = MemorySink()
        interest = Interest(TopicPattern(text) for text in patterns)
        sink.subscriber = self.hub.subscribe(
            Identity(user), interest, lambda topics, private: True, sink, address="192.0.2.1"
        )
        sink.subscriber.start()
        return sink

    def listed(self, **arguments: str) -> list[tuple[str, list[str]]]:
        answer: Any = self.commands.list(**arguments)
        return [(one["user"], one["topics"]) for one in answer["subscriptions"]]

    def test_listed_by_user_and_by_topic(self) -> None:
        self.subscribe("ann", "dev1.#", "dev1.up")
        self.subscribe("bob", "dev1.#")
        self.assertEqual(self.listed(), [("ann", ["dev1.up", "dev1.#"]), ("bob", ["dev1.#"])])
        self.assertEqual(self.listed(user="bob"), [("bob", ["dev1.#"])])
        self.assertEqual(len(self.listed(topic="dev1.#")), 2)
        self.assertEqual(self.listed(topic="dev1.up"), [("ann", ["dev1.up", "dev1.#"])])
        self.assertEqual(self.listed(user="nobody"), [])
        self.assertEqual(self.commands.list(most="1")["count"], 2)
        self.assertEqual(len(self.listed(most="1")), 1)
        for bad in ("x", "-1", "1" * 7, "٣"):
            self.assertRaises(ControlRefused, self.commands.list, most=bad)

    def test_of_many_topics_some_are_shown(self) -> None:
        self.subscribe("ann", *(f"dev{number}.up" for number in range(TOPICS_SHOWN + 5)))
        answer: Any = self.commands.list()
        [one] = answer["subscriptions"]
        self.assertEqual((len(one["topics"]), one["topics_count"]), (TOPICS_SHOWN, TOPICS_SHOWN + 5))
        self.assertEqual((one["address"], one["live"], one["buffered"]), ("192.0.2.1", True, 0))

    def test_one_user_s_streams_are_ended(self) -> None:
        """In order, and in several turns of the reactor where they are many."""
        mine = [self.subscribe("ann", "#") for _ in range(AT_ONCE + 1)]
        other = self.subscribe("bob", "#")
        kicked = Deferred.fromCoroutine(self.commands.kick("ann"))
        self.assertEqual(len(self.hub.subscribers), 2)
        mine[0].subscriber.close()  # type: ignore[union-attr]  # one leaves by itself meanwhile
        self.clock.pump([0, 0, 0])
        self.assertEqual(self.successResultOf(kicked), {"user": "ann", "ended": AT_ONCE})
        self.assertEqual([sink.state for sink in mine[1:]], ["finished"] * AT_ONCE)
        self.assertEqual((len(self.hub.subscribers), other.state), (1, "open"))
