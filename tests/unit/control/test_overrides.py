"""Limits set by hand: in force, kept, and taken from other gateways."""

from __future__ import annotations

import json
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from amqprouter.control.kept_limits import keeps_limits
from amqprouter.control.limits import LimitCommands
from amqprouter.control.overrides import REFRESH_EVERY, Overrides
from amqprouter.errors import ConfigError, ControlRefused, LimitsNotKept
from amqprouter.scheduling.decision import Decision
from amqprouter.scheduling.limit import Limit
from amqprouter.scheduling.scheduler import MAX_OVERRIDES, Scheduler
from amqprouter.settings import ClassSettings, SchedulerSettings
from amqprouter.testing.store import MemoryStore, Trouble


class OverridesTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        self.path = folder / "limits.json"
        self.clock = Clock()
        self.clock.advance(1000)
        self.store = MemoryStore()
        self.start()

    def start(self, path: str | None = None) -> None:
        """As a daemon does."""
        classes = (ClassSettings("trial", ("trial-*",), limits="1/s", shadow=True),)
        self.counts: Any = {"shadow trial": 3}
        self.scheduler: Scheduler[str] = Scheduler(SchedulerSettings(rate=1, burst=1), classes)
        self.released: list[str] = []
        kept = keeps_limits(str(self.path) if path is None else path, self.store)
        self.changes = 0
        self.overrides = Overrides(kept, self.scheduler, self.clock, self.released.extend, self.changed)
        self.commands = LimitCommands(self.scheduler, self.overrides, self.counts, self.clock.seconds)
        self.overrides.reload()

    def changed(self) -> None:
        self.changes += 1

    def set(self, device: str, limits: str | None) -> str:
        """Why it is not kept; empty when it is."""
        limit = None if limits is None else Limit.parse(limits)
        problem: str = self.successResultOf(Deferred.fromCoroutine(self.overrides.set(device, limit)))
        return problem

    def passes(self, device: str, count: int) -> int:
        """How many of so many messages run at once."""
        offered = [self.scheduler.offer(device, "m", self.clock.seconds()) for _ in range(count)]
        return offered.count(Decision.RUN)


class FileTests(OverridesTestCase):
    def test_what_would_wait_too_long_is_let_go(self) -> None:
        """It is in nobody else's hands by then."""
        self.assertEqual(self.passes("dev1", 4), 1)
        self.set("dev1", "1/day")
        self.assertEqual(self.released, ["m", "m", "m"])

    def test_set_survives_a_restart_and_clear_does_too(self) -> None:
        self.assertEqual(self.set("dev1", "5/s, 100/min"), "")
        self.set("dév2", "none")
        self.start()
        self.assertEqual(self.overrides.limits, {"dev1": "5/s, 100/min", "dév2": "none"})
        self.assertEqual(self.passes("dev1", 9), 5)
        self.set("dev1", None)
        self.start()
        self.assertEqual(self.overrides.limits, {"dév2": "none"})

    def test_edited_by_hand_and_read_again(self) -> None:
        self.set("dev1", "5/s")
        self.path.write_text('{"dev2": "3/s"}')
        self.overrides.reload()
        self.assertEqual(self.overrides.limits, {"dev2": "3/s"})
        self.path.write_text("{")
        self.assertRaises(ConfigError, self.overrides.reload)
        self.assertEqual(self.overrides.limits, {"dev2": "3/s"})

    def test_what_cannot_be_kept_is_in_force_and_said(self) -> None:
        self.start(str(self.path.parent / "missing" / "limits.json"))
        self.assertIn("No such file", self.set("dev1", "5/s"))
        self.assertEqual(self.passes("dev1", 9), 5)
        self.start("")
        self.assertIn("overrides is empty", self.set("dev1", "5/s"))
        self.assertEqual(self.passes("dev1", 9), 5)


class CollectionTests(OverridesTestCase):
    """What all gateways share."""

    def start(self, path: str | None = None) -> None:
        super().start("mongodb:limits")
        self.overrides.startService()
        self.addCleanup(self.overrides.stopService)

    def document(self, device: str, limits: object) -> None:
        """As another gateway does."""
        self.store.collections.setdefault("limits", {})[device] = {"_id": device, "limits": limits}

    def test_kept_and_in_force(self) -> None:
        self.assertEqual(self.set("dev1", "5/s"), "")
        self.assertEqual(self.store.collections, {"limits": {"dev1": {"_id": "dev1", "limits": "5/s"}}})
        self.assertEqual((self.passes("dev1", 9), self.changes), (5, 1))
        self.start()
        self.assertEqual(self.overrides.limits, {"dev1": "5/s"})

    def test_another_gateways_changes_count_soon(self) -> None:
        self.assertEqual(self.passes("dev1", 4), 1)
        self.document("dev1", "1/day")
        self.clock.advance(REFRESH_EVERY)
        self.assertEqual(self.overrides.limits, {"dev1": "1/day"})
        self.assertEqual((self.released, self.changes), (["m", "m", "m"], 1))
        del self.store.collections["limits"]["dev1"]
        self.clock.advance(REFRESH_EVERY)
        self.assertEqual((self.overrides.limits, self.changes), ({}, 2))
        self.clock.advance(REFRESH_EVERY)
        self.assertEqual(self.changes, 2)
        self.document("dev1", "2/s")
        self.overrides.reload()  # at once
        self.assertEqual(self.overrides.limits, {"dev1": "2/s"})

    def test_a_bad_document_changes_nothing_for_its_device(self) -> None:
        self.set("dev1", "5/s")
        self.document("dev1", "5/fortnight")
        self.document("dev2", "7/s")
        self.clock.advance(REFRESH_EVERY)
        self.assertEqual(self.overrides.limits, {"dev1": "5/s", "dev2": "7/s"})

    def test_nothing_is_half_set_while_the_store_is_down(self) -> None:
        self.set("dev1", "5/s")
        self.store.trouble = Trouble.UNAVAILABLE
        self.clock.advance(REFRESH_EVERY)
        self.assertEqual(self.overrides.limits, {"dev1": "5/s"})
        for limit in (Limit.parse("6/s"), None):
            self.failureResultOf(Deferred.fromCoroutine(self.overrides.set("dev1", limit)), LimitsNotKept)
        self.assertEqual(self.overrides.limits, {"dev1": "5/s"})
        error = self.failureResultOf(Deferred.fromCoroutine(self.commands.set("dev2", "6/s")), ControlRefused).value
        self.assertEqual(error.status, 503)
        self.assertIn("the limits of dev2 are as they were here (none set by hand)", str(error))
        self.assertIn("the store is unavailable", str(error))
        self.store.trouble = Trouble.NONE
        self.clock.advance(REFRESH_EVERY)
        self.assertEqual(self.overrides.limits, {"dev1": "5/s"})

    def test_kept_although_the_answer_was_lost(self) -> None:
        """It counts from the next look on, here as everywhere."""
        self.store.trouble = Trouble.DEAF
        self.failureResultOf(Deferred.fromCoroutine(self.overrides.set("dev1", Limit.parse("6/s"))), LimitsNotKept)
        self.assertEqual(self.overrides.limits, {})
        self.store.trouble = Trouble.NONE
        self.clock.advance(REFRESH_EVERY)
        self.assertEqual(self.overrides.limits, {"dev1": "6/s"})

    def test_a_look_that_began_before_a_change_says_nothing(self) -> None:
        answer: Deferred[Any] = Deferred()
        self.patch(self.store, "find_all", lambda collection, most: answer)
        self.clock.advance(REFRESH_EVERY)
        self.set("dev1", "5/s")
        answer.callback([])
        self.assertEqual(self.overrides.limits, {"dev1": "5/s"})


class CommandTests(OverridesTestCase):
    def asked(self, command: Coroutine[Any, Any, dict[str, object]]) -> dict[str, object]:
        answer: dict[str, object] = self.successResultOf(Deferred.fromCoroutine(command))
        return answer

    def refused(self, command: Coroutine[Any, Any, object]) -> ControlRefused:
        error: ControlRefused = self.failureResultOf(Deferred.fromCoroutine(command), ControlRefused).value
        return error

    def test_set_counts_at_once_and_is_explained(self) -> None:
        self.assertEqual(self.passes("dev1", 3), 1)
        answer = self.asked(self.commands.set("dev1", "100/s,2000/min"))
        kept = {"kept_in": str(self.path), "is_shared": False}
        expected = {"device": "dev1", "limits": "100/s, 2000/min", "before": "", "not_kept": "", **kept}
        self.assertEqual((answer, self.changes), (expected, 1))
        self.assertEqual(self.scheduler.take(self.clock.seconds()), ["m", "m"])  # what waited goes
        told: Any = self.commands.explain("dev1")
        self.assertTrue(told["is_override"])
        self.assertEqual([(one["text"], one["key"]) for one in told["limits"]],
                         [("100/s", "device dev1"), ("2000/min", "device dev1")])  # fmt: skip
        self.assertEqual(self.asked(self.commands.clear("dev1"))["before"], "100/s, 2000/min")
        self.assertEqual(self.asked(self.commands.clear("dev1"))["before"], "")
        self.assertEqual(self.commands.list(), {"limits": {}, **kept})

    def test_explained_to_the_second(self) -> None:
        self.passes("dev1", 3)
        self.clock.advance(0.5)
        told: Any = self.commands.explain("dev1")
        self.assertEqual((told["state"], told["waiting"], told["oldest"]), ("waiting for a limit", 2, 0.5))
        self.assertEqual(told["reason"], "1/s burst 1 of device dev1, retry in 0.5 s")
        unknown: Any = self.commands.explain("trial-1")
        self.assertEqual((unknown["is_known"], unknown["reason"], unknown["class_shadow_count"]), (False, "", 3))
        json.dumps([told, unknown])

    def test_bad_input(self) -> None:
        for device, limits, expected in (
            ("dev.1", "5/s", "'dev.1' is no device id"),
            ("*", "5/s", "is no device id"),
            ("d" * 256, "5/s", "is no device id"),
            ("dev1", "5", "'5' is not AMOUNT/PERIOD; legal: "),
            ("dev1", "0/s", "nothing would ever pass"),
            ("dev1", "5/s, 6/s", "same unit and period"),
            ("dev1", "-1/s", "less than 0"),
            ("dev1", "nan/s", "finite"),
            ("dev1", "1/s," * 200, "512 is the most"),
            ("dev1", " ", "a limit is missing"),
        ):
            error = self.refused(self.commands.set(device, limits))
            self.assertIn(expected, str(error))
            self.assertEqual(error.status, 400)
        self.refused(self.commands.clear("a b"))
        self.assertRaises(ControlRefused, self.commands.explain, "a b")
        self.assertEqual((dict(self.scheduler.overrides), self.path.exists(), self.changes), ({}, False, 0))

    def test_too_many(self) -> None:
        self.scheduler.overrides = dict.fromkeys(map(str, range(MAX_OVERRIDES)), Limit.parse("1/s"))
        error = self.refused(self.commands.set("dev1", "5/s"))
        self.assertEqual(error.status, 409)
        self.assertIn("make a class for them", str(error))
