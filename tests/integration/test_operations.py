"""The daemon as an operator meets it: signals, logs, bad starts."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import treq
from twisted.internet.defer import Deferred

from tests.support.gateway import SECRET, Fleet, Gateway, drain_queue, reason_of
from tests.support.gateway_case import GatewayTestCase
from tests.support.mongo import TestDatabase
from tests.support.process import free_ports, reactor, run, until
from tests.support.servers import Vhost


class OperationsTestCase(GatewayTestCase):
    devices = ("dev1",)


class ReloadTests(OperationsTestCase):
    def test_secrets_access_lists_rates_and_routes(self) -> Deferred[None]:
        async def test(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            fleet.send("dev2", "up.x", b"1")
            fleet.send("dev1", "down.x", b"2")
            await fleet.all_confirmed()
            await gateway.metric_reaches("rejected_total", 2)
            gateway.devices("dev2")
            gateway.file("devices.acl", "* -> %d.#\n")
            gateway.sections["route all"]["topic"] = "down.#"
            gateway.write_config()
            gateway.running.signal("HUP")
            await gateway.metric_reaches("reloads_total", 1)
            stored = fleet.send("dev2", "down.x", b"3")
            fleet.send("dev1", "up.x", b"4")
            await fleet.all_confirmed()
            await gateway.metric_reaches("settled_total", 4)
            self.assertEqual([document["message_id"] for document in database.documents("readings")], [stored])
            (dead,) = await drain_queue(vhost.uri, "amqprouter.dead-letters", 1)
            self.assertEqual((dead.body, reason_of(dead)), (b"4", "no-route"))

        return self.run_with(test)

    def test_a_bad_file_changes_nothing_and_is_named(self) -> Deferred[None]:
        async def test(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            gateway.file("devices.acl", "no arrow here\n")
            gateway.sections["scheduler"]["rate"] = -1
            gateway.write_config()
            gateway.running.signal("HUP")
            await gateway.metric_reaches("failed_reloads_total", 1)
            log = gateway.running.tail(20)
            self.assertIn("rate", log)
            self.assertIn("The old configuration stays in force", log)
            fleet.reading("dev1", 1)
            await fleet.all_confirmed()
            await gateway.metric_reaches("stored_total", 1)
            # The configuration itself is good again, and only the access list is bad: it keeps its old lines.
            gateway.sections["scheduler"]["rate"] = 100
            gateway.write_config()
            gateway.running.signal("HUP")
            await gateway.metric_reaches("failed_reloads_total", 2)
            self.assertIn("devices.acl", gateway.running.tail(20))
            fleet.reading("dev1", 2)
            await fleet.all_confirmed()
            await gateway.metric_reaches("stored_total", 2)

        return self.run_with(test)


class StopTests(OperationsTestCase):
    def test_what_cannot_be_finished_in_time_stays_with_the_broker(self) -> Deferred[None]:
        async def test(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            if database.server is None:
                return  # somebody else's store is not for us to kill
            database.server.kill()
            for number in range(20):
                fleet.reading("dev1", number)
            await fleet.all_confirmed()
            await gateway.metric_reaches("in_flight", 20)
            started = reactor.seconds()
            gateway.running.signal("TERM")
            await gateway.running.wait(15)
            self.assertGreater(reactor.seconds() - started, 1.9)
            self.assertIn("20 messages were not finished in time", gateway.running.tail())

            async def returned() -> bool:
                return (await vhost.list_queues("messages_ready")).get("amqprouter.ingress") == 20

            await until(returned, what="the broker has them back", timeout=10)
            database.server.start()
            await gateway.start()
            await gateway.metric_reaches("stored_total", 20)
            self.assertEqual(database.count("readings"), 20)

        # A single target: behind several, messages would be parked in the broker after a while.
        route = {"targets": "store:readings"}
        return self.run_with(test, limits={"shutdown_deadline": 2}, store={"timeout": 1}, route_all=route)

    def test_a_second_sigterm_does_not_wait(self) -> Deferred[None]:
        async def test(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            if database.server is None:
                return
            database.server.kill()
            fleet.reading("dev1", 1)
            await fleet.all_confirmed()
            await gateway.metric_reaches("in_flight", 1)
            gateway.running.signal("TERM")

            async def stopping() -> bool:
                return "Stopping" in gateway.running.tail(5)

            await until(stopping, what="it is stopping", timeout=10)
            gateway.running.signal("TERM")
            self.assertEqual(await gateway.running.wait(5), 1)

        return self.run_with(test, limits={"shutdown_deadline": 60})


class LogTests(OperationsTestCase):
    def test_json_lines_with_named_fields(self) -> Deferred[None]:
        async def test(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            await gateway.stop()
            lines = [json.loads(line) for line in (gateway.folder / "daemon.log").read_text().splitlines()]
            connected = [line for line in lines if line["message"] == "Connected to the broker: consume"]
            self.assertEqual(len(connected), 1)
            self.assertEqual((connected[0]["level"], connected[0]["purpose"]), ("info", "consume"))
            self.assertRegex(connected[0]["time"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00$")

        return self.run_with(test, logging={"format": "json"})

    def test_no_secret_gets_into_the_log(self) -> Deferred[None]:
        async def test(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            fleet.send("dev1", "up.x", b"1", secret="wrong-and-private")
            fleet.send("dev1", "down.x", b"2")  # not authorised
            fleet.send("dev1", "up.x", b"{")  # not stored, for it is no JSON
            fleet.reading("dev1", 3)
            await fleet.all_confirmed()
            await gateway.metric_reaches("settled_total", 4)
            url = f"{gateway.url}/events?token=query-and-private"
            await (await treq.get(url, auth=("ann", "pass-and-private"), persistent=False)).content()
            await gateway.stop()
            log = (gateway.folder / "daemon.log").read_text()
            self.assertIn("GET /events", log)
            self.assertNotIn("and-private", log)
            self.assertNotIn(SECRET, log)
            self.assertNotIn("guest:guest", log)

        return self.run_with(test, logging={"level": "debug"})


class BadStartTests(OperationsTestCase):
    def test_a_port_in_use(self) -> Deferred[None]:
        async def test(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            port = reactor.listenTCP(gateway.port, _Nothing(), interface="127.0.0.1")
            try:
                await gateway.start(ready=False)
                status = await gateway.running.wait(15)
            finally:
                await port.stopListening()
            self.assertNotEqual(status, 0)
            self.assertIn(str(gateway.port), gateway.running.tail(10))
            self.assertIn("Address already in use", gateway.running.tail(10))

        return self.run_with(test, start=False)

    def test_every_problem_of_a_configuration_at_once_and_status_1(self) -> Deferred[None]:
        async def test(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            gateway.sections["scheduler"].update(rate="fast", brust=1)
            gateway.sections["ingress"] = {"prefetch": 0}
            gateway.write_config()
            await gateway.start(ready=False)
            self.assertEqual(await gateway.running.wait(15), 1)
            output = gateway.running.tail()
            for word in ("rate", "fast", "brust", "burst", "prefetch", "3 problems"):
                self.assertIn(word, output)
            self.assertNotIn("Traceback", output)

        return self.run_with(test, start=False)

    def test_check_connects_to_nothing(self) -> Deferred[None]:
        async def test(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            nowhere = free_ports(2)
            gateway.sections["broker"]["uri"] = f"amqp://guest:guest@127.0.0.1:{nowhere[0]}/%2F"
            gateway.sections["store"]["uri"] = f"mongodb://127.0.0.1:{nowhere[1]}/"
            gateway.write_config()
            environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
            finished = await run(*gateway.command("--check"), env=environment, cwd=gateway.folder)
            self.assertTrue(finished.stdout.rstrip().endswith("OK"), finished.stdout)

        return self.run_with(test, start=False)

    def test_a_broker_that_is_not_there_yet(self) -> Deferred[None]:
        async def test(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            good = gateway.sections["broker"]["uri"]
            gateway.sections["broker"]["uri"] = str(good).replace("guest:guest", "guest:wrong")
            gateway.write_config()
            await gateway.start(ready=False)

            async def told() -> bool:
                return "ACCESS_REFUSED" in gateway.running.tail(30)

            await until(told, what="the log says why", timeout=20, child=gateway.running)
            response = await treq.get(f"{gateway.url}/readyz", persistent=False)
            parts = json.loads(await response.text())["parts"]
            self.assertEqual(response.code, 503)
            self.assertIn("ACCESS_REFUSED", parts["broker-consume"])
            healthy = await treq.get(f"{gateway.url}/healthz", persistent=False)
            self.assertEqual(healthy.code, 200)
            gateway.running.signal("TERM")
            self.assertEqual(await gateway.running.wait(10), -signal.SIGTERM)

        return self.run_with(test, start=False)


class _Nothing:
    """A factory that nobody connects to."""

    def doStart(self) -> None: ...

    def doStop(self) -> None: ...
