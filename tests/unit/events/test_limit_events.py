"""What is said of throttled messages: metric and event."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from amqprouter.counters import Counters
from amqprouter.events.event import Event
from amqprouter.events.limit_events import MOST_DEVICES, Throttling
from amqprouter.identity import Identity
from amqprouter.scheduling.decision import Decision
from amqprouter.scheduling.scheduler import Scheduler
from amqprouter.settings import ClassSettings, SchedulerSettings, TenantSettings

ACME = Identity("t", tenant="acme", limits="none")


class ThrottlingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.counters = Counters()
        self.events: list[Event] = []
        self.use(10.0)

    def use(self, interval: float) -> None:
        classes = (ClassSettings("cameras", ("cam-*",), limits="1/s", over="drop"),)
        tenants = (TenantSettings("acme", "1/min"),)
        self.scheduler: Scheduler[Any] = Scheduler(SchedulerSettings(rate=1, burst=1), classes, tenants)
        self.throttling = Throttling(
            self.scheduler, self.counters, self.events.append, lambda: 1_800_000_000.0, interval
        )

    def offer(self, device: str, now: float, identity: Identity | None = None) -> Decision:
        """As the pipeline does it."""
        decision = self.scheduler.offer(device, None, now, 10, identity)
        if decision not in (Decision.RUN, Decision.WAIT):
            self.throttling.note(device, decision, 10, now)
        return decision

    def test_an_event_says_which_limit_whose_and_when_to_retry(self) -> None:
        for _ in range(2):
            self.offer("dev1", 5.0)
        [event] = self.events
        self.assertEqual((event.topics, event.type, event.private), (("dev1.limits",), "limits", True))
        self.assertEqual(
            json.loads(event.data),
            {
                "device": "dev1",
                "topic": "limits",
                "received_at": "2027-01-15T08:00:00.000Z",
                "body": {
                    "fate": "delayed",
                    "limit": "1/s burst 1",
                    "of": "device dev1",
                    "retry_after": 1.0,
                    "retry_at": "2027-01-15T08:00:01.000Z",
                    "class": "default",
                    "waiting": 1,
                    "messages": 1,
                },
            },
        )

    def test_who_published_is_told_and_that_it_is_over_its_limit(self) -> None:
        self.scheduler.configure(SchedulerSettings(publisher_limits="1/s burst 1"), (), (), 0.0)
        for device in "ab":
            decision = self.scheduler.offer(device, device, 0.0, publisher="bridge")
        self.throttling.note("b", decision, 0, 0.0)
        (event,) = self.events
        data = json.loads(event.data)
        self.assertEqual((data["device"], data["publisher"], data["body"]["of"]), ("b", "bridge", "publisher bridge"))

    def test_once_in_ten_seconds_with_the_count_of_all(self) -> None:
        for now in (0.0, 0.1, 0.2, 0.3, 10.1):
            self.offer("cam-1", now)
        self.offer("cam-1", 10.2)
        bodies = [json.loads(event.data)["body"] for event in self.events]
        self.assertEqual([(body["fate"], body["messages"]) for body in bodies], [("dropped", 1), ("dropped", 3)])

    def test_counted_by_kind_of_limit_and_class_never_by_device(self) -> None:
        for device in ("dev1", "dev2", "cam-1"):
            for _ in range(3):
                self.offer(device, 5.0)
        for _ in range(3):
            self.offer("of-acme", 5.0, ACME)
        self.assertEqual(self.counters.limited, {"device default": 4, "device cameras": 2, "tenant default": 2})
        self.assertEqual(json.loads(self.events[-1].data)["body"]["of"], "tenant acme")

    def test_turned_off_it_still_counts(self) -> None:
        self.use(0.0)
        for _ in range(3):
            self.offer("dev1", 5.0)
        self.assertEqual((self.events, self.counters.limited), ([], {"device default": 2}))

    def test_a_flood_of_devices_is_no_flood_of_events(self) -> None:
        for number in range(MOST_DEVICES + 50):
            for _ in range(2):
                self.offer(f"cam-{number}", 5.0)
        self.assertEqual(len(self.events), MOST_DEVICES)
        self.assertEqual(self.counters.limited["device cameras"], MOST_DEVICES + 50)
