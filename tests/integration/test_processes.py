"""Two processes as one service: one port, one control socket, one log, and what becomes of messages when one ends.

The fleet publishes by device id, numbered for each device, as in `tests.integration.test_scale_out`.
"""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Awaitable, Callable
from typing import Any

import treq
from twisted.internet.defer import Deferred, gatherResults

from tests.integration.test_cli import COMMAND, amqprouter
from tests.integration.test_control import ControlTestCase, basic
from tests.integration.test_scale_out import DEVICES, Arrivals, Plant
from tests.support.gateway import ROOT, Fleet, Gateway
from tests.support.mongo import TestDatabase
from tests.support.process import run, until
from tests.support.rabbitmq import VERSION
from tests.support.servers import Vhost
from tests.support.sse_client import close_all, connect_all, request

TWO = {"processes": 2}
IN_ORDER = VERSION >= (4,)
"""Whether a queue keeps its order when its consumers change under load. Up to 3.13 no kind does: a classic one with a
single active consumer crashes (``{badmatch,false}`` in ``attempt_delivery``, rabbitmq-server issue 5460), and a quorum
queue gives back what was under way in another order, also later."""
QUEUES = {"queue_type": "classic" if IN_ORDER else "quorum"}
STARTING = 60.0
"""Seconds for a process on a machine that others use as well; alone it takes two."""

FlowTest = Callable[[Gateway, Plant, Fleet, Arrivals], Awaitable[None]]


class ProcessesTestCase(ControlTestCase):
    timeout = 400
    devices: tuple[str, ...] = (*DEVICES,)

    async def status(self) -> dict[str, Any]:
        said = await amqprouter("status", "--json", "--socket", self.socket, check=False)
        status: dict[str, Any] = json.loads(said.stdout)
        return status

    async def pids(self) -> dict[int, int]:
        return {one["process"]: one["pid"] for one in (await self.status())["processes"]}

    def with_flow(self, test: FlowTest, **options: Any) -> Deferred[None]:
        """Run a test while the fleet sends by device id, and what was routed is read."""

        async def around(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            arrivals, plant = Arrivals(), Plant(fleet, True)
            await arrivals.read(vhost.uri)
            await gateway.start()
            await fleet.connect()
            try:
                plant.start()
                await test(gateway, plant, fleet, arrivals)
            finally:
                plant.stop()
                await arrivals.close()

        options = {
            "topology": QUEUES,
            "daemon": TWO,
            "control": self.control,
            "route_all": {"targets": "exchange:copies"},
            **options,
        }
        return self.run_with(around, start=False, **options)

    async def all_arrived(self, gateway: Gateway, fleet: Fleet, arrivals: Arrivals) -> None:
        await fleet.all_confirmed()

        async def all_there() -> bool:
            return len(arrivals.ids()) >= fleet.sent

        await until(all_there, what="all has arrived", timeout=60, child=gateway.running)
        self.assertEqual(set(arrivals.ids()), set(fleet.ledger.confirmed))

    def check_once_and_in_order(self, arrivals: Arrivals, *, doubles: bool) -> None:
        """Each device's messages came once, unless a process was killed, and in their order, where queues keep it."""
        counts = arrivals.ids()
        if not doubles:
            self.assertEqual([one for one, count in counts.items() if count > 1], [])
        seen: dict[str, int] = {}
        for when, device, number, _ in arrivals.came:
            latest = seen.get(device, 0)
            if number > latest:
                near = [n for w, name, n, _ in arrivals.came if name == device and abs(w - when) < 0.5]
                if IN_ORDER:
                    self.assertEqual(number, latest + 1, f"{device}'s messages are out of order: {near}")
                seen[device] = number


class ServiceTests(ProcessesTestCase):
    def test_one_port_one_socket_one_log(self) -> Deferred[None]:
        async def test(gateway: Gateway, plant: Plant, fleet: Fleet, arrivals: Arrivals) -> None:
            log = gateway.folder / "daemon.log"

            async def both_answered() -> bool:
                requests = [treq.get(f"{gateway.url}/healthz", persistent=False) for _ in range(20)]
                for response in await gatherResults(requests):
                    self.assertEqual((response.code, await response.json()), (200, {"status": "ok"}))
                return len(who_answered()) == 2

            def who_answered() -> set[str]:
                return set(re.findall(r"\[process (\d): amqprouter.web.request#", log.read_text()))

            async def the_other_answered() -> bool:
                """On an idle machine whoever is awake first takes all connections: have that one stand still."""
                if len(who_answered()) < 2:
                    first = (await self.pids())[int(who_answered().pop())]
                    os.kill(first, signal.SIGSTOP)
                    try:
                        await treq.content(await treq.get(f"{gateway.url}/static/icon.svg", persistent=False))
                    finally:
                        os.kill(first, signal.SIGCONT)
                return len(who_answered()) == 2

            await both_answered()
            await until(the_other_answered, what="both processes have served HTTP", timeout=30, child=gateway.running)

            async def both_work() -> bool:
                response = await treq.get(f"{gateway.url}/metrics", persistent=False)
                text = await response.text()
                figures = dict(re.findall(r"^(amqprouter_\w*settled_total(?:{.*})?) (\S+)$", text, re.MULTILINE))
                each = [float(figures[f'amqprouter_process_settled_total{{process="{n}"}}']) for n in (1, 2)]
                self.assertEqual(float(figures["amqprouter_settled_total"]), sum(each))
                return min(each) > 50

            await until(both_work, what="both processes have work", timeout=30, child=gateway.running)
            status = await self.status()
            self.assertEqual([one["state"] for one in status["processes"]], ["running", "running"])
            self.assertGreaterEqual(
                status["counters"]["settled"], sum(one["settled"] for one in status["processes"]) - 100
            )
            self.assertEqual(len({device["device"] for device in status["devices"]}), len(status["devices"]))
            self.assertLessEqual({device["device"] for device in status["devices"]}, set(DEVICES))
            plant.stop()
            await self.all_arrived(gateway, fleet, arrivals)
            self.check_once_and_in_order(arrivals, doubles=False)

        return self.with_flow(test)

    def test_subscribers_of_both(self) -> Deferred[None]:
        """Who is listed and ended is whoever is subscribed, wherever; a ticket is good at the other process too."""

        async def test(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            login = basic("ann", "ann's")
            clients = await connect_all(gateway.port, [request("/events", login) for _ in range(20)])
            try:
                listed = json.loads(await self.says("events", "ls", "--json", "--socket", self.socket))
                self.assertEqual(listed["count"], 20)
                self.assertEqual(len(listed["subscriptions"]), 20)
                self.assertEqual({one["process"] for one in listed["subscriptions"]} - {1, 2}, set())
                for _ in range(10):
                    auth = ("ann", "ann's")
                    made = await treq.post(f"{gateway.url}/events/ticket", auth=auth, persistent=False)
                    ticket = (await made.json())["ticket"]
                    clients += await connect_all(
                        gateway.port,
                        [f"GET /events?ticket={ticket}&topic=dev1.%23 HTTP/1.1\r\nHost: test\r\n\r\n".encode()],
                    )
                said = await self.says("events", "kick", "ann", "--socket", self.socket)
                self.assertEqual(said, "30 streams ended\n")

                async def over() -> bool:
                    return all(client.over for client in clients)

                await until(over, what="all streams have ended", timeout=30)
            finally:
                close_all(clients)

        return self.run_with(test, daemon=TWO, control=self.control)

    def test_a_reload_is_for_all_or_none(self) -> Deferred[None]:
        async def test(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            gateway.sections["scheduler"]["rate"] = "nonsense"
            gateway.write_config()
            finished = await self.fails("reload", "--socket", self.socket)
            self.assertEqual(finished.stderr.count("nonsense"), 1, finished.stderr)
            self.assertEqual(await gateway.metric("reloads_total"), 0)
            gateway.sections["scheduler"]["rate"] = 50
            gateway.write_config()
            self.assertIn("is in force", await self.says("reload", "--socket", self.socket))
            gateway.running.signal("HUP")
            await gateway.metric_reaches("reloads_total", 4)
            self.assertEqual(await gateway.metric("process_reloads_total"), 4)

        return self.run_with(test, daemon=TWO, control=self.control)


class EndTests(ProcessesTestCase):
    def test_one_is_killed(self) -> Deferred[None]:
        async def test(gateway: Gateway, plant: Plant, fleet: Fleet, arrivals: Arrivals) -> None:
            async def flows() -> bool:
                return len(arrivals.came) > 500

            await until(flows, what="messages flow", timeout=60, child=gateway.running)
            before = await self.pids()
            os.kill(before[2], signal.SIGKILL)
            killed, seen = time.monotonic(), set()

            async def named() -> bool:
                response = await treq.get(f"{gateway.url}/readyz", persistent=False)
                told = await response.json()
                seen.add(told["parts"]["processes"])
                return response.code == 503 and "process 2 was ended by SIGKILL" in told["parts"]["processes"]

            await until(named, what="readyz names the process", timeout=20, child=gateway.running)
            moved = {device for when, device, *_ in arrivals.came if when > killed}

            async def all_go_on() -> bool:
                moved.update(device for when, device, *_ in arrivals.came if when > killed)
                return moved == set(DEVICES)

            await until(all_go_on, what="all devices' messages go on", timeout=20, child=gateway.running)
            first = {
                d: min(when for when, device, *_ in arrivals.came if device == d and when > killed) for d in DEVICES
            }
            print(f"the last device's messages went on after {max(first.values()) - killed:.2f} s")
            await until(gateway.is_ready, what="the service is ready again", timeout=STARTING, child=gateway.running)
            after = await self.pids()
            self.assertEqual(after[1], before[1])
            self.assertNotIn(after[2], (0, before[2]))
            plant.stop()
            await self.all_arrived(gateway, fleet, arrivals)
            self.check_once_and_in_order(arrivals, doubles=True)

        return self.with_flow(test)

    def test_a_stop_drains_all(self) -> Deferred[None]:
        async def test(gateway: Gateway, plant: Plant, fleet: Fleet, arrivals: Arrivals) -> None:
            async def flows() -> bool:
                return len(arrivals.came) > 500

            await until(flows, what="messages flow", timeout=60, child=gateway.running)
            pids = await self.pids()
            self.assertEqual(await gateway.running.stop(60), -signal.SIGTERM)
            for pid in pids.values():
                self.assertFalse(os.path.exists(f"/proc/{pid}"))
            self.assertNotIn("Traceback", (gateway.folder / "daemon.log").read_text())
            await gateway.start()
            plant.stop()
            await self.all_arrived(gateway, fleet, arrivals)
            self.check_once_and_in_order(arrivals, doubles=False)

        return self.with_flow(test)

    def test_the_supervisor_is_killed(self) -> Deferred[None]:
        """Nobody is left behind: the processes finish what is under way, and end."""

        async def test(gateway: Gateway, plant: Plant, fleet: Fleet, arrivals: Arrivals) -> None:
            pids = await self.pids()
            await gateway.running.kill()

            async def over() -> bool:
                return not any(os.path.exists(f"/proc/{pid}") for pid in pids.values())

            await until(over, what="the processes have ended", timeout=40)

        return self.with_flow(test)


class RollingTests(ProcessesTestCase):
    def test_all_are_exchanged_under_load(self) -> Deferred[None]:
        async def test(gateway: Gateway, plant: Plant, fleet: Fleet, arrivals: Arrivals) -> None:
            async def flows() -> bool:
                return len(arrivals.came) > 500

            await until(flows, what="messages flow", timeout=60, child=gateway.running)
            before = await self.pids()
            restart = "restart", "--rolling", "--socket", self.socket
            said = (await run(*COMMAND, *restart, cwd=ROOT, timeout=4 * STARTING)).stdout
            self.assertEqual(said, "process 1 is exchanged\nprocess 2 is exchanged\nall processes are exchanged\n")
            after = await self.pids()
            self.assertEqual(len({*before.values(), *after.values()}), 4)
            self.assertEqual(await gateway.metric('process_starts_total{process="1"}'), 2)
            plant.stop()
            await self.all_arrived(gateway, fleet, arrivals)
            self.check_once_and_in_order(arrivals, doubles=False)

        return self.with_flow(test)

    def test_a_bad_configuration_stops_nobody(self) -> Deferred[None]:
        async def test(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            before = await self.pids()
            gateway.sections["scheduler"]["rate"] = "nonsense"
            gateway.write_config()
            finished = await self.fails("restart", "--rolling", "--socket", self.socket)
            self.assertIn("nonsense", finished.stderr)
            self.assertEqual(await self.pids(), before)

        return self.run_with(test, daemon=TWO, control=self.control)
