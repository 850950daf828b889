"""The busiest devices, as they are shown."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from amqprouter.control.top_devices import COUNT, TopDevices
from amqprouter.scheduling.scheduler import Scheduler
from amqprouter.settings import SchedulerSettings


class TopDevicesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.scheduler: Scheduler[Any] = Scheduler(SchedulerSettings(rate=1, burst=2))
        self.parked = {"noisy": 7}
        self.top = TopDevices(self.scheduler, self.clock.seconds, lambda device: self.parked.get(device, 0))

    def send(self, device: str, count: int) -> None:
        for _ in range(count):
            self.scheduler.offer(device, None, self.clock.seconds())

    def test_rates_and_what_holds_a_device_up(self) -> None:
        self.top.read()
        self.clock.advance(1)
        self.send("noisy", 10)
        self.clock.advance(1)
        [shown] = self.top.read()
        self.assertEqual((shown["rate"], shown["allowed"], shown["passed"], shown["waiting"]), (5.0, 1.0, 2, 8))
        self.assertEqual((shown["oldest"], shown["state"]), (1.0, "waiting for a limit"))
        self.assertEqual(shown["parked"], 7)
        self.assertEqual(shown["limit"], "")  # there is room for one by now, and it goes at once
        self.scheduler.take(self.clock.seconds())
        self.clock.advance(0.95)
        self.assertIn("1/s burst 2 of device noisy, retry in 0.05 s", str(self.top.read()[0]["limit"]))
        json.dumps(self.top.read())

    def test_who_published(self) -> None:
        self.scheduler.offer("lamp", None, 0.0, publisher="bridge")
        self.send("dev1", 1)
        shown = {str(row["device"]): row.get("publisher") for row in self.top.read()}
        self.assertEqual(shown, {"lamp": "bridge", "dev1": None})

    def test_many_who_look_cost_one_look(self) -> None:
        self.send("dev1", 1)
        first = self.top.read()
        self.send("dev2", 1)
        self.clock.advance(0.5)
        self.assertIs(self.top.read(), first)
        self.clock.advance(0.5)
        self.assertEqual([device["device"] for device in self.top.read()], ["dev2", "dev1"])

    def test_no_more_than_a_screen_or_two(self) -> None:
        for number in range(COUNT + 20):
            self.send(f"dev{number}", 1)
        self.assertEqual(len(self.top.read()), COUNT)
