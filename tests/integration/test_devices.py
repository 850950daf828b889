"""The same message by every client in examples/devices, on its whole way through a gateway."""

from __future__ import annotations

import os
import shutil
import sys
from importlib.util import find_spec
from typing import Any
from unittest import SkipTest

from pamqp import commands
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from amqprouter.amqp.link import connect_once
from amqprouter.amqp.properties import Properties
from amqprouter.settings import BrokerSettings
from tests.support.asking_broker import gateway_of, shared_broker
from tests.support.gateway import ROOT, SECRET, Fleet, Gateway, drain_queue
from tests.support.gateway_case import GatewayTestCase
from tests.support.mongo import TestDatabase
from tests.support.process import reactor, run
from tests.support.rabbitmq import missing
from tests.support.servers import Vhost

FOLDER = ROOT / "examples/devices"
BODY = '{"celsius": 21.5, "place": "déjà vu"}'.encode()
HEADERS = {"unit": "°C", "count": 42, "far": 2**40, "ok": True, "more": {"depth": [1, "two"]}}
PROPERTIES = {"content_type": "application/json", "delivery_mode": 2, "app_id": "meter", "type": "reading"}
CLIENTS = {
    "pika": "pika",
    "aio_pika": "aio_pika",
    "py_amqp": "amqp",
    "kombu": "kombu",
    "rabbitpy": "rabbitpy",
    "amqpstorm": "amqpstorm",
}
"""The examples, and the module that each needs."""


async def start(script: str, *arguments: str) -> str:
    """Run one of the examples to its end; what it prints."""
    interpreter = "sh" if script.endswith(".sh") else sys.executable
    done = await run(interpreter, str(FOLDER / script), *arguments, env=dict(os.environ), timeout=30)
    return done.stdout.strip()


def decoded(encoded: bytes, *names: str) -> dict[str, Any]:
    """These of a message's properties, read by a decoder that is not ours."""
    properties = commands.Basic.Properties()
    properties.unmarshal(int.from_bytes(encoded[:2], "big"), encoded[2:])
    return {name: getattr(properties, name if name != "type" else "message_type") for name in names}


class DeviceTests(GatewayTestCase):
    skip = missing or None

    async def pass_on(self, vhost: Vhost, script: str) -> tuple[str, Any]:
        """Publish with an example; what it says is the message id, and the message as it arrives behind the gateway."""
        connection = await connect_once(reactor, BrokerSettings(uri=vhost.uri), "test")
        channel = await connection.open_channel()
        await channel.exchange_declare(exchange="copies", exchange_type="topic", durable=True)
        await channel.queue_declare(queue="copies", durable=True)
        await channel.queue_bind(queue="copies", exchange="copies", routing_key="#")
        await connection.shut()
        message_id = await start(script, vhost.uri, "dev1", SECRET)
        (copy,) = await drain_queue(vhost.uri, "copies", 1)
        return message_id, copy

    async def check(self, vhost: Vhost, database: TestDatabase, client: str) -> None:
        message_id, copy = await self.pass_on(vhost, f"{client}_device.py")
        self.assertEqual((copy.routing_key, copy.body), (b"dev1.up.reading", BODY))
        properties = Properties(copy.properties)
        self.assertEqual(properties.headers, {**HEADERS, "x-amqprouter-device": "dev1"})
        self.assertEqual(decoded(copy.properties, *PROPERTIES), PROPERTIES)
        self.assertEqual(properties.message_id, message_id)
        (stored,) = [d for d in database.documents("readings") if d["message_id"] == message_id]
        self.assertEqual((stored["device"], stored["topic"]), ("dev1", "up.reading"))
        self.assertEqual((stored["body"], stored["headers"]), ({"celsius": 21.5, "place": "déjà vu"}, HEADERS))
        self.assertEqual(int(stored["sent_at"].timestamp()), properties.timestamp)

    def test_every_python_client(self) -> Deferred[None]:
        installed = [client for client, module in CLIENTS.items() if find_spec(module)]
        if not installed:
            raise SkipTest("none of the clients is installed: pip install amqprouter[examples]")

        async def test(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            for client in installed:
                with self.subTest(client):
                    await self.check(vhost, database, client)

        return self.run_with(test, route_all={"targets": "exchange:copies, store:readings"})

    def test_amqp_tools(self) -> Deferred[None]:
        if not shutil.which("amqp-publish"):
            raise SkipTest("amqp-publish is not installed; Debian has it in the package amqp-tools")

        async def test(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            _, copy = await self.pass_on(vhost, "amqp_tools_device.sh")
            self.assertEqual((copy.routing_key, copy.body), (b"dev1.up.reading", BODY))
            properties = Properties(copy.properties)
            self.assertEqual(properties.headers, {"unit": "°C", "x-amqprouter-device": "dev1"})
            expected = {"content_type": "application/json", "delivery_mode": 2}
            self.assertEqual(decoded(copy.properties, *expected), expected)
            (stored,) = database.documents("readings")
            self.assertEqual((stored["device"], stored["body"]["celsius"]), ("dev1", 21.5))

        return self.run_with(test, route_all={"targets": "exchange:copies, store:readings"})


class MqttTests(TestCase):
    skip = missing or (None if find_spec("paho") else "paho-mqtt is not installed")
    timeout = 90

    async def test_mqtt(self) -> None:
        broker = await shared_broker()
        async with gateway_of(self, broker) as (gateway, database):
            gateway.file("devices.acl", "* -> %d.up.#\n")
            await gateway.start()
            await start("mqtt_device.py", f"mqtt://dev1:{SECRET.replace(' ', '%20')}@127.0.0.1:{broker.mqtt_port}")
            await gateway.metric_reaches("stored_total", 1)
            (stored,) = database.documents("readings")
            self.assertEqual((stored["device"], stored["topic"]), ("dev1", "up.reading"))
            self.assertEqual(stored["body"], {"celsius": 21.5, "place": "déjà vu"})
