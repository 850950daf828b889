"""What operators ask of all processes, and how these are exchanged one by one."""

from __future__ import annotations

import inspect
import signal
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from amqprouter.control.commands import Control
from amqprouter.control.limits import LimitCommands
from amqprouter.control.subscriptions import SubscriptionCommands
from amqprouter.errors import ControlRefused
from amqprouter.processes.orders import Orders
from amqprouter.processes.rolling import READY_WITHIN, Rolling
from tests.unit.processes.fakes import PlayedProcess, World


class OrdersTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        for number in (signal.SIGHUP, signal.SIGUSR2, signal.SIGTERM):
            self.addCleanup(signal.signal, number, signal.getsignal(number))
        self.world = World()
        self.addCleanup(self.world.close)
        self.rolling = Rolling(self.world.supervisor, self.world.reactor)
        self.orders = Orders(self.world.supervisor, self.rolling, lambda: 1000.0)
        self.world.supervisor.commands = self.orders.of_processes()
        self.world.start()
        self.asked: list[tuple[int, str, dict[str, Any]]] = []

    def answer(self, command: str, *answers: Callable[..., Any]) -> None:
        """What each process answers; notes that it was asked."""
        for process, answer in zip(self.world.processes.values(), answers, strict=True):
            process.answers[command] = self.noting(process, command, answer)

    def noting(self, process: PlayedProcess, command: str, answer: Callable[..., Any]) -> Callable[..., Any]:
        def respond(**arguments: Any) -> Any:
            self.asked.append((process.number, command, arguments))
            return answer(**arguments)

        return respond

    def ask(self, coroutine: Any) -> Deferred[Any]:
        asked = Deferred.fromCoroutine(coroutine)
        self.world.pump()
        return asked

    def told(self, coroutine: Any) -> Any:
        return self.successResultOf(self.ask(coroutine))


def refused(text: str) -> Callable[..., Any]:
    def refuse(**arguments: Any) -> Any:
        raise ControlRefused(400, text)

    return refuse


class CommandTests(OrdersTestCase):
    def test_the_commands_of_a_single_daemon(self) -> None:
        """Whatever a daemon can be asked, all processes can: with the same arguments."""
        single: dict[tuple[bytes, bytes], list[str]] = {}
        nothing: Any = None
        commands = Control(nothing, nothing, nothing, nothing, nothing, nothing).commands()
        commands += LimitCommands(nothing, nothing, {}, nothing).commands()
        commands += SubscriptionCommands(nothing).commands()
        for command in commands:
            single[command.method, command.path] = command.legal
        ours = {(one.method, one.path): one.legal for one in self.orders.commands()}
        self.assertEqual({key: ours.get(key) for key in single}, single)
        self.assertEqual(ours.keys() - single.keys(), {(b"POST", b"/restart"), (b"GET", b"/restart")})
        self.assertTrue(inspect.iscoroutinefunction(self.orders.status))

    def test_sums(self) -> None:
        self.answer("auth/flush", lambda name: {"forgotten": 2}, lambda name: {"forgotten": 3})
        self.assertEqual(self.told(self.orders.auth_flush("dev1")), {"forgotten": 5})
        self.answer("events/kick", *[lambda user: {"user": user, "ended": 1}] * 2)
        self.assertEqual(self.told(self.orders.kick("ann")), {"user": "ann", "ended": 2})
        listed = {"count": 1, "subscriptions": [{"user": "ann"}]}
        self.answer("events", *[lambda **filters: listed] * 2)
        answer = self.told(self.orders.events())
        self.assertEqual((answer["count"], [one["process"] for one in answer["subscriptions"]]), (2, [1, 2]))
        self.assertEqual(len(self.told(self.orders.events(most="1"))["subscriptions"]), 1)

    def test_the_one_that_knows_the_device(self) -> None:
        idle, busy = {"is_known": False, "waiting": 0}, {"is_known": True, "waiting": 0}
        self.answer("limits/explain", lambda device: idle, lambda device: busy)
        self.assertEqual(self.told(self.orders.limits_explain("dev1")), {**busy, "process": "2"})

    def test_limits_are_set_one_after_the_other(self) -> None:
        first: Deferred[Any] = Deferred()
        said = {"device": "dev1", "limits": "5/s", "not_kept": ""}
        self.answer("limits/set", lambda **arguments: first, lambda **arguments: said)
        setting = self.ask(self.orders.limits_set("dev1", "5/s"))
        self.assertEqual([number for number, *_ in self.asked], [1])
        first.callback(said)
        self.world.pump()
        self.assertEqual(self.successResultOf(setting), said)
        self.assertEqual([number for number, *_ in self.asked], [1, 2])

    def test_a_no_is_a_no(self) -> None:
        self.answer("limits/set", refused("no limits"), lambda **arguments: {})
        error = self.failureResultOf(self.ask(self.orders.limits_set("dev1", "x")), ControlRefused).value
        self.assertEqual((error.status, str(error)), (400, "no limits"))
        self.assertEqual([number for number, *_ in self.asked], [1])

    def test_status_of_those_that_are_there(self) -> None:
        report = {"version": "1.2", "now": 5.0, "uptime": 5.0, "parts": {"ingress": ""}, "gauges": {}, "devices": []}
        report["counters"] = {"settled": 3}
        self.answer("status", lambda: report, lambda: report)
        status = self.told(self.orders.status())
        self.assertEqual((status["counters"]["settled"], status["parts"]), (6, {"ingress": "", "processes": ""}))
        self.assertEqual([one["settled"] for one in status["processes"]], [3, 3])
        self.world.die(2)
        status = self.told(self.orders.status())
        self.assertEqual(status["counters"]["settled"], 3)
        self.assertIn("process 2: was ended by SIGKILL", status["parts"]["processes"])
        self.world.die(1)
        status = self.told(self.orders.status())
        self.assertIn("process 1: was ended by SIGKILL", status["parts"]["processes"])

    def test_a_process_asks_all(self) -> None:
        self.answer("ready", lambda: {"ingress": ""}, lambda: {"ingress": "not consuming"})
        asking = self.world.processes[1].far
        told = self.told(asking.ask("all", {"command": "ready", "arguments": {}, "within": 1.0}))
        self.assertEqual(told["by_process"], {"1": {"ingress": ""}, "2": {"ingress": "not consuming"}})
        self.assertEqual((told["problems"], [one["state"] for one in told["processes"]]), ({}, ["running"] * 2))
        heard: list[str] = []
        for process in self.world.processes.values():
            process.answers["hear"] = heard.append if process.number == 1 else lambda text: heard.append(f"2 {text}")
        asking.tell("others", {"command": "hear", "arguments": {"text": "news"}})
        self.world.pump()
        self.assertEqual(heard, ["2 news"])


class ReloadTests(OrdersTestCase):
    def prepare(self, *problems: list[str]) -> None:
        self.answer("reload/prepare", *[lambda told=told: {"problems": told} for told in problems])
        self.answer("reload/forget", *[lambda: None] * 2)
        self.answer("reload", *[lambda: {"problems": [], "restart": ["http"]}] * 2)

    def did(self) -> list[tuple[int, str]]:
        return [(number, command) for number, command, _ in self.asked]

    def test_all(self) -> None:
        self.prepare([], [])
        self.assertEqual(self.told(self.orders.reload()), {"problems": [], "restart": ["http"]})
        phases = [(1, "reload/prepare"), (2, "reload/prepare"), (1, "reload"), (2, "reload")]
        self.assertEqual(self.did(), phases)

    def test_none(self) -> None:
        self.prepare(["bad rate"], ["bad rate", "no file"])
        told = self.told(self.orders.reload())
        self.assertEqual(told, {"problems": ["bad rate", "process 2: no file"], "restart": []})
        self.assertNotIn("reload", [command for _, command in self.did()])
        self.assertEqual([command for _, command in self.did()].count("reload/forget"), 2)

    def test_one_that_does_not_answer_objects(self) -> None:
        self.prepare([], [])
        self.world.processes[2].answers["reload/prepare"] = Deferred
        reloading = self.ask(self.orders.reload())
        self.world.reactor.advance(61)
        self.world.pump()
        self.assertIn("process 2: process 2 has not answered", self.successResultOf(reloading)["problems"][0])
        self.assertNotIn("reload", [command for _, command in self.did()])

    def test_one_that_is_not_there_reads_it_when_it_starts(self) -> None:
        self.prepare([], [])
        self.world.die(2)
        self.assertEqual(self.told(self.orders.reload())["problems"], [])


class RollingTests(OrdersTestCase):
    def exchange(self, number: int, **parts: str) -> None:
        """The process ends as it was told, and another one comes, with these problems."""
        self.world.pump()
        self.assertTrue(self.world.processes[number].stopped, f"process {number} is told to end")
        self.world.die(number, 0)
        self.assertEqual(self.world.obey(), [number])
        self.world.processes[number].answers["ready"] = lambda: parts
        self.world.processes[number].start()
        self.world.pump()

    def test_one_after_the_other(self) -> None:
        self.assertEqual(self.rolling.begin()["under_way"], True)
        self.assertEqual(self.world.renewed, 1)
        self.world.pump()
        self.assertFalse(self.world.processes[1].stopped, "not before the new code is loaded")
        self.world.report(template="")
        self.assertRaises(ControlRefused, self.rolling.begin)
        self.world.pump()
        self.assertFalse(self.world.processes[2].stopped)
        self.exchange(1)
        self.assertEqual(self.rolling.told(), {"under_way": True, "done": [1], "problem": ""})
        self.exchange(2)
        self.assertEqual(self.rolling.told(), {"under_way": False, "done": [1, 2], "problem": ""})

    def test_what_is_on_disk_is_no_good(self) -> None:
        self.rolling.try_begin()
        self.world.report(template="[scheduler] rate = x")
        self.world.pump()
        told = {"under_way": False, "done": [], "problem": "[scheduler] rate = x"}
        self.assertEqual(self.rolling.told(), told)
        self.assertFalse(any(process.stopped for process in self.world.processes.values()))

    def test_the_new_code_cannot_be_loaded(self) -> None:
        self.rolling.begin()
        self.world.templates.pop().close()
        self.world.read()
        self.assertIn("cannot be loaded", str(self.rolling.told()["problem"]))
        self.assertFalse(any(process.stopped for process in self.world.processes.values()))

    def test_the_new_one_does_not_start(self) -> None:
        self.rolling.begin()
        self.world.report(template="")
        self.world.pump()
        self.world.die(1, 0)
        self.world.obey()
        self.world.die(1, 1)
        told = self.rolling.told()
        self.assertEqual((told["under_way"], told["done"]), (False, []))
        self.assertIn("process 1 ended with status 1; is started again in", str(told["problem"]))
        self.assertFalse(self.world.processes[2].stopped)

    def test_the_new_one_is_not_ready(self) -> None:
        """What its predecessor could not do either is no reason to stop."""
        self.world.processes[1].answers["ready"] = lambda: {"store": "away"}
        self.rolling.begin()
        self.world.report(template="")
        self.exchange(1, store="away", ingress="not consuming")
        for _ in range(int(READY_WITHIN) + 1):
            self.world.reactor.advance(1)
            self.world.pump()
        told = self.rolling.told()
        self.assertEqual((told["under_way"], told["done"]), (False, []))
        self.assertEqual(told["problem"], "process 1 is not ready after 60 s: ingress: not consuming")

    def test_not_while_one_is_missing(self) -> None:
        self.world.die(2)
        self.assertRaises(ControlRefused, self.rolling.begin)
        self.rolling.try_begin()
        self.assertFalse(self.world.processes[1].stopped)
