"""The amqprouter command as a process of its own, against real servers."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from amqprouter.amqp.link import connect_once
from amqprouter.amqp.properties import Properties
from amqprouter.settings import BrokerSettings
from tests.support.fleet_ledger import read_ledger
from tests.support.gateway import Gateway, drain_queue
from tests.support.mongo import mongo_for_tests
from tests.support.process import Child, CommandFailed, Finished, reactor, run, until
from tests.support.rabbitmq import PrivateRabbitMQ
from tests.support.servers import Vhost, with_vhost

ROOT = Path(__file__).parents[2]
COMMAND = (sys.executable, "-m", "amqprouter.cli.main")


async def amqprouter(*arguments: str, check: bool = True) -> Finished:
    return await run(*COMMAND, *arguments, cwd=ROOT, check=check)


class BrokerTests(TestCase):
    """Commands that need a broker and nothing else."""

    timeout = 90

    async def fails(self, *arguments: str) -> str:
        """What the command complains of; without a traceback."""
        finished = await amqprouter(*arguments, check=False)
        self.assertEqual(finished.status, 1, finished)
        self.assertNotIn("Traceback", finished.stderr)
        for line in finished.stderr.splitlines():
            self.assertTrue(line.startswith("amqprouter: "), line)
        return finished.stderr

    async def declared(self, broker: Vhost | PrivateRabbitMQ, key: str = "#") -> None:
        """A devices exchange, with a queue behind it for what matches `key`."""
        connection = await connect_once(reactor, BrokerSettings(uri=broker.uri), "test")
        channel = await connection.open_channel()
        await channel.exchange_declare(exchange="devices", exchange_type="topic", durable=True)
        await channel.queue_declare(queue="sink", durable=True)
        await channel.queue_bind(queue="sink", exchange="devices", routing_key=key)
        await connection.shut()

    async def test_a_message_is_confirmed_and_there(self) -> None:
        async with with_vhost() as vhost:
            await self.declared(vhost)
            secret = Path(self.mktemp()).absolute()
            secret.write_text("s3cret\n")
            sent = await amqprouter(
                *("send", "--uri", vhost.uri, "--device", "dev1", "--topic", "up.t", "--secret-file", str(secret)),
                *("--message-id", "m1", "--header", "unit=C", "grüezi"),
            )
            self.assertEqual(sent.stdout, "confirmed: the broker has message m1 (7 bytes)\n")
            (delivery,) = await drain_queue(vhost.uri, "sink", 1)
            self.assertEqual((delivery.routing_key, delivery.body), (b"dev1.up.t", "grüezi".encode()))
            self.assertEqual(Properties(delivery.properties).headers, {"unit": "C", "x-device-secret": "s3cret"})

    async def test_a_device_may_be_the_brokers_user(self) -> None:
        async with with_vhost() as vhost:
            await self.declared(vhost)
            name = f"device-{vhost.name}"
            await vhost.broker.add_user(name, "pass/word")
            await vhost.broker.set_permissions(name, vhost.name)
            who = ("send", "--uri", vhost.uri, "--device", name, "--topic", "t", "--as-user")
            await amqprouter(*who, "--secret", "pass/word", "x")
            (delivery,) = await drain_queue(vhost.uri, "sink", 1)
            self.assertEqual(Properties(delivery.properties).text("user_id"), name)
            self.assertIn("ACCESS_REFUSED", await self.fails(*who, "--secret", "wrong", "x"))
            lamp = ("send", "--uri", vhost.uri, "--device", "lamp-1", "--topic", "t", "--publisher", name)
            await amqprouter(*lamp, "--as-user", "--secret", "pass/word", "x")
            (delivery,) = await drain_queue(vhost.uri, "sink", 1)
            self.assertEqual(delivery.routing_key, b"lamp-1.t")
            self.assertEqual(Properties(delivery.properties).text("user_id"), name)

    async def test_what_the_broker_does_not_take_is_told(self) -> None:
        async with with_vhost() as vhost:
            send = ("send", "--device", "d", "--topic", "t", "x", "--uri")
            self.assertIn("no exchange 'devices'", await self.fails(*send, vhost.uri))
            self.assertIn("vhost", await self.fails(*send, vhost.broker.uri_for("no-such-vhost")))
            self.assertIn("the broker at amqp://127.0.0.1:1/%2F: ", await self.fails(*send, "amqp://127.0.0.1:1/%2F"))
            await self.declared(vhost, "another.#")
            self.assertIn("unroutable", await self.fails(*send, vhost.uri))

    async def test_what_others_have_not_declared_is_told(self) -> None:
        async with with_vhost() as vhost:
            config = Path(self.mktemp()).absolute()
            routes = "[route a]\ntargets = exchange:oncall/x, queue:work\n[queue work]\ndeclare = no\n"
            rest = "[auth]\naccept = user-id\n[http]\nendpoint =\n[ingress]\nexchanges = amq.topic, nowhere\n"
            config.write_text(f"[broker]\nuri = {vhost.uri}\n{rest}{routes}")
            check = ("check", "-c", str(config), "--connect")
            checked = await amqprouter(*check, check=False)
            self.assertEqual((checked.status, checked.stderr), (1, ""))
            failed = [line for line in checked.stdout.splitlines() if line.startswith("broker: FAILED: ")]
            self.assertEqual(
                [line.partition(",")[0] for line in failed],
                [f"broker: FAILED: no {what}" for what in ("exchange 'nowhere'", "exchange 'oncall'", "queue 'work'")],
            )
            self.assertIn("10 queues are there", checked.stdout)
            self.assertEqual(await vhost.list_queues(), {})

            connection = await connect_once(reactor, BrokerSettings(uri=vhost.uri), "test")
            channel = await connection.open_channel()
            for exchange in ("nowhere", "oncall"):
                await channel.exchange_declare(exchange=exchange, exchange_type="topic", durable=True)
            await channel.queue_declare(queue="work", durable=True)
            await connection.shut()
            checked = await amqprouter(*check)
            self.assertNotIn("FAILED", checked.stdout)

    async def test_a_fleet_and_its_ledger(self) -> None:
        async with with_vhost() as vhost:
            await self.declared(vhost)
            folder = Path(self.mktemp()).absolute()
            counts = ("--devices", "5", "--rate", "50", "--unauthenticated", "2", "--malformed", "1")
            await amqprouter("simulate", "--prepare", str(folder), *counts)
            simulated = await amqprouter(
                *("simulate", "--uri", vhost.uri, "--secrets", str(folder / "secrets"), *counts),
                *("--messages", "300", "--ledger", str(folder / "ledger"), "--json"),
            )
            summary = json.loads(simulated.stdout)
            self.assertEqual((summary["published"], summary["nacked"], summary["unconfirmed"]), (300, 0, 0))
            self.assertEqual(set(summary["by_kind"]), {"good", "unauthenticated", "malformed"})
            ledger = read_ledger(folder / "ledger")
            deliveries = await drain_queue(vhost.uri, "sink", 300)
            self.assertEqual({Properties(delivery.properties).message_id for delivery in deliveries}, set(ledger))

    async def test_a_fleet_that_is_interrupted_still_says_what_it_did(self) -> None:
        async with with_vhost() as vhost:
            await self.declared(vhost)
            log = Path(self.mktemp()).absolute()
            command = [*COMMAND, "simulate", "--uri", vhost.uri, "--rate", "20", "--json"]
            fleet = Child(command, log=log, cwd=ROOT)

            async def publishing() -> bool:
                return (await vhost.list_queues()).get("sink", 0) > 0

            await until(publishing, what="the fleet publishes", timeout=30, child=fleet)
            fleet.signal("INT")
            self.assertEqual(await fleet.wait(30), 130)
            summary = json.loads(log.read_text())
            self.assertEqual(summary["published"], (await vhost.list_queues())["sink"])
            self.assertEqual(summary["unconfirmed"], 0)

    async def test_a_fleet_outlives_a_restart_of_the_broker(self) -> None:
        folder = Path(self.mktemp()).absolute()
        async with PrivateRabbitMQ(folder / "broker") as broker:
            await self.declared(broker)
            ledger, log = folder / "ledger", folder / "log"
            command = [*COMMAND, "simulate", "--uri", broker.uri, "--rate", "20", "--ledger", str(ledger), "--json"]
            fleet = Child(command, log=log, cwd=ROOT)

            async def more() -> bool:
                return ledger.exists() and len(read_ledger(ledger)) > before + 500

            before = 0
            await until(more, what="the fleet publishes", timeout=30, child=fleet)
            await broker.restart()
            before = len(read_ledger(ledger))
            await until(more, what="the fleet publishes again", timeout=30, child=fleet)
            fleet.signal("INT")
            self.assertEqual(await fleet.wait(40), 130)
            summary, entries = json.loads(log.read_text()), read_ledger(ledger)
            self.assertEqual((summary["published"], summary["unconfirmed"], summary["nacked"]), (len(entries), 0, 0))
            # What was unconfirmed at the restart may be there twice.
            arrived = await drain_queue(broker.uri, "sink", (await broker.list_queues())["sink"])
            self.assertLessEqual(set(entries), {Properties(delivery.properties).message_id for delivery in arrived})

    async def test_ctrl_c_is_quiet(self) -> None:
        log = Path(self.mktemp()).absolute()
        tail = Child([*COMMAND, "tail", "--url", "http://127.0.0.1:1/events"], log=log, cwd=ROOT)

        async def trying() -> bool:
            return "connecting again" in log.read_text()

        await until(trying, what="tail tries", timeout=30, child=tail)
        tail.signal("INT")
        self.assertEqual(await tail.wait(10), 130)
        for line in log.read_text().splitlines():
            self.assertIn("connecting again", line)


class GatewayTests(TestCase):
    """Commands that need the daemon, or everything that it needs."""

    timeout = 120

    def test_check_send_and_tail(self) -> Deferred[None]:
        async def test() -> None:
            with mongo_for_tests(Path(self.mktemp())) as database:
                async with with_vhost() as vhost:
                    auth = {"device_checker": "", "user_checker": ""}
                    gateway = Gateway(Path(self.mktemp()), vhost.uri, database.uri, database.name)
                    auth["device_checker"] = f"file:{gateway.folder}/devices.passwd"
                    auth["user_checker"] = f"file:{gateway.folder}/users.passwd"
                    gateway.sections["auth"].update(auth)
                    gateway.write_config()
                    gateway.devices("dev1")
                    config = str(gateway.folder / "config.ini")
                    await self._check(config, "0 of the daemon's")
                    try:
                        await gateway.start()
                        await self._check(config, "10 of the daemon's 10 queues are there")
                        await self._tail(gateway, config)
                    finally:
                        await gateway.stop()

        return Deferred.fromCoroutine(test())

    async def _check(self, config: str, expected: str) -> None:
        checked = await amqprouter("check", "-c", config, "--connect")
        self.assertIn(expected, checked.stdout)
        self.assertIn("store: mongodb://", checked.stdout)
        self.assertEqual(checked.stderr, "")

    async def _tail(self, gateway: Gateway, config: str) -> None:
        gateway.file("ann.password", "ann's\n")
        password = str(gateway.folder / "ann.password")
        events = ("tail", "--url", f"{gateway.url}/events", "--user", "ann", "--password-file", password)
        log = gateway.folder / "tail.log"
        tail = Child([*COMMAND, *events, "--topic", "dev1.up.#", "--count", "2"], log=log, cwd=ROOT)
        await gateway.metric_reaches("subscribers", 1)
        send = ("send", "-c", config, "--device", "dev1", "--secret", "a secret of the fleet", "--topic", "up.t")
        for body in ('{"n": 1}', '{"n": 2}'):
            await amqprouter(*send, body)
        self.assertEqual(await tail.wait(20), 0)
        first, second = log.read_text().splitlines()
        self.assertRegex(first, r'^\d\d:\d\d:\d\d\.\d{3}  dev1  up\.t  {"n":1}$')
        self.assertTrue(second.endswith('{"n":2}'))

        resumed = await amqprouter(*events, "--json", "--last-id", "0", "--count", "1")
        event = json.loads(resumed.stdout)
        self.assertEqual((event["id"], event["event"]["body"]), ("1", {"n": 2}))

        gateway.file("ann.password", "wrong\n")
        with self.assertRaisesRegex(CommandFailed, "status 401"):
            await amqprouter(*events)
