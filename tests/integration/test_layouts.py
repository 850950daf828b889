"""Keys as well-known systems make them: every device is found under its own name, in the store and by subscribers."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Awaitable, Callable
from importlib.util import find_spec
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from amqprouter.amqp.properties import Properties
from amqprouter.layouts.words import NORMALISERS, escaped
from tests.fleets import FleetMessage, messages
from tests.integration.test_commands import Listener, post
from tests.support.asking_broker import amqp, gateway_of, publish, shared_broker
from tests.support.gateway import ROOT, SECRET, Fleet, Gateway, drain_queue, reason_of
from tests.support.gateway_case import GatewayTestCase
from tests.support.mongo import TestDatabase
from tests.support.mqtt import MqttDevice
from tests.support.process import run, until
from tests.support.rabbitmq import missing
from tests.support.servers import Vhost

UUID, EUI = "52f14cd4-c6f1-4fbd-8f87-4025e1d49242", "0080e1150000abcd"
SYSTEMS = "chirpstack-v4, things-stack-v3, zigbee2mqtt, tasmota, sparkplug-b"
TOPICS: dict[str, tuple[str, str, dict[str, str]]] = {
    f"application/{UUID}/device/{EUI}/event/up": (EUI, "up", {"name": "chirpstack-v4", "application": UUID}),
    "v3/app1@ttn/devices/meter-1/up": (
        "meter-1",
        "up",
        {"name": "things-stack-v3", "application": "app1", "tenant": "ttn"},
    ),
    "zigbee2mqtt/Living Room/Lamp": ("Living%20Room%2ELamp", "state", {"name": "zigbee2mqtt"}),
    "zigbee2mqtt/hall": ("hall", "state", {"name": "zigbee2mqtt"}),
    "tele/plug/SENSOR": ("plug", "SENSOR", {"name": "tasmota", "prefix": "tele"}),
    "stat/plug/POWER": ("plug", "POWER", {"name": "tasmota", "prefix": "stat"}),
    "spBv1.0/Plant 1/DDATA/edge-7/press-3": (
        "press-3",
        "DDATA",
        {"name": "sparkplug-b", "space": "spBv1.0", "group": "Plant 1", "node": "edge-7"},
    ),
    "spBv1.0/Plant 1/NDATA/edge-7": (
        "edge-7",
        "NDATA",
        {"name": "sparkplug-b", "space": "spBv1.0", "group": "Plant 1"},
    ),
}
"""MQTT topics, with device, topic and what is kept besides."""
DEVICES = tuple(dict.fromkeys(device for device, _, _ in TOPICS.values()))
ROUTES = {"targets": "store:readings, events:, exchange:copies"}
ANY_TOPIC = "* -> %d.#\n"
DECLARED = (
    lambda channel: channel.exchange_declare("copies", "topic", durable=True),
    lambda channel: channel.queue_declare("copies", durable=True),
    lambda channel: channel.queue_bind("copies", "copies", "#"),
)


def key(topic: str) -> str:
    """What RabbitMQ makes of an MQTT topic."""
    return topic.replace("/", ".")


class Checks(TestCase):
    """What becomes of a message on each of `TOPICS`, wherever it came from. The body is its topic."""

    async def check_stored(self, database: TestDatabase) -> None:
        documents = database.documents("readings")
        found = {
            document["body"]["topic"]: (document["device"], document["topic"], document["layout"])
            for document in documents
        }
        self.assertEqual(found, TOPICS)
        self.assertEqual(len(documents), len(TOPICS))

    async def check_seen(self, listener: Listener) -> None:
        async def came() -> bool:
            return len(listener.seen) >= len(TOPICS)

        await until(came, what="all events came", timeout=30)
        found = {event["body"]["topic"]: (event["device"], event["topic"], event["layout"]) for event in listener.seen}
        self.assertEqual(found, TOPICS)

    async def check_copies(self, uri: str) -> None:
        """Behind an exchange target, the key is as it came, and headers say the rest."""
        for copy in await drain_queue(uri, "copies", len(TOPICS)):
            topic = json.loads(copy.body)["topic"]
            device, rest, words = TOPICS[topic]
            headers = Properties(copy.properties).headers
            self.assertEqual(copy.routing_key.decode(), key(topic))
            self.assertEqual(
                (headers["x-amqprouter-device"], headers["x-amqprouter-key"]), (device, f"{device}.{rest}")
            )
            self.assertTrue(str(headers["x-amqprouter-layout"]).startswith(words["name"]))


class AmqpTests(Checks, GatewayTestCase):
    skip = missing or None
    devices = (*DEVICES, "dev1", "My%20Plug")

    def run_layouts(self, test: Any, ingress: dict[str, str] | None = None, **options: Any) -> Deferred[None]:
        async def around(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            amqp(vhost.uri, *DECLARED)
            gateway.file("devices.acl", ANY_TOPIC)
            await gateway.start()
            await fleet.connect()
            await test(gateway, fleet, vhost, database)

        consumed = {"exchanges": "amq.topic", "layouts": SYSTEMS} if ingress is None else ingress
        return self.run_with(around, start=False, ingress=consumed, route_all=ROUTES, **options)

    def test_every_device_by_its_own_name(self) -> Deferred[None]:
        async def test(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            listener = Listener()
            await listener.connect(gateway)
            for topic in TOPICS:
                fleet.send("", "", json.dumps({"topic": topic}).encode(), exchange="amq.topic", key=key(topic))
            await fleet.all_confirmed()
            await gateway.metric_reaches("settled_total", len(TOPICS))
            await self.check_stored(database)
            await self.check_seen(listener)
            await self.check_copies(vhost.uri)

        return self.run_layouts(test)

    def test_the_daemons_own_exchange_is_as_it_was(self) -> Deferred[None]:
        async def test(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            fleet.send("dev1", "up.temp", b"{}")
            await fleet.all_confirmed()
            await gateway.metric_reaches("stored_total", 1)
            (document,) = database.documents("readings")
            self.assertEqual((document["device"], document["topic"]), ("dev1", "up.temp"))
            self.assertNotIn("layout", document)
            (copy,) = await drain_queue(vhost.uri, "copies", 1)
            self.assertEqual(Properties(copy.properties).headers, {"x-amqprouter-device": "dev1"})

        return self.run_layouts(test)

    def test_what_fits_no_layout(self) -> Deferred[None]:
        """It is rejected, not taken for a device's; what the layout says is no device's is let go."""

        async def test(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            amqp(vhost.uri, lambda channel: channel.queue_bind("amqprouter.ingress", "amq.topic", "#"))
            fleet.send("", "", b"{}", exchange="amq.topic", key="plug.up.temp")
            fleet.send("", "", b"{}", exchange="amq.topic", key="cmnd.plug.POWER")
            await fleet.all_confirmed()
            await gateway.metric_reaches("settled_total", 2)
            self.assertEqual(await gateway.metric("ignored_total"), 1)
            (rejected,) = await drain_queue(vhost.uri, "amqprouter.rejected", 1)
            headers = Properties(rejected.properties).headers
            self.assertEqual((reason_of(rejected), headers["x-amqprouter-device"]), ("no-layout", ""))
            self.assertEqual(headers["x-amqprouter-routing-key"], "plug.up.temp")

        return self.run_layouts(test)

    def test_bindings_of_an_earlier_configuration(self) -> Deferred[None]:
        """What the daemon bound before there was a layout, or for one that is gone, it takes off; nothing else."""

        async def test(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            await gateway.stop()
            gateway.sections["ingress"]["layouts"] = "homie, zigbee2mqtt"
            gateway.write_config()
            await gateway.start()
            await gateway.stop()
            gateway.sections["ingress"]["layouts"] = "zigbee2mqtt"
            gateway.write_config()
            amqp(vhost.uri, lambda channel: channel.queue_bind("amqprouter.ingress", "amq.topic", "by.hand"))
            await gateway.start()
            for key in ("plug.up.temp", "homie.kitchen.$state", "homie.5.kitchen.$state", "by.hand"):
                self.assertEqual(amqp(vhost.uri, publish("amq.topic", key, key.encode())), "")
            fleet.send("", "", b"{}", exchange="amq.topic", key="zigbee2mqtt.hall")
            await fleet.all_confirmed()
            await gateway.metric_reaches("settled_total", 2)
            (rejected,) = await drain_queue(vhost.uri, "amqprouter.rejected", 1)
            self.assertEqual((reason_of(rejected), rejected.body), ("no-layout", b"by.hand"))
            self.assertEqual([one["device"] for one in database.documents("readings")], ["hall"])
            self.assertIn("No layout reads 'by.hand'", (gateway.folder / "daemon.log").read_text())

        return self.run_layouts(test, {"exchanges": "amq.topic", "bind": "*.*.#"})

    def test_tried_again_once_there_is_a_layout(self) -> Deferred[None]:
        """What no layout fitted is replayed into one that does; and what was parked keeps its device."""

        async def test(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            amqp(vhost.uri, lambda channel: channel.queue_bind("amqprouter.ingress", "amq.topic", "#"))
            fleet.send("", "", b"{}", exchange="amq.topic", key="mine.press.My Plug")
            await fleet.all_confirmed()
            await gateway.metric_reaches("rejected_total", 1)
            await gateway.stop()
            gateway.sections["layout mine"] = {"pattern": "mine.{kind}.{device}", "topic": "report"}
            gateway.write_config()
            await gateway.start()
            replay = ("rejected", "replay", "--reason", "no-layout", "--vouch", "--yes", "-c", "config.ini")
            environment = {**os.environ, "PYTHONPATH": str(ROOT)}
            await run(gateway.python, "-m", "amqprouter.cli.main", *replay, env=environment, cwd=gateway.folder)
            await gateway.metric_reaches("stored_total", 1)
            (document,) = database.documents("readings")
            self.assertEqual((document["device"], document["topic"]), ("My%20Plug", "report"))
            self.assertEqual(document["layout"], {"name": "mine", "kind": "press"})
            (copy,) = await drain_queue(vhost.uri, "copies", 1)
            self.assertEqual(copy.routing_key, b"mine.press.My Plug")

        return self.run_layouts(test)

    def test_over_its_rate(self) -> Deferred[None]:
        """What waits in the device's parking queue comes out as it went in."""

        async def test(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            for number in range(30):
                body = json.dumps({"n": number}).encode()
                fleet.send("", "", body, exchange="amq.topic", key="zigbee2mqtt.Living Room.Lamp")
            await fleet.all_confirmed()
            await gateway.metric_reaches("parked_total", 1)
            await gateway.metric_reaches("stored_total", 30)
            documents = database.documents("readings")
            self.assertEqual(sorted(one["body"]["n"] for one in documents), list(range(30)))
            for document in documents:
                self.assertEqual((document["device"], document["topic"]), ("Living%20Room%2ELamp", "state"))
                self.assertEqual(document["layout"], {"name": "zigbee2mqtt"})
            for copy in await drain_queue(vhost.uri, "copies", 30):
                self.assertEqual(copy.routing_key, b"zigbee2mqtt.Living Room.Lamp")
                self.assertEqual(Properties(copy.properties).header(b"x-amqprouter-layout"), "zigbee2mqtt")

        limits = {"rate": 10, "burst": 2, "max_waiting_per_device": 2, "max_hold": "1s"}
        return self.run_layouts(test, scheduler=limits)

    def test_a_device_told_by_the_message(self) -> Deferred[None]:
        async def test(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            for device in ("plug", "hall"):
                body = json.dumps({"ids": {"id": device}, "n": 1}).encode()
                fleet.send("", "", body, exchange="amq.topic", key="gateway.reading")
                fleet.send("", "", b"{}", exchange="amq.topic", key="by.header", headers={"x-id": device})
            fleet.send("", "", b"no JSON", exchange="amq.topic", key="gateway.reading")
            await fleet.all_confirmed()
            await gateway.metric_reaches("settled_total", 5)
            found = sorted(
                (one["device"], one["topic"], one["layout"]["name"]) for one in database.documents("readings")
            )
            expected = [(one, *rest) for one in ("hall", "plug") for rest in (("header", "head"), ("reading", "body"))]
            self.assertEqual(found, expected)
            (rejected,) = await drain_queue(vhost.uri, "amqprouter.rejected", 1)
            self.assertEqual(reason_of(rejected), "no-layout")

        return self.run_layouts(
            test,
            {"exchanges": "amq.topic"},
            layout_body={"pattern": "gateway.{topic}", "device": "{body.ids.id}"},
            layout_head={"pattern": "by.{topic}", "device": "{header:x-id}"},
        )


def subscribes(topic: str) -> Callable[[MqttDevice], Awaitable[bool]]:
    return lambda device: device.subscribe(topic)


COMMANDS = {"enabled": "yes", "exchange": "amq.topic", "queue": ""}


class CommandTests(GatewayTestCase):
    """Commands go back in the layout that a device's messages come in."""

    skip = missing or None
    devices = (EUI, "plug", "press-3")

    def run_commands(self, test: Any, layouts: str, **options: Any) -> Deferred[None]:
        async def around(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            gateway.file("devices.acl", ANY_TOPIC)
            gateway.file("commands.acl", "ann -> #\n")
            await gateway.start()
            await fleet.connect()
            await test(gateway, fleet, vhost)

        ingress = {"exchanges": "amq.topic", "layouts": layouts}
        return self.run_with(around, start=False, ingress=ingress, acl={"commands": "commands.acl"}, **options)

    async def heard(self, gateway: Gateway, fleet: Fleet, *topics: str) -> None:
        for topic in topics:
            fleet.send("", "", b"{}", exchange="amq.topic", key=key(topic))
        await fleet.all_confirmed()
        await gateway.metric_reaches("settled_total", len(topics))

    def test_what_only_messages_tell(self) -> Deferred[None]:
        """As a network server takes commands, with a queue of its own at amq.topic."""
        uplink = f"application/{UUID}/device/{EUI}/event/up"
        keys = {
            f"{EUI}/down": f"application.{UUID}.device.{EUI}.command.down",
            "press-3/DCMD": "spBv1___0.Plant 1.DCMD.edge-7.press-3",
            "plug/POWER": "cmnd.plug.POWER",
        }

        async def test(gateway: Gateway, fleet: Fleet, vhost: Vhost) -> None:
            bind = [
                lambda channel, pattern=pattern: channel.queue_bind("taken", "amq.topic", pattern)
                for pattern in ("application.*.device.*.command.*", "*.*.DCMD.#", "cmnd.#")
            ]
            self.assertEqual(amqp(vhost.uri, lambda channel: channel.queue_declare("taken"), *bind), "")
            response, told = await post(gateway, f"{EUI}/down")
            self.assertEqual((response.code, told["error"].partition(":")[0]), (404, "unknown-layout"))
            await self.heard(gateway, fleet, uplink, "tele/plug/STATE", "spBv1___0/Plant 1/DDATA/edge-7/press-3")
            for path in keys:
                response, told = await post(gateway, path)
                self.assertEqual(response.code, 202, told)
            taken = await drain_queue(vhost.uri, "taken", len(keys))
            self.assertEqual([command.routing_key.decode() for command in taken], list(keys.values()))
            response, told = await post(gateway, "press-3/DDATA")
            self.assertEqual((response.code, told["error"]), (400, "bad-topic: DCMD are legal"))
            self.assertEqual(await gateway.metric("rejected_total"), 0)

        return self.run_commands(test, "chirpstack-v4, tasmota, sparkplug-b", commands=COMMANDS)

    def test_queues_of_the_devices(self) -> Deferred[None]:
        """A device's queue is bound with the keys of its layout, and what expires in it is told of the device."""

        async def test(gateway: Gateway, fleet: Fleet, vhost: Vhost) -> None:
            listener = Listener()
            await listener.connect(gateway)
            response, told = await post(gateway, "plug/POWER", b"ON")
            self.assertEqual(response.code, 202, told)
            sent = await listener.told("POWER.sent", told["id"])
            expired = await listener.told("POWER.expired", told["id"])
            self.assertEqual((sent["device"], expired["device"]), ("plug", "plug"))
            await post(gateway, "plug/POWER", b"OFF")
            (command,) = await drain_queue(vhost.uri, "commands.plug", 1)
            self.assertEqual((command.routing_key, command.body), (b"cmnd.plug.POWER", b"OFF"))

        return self.run_commands(test, "tasmota", commands={"enabled": "yes", "ttl": "2s"})


class MqttTests(Checks):
    """Over RabbitMQ's MQTT plugin, each device with an account of its own, which the broker asks the daemon about."""

    skip = missing or (None if find_spec("paho") else "paho-mqtt is not installed")
    timeout = 120

    async def test_every_device_by_its_own_name(self) -> None:
        broker = await shared_broker()
        ingress = {"exchanges": "amq.topic", "layouts": SYSTEMS}
        async with gateway_of(self, broker, ingress=ingress, route_all={"targets": "store:readings, events:"}) as (
            gateway,
            database,
        ):
            gateway.file("devices.acl", ANY_TOPIC)
            gateway.devices(*DEVICES)
            await gateway.start()
            listener = Listener()
            await listener.connect(gateway)
            for topic, (device, _, _) in TOPICS.items():
                client = MqttDevice(broker.mqtt_port, device, SECRET)
                self.assertEqual(await client.connect(), "")
                self.assertTrue(await client.publish(topic, json.dumps({"topic": topic}).encode()), topic)
                await client.close()
            await gateway.metric_reaches("settled_total", len(TOPICS))
            await self.check_stored(database)
            await self.check_seen(listener)

    async def test_commands(self) -> None:
        """A device subscribes to its commands, and to nobody else's; what comes back from amq.topic is let go."""
        broker = await shared_broker()
        ingress = {"exchanges": "amq.topic", "layouts": "tasmota, zigbee2mqtt"}
        options = {"ingress": ingress, "commands": COMMANDS, "acl": {"commands": "commands.acl"}}
        async with gateway_of(self, broker, **options) as (gateway, _):
            gateway.file("devices.acl", ANY_TOPIC)
            gateway.file("commands.acl", "ann -> #\n")
            gateway.devices("plug", "Living%20Room")
            await gateway.start()
            plug = MqttDevice(broker.mqtt_port, "plug", SECRET)
            self.assertEqual(await plug.connect(), "")
            self.assertTrue(await plug.subscribe("cmnd/plug/#"))
            lamp = MqttDevice(broker.mqtt_port, "Living%20Room", SECRET)
            self.assertEqual(await lamp.connect(), "")
            self.assertTrue(await lamp.subscribe("zigbee2mqtt/Living Room/set"))
            self.assertTrue(await plug.publish("tele/plug/STATE", b"{}"))
            self.assertTrue(await lamp.publish("zigbee2mqtt/Living Room", b"{}"))
            await gateway.metric_reaches("stored_total", 2)
            for path, body in (("plug/POWER", b"ON"), ("Living%2520Room/set", b'{"state": "ON"}')):
                response, told = await post(gateway, path, body)
                self.assertEqual(response.code, 202, told)

            async def came() -> bool:
                return bool(plug.received and lamp.received)

            await until(came, what="both have their commands", timeout=20)
            self.assertEqual(plug.received, [("cmnd/plug/POWER", b"ON")])
            self.assertEqual(lamp.received, [("zigbee2mqtt/Living Room/set", b'{"state": "ON"}')])
            await gateway.metric_reaches("ignored_total", 1)
            self.assertEqual(await gateway.metric("rejected_total"), 0)
            self.assertFalse(await lamp.subscribe("cmnd/plug/#"))
            for client in (plug, lamp):
                await client.close()

    async def test_a_network_server(self) -> None:
        """As docs/fleets.rst has it: one account for all devices, which also takes their commands."""
        broker = await shared_broker()
        options: dict[str, dict[str, object]] = {
            "ingress": {"exchanges": "amq.topic", "layouts": "chirpstack-v4"},
            "auth": {"accept": "broker-topic", "broker_checked_exchanges": "amq.topic"},
            "acl": {"publishers": "publishers.acl", "commands": "commands.acl"},
            "commands": {**COMMANDS},
        }
        async with gateway_of(self, broker, **options) as (gateway, database):
            gateway.file("devices.acl", ANY_TOPIC)
            gateway.file("publishers.acl", "chirpstack -> *: #\n")
            gateway.file("commands.acl", "@operators -> *.down\ngroup operators: ann\n")
            gateway.devices("chirpstack")
            await gateway.start()
            server = MqttDevice(broker.mqtt_port, "chirpstack", SECRET)
            self.assertEqual(await server.connect(), "")
            self.assertTrue(await server.subscribe("application/+/device/+/command/+"))
            uplinks = [message for message in messages("chirpstack") if message.device]
            for message in uplinks:
                self.assertTrue(await server.publish(message.mqtt_topic, message.payload), message.mqtt_topic)
            await gateway.metric_reaches("stored_total", len(uplinks))
            found = {document["device"] for document in database.documents("readings")}
            self.assertEqual(found, {message.device for message in uplinks})
            self.assertGreater(len(found), 0)
            device = uplinks[0].device
            response, told = await post(gateway, f"{device}/down", b'{"devEui": "x"}')
            self.assertEqual(response.code, 202, told)

            async def came() -> bool:
                return bool(server.received)

            await until(came, what="the server has the command", timeout=20)
            application = uplinks[0].mqtt_topic.split("/")[1]
            expected = (f"application/{application}/device/{device}/command/down", b'{"devEui": "x"}')
            self.assertEqual(server.received, [expected])
            await server.close()

    async def test_home_assistant(self) -> None:
        """Zigbee2MQTT stays connected with all that it subscribes to and publishes for Home Assistant; who is no
        publisher of all devices may not use these keys, and nobody may send commands so."""
        broker = await shared_broker()
        options: dict[str, dict[str, object]] = {
            "ingress": {"exchanges": "amq.topic", "layouts": "zigbee2mqtt"},
            "auth": {"accept": "broker-topic", "broker_checked_exchanges": "amq.topic"},
            "acl": {"publishers": "publishers.acl"},
        }
        async with gateway_of(self, broker, **options) as (gateway, database):
            gateway.file("devices.acl", ANY_TOPIC)
            gateway.file("publishers.acl", "zigbee2mqtt -> *: #\nbridge -> lamp*: #\n")
            gateway.devices("zigbee2mqtt", "bridge", "lamp")
            await gateway.start()
            client = MqttDevice(broker.mqtt_port, "zigbee2mqtt", SECRET)
            self.assertEqual(await client.connect(), "")
            for topic in ("zigbee2mqtt/#", "homeassistant/status", "homeassistant/#"):
                self.assertTrue(await client.subscribe(topic), topic)
            own = [one for one in messages("zigbee2mqtt") if one.device]
            discovery = [one for one in messages("zigbee2mqtt") if one.mqtt_topic.startswith("homeassistant/")]
            self.assertGreater(len(discovery), 0)
            for message in (*own, *discovery):
                self.assertTrue(await client.publish(message.mqtt_topic, message.payload), message.mqtt_topic)

            async def came() -> bool:
                return {one.mqtt_topic for one in discovery} <= {topic for topic, _ in client.received}

            await until(came, what="who may subscribe has the discovery", timeout=20)
            await gateway.metric_reaches("stored_total", len(own))
            found = {document["device"] for document in database.documents("readings")}
            self.assertEqual(found, {placed_id(message) for message in own})
            self.assertFalse(client.closed.is_set())
            self.assertFalse(await client.publish("zigbee2mqtt/bridge/request/permit_join", b"{}"))
            for device in ("bridge", "lamp"):
                for use in (lambda other: other.publish("homeassistant/status", b"x"), subscribes("homeassistant/#")):
                    other = MqttDevice(broker.mqtt_port, device, SECRET)
                    self.assertEqual(await other.connect(), "")
                    self.assertFalse(await use(other), device)
                    await other.close()
            await client.close()
            self.assertIn(
                "layout zigbee2mqtt ignores this key: it is for publishers", (gateway.folder / "daemon.log").read_text()
            )
            self.assertEqual(await gateway.metric("rejected_total"), 0)

    async def test_nobody_speaks_for_another(self) -> None:
        """A device's own id as the first word of a key gives it nothing where a layout finds the device elsewhere."""
        broker = await shared_broker()
        ingress = {"exchanges": "amq.topic", "layouts": "tasmota"}
        async with gateway_of(self, broker, ingress=ingress) as (gateway, database):
            gateway.file("devices.acl", ANY_TOPIC)
            gateway.devices("tele", "plug")
            await gateway.start()
            for device, topic, allowed in (
                ("tele", "tele/plug/STATE", False),
                ("tele", "tele/tele/STATE", True),
                ("plug", "tele/plug/STATE", True),
                ("plug", "plug/up/x", False),
            ):
                client = MqttDevice(broker.mqtt_port, device, SECRET)
                self.assertEqual(await client.connect(), "")
                self.assertEqual(await client.publish(topic, b"{}"), allowed, (device, topic))
                await client.close()
            await gateway.metric_reaches("stored_total", 2)
            self.assertEqual({one["device"] for one in database.documents("readings")}, {"tele", "plug"})


RECORDED_LAYOUTS = (
    "chirpstack-v4, things-stack-v3, zigbee2mqtt, tasmota, shelly-gen1, sparkplug-b, homie, aws-shadow, telegraf, "
    "openmqttgateway, esphome, shelly-gen2"
)
"""All at once, as somebody may have them; those that take any first word stand last."""


def recorded() -> list[FleetMessage]:
    """What real systems sent, of devices, but for Telegraf's messages by field: one list has one Telegraf."""
    return [
        message
        for message in messages()
        if message.device
        and message.layout not in ("", "default")
        and not (message.layout == "telegraf" and "." in message.topic)
    ]


class RecordedTests(Checks, GatewayTestCase):
    """Every message that the real systems sent, one after the other."""

    skip = missing or (None if find_spec("paho") else "paho-mqtt is not installed")
    timeout = 240
    devices = ()

    async def check_found(self, database: TestDatabase) -> None:
        expected = Counter((placed_id(message), message.topic) for message in recorded())
        found = Counter((document["device"], document["topic"]) for document in database.documents("readings"))
        self.assertEqual(found, expected)

    def test_over_amqp(self) -> Deferred[None]:
        async def test(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            gateway.devices(*{placed_id(message) for message in recorded()})
            gateway.file("devices.acl", ANY_TOPIC)
            await gateway.start()
            await fleet.connect()
            for message in recorded():
                fleet.send("", "", message.payload, exchange="amq.topic", key=message.routing_key, content_type="")
            await fleet.all_confirmed()
            await gateway.metric_reaches("settled_total", len(recorded()), 60.0)
            self.assertEqual(await gateway.metric("rejected_total"), 0)
            await self.check_found(database)

        ingress = {"exchanges": "amq.topic", "layouts": RECORDED_LAYOUTS}
        return self.run_with(test, start=False, ingress=ingress, route_all={"targets": "store:readings"})

    async def test_over_mqtt(self) -> None:
        """Each device with an account of its own."""
        broker = await shared_broker()
        ingress = {"exchanges": "amq.topic", "layouts": RECORDED_LAYOUTS}
        by_device: dict[str, list[FleetMessage]] = {}
        for message in recorded():
            by_device.setdefault(placed_id(message), []).append(message)
        async with gateway_of(self, broker, ingress=ingress, route_all={"targets": "store:readings"}) as (
            gateway,
            database,
        ):
            gateway.devices(*by_device)
            gateway.file("devices.acl", ANY_TOPIC)
            await gateway.start()
            for device, sent in by_device.items():
                client = MqttDevice(broker.mqtt_port, device, SECRET)
                self.assertEqual(await client.connect(), "", device)
                for message in sent:
                    self.assertTrue(await client.publish(message.mqtt_topic, message.payload), message.mqtt_topic)
                await client.close()
            await gateway.metric_reaches("settled_total", len(recorded()), 60.0)
            await self.check_found(database)


def placed_id(message: FleetMessage) -> str:
    """The id under which its device is known."""
    name = message.device_in_key
    return escaped(NORMALISERS["mac"](name) if message.layout == "openmqttgateway" else name)
