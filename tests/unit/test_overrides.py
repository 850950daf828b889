"""Limits set by hand: in force, kept, and what may be wrong with the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from amqprouter.core.decision import Decision
from amqprouter.core.limit import Limit
from amqprouter.core.scheduler import MAX_OVERRIDES, Scheduler
from amqprouter.errors import ConfigError, ControlRefused
from amqprouter.limits import LimitCommands
from amqprouter.overrides import MAX_BYTES, Overrides, read_overrides
from amqprouter.settings import ClassSettings, SchedulerSettings


class OverridesTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        self.path = folder / "limits.json"
        self.clock = Clock()
        self.clock.advance(1000)
        self.start()

    def start(self, path: str | None = None) -> None:
        """As a daemon does."""
        classes = (ClassSettings("trial", ("trial-*",), limits="1/s", shadow=True),)
        self.counts: Any = {"shadow trial": 3}
        self.scheduler: Scheduler[str] = Scheduler(SchedulerSettings(rate=1, burst=1), classes)
        self.let_go: list[str] = []
        self.overrides = Overrides(
            str(self.path) if path is None else path, self.scheduler, self.clock.seconds, self.let_go.extend
        )
        self.changes = 0
        self.commands = LimitCommands(self.scheduler, self.overrides, self.counts, self.clock.seconds, self.changed)
        self.overrides.reload()

    def changed(self) -> None:
        self.changes += 1

    def passes(self, device: str, count: int) -> int:
        """How many of so many messages run at once."""
        offered = [self.scheduler.offer(device, "m", self.clock.seconds()) for _ in range(count)]
        return offered.count(Decision.RUN)


class FileTests(OverridesTestCase):
    def test_what_would_wait_too_long_is_let_go(self) -> None:
        """It is in nobody else's hands by then."""
        self.assertEqual(self.passes("dev1", 4), 1)
        self.overrides.set("dev1", Limit.parse("1/day"))
        self.assertEqual(self.let_go, ["m", "m", "m"])

    def test_set_survives_a_restart_and_clear_does_too(self) -> None:
        self.assertEqual(self.overrides.set("dev1", Limit.parse("5/s, 100/min")), "")
        self.overrides.set("dév2", Limit.parse("none"))
        self.start()
        self.assertEqual(self.overrides.limits, {"dev1": "5/s, 100/min", "dév2": "none"})
        self.assertEqual(self.passes("dev1", 9), 5)
        self.overrides.set("dev1", None)
        self.start()
        self.assertEqual(self.overrides.limits, {"dév2": "none"})
        self.assertEqual(self.path.stat().st_mode & 0o777, 0o600)
        self.assertEqual([path.name for path in self.path.parent.iterdir()], ["limits.json"])

    def test_edited_by_hand_and_read_again(self) -> None:
        self.overrides.set("dev1", Limit.parse("5/s"))
        self.path.write_text('{"dev2": "3/s"}')
        self.overrides.reload()
        self.assertEqual(self.overrides.limits, {"dev2": "3/s"})
        self.path.write_text("{")
        self.assertRaises(ConfigError, self.overrides.reload)
        self.assertEqual(self.overrides.limits, {"dev2": "3/s"})

    def test_what_cannot_be_kept_is_in_force_and_said(self) -> None:
        self.start(str(self.path.parent / "missing" / "limits.json"))
        self.assertIn("No such file", self.overrides.set("dev1", Limit.parse("5/s")))
        self.assertEqual(self.passes("dev1", 9), 5)
        self.start("")
        self.assertIn("overrides is empty", self.overrides.set("dev1", Limit.parse("5/s")))
        self.assertEqual(self.passes("dev1", 9), 5)

    def test_bad_files(self) -> None:
        for content, expected in (
            (b"", "is not JSON"),
            (b"\xff", "is not JSON"),
            (b"[" * 100_000, "is not JSON"),
            (b'["dev1"]', "no JSON object of device ids"),
            (b'{"dev1": 5}', "no JSON object of device ids"),
            (b'{"dev1": "5/fortnight"}', "dev1: '5/fortnight': unknown period"),
            (b'{"de.v1": "5/s"}', "'de.v1' is no device id"),
            (b" " * (MAX_BYTES + 1), f"over {MAX_BYTES} bytes"),
            (json.dumps({str(n): "1/s" for n in range(MAX_OVERRIDES + 1)}).encode(), f"over {MAX_OVERRIDES} devices"),
        ):
            self.path.write_bytes(content)
            error = self.assertRaises(ConfigError, read_overrides, str(self.path))
            self.assertIn(expected, str(error))
            self.assertIn(str(self.path), str(error))
        self.path.unlink()
        self.path.mkdir()
        self.assertIn("Is a directory", str(self.assertRaises(ConfigError, read_overrides, str(self.path))))


class CommandTests(OverridesTestCase):
    def test_set_counts_at_once_and_is_explained(self) -> None:
        self.assertEqual(self.passes("dev1", 3), 1)
        answer = self.commands.set("dev1", "100/s,2000/min")
        expected = {"device": "dev1", "limits": "100/s, 2000/min", "before": "", "not_kept": "", "file": str(self.path)}
        self.assertEqual((answer, self.changes), (expected, 1))
        self.assertEqual(self.scheduler.take(self.clock.seconds()), ["m", "m"])  # what waited goes
        told: Any = self.commands.explain("dev1")
        self.assertTrue(told["is_override"])
        self.assertEqual([(one["text"], one["key"]) for one in told["limits"]],
                         [("100/s", "device dev1"), ("2000/min", "device dev1")])  # fmt: skip
        self.assertEqual(self.commands.clear("dev1")["before"], "100/s, 2000/min")
        self.assertEqual(self.commands.clear("dev1")["before"], "")
        self.assertEqual(self.commands.list(), {"limits": {}, "file": str(self.path)})

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
            error = self.assertRaises(ControlRefused, self.commands.set, device, limits)
            self.assertIn(expected, str(error))
            self.assertEqual(error.status, 400)
        for command in (self.commands.clear, self.commands.explain):
            self.assertRaises(ControlRefused, command, "a b")
        self.assertEqual((dict(self.scheduler.overrides), self.path.exists(), self.changes), ({}, False, 0))

    def test_too_many(self) -> None:
        self.scheduler.overrides = dict.fromkeys(map(str, range(MAX_OVERRIDES)), Limit.parse("1/s"))
        error = self.assertRaises(ControlRefused, self.commands.set, "dev1", "5/s")
        self.assertEqual(error.status, 409)
        self.assertIn("make a class for them", str(error))
