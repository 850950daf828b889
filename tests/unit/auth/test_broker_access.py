"""What devices may do on the broker; the questions are as RabbitMQ 3.10, 4.0 and 4.3 ask them."""

from __future__ import annotations

from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

from amqprouter.auth.broker_access import BrokerAccess, Fields
from amqprouter.layouts.layout_set import LayoutSet
from amqprouter.settings import LayoutSettings


def access(*, subscribe: bool = False) -> BrokerAccess:
    return BrokerAccess(
        vhost="plant",
        devices_exchange="devices",
        by_id_exchange="devices.by-id",
        mqtt_exchanges=frozenset(("devices", "amq.topic")),
        services=frozenset(("gateway", "backend")),
        subscribe=subscribe,
        may_use=lambda device, key: not key.endswith(".secret"),
        may_speak=lambda publisher, key: publisher == "bridge" and key.startswith("lamp-"),
    )


def fields(username: str = "dev1", **more: str) -> Fields:
    return {"username": username, "vhost": "plant", "tags": "", **more}


def resource(permission: str, kind: str, name: str, client: str | None = None, username: str = "dev1") -> Fields:
    by_mqtt = {} if client is None else {"client_id": client}
    return fields(username, resource=kind, name=name, permission=permission, **by_mqtt)


def topic(permission: str, key: str, name: str, client: str | None = None, username: str = "dev1") -> Fields:
    by_mqtt = {} if client is None else {"variable_map.client_id": client}
    more = {"variable_map.username": username, "variable_map.vhost": "plant"} | by_mqtt
    return {**fields(username), "resource": "topic", "name": name, "permission": permission, "routing_key": key} | more


class WhoTests(SynchronousTestCase):
    def test_devices(self) -> None:
        for name in ("dev1", "gerät-7", "a:b", "x" * 255):
            self.assertEqual(access().who(fields(name)), "", name)

    def test_services_and_names_that_no_device_can_have(self) -> None:
        for name in ("gateway", "backend", "", "a.b", "#", "*", "a/b", "a b", "x" * 256, "é" * 128, "dev1\n"):
            self.assertNotEqual(access().who(fields(name)), "", name)
        self.assertNotEqual(access().who({}), "")

    def test_an_mqtt_client_id_is_the_devices_own(self) -> None:
        for client in ("dev1", "dev1/", "dev1/2", "dev1/x/y"):
            self.assertEqual(access().who(fields(client_id=client)), "", client)
        for client in ("dev2", "dev12", "dev1:2", "dev1.x", "", "Dev1", "8W6us6g0dtnf4ifBAbBDcQ"):
            self.assertIn("client id", access().who(fields(client_id=client)), client)
            self.assertIn("client id", access().who(fields(**{"variable_map.client_id": client})), client)

    def test_one_virtual_host(self) -> None:
        self.assertEqual(access().may_enter(fields()), "")
        for vhost in ("/", "", "Plant", "plant2"):
            self.assertNotEqual(access().may_enter({"username": "dev1", "vhost": vhost}), "")
        self.assertNotEqual(access().may_enter({"username": "dev1"}), "")
        self.assertNotEqual(access().may_enter(fields("gateway")), "")
        self.assertNotEqual(access().may_enter(fields(client_id="dev2")), "", "MQTT with a certificate asks this only")


class ResourceTests(SynchronousTestCase):
    def allowed(self, question: Fields, **options: bool) -> bool:
        return not access(**options).may_touch(question)

    def test_amqp_writes_to_the_devices_exchanges(self) -> None:
        for name in ("devices", "devices.by-id"):
            self.assertTrue(self.allowed(resource("write", "exchange", name)))
        for name in ("amq.topic", "amq.default", "", "amqprouter.rejected", "amq.direct", "devices2"):
            self.assertFalse(self.allowed(resource("write", "exchange", name)), name)

    def test_amqp_does_nothing_else(self) -> None:
        for subscribe in (False, True):
            for permission in ("configure", "read"):
                for name in ("devices", "devices.by-id", "amq.topic"):
                    self.assertFalse(self.allowed(resource(permission, "exchange", name), subscribe=subscribe))
            for permission in ("configure", "read", "write"):
                for name in ("dev1", "amqprouter.ingress", "mqtt-subscription-dev1qos1"):
                    self.assertFalse(self.allowed(resource(permission, "queue", name), subscribe=subscribe))

    def test_amqp_reads_its_own_commands(self) -> None:
        rules = replace(access(), command_queue="commands.{device}.in")
        self.assertEqual(rules.may_touch(resource("read", "queue", "commands.dev1.in")), "")
        for question in (
            resource("read", "queue", "commands.dev2.in"),
            resource("read", "queue", "commands.{device}.in"),
            resource("write", "queue", "commands.dev1.in"),
            resource("configure", "queue", "commands.dev1.in"),
            resource("read", "exchange", "commands.dev1.in"),
            resource("read", "queue", "commands.dev1.in", client="dev1"),
        ):
            self.assertNotEqual(rules.may_touch(question), "", question)
        self.assertNotEqual(access().may_touch(resource("read", "queue", "")), "")

    def test_mqtt_writes_to_its_exchanges(self) -> None:
        for name in ("amq.topic", "devices"):
            self.assertTrue(self.allowed(resource("write", "exchange", name, "dev1")))
        for name in ("devices.by-id", "amq.default", "amq.direct"):
            self.assertFalse(self.allowed(resource("write", "exchange", name, "dev1")), name)

    def test_mqtt_reads_only_with_leave_to_subscribe(self) -> None:
        questions = [resource("read", "exchange", "amq.topic", "dev1")]
        for client in ("dev1", "dev1/2"):
            for permission in ("configure", "write", "read"):
                for qos in "01":
                    name = f"mqtt-subscription-{client}qos{qos}"
                    questions.append(resource(permission, "queue", name, client))
        for question in questions:
            self.assertTrue(self.allowed(question, subscribe=True), question)
            self.assertFalse(self.allowed(question), question)

    def test_mqtt_touches_no_other_queue(self) -> None:
        for name in (
            "mqtt-subscription-dev2qos1",
            "mqtt-subscription-dev12qos1",
            "mqtt-subscription-dev1qos2",
            "mqtt-subscription-dev1",
            "mqtt-subscription-qos1",
            "mqtt-subscription-dev1:2qos1",
            "dev1",
            "",
            "amqprouter.ingress",
        ):
            self.assertFalse(self.allowed(resource("read", "queue", name, "dev1"), subscribe=True), name)
        self.assertFalse(self.allowed(resource("configure", "exchange", "amq.topic", "dev1"), subscribe=True))

    def test_odd_questions(self) -> None:
        for question in (fields(), resource("", "exchange", "devices"), resource("write", "topic", "devices")):
            self.assertFalse(self.allowed(question, subscribe=True))
        self.assertFalse(self.allowed({**resource("write", "exchange", "devices"), "vhost": "/"}))
        self.assertFalse(self.allowed(resource("write", "exchange", "devices", username="gateway")))


class TopicTests(SynchronousTestCase):
    def allowed(self, question: Fields, **options: bool) -> bool:
        return not access(**options).may_use_key(question)

    def test_writing_under_the_own_id(self) -> None:
        self.assertTrue(self.allowed(topic("write", "dev1.up.temp", "devices")))
        self.assertTrue(self.allowed(topic("write", "dev1.up.temp", "amq.topic", "dev1")))
        for key in ("dev2.up.temp", "dev1", "dev1.", "", ".dev1.up", "#", "*.up", "dev12.up", "Dev1.up"):
            self.assertFalse(self.allowed(topic("write", key, "devices")), key)
            self.assertFalse(self.allowed(topic("write", key, "amq.topic", "dev1")), key)

    def test_publishers_write_under_the_ids_of_others(self) -> None:
        for exchange, client in (("devices", None), ("amq.topic", "bridge")):
            self.assertTrue(self.allowed(topic("write", "lamp-1.up.temp", exchange, client, "bridge")))
            for key in ("plug-1.up", "lamp-1", "lamp-1.", "lamp-*.up", "lamp-#", "lamp-1." + "x" * 255):
                self.assertFalse(self.allowed(topic("write", key, exchange, client, "bridge")), key)
        self.assertFalse(self.allowed(topic("write", "lamp-1.up", "devices")))
        self.assertFalse(self.allowed(topic("write", "lamp-1.up", "devices.by-id", None, "bridge")))
        self.assertFalse(self.allowed(topic("read", "lamp-1.up", "amq.topic", "bridge", "bridge"), subscribe=True))

    def test_the_acl_is_asked(self) -> None:
        self.assertFalse(self.allowed(topic("write", "dev1.secret", "devices")))

    def test_keys_that_admission_would_refuse(self) -> None:
        """The broker takes more by MQTT than it can deliver by AMQP; those must not get that far."""
        for letter in ("x", "é"):
            longest = "dev1." + letter * ((255 - len("dev1.")) // len(letter.encode()))
            for exchange, client in (("devices", None), ("amq.topic", "dev1")):
                self.assertTrue(self.allowed(topic("write", longest, exchange, client)))
                refused = access(subscribe=True).may_use_key(topic("write", longest + letter, exchange, client))
                self.assertEqual(refused, "the key is longer than the 255 bytes that AMQP can carry")
            self.assertFalse(self.allowed(topic("read", longest + letter, "amq.topic", "dev1"), subscribe=True))

    def test_only_exchanges_of_devices(self) -> None:
        self.assertFalse(self.allowed(topic("write", "dev1.up", "amq.topic")))
        self.assertFalse(self.allowed(topic("write", "dev1.up", "devices.by-id")))
        self.assertFalse(self.allowed(topic("write", "dev1.up", "other", "dev1")))
        self.assertFalse(self.allowed(topic("read", "dev1.up", "other", "dev1"), subscribe=True))

    def test_reading_is_for_mqtt_under_the_own_id(self) -> None:
        for key in ("dev1.down.#", "dev1.#", "dev1.*", "dev1.down"):
            self.assertTrue(self.allowed(topic("read", key, "amq.topic", "dev1"), subscribe=True), key)
            self.assertFalse(self.allowed(topic("read", key, "amq.topic", "dev1")), key)
            self.assertFalse(self.allowed(topic("read", key, "devices"), subscribe=True), key)
        for key in ("#", "*.down", "dev2.down", "#.dev1.down", "dev1", "+.down"):
            self.assertFalse(self.allowed(topic("read", key, "amq.topic", "dev1"), subscribe=True), key)

    def test_odd_questions(self) -> None:
        self.assertFalse(self.allowed(fields(), subscribe=True))
        self.assertFalse(self.allowed(topic("configure", "dev1.up", "amq.topic", "dev1"), subscribe=True))
        self.assertFalse(self.allowed(topic("write", "dev1.up", "amq.topic", "dev2")))


class LayoutTests(SynchronousTestCase):
    """Where a layout finds the device in a key, that is whose it is."""

    def setUp(self) -> None:
        sections = (
            LayoutSettings("body", pattern=("gw.{topic:#}",), device="{body.id}"),
            LayoutSettings("behind", pattern=("gw.{device}.{topic}",)),
        )
        layouts = LayoutSet(sections, ("zigbee2mqtt", "tasmota"), ("devices", "devices.by-id"))
        self.access = replace(access(subscribe=True), layouts=layouts)

    def may(self, permission: str, key: str, username: str, name: str = "amq.topic") -> str:
        return self.access.may_use_key(topic(permission, key, name, username, username))

    def test_publish(self) -> None:
        for key, username in (("tele.plug.STATE", "plug"), ("zigbee2mqtt.Living Room", "Living%20Room")):
            self.assertEqual(self.may("write", key, username), "")
        self.assertEqual(self.may("write", "dev1.up.x", "dev1", "devices"), "")
        for key, username, why in (
            ("tele.plug.STATE", "tele", "by its layout (tasmota) the key is not the device's own"),
            ("tele.plug.STATE", "dev1", "by its layout (tasmota) the key is not the device's own"),
            ("dev1.up.x", "dev1", "no layout reads this key"),
            ("cmnd.plug.POWER", "plug", "layout tasmota ignores this key, which is for a device: [commands] sends"),
            ("homeassistant.switch.plug", "plug", "ignores this key: it is for publishers that may speak for all"),
            ("gw.up", "dev1", "layout body looks for the device in the message, so the key is nobody's own"),
            ("gw.up", "gw", "layout body looks for the device in the message"),
            ("gw.dev1.up", "dev1", "layout body looks for"),  # its body may say that it is another's
        ):
            self.assertIn(why, self.may("write", key, username), key)
        self.assertEqual(self.may("write", "tele.plug.secret", "plug"), "the ACL does not allow it")

    def test_subscribe_to_ones_own_commands(self) -> None:
        for key in ("cmnd.plug.POWER", "cmnd.plug.#", "cmnd.plug.*", "tele.plug.STATE"):
            self.assertEqual(self.may("read", key, "plug"), "", key)
        self.assertEqual(self.may("read", "zigbee2mqtt.Living Room.set", "Living%20Room"), "")
        for key in ("cmnd.*.POWER", "cmnd.#", "#", "tele.*.STATE", "tele.#", "cmnd.other.#", "plug.#"):
            self.assertNotEqual(self.may("read", key, "plug"), "", key)
        # A name may go on behind the dot: this filter would take the messages to lamp/2 as well.
        self.assertIn("wildcards", self.may("read", "zigbee2mqtt.lamp.#", "lamp%2E%23"))

    def test_publishers_speak_for_whom_the_layout_finds(self) -> None:
        self.access = replace(self.access, may_speak=lambda who, key: (who, key) == ("bridge", "Living%20Room.state"))
        self.assertEqual(self.may("write", "zigbee2mqtt.Living Room", "bridge"), "")
        self.assertNotEqual(self.may("write", "zigbee2mqtt.hall", "bridge"), "")
        self.assertNotEqual(self.may("write", "Living%20Room.state", "bridge"), "")

    def test_what_is_about_no_device_is_for_publishers_of_all(self) -> None:
        self.access = replace(self.access, may_speak=lambda who, key: who == "z2m" or (who, key[:3]) == ("some", "lam"))
        for key in ("homeassistant.sensor.0x01.battery.config", "homeassistant.status", "tasmota.discovery.x.config"):
            self.assertEqual(self.may("write", key, "z2m"), "", key)
            self.assertEqual(self.may("read", key, "z2m"), "", key)
            for other in ("plug", "some", "homeassistant", "tasmota"):
                for permission in ("write", "read"):
                    self.assertIn("it is for publishers", self.may(permission, key, other), (other, key))
        for key in ("homeassistant.#", "homeassistant.*", "tasmota.discovery.#"):
            self.assertEqual(self.may("read", key, "z2m"), "", key)
            for other in ("plug", "some", "homeassistant"):
                self.assertNotEqual(self.may("read", key, other), "", (other, key))
        for key in ("homeassistant2.status", "tasmota.x", "#", "*.status", "tasmota.#"):
            self.assertNotEqual(self.may("write", key, "z2m"), "", key)
            self.assertNotEqual(self.may("read", key, "z2m"), "", key)
        self.assertNotEqual(self.may("configure", "homeassistant.status", "z2m"), "")
        self.assertIn("255 bytes", self.may("write", "homeassistant." + "x" * 255, "z2m"))
        self.access = replace(self.access, subscribe=False)
        self.assertEqual(self.may("read", "homeassistant.status", "z2m"), "[broker_auth] subscribe is no")

    def test_a_homie_device_that_is_called_5(self) -> None:
        """It gets no commands of Homie 5, whose keys have its name for a version."""
        self.access = replace(self.access, layouts=LayoutSet((), ("homie",), ("devices", "devices.by-id")))
        for key in ("homie.5.*.x.set", "homie.5.engine.x.set", "homie.5.engine.*.set", "homie.5.#", "homie.5.*.#"):
            self.assertNotEqual(self.may("read", key, "5"), "", key)
        self.assertNotEqual(self.may("write", "homie.5.engine.x", "5"), "")
        for key in ("homie.5.engine.x.set", "homie.5.engine.*.set"):
            self.assertEqual(self.may("read", key, "engine"), "", key)
        self.assertEqual(self.may("read", "homie.kitchen.*.*.set", "kitchen"), "")

    def test_nobody_sends_commands_past_their_access_list(self) -> None:
        """Layouts ignore commands as well; these no publisher may use, whatever it may speak for."""
        free = LayoutSettings("free", pattern=("free.{device}.{topic}",), ignore=("cmnd.{what:#}", "free.to.{device}"))
        layouts = LayoutSet((free,), ("zigbee2mqtt", "tasmota"), ("devices", "devices.by-id"))
        self.access = replace(self.access, layouts=layouts, may_speak=lambda who, key: True)
        for key in (
            "zigbee2mqtt.lamp.set",
            "zigbee2mqtt.lamp.set.brightness",
            "zigbee2mqtt.bridge.request.permit_join",
            "cmnd.plug.POWER",  # ignored as nobody's by a layout that knows no better
            "free.to.d",
        ):
            self.assertIn("which is for a device", self.may("write", key, "z2m"), key)
        self.assertEqual(self.may("write", "cmnd.plug", "z2m"), "")

    def test_what_is_ignored_without_a_fixed_beginning(self) -> None:
        section = LayoutSettings("sites", pattern=("{site}.{device}.{topic}",), ignore=("{site}.notice",))
        layouts = LayoutSet((section,), (), ("devices", "devices.by-id"))
        self.access = replace(self.access, layouts=layouts, may_speak=lambda who, key: who == "z2m")
        for permission in ("write", "read"):
            self.assertEqual(self.may(permission, "north.notice", "z2m"), "")
            self.assertIn("for publishers that may speak", self.may(permission, "north.notice", "north"))
        self.assertIn("for publishers that may speak", self.may("read", "*.notice", "z2m"))

    def test_network_servers_get_the_commands_of_all_their_devices(self) -> None:
        layouts = LayoutSet(
            (), ("chirpstack-v4", "zigbee2mqtt", "sparkplug-b", "esphome"), ("devices", "devices.by-id")
        )
        self.access = replace(self.access, layouts=layouts, may_speak=lambda who, key: who == "server")
        for key in (
            "application.*.device.*.command.*",
            "zigbee2mqtt.#",
            "spBv1.0.plant.DCMD.edge-7.#",
            "spBv1___0.#",
        ):
            self.assertEqual(self.may("read", key, "server"), "", key)
            self.assertNotEqual(self.may("read", key, "dev1"), "", key)
        for key in ("#", "*.device.#", "spBv1.#", "other.#", "tele.#", "*.switch.x.command"):
            self.assertNotEqual(self.may("read", key, "server"), "", key)
