"""docs/first-fleet.rst, followed from its first command to the last, with a client in the place of the devices."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import treq
from twisted.trial.unittest import TestCase

from tests.integration.test_commands import Listener
from tests.support.first_fleet import (
    COMMON,
    HOUSE,
    LORAWAN,
    broker_lines,
    commands,
    ini,
    make_files,
    permissions,
    published,
)
from tests.support.gateway import ROOT, Gateway
from tests.support.mongo import TestDatabase, mongo_for_tests
from tests.support.mqtt import MqttDevice
from tests.support.process import free_ports, run, until
from tests.support.rabbitmq import CONSISTENT_HASH, VERSION, PrivateRabbitMQ, missing

PASSWORDS = {"alice": "wonder", "chirpstack": "uplink"}
COMMAND = (sys.executable, "-m", "amqprouter.cli.main")
ALICE = ("alice", PASSWORDS["alice"])


class FirstFleetTests(TestCase):
    skip = missing or (None if find_spec("paho") else "paho-mqtt is not installed")
    timeout = 180

    @asynccontextmanager
    async def followed(
        self, heading: str, plugins: tuple[str, ...], conf: Mapping[str, str], *accounts: str
    ) -> AsyncIterator[tuple[PrivateRabbitMQ, Gateway, TestDatabase]]:
        """The broker, the store, the files and the daemon, as the page has them but for the ports; `check --connect`
        finds nothing amiss."""
        async with AsyncExitStack() as stack:
            # In the place of ports that may be taken, and of a path that is too long for a socket.
            folder = Path(stack.enter_context(TemporaryDirectory()))
            database = stack.enter_context(mongo_for_tests(Path(self.mktemp())))
            (asked,) = free_ports(1)
            conf = {name: value.replace("8081", str(asked)) for name, value in conf.items()}
            broker = await stack.enter_async_context(PrivateRabbitMQ(Path(self.mktemp()), plugins=plugins, config=conf))
            for part in (COMMON, heading):
                make_files(part, folder, PASSWORDS)
            for account in accounts:
                password = (folder / ("broker" if account == "gateway" else account)).with_suffix(".password")
                await broker.add_user(account, password.read_text().strip())
                await broker.set_permissions(account, "/", **permissions(account))
            gateway = Gateway(folder, broker.uri, database.uri, database.name)
            for path in folder.glob("*"):
                if path.name.startswith("users") or path.name == "devices.acl":
                    path.unlink()  # are the helper's
            make_files(COMMON, folder, PASSWORDS)
            text = ini(heading).replace("@localhost/", f"@localhost:{broker.port}/").replace("8081", str(asked))
            text = text.replace("mongodb://localhost:27017/", database.uri).replace("8080", str(gateway.port))
            gateway.file("config.ini", text.replace("database = ", f"database = {database.name}\n#"))
            checked = await self.amqprouter(gateway, "check", "-c", "config.ini", "--connect")
            self.assertNotIn("warning", checked)
            self.assertNotIn("FAILED", checked)
            stack.push_async_callback(gateway.stop)
            await gateway.start()
            self.listener = Listener()
            await self.listener.connect(gateway, ALICE)
            yield broker, gateway, database

    async def amqprouter(self, gateway: Gateway, *arguments: str) -> str:
        finished = await run(*COMMAND, *arguments, cwd=gateway.folder, env={"PYTHONPATH": str(ROOT)})
        return finished.stdout

    async def check_seen(self, gateway: Gateway, database: TestDatabase, found: list[tuple[str, str, Any]]) -> None:
        """These devices, topics and bodies are in the store, and alice sees them."""
        await gateway.metric_reaches("stored_total", len(found))
        documents = database.documents("messages")
        self.assertEqual([(one["device"], one["topic"], one["body"]) for one in documents], found)

        async def seen() -> bool:
            return len(self.listener.seen) >= len(found)

        await until(seen, what="alice sees all", timeout=20)
        self.assertEqual([(one["device"], one["topic"], one["body"]) for one in self.listener.seen], found)

    async def check_command(self, gateway: Gateway, heading: str, client: MqttDevice, topic: str) -> None:
        """The command that the page sends comes to whoever has subscribed."""
        (curl,) = [words for words in commands(heading) if words[0] == "curl" and "/commands/" in words[-1]]
        path, body = curl[-1].partition(":8080")[2], curl[-2].encode()
        response = await treq.post(f"{gateway.url}{path}", data=body, auth=ALICE, persistent=False)
        self.assertEqual((response.code, await response.text())[0], 202)

        async def came() -> bool:
            return bool(client.received)

        await until(came, what="the command came", timeout=20)
        self.assertEqual(client.received, [(topic, body)])

    async def test_a_house(self) -> None:
        plugins, conf = ("rabbitmq_mqtt", CONSISTENT_HASH), {"mqtt.allow_anonymous": "false"}
        async with self.followed(HOUSE, plugins, conf, "gateway", "home") as (broker, gateway, database):
            password = (gateway.folder / "home.password").read_text().strip()
            home = MqttDevice(broker.plugin_ports["rabbitmq_mqtt"], "home", password, client_id="any name")
            self.assertEqual(await home.connect(), "")
            for pattern in ("cmnd/#", "zigbee2mqtt/#"):  # what is told to do, and what Zigbee2MQTT does at its start
                self.assertTrue(await home.subscribe(pattern))
            for topic, body in (*published(HOUSE), ("tasmota/discovery/00005E53A001/config", b"{}")):
                self.assertTrue(await home.publish(topic, body), topic)
            home.received.clear()
            found = [
                ("hall", "state", {"temperature": 21.5}),
                ("plug", "SENSOR", {"ENERGY": {"Power": 12}}),
                ("shelly1pm-53A010", "relay.0.power", 12.5),
                ("shellyplus1pm-53a040", "status.switch:0", {"apower": 8.9}),
            ]
            await self.check_seen(gateway, database, found)
            await self.check_command(gateway, HOUSE, home, "cmnd/plug/POWER")
            self.assertEqual(await gateway.metric("rejected_total"), 0)
            await home.close()
            nobody = MqttDevice(broker.plugin_ports["rabbitmq_mqtt"], "", None, client_id="x")
            self.assertNotEqual(await nobody.connect(), "")

    async def test_a_lorawan_network(self) -> None:
        """With MQTT 3.1.1 where the broker knows no other: ChirpStack itself could not connect to that one."""
        secret = "00112233445566778899"  # as `make_files` has it
        conf = {name: value.replace("SECRET", secret) for name, value in broker_lines().items()}
        plugins = ("rabbitmq_mqtt", "rabbitmq_auth_backend_http", CONSISTENT_HASH)
        async with self.followed(LORAWAN, plugins, conf, "gateway") as (broker, gateway, database):
            port, version5 = broker.plugin_ports["rabbitmq_mqtt"], VERSION >= (3, 13)
            clients = [
                MqttDevice(port, "chirpstack", PASSWORDS["chirpstack"], client_id=client_id, version5=version5)
                for client_id in ("chirpstack", "chirpstack/test")
            ]
            for client in clients:
                self.assertEqual(await client.connect(), "")
            server, test = clients
            self.assertTrue(await server.subscribe("application/+/device/+/command/+"))
            ((topic, body),) = published(LORAWAN)
            self.assertTrue(await test.publish(topic, body))
            await self.check_seen(gateway, database, [("0080e1150000abcd", "up", json.loads(body))])
            await self.check_command(gateway, LORAWAN, server, topic.replace("event/up", "command/down"))
            for client in clients:
                await client.close()
