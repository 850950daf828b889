"""Publishers that speak for devices, through real brokers: a bridge with an account of its own, and MQTT client ids."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from shutil import rmtree, which
from tempfile import mkdtemp
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from amqprouter.amqp.properties import Properties
from tests.integration.test_cli import amqprouter
from tests.support.asking_broker import AskingBroker, amqp, gateway_of, publish, shared_broker
from tests.support.gateway import SECRET, Fleet, Gateway, drain_queue, reason_of
from tests.support.gateway_case import GatewayTestCase
from tests.support.mongo import TestDatabase
from tests.support.mqtt import MqttDevice
from tests.support.process import Child, answers, free_ports, until
from tests.support.rabbitmq import VERSION, missing
from tests.support.servers import Vhost

LINES = "deny * -> *: up.firmware\nbridge-7 -> lamp-*: up.#\nregistry\n"


COPIES = (
    lambda channel: channel.exchange_declare("copies", "topic", durable=True),
    lambda channel: channel.queue_declare("copies", durable=True),
    lambda channel: channel.queue_bind("copies", "copies", "#"),
)
_ACCOUNTS: set[str] = set()
"""Made on the node that all tests share."""


class BridgeTests(GatewayTestCase):
    """By AMQP."""

    def setUp(self) -> None:
        self.sockets = mkdtemp()  # a socket's name has room for no long path
        self.addCleanup(rmtree, self.sockets)

    async def account(self, vhost: Vhost, name: str) -> str:
        """A broker's account without any tag, which may publish to the devices exchange and nothing else."""
        if name not in _ACCOUNTS:
            _ACCOUNTS.add(name)
            await vhost.broker.add_user(name, "its password")
        await vhost.broker.set_permissions(name, vhost.name, configure="", write="devices", read="")
        return vhost.broker.uri_for(vhost.name, name, "its password")

    def test_an_account_speaks_for_its_devices(self) -> Deferred[None]:
        async def test(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            gateway.file("publishers.acl", LINES)
            gateway.devices("bridge-8")
            self.assertEqual(await deferToThread(amqp, vhost.uri, *COPIES), "")
            await gateway.start()
            uri = await self.account(vhost, "bridge-7")

            def sent(device: str, topic: str, **properties: Any) -> Any:
                return publish("devices", f"{device}.{topic}", message_id=f"{device}.{topic}", **properties)

            said = await deferToThread(
                amqp,
                uri,
                *[sent(f"lamp-{number}", "up.state", user_id="bridge-7") for number in range(3)],
                sent("lamp-3", "up.firmware", user_id="bridge-7"),
                sent("plug-1", "up.state", user_id="bridge-7"),
                sent("lamp-4", "up.state"),
                sent("bridge-7", "up.health", user_id="bridge-7"),
                # A publisher with a secret, in whatever account's messages.
                sent("lamp-5", "up.state", headers={"x-device-secret": SECRET, "x-publisher": "bridge-8"}),
            )
            self.assertEqual(said, "")
            # Another account cannot say that it is the bridge.
            forged = await deferToThread(amqp, vhost.uri, sent("lamp-0", "up.forged", user_id="bridge-7"))
            self.assertIn("PRECONDITION_FAILED", forged)
            await gateway.metric_reaches("settled_total", 8)
            self.assertEqual(await gateway.metric("spoken_for_total"), 3)
            rejected = await drain_queue(vhost.uri, "amqprouter.rejected", 4)
            told = {}
            for delivery in rejected:
                properties = Properties(delivery.properties)
                told[properties.message_id] = reason_of(delivery), properties.headers.get("x-amqprouter-publisher")
            self.assertEqual(
                told,
                {
                    "lamp-3.up.firmware": ("may-not-speak-for", "bridge-7"),
                    "plug-1.up.state": ("may-not-speak-for", "bridge-7"),
                    "lamp-4.up.state": ("no-credential", None),
                    "lamp-5.up.state": ("may-not-speak-for", "bridge-8"),
                },
            )
            stored = {
                document["message_id"]: (document["device"], document.get("publisher"))
                for document in database.documents("readings")
            }
            lamps = {f"lamp-{number}.up.state": (f"lamp-{number}", "bridge-7") for number in range(3)}
            self.assertEqual(stored, {**lamps, "bridge-7.up.health": ("bridge-7", None)})
            copies = await drain_queue(vhost.uri, "copies", 4)
            headers = [Properties(copy.properties).headers for copy in copies]
            whose = sorted((str(h["x-amqprouter-device"]), h.get("x-amqprouter-publisher")) for h in headers)
            self.assertEqual(whose, sorted(stored.values()))

        routes = {"targets": "exchange:copies, store:readings"}
        return self.run_with(test, start=False, acl={"publishers": "publishers.acl"}, route_all=routes)

    def test_a_limit_for_all_that_it_sends(self) -> Deferred[None]:
        """What is over it is parked, device by device, and a device beside it does not wait."""

        async def test(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            gateway.file("publishers.acl", LINES)
            await gateway.start()
            await fleet.connect()
            uri = await self.account(vhost, "bridge-7")
            sent = [
                publish("devices", f"lamp-{number % 4}.up.{number}", message_id=f"b{number}", user_id="bridge-7")
                for number in range(60)
            ]
            self.assertEqual(await deferToThread(amqp, uri, *sent), "")
            await gateway.metric_reaches("throttled_total", 1)
            beside = fleet.send("dev1", "up.x", b"{}")
            await fleet.all_confirmed()

            async def stored() -> list[str]:
                return [document["message_id"] for document in database.documents("readings")]

            await until(lambda: self._is_in(beside, stored), what="the device is served", timeout=20)
            self.assertLess(len(await stored()), 40)
            self.assertGreater(await gateway.metric('limited_total{class="default",limit="publisher"}'), 0)
            explained = await amqprouter("limits", "explain", "lamp-1", "-c", str(gateway.folder / "config.ini"))
            self.assertIn("by bridge-7", explained.stdout)
            self.assertIn("publisher bridge-7", explained.stdout)
            await gateway.metric_reaches("stored_total", 61)
            order = [d["topic"] for d in database.documents("readings") if d["device"] == "lamp-1"]
            self.assertEqual(order, [f"up.{number}" for number in range(1, 60, 4)])

        limits = {"publisher_limits": "20/s burst 5", "max_waiting_per_device": 4}
        return self.run_with(test, start=False, acl={"publishers": "publishers.acl"}, scheduler=limits,
                             control={"socket": f"{self.sockets}/control.sock"})  # fmt: skip

    @staticmethod
    async def _is_in(message_id: str, stored: Callable[[], Awaitable[list[str]]]) -> bool:
        return message_id in await stored()

    def test_a_changed_list_and_a_replay(self) -> Deferred[None]:
        async def test(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            gateway.file("publishers.acl", "bridge-7 -> lamp-1: #\n")
            await gateway.start()
            uri = await self.account(vhost, "bridge-7")
            lamp = publish("devices", "lamp-2.up.state", message_id="m", user_id="bridge-7")
            self.assertEqual(await deferToThread(amqp, uri, lamp), "")
            await gateway.metric_reaches("settled_total", 1)
            listed = await self.rejected(gateway, "ls", "--json")
            (line,) = listed.splitlines()
            told = json.loads(line)
            self.assertEqual(
                (told["device"], told["publisher"], told["reason"]), ("lamp-2", "bridge-7", "may-not-speak-for")
            )
            self.assertIn("lamp-2 by bridge-7", await self.rejected(gateway, "ls"))
            gateway.file("publishers.acl", "bridge-7 -> lamp-*: #\n")
            gateway.running.signal("HUP")
            await gateway.metric_reaches("reloads_total", 1)
            self.assertEqual(await deferToThread(amqp, uri, lamp), "")
            await gateway.metric_reaches("stored_total", 1)
            await self.rejected(gateway, "replay", "--reason", "may-not-speak-for", "--vouch", "--yes")
            await gateway.metric_reaches("store_duplicates_total", 1)
            self.assertEqual(await gateway.metric("spoken_for_total"), 2)

        return self.run_with(test, start=False, acl={"publishers": "publishers.acl"})

    async def rejected(self, gateway: Gateway, *arguments: str) -> str:
        ended = await amqprouter("rejected", arguments[0], "-c", str(gateway.folder / "config.ini"), *arguments[1:])
        return ended.stdout


class BrokerTopicTests(TestCase):
    """By MQTT, on any version: the broker asks by the list who may publish what, and a layout says for which device."""

    skip = missing or None
    timeout = 120

    def test_one_account_for_a_house(self) -> Deferred[None]:
        async def test() -> None:
            broker = await shared_broker()
            options: dict[str, Any] = {
                "ingress": {"layouts": "zigbee2mqtt"},
                "auth": {"accept": "broker-topic"},
                "acl": {"publishers": "publishers.acl", "devices": ""},
            }
            async with gateway_of(self, broker, **options) as (gateway, database):
                gateway.file("publishers.acl", "zigbee -> lamp-*: #\n")
                gateway.devices("zigbee", "lamp-9")
                await gateway.start()
                house = MqttDevice(broker.mqtt_port, "zigbee", SECRET)
                self.assertEqual(await house.connect(), "")
                for number in range(3):
                    self.assertTrue(await house.publish(f"zigbee2mqtt/lamp-{number}", b'{"state": "ON"}'))
                self.assertFalse(await house.publish("zigbee2mqtt/lock-1", b"{}"))
                lamp = MqttDevice(broker.mqtt_port, "lamp-9", SECRET)  # no publisher, though the house may speak for it
                self.assertEqual(await lamp.connect(), "")
                self.assertFalse(await lamp.publish("zigbee2mqtt/lamp-1", b"{}"))
                await gateway.metric_reaches("stored_total", 3)
                told = {(d["device"], d["topic"]) for d in database.documents("readings")}
                self.assertEqual(told, {(f"lamp-{number}", "state") for number in range(3)})
                await house.close()
                await lamp.close()

        return Deferred.fromCoroutine(test())


CLIENT_IDS = {
    "mqtt.message_interceptors.incoming.set_client_id_annotation.enabled": "true",
    "mqtt.disconnect_on_unauthorized": "false",  # or one message that is refused stops the bridge for good
}
BRIDGE = """\
listener {port} 127.0.0.1
allow_anonymous true
connection site
address 127.0.0.1:{broker}
remote_clientid bridge-7
remote_username bridge-7
remote_password {secret}
notifications_local_only true
topic # out 1 lamps/ ""
{protocol}
"""
MQTT_HELLO = b"\x10\x10\0\4MQTT\4\2\0\x3c\0\4test"
"""A CONNECT of MQTT 3.1.1."""
MOSQUITTO = which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin")


class ClientIdTests(TestCase):
    """By MQTT, to an exchange of its own; the broker asks the daemon who may connect, and what it may do."""

    skip = missing or None
    timeout = 180

    @asynccontextmanager
    async def running(self, *, told: bool = True) -> AsyncIterator[tuple[AskingBroker, Gateway, TestDatabase]]:
        """A broker, which is told to write client ids into messages or not, and a gateway that accepts nothing else."""
        folder = Path(mkdtemp(prefix="rabbitmq-mqtt-", dir=".")).absolute()
        broker = AskingBroker(folder, {"mqtt.exchange": "from-mqtt", **(CLIENT_IDS if told else {})})
        async with broker.node:
            declare = [lambda channel: channel.exchange_declare("from-mqtt", "topic", durable=True)]
            self.assertEqual(await deferToThread(amqp, broker.node.uri, *declare), "")
            auth = {
                "accept": "mqtt-client-id",
                "broker_checked_exchanges": "",
                "mqtt_client_id_exchanges": "from-mqtt",
            }
            options = {
                "ingress": {"exchanges": "from-mqtt", "bind": "*.up.#"},
                "auth": auth,
                "acl": {"publishers": "publishers.acl"},
            }
            async with gateway_of(self, broker, **options) as (gateway, database):
                gateway.file("publishers.acl", LINES)
                gateway.devices("bridge-7", "dev1")
                await gateway.start()
                yield broker, gateway, database

    async def client(self, broker: AskingBroker, name: str, client_id: str, version5: bool) -> MqttDevice:
        device = MqttDevice(broker.mqtt_port, name, SECRET, client_id=client_id, version5=version5)
        self.addCleanup(lambda: Deferred.fromCoroutine(device.close()))
        self.assertEqual(await device.connect(), "")
        return device

    def test_a_bridge_that_the_broker_names(self) -> Deferred[None]:
        async def test() -> None:
            async with self.running() as (broker, gateway, database):
                for version5 in (False, True):
                    bridge = await self.client(broker, "bridge-7", "bridge-7/site", version5)
                    own = await self.client(broker, "dev1", "dev1", version5)
                    forged = {"user_properties": (("x-opt-mqtt-client-id", "dev1"),)} if version5 else {}
                    self.assertTrue(await bridge.publish(f"lamp-1/up/{version5}", b"{}", **forged))  # type: ignore[arg-type]
                    self.assertTrue(await own.publish(f"dev1/up/{version5}", b"{}"))
                    # The broker asks before it lets a publisher use the key of a device that is none of its. To MQTT
                    # 3.1.1, this version has no other word than that it took the message.
                    self.assertTrue(await bridge.publish("dev1/up/x", b"{}"))
                await gateway.metric_reaches("stored_total", 4)
                self.assertEqual(await gateway.metric("spoken_for_total"), 2)
                devices = sorted(document["device"] for document in database.documents("readings"))
                self.assertEqual(devices, ["dev1", "dev1", "lamp-1", "lamp-1"])
                # Whoever may publish to the exchange by AMQP says what it likes: so nobody should.
                header = {"x-opt-mqtt-client-id": "dev1"}
                self.assertEqual(
                    await deferToThread(amqp, broker.node.uri, publish("from-mqtt", "dev1.up.y", headers=header)), ""
                )
                await gateway.metric_reaches("stored_total", 5)
                for exchange in ("devices", "amq.topic"):
                    step = publish(exchange, "dev1.up.z", headers=header)
                    self.assertEqual(await deferToThread(amqp, broker.node.uri, step), "")
                await gateway.metric_reaches('rejected_total{reason="no-credential"}', 1)
                # A device cannot.
                uri = broker.node.uri_for("/", "dev1", SECRET)
                refused = await deferToThread(amqp, uri, publish("from-mqtt", "dev1.up.y", headers=header))
                self.assertIn("ACCESS_REFUSED", refused)

                def dead_letter(channel: Any) -> None:
                    trap = {"x-dead-letter-exchange": "from-mqtt", "x-dead-letter-routing-key": "dev1.up.dead"}
                    channel.queue_declare("trap", arguments=trap | {"x-message-ttl": 1})
                    publish("", "trap", headers=header)(channel)

                self.assertEqual(await deferToThread(amqp, broker.node.uri, dead_letter), "")
                await gateway.metric_reaches('rejected_total{reason="identity-mismatch"}', 1)

        if VERSION < (4, 3):
            self.skipTest(f"RabbitMQ {VERSION[0]}.{VERSION[1]} writes no client id into messages; 4.3 does")
        return Deferred.fromCoroutine(test())

    def test_mosquitto_as_a_bridge(self) -> Deferred[None] | None:
        """As docs/publishers.rst has it, with both versions of MQTT."""

        async def test() -> None:
            async with self.running() as (broker, gateway, database):
                for number, protocol in enumerate(("bridge_protocol_version mqttv50", "try_private false")):
                    (port,) = free_ports(1)
                    config = gateway.folder / f"mosquitto-{number}.conf"
                    config.write_text(
                        BRIDGE.format(port=port, broker=broker.mqtt_port, secret=SECRET, protocol=protocol)
                    )
                    site = Child([str(MOSQUITTO), "-c", str(config)], log=config.with_suffix(".log"))
                    try:
                        await until(
                            partial(answers, port, MQTT_HELLO), what="Mosquitto listens", timeout=20, child=site
                        )
                        lamp = MqttDevice(port, "lamp", None)
                        self.assertEqual(await lamp.connect(), "")
                        for device in ("lamp-1", "plug-1", "lamp-2"):
                            self.assertTrue(await lamp.publish(f"lamps/{device}/up/{number}", b"{}"))
                        await gateway.metric_reaches("stored_total", 2 * (number + 1))
                        await lamp.close()
                    finally:
                        await site.stop()
                told = {(d["device"], d["topic"], d["publisher"]) for d in database.documents("readings")}
                self.assertEqual(told, {(f"lamp-{n}", f"up.{way}", "bridge-7") for n in (1, 2) for way in (0, 1)})

        if VERSION < (4, 3):
            self.skipTest(f"RabbitMQ {VERSION[0]}.{VERSION[1]} writes no client id into messages; 4.3 does")
        if MOSQUITTO is None:
            self.skipTest("there is no mosquitto: apt-get install mosquitto")
        return Deferred.fromCoroutine(test())

    def test_a_broker_that_does_not_know_the_header_is_not_believed(self) -> Deferred[None]:
        """There an MQTT 5 client writes it by itself."""

        async def test() -> None:
            async with self.running(told=False) as (broker, gateway, _):
                device = await self.client(broker, "dev1", "dev1", True)
                forged = (("x-opt-mqtt-client-id", "dev1"),)
                self.assertTrue(await device.publish("dev1/up/x", b"{}", user_properties=forged))
                await gateway.metric_reaches('rejected_total{reason="no-credential"}', 1)
                self.assertIn("mqtt-client-id proves nothing with RabbitMQ", gateway.running.tail(1000))

        if not (3, 13) <= VERSION < (4, 3):
            self.skipTest("only RabbitMQ 3.13 to 4.2 have MQTT 5 and do not know the header")
        return Deferred.fromCoroutine(test())
