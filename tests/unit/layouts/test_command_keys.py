"""Keys of commands: in the layout that a device's messages come in, and by what is known where nothing came."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from amqprouter.layouts.builtin import BUILTIN
from amqprouter.layouts.command_keys import MAX_HEARD, CommandKey, CommandKeys
from amqprouter.layouts.layout_set import LayoutSet
from amqprouter.layouts.pattern import KeyPattern, NotFilled
from amqprouter.settings import LayoutSettings

HEARD = {
    "chirpstack-v4": (
        "application.app.device.0080E1150000ABCD.event.up",
        "down",
        "application.app.device.0080E1150000ABCD.command.down",
    ),
    "things-stack-v3": ("v3.app@ttn.devices.d.up", "down.push", "v3.app@ttn.devices.d.down.push"),
    "zigbee2mqtt": ("zigbee2mqtt.Living Room.Lamp", "set", "zigbee2mqtt.Living Room.Lamp.set"),
    "tasmota": ("tele.plug.STATE", "POWER", "cmnd.plug.POWER"),
    "shelly-gen1": ("shellies.s.online", "relay.0", "shellies.s.relay.0.command"),
    "shelly-gen2": ("s.online", "rpc", "s.rpc"),
    "sparkplug-b": ("spBv1___0.P 1.DDATA.e.d", "DCMD", "spBv1___0.P 1.DCMD.e.d"),
    "homie-4": ("homie.d.$state", "engine.power", "homie.d.engine.power.set"),
    "homie-5": ("homie.5.d.$state", "engine.power", "homie.5.d.engine.power.set"),
    "homie": ("homie.5.d.$state", "engine.power", "homie.5.d.engine.power.set"),
    "aws-shadow": ("$aws.things.t.shadow.get", "shadow.get.accepted", "$aws.things.t.shadow.get.accepted"),
    "openmqttgateway": ("home.OMG.LWT", "commands.MQTTtoBT.config", "home.OMG.commands.MQTTtoBT.config"),
    "esphome": ("node.status", "switch.relay", "node.switch.relay.command"),
    "default": ("d e.up", "down.x", "d e.down.x"),
}
"""By layout: a key that a device's message had, a command's topic, and the command's key."""


class CommandKeyTests(SynchronousTestCase):
    def keys(self, *sections: LayoutSettings, names: tuple[str, ...] = ()) -> CommandKeys:
        self.layouts = LayoutSet(sections, names, ("devices", "devices.by-id"))
        return CommandKeys(self.layouts)

    def hear(self, keys: CommandKeys, key: str) -> str:
        return self.hear_bytes(keys, key.encode())

    def hear_bytes(self, keys: CommandKeys, key: bytes) -> str:
        placement = self.layouts.place("amq.topic", key)
        assert placement is not None
        keys.heard(placement.device, placement)
        return placement.device

    def fails(self, keys: CommandKeys, device: str, topic: str) -> str:
        return str(self.assertRaises(NotFilled, keys.of, device, topic))

    def test_every_system(self) -> None:
        self.assertEqual(set(HEARD), {name for name, layout in BUILTIN.items() if layout.command})
        for name, (heard, topic, key) in HEARD.items():
            keys = self.keys(names=(name,))
            made = keys.of(self.hear(keys, heard), topic)
            self.assertEqual((made.key.decode(), made.exchange), (key, ""), name)

    def test_no_command_is_taken_for_a_devices_message(self) -> None:
        """Whatever comes back from the exchange that commands go to, nobody's device has sent it."""
        for name, settings in BUILTIN.items():
            for pattern in settings.command if name != "default" else ():
                for sample in KeyPattern(pattern).samples(dict(settings.values)):
                    placement = LayoutSet((), (name,)).place("amq.topic", sample.encode())
                    assert placement is not None
                    self.assertNotEqual(placement.refusal, "", sample)

    def test_without_layouts(self) -> None:
        usual = CommandKey(b"dev1.down.x", "dev1.#")
        self.assertEqual(self.keys().of("dev1", "down.x"), usual)
        self.assertEqual(self.keys(names=("telegraf",)).of("dev1", "down.x"), usual)

    def test_a_device_of_the_daemons_own_exchange(self) -> None:
        keys = self.keys(names=("tasmota",))
        keys.heard("dev1", None)
        self.assertEqual(keys.of("dev1", "down.x").key, b"dev1.down.x")

    def test_the_binding_takes_all_of_a_devices_commands(self) -> None:
        keys = self.keys(names=("tasmota", "zigbee2mqtt"))
        for heard, topic, binding in (
            ("tele.plug.STATE", "POWER", "cmnd.plug.*.#"),
            ("zigbee2mqtt.a b", "set", "zigbee2mqtt.a b.*"),
        ):
            self.assertEqual(keys.of(self.hear(keys, heard), topic).binding, binding)

    def test_the_latest_message_counts(self) -> None:
        keys = self.keys(names=("chirpstack-v4",))
        for application in ("one", "two", "one"):
            device = self.hear(keys, f"application.{application}.device.0080e1150000abcd.event.up")
            made = keys.of(device, "down")
            self.assertEqual(made.key.decode().split(".")[1], application)

    def test_nothing_heard(self) -> None:
        keys = self.keys(names=("tasmota",))
        self.assertEqual(keys.of("My%20Plug", "POWER").key, b"cmnd.My Plug.POWER")
        keys = self.keys(names=("tasmota", "chirpstack-v4"))
        self.assertEqual(self.fails(keys, "d", "down").partition(":")[0], "unknown-layout")
        self.assertIn("it may be any of tasmota, chirpstack-v4;", self.fails(keys, "d", "down"))
        self.assertIn("[commands] unheard_layout which one all others have", self.fails(keys, "d", "down"))
        keys = self.keys(names=("chirpstack-v4",))
        self.assertEqual(
            self.fails(keys, "d", "down"),
            "unknown-application: no message of the device has told it since the start; "
            "[layout chirpstack-v4] values = application=… says it for all",
        )

    def test_nothing_heard_but_configured(self) -> None:
        lamps = self.section("lamps", use="zigbee2mqtt", devices=("lamp-*",))
        meters = self.section("meters", use="chirpstack-v4", devices=("00*",), values=(("application", "app"),))
        keys = self.keys(meters, lamps)
        self.assertEqual(keys.of("lamp-1", "set").key, b"zigbee2mqtt.lamp-1.set")
        self.assertEqual(keys.of("0080", "down").key, b"application.app.device.0080.command.down")
        self.assertEqual(keys.of("dev1", "down").key, b"dev1.down")
        keys = self.keys(meters, lamps, names=("tasmota",))
        self.assertEqual(keys.of("lamp-1", "set").key, b"zigbee2mqtt.lamp-1.set")
        self.assertEqual(keys.of("dev1", "POWER").key, b"cmnd.dev1.POWER")

    def test_one_layout_for_all_others(self) -> None:
        lamps = self.section("lamps", use="zigbee2mqtt", devices=("lamp-*",))
        twice = self.section("twice", use="homie-4", devices=("lamp-2*",))
        layouts = LayoutSet((lamps, twice), ("tasmota", "zigbee2mqtt"))
        for unheard, key in (("tasmota", b"cmnd.d.set"), ("zigbee2mqtt", b"zigbee2mqtt.d.set")):
            keys = CommandKeys(layouts, unheard)
            self.assertEqual(keys.of("d", "set").key, key)
            self.assertEqual(keys.of("lamp-1", "set").key, b"zigbee2mqtt.lamp-1.set", "claimed")
            told = self.fails(keys, "lamp-2", "set")
            self.assertTrue(told.endswith("any of lamps, twice; [layout NAME] devices says whose is whose"), told)
            keys.heard("d", layouts.place("amq.topic", b"homie.d.$state"))
            self.assertEqual(keys.of("d", "n.p").key, b"homie.d.n.p.set", "heard")

    def section(self, name: str, **options: Any) -> LayoutSettings:
        return replace(LayoutSettings(name), **options)

    def test_an_exchange_of_its_own(self) -> None:
        keys = self.keys(self.section("plugs", use="tasmota", command_exchange="amq.topic"))
        self.assertEqual(keys.of("plug", "POWER"), CommandKey(b"cmnd.plug.POWER", "cmnd.plug.*.#", "amq.topic"))

    def test_ids_that_are_put_together(self) -> None:
        keys = self.keys(self.section("plugs", use="tasmota", device="up-{device}-x"))
        self.assertEqual(keys.of("up-My%20Plug-x", "POWER").key, b"cmnd.My Plug.POWER")
        for device in ("up-plug", "plug-x", "up--x", "up-x"):
            self.assertIn("unknown-device", self.fails(keys, device, "POWER"))
        keys = self.keys(self.section("plant", use="sparkplug-b", device="{group}:{device}"))
        self.assertIn("unknown-device", self.fails(keys, "P:d", "DCMD"))
        device = self.hear(keys, "spBv1.0.P.DDATA.e.d")
        self.assertEqual((device, keys.of(device, "DCMD").key), ("P:d", b"spBv1.0.P.DCMD.e.d"))

    def test_what_no_pattern_takes(self) -> None:
        keys = self.keys(names=("zigbee2mqtt", "telegraf"))
        lamp, host = self.hear(keys, "zigbee2mqtt.lamp"), self.hear(keys, "telegraf.web01.cpu")
        self.assertEqual(self.fails(keys, lamp, "off"), "bad-topic: get, set are legal")
        self.assertEqual(self.keys(names=("homie-5",)).of("d", "n.p").key, b"homie.5.d.n.p.set")
        homie = self.keys(names=("homie",))
        self.assertIn("unknown-domain", self.fails(homie, "d", "n.p"))
        for heard, key in (("homie.v4.$state", b"homie.v4.n.p.set"), ("ebus.5.v5.$state", b"ebus.5.v5.n.p.set")):
            self.assertEqual(homie.of(self.hear(homie, heard), "n.p").key, key)
        keys = self.keys(names=("zigbee2mqtt", "telegraf"))
        lamp, host = self.hear(keys, "zigbee2mqtt.lamp"), self.hear(keys, "telegraf.web01.cpu")
        self.assertIn("no-commands: the layout telegraf", self.fails(keys, host, "x"))

    def test_topics_are_unescaped(self) -> None:
        keys = self.keys(names=("tasmota",))
        self.assertEqual(keys.of("plug", "a%20b%25.c").key, b"cmnd.plug.a b%.c")

    def test_a_topic_in_other_words_is_none(self) -> None:
        """Access lists look at the topic as it is written: there is one way to write it."""
        keys = self.keys(names=("tasmota",))
        for heard in (False, True):
            if heard:
                self.hear(keys, "tele.plug.STATE")
            for topic in ("secret%2Ereset", "%50OWER", "a%2fb", "50%", "%2E"):
                self.assertIn("bad-topic", self.fails(keys, "plug", topic), topic)

    def test_a_device_in_other_words_is_none(self) -> None:
        for name, sections, device in (
            ("tasmota", (), "%70lug"),
            ("tasmota", (), "50%"),
            ("lower", (self.section("lower", use="tasmota", normalise=("lower",)),), "PLUG"),
            ("up", (self.section("up", use="tasmota", device="up-{device}"),), "up-%70lug"),
            ("zigbee2mqtt", (), "a%2Fb%2ec"),
        ):
            keys = self.keys(*sections, names=() if sections else (name,))
            self.assertEqual(
                self.fails(keys, device, "set"), f"unknown-device: no device of the layout {name} has such an id"
            )

    def test_a_key_of_another_devices_commands(self) -> None:
        """The Homie 4 device 5 is a version to Homie 5; ESPHome's node cmnd is a prefix to Tasmota."""
        keys = self.keys(names=("homie",))
        self.assertEqual(self.hear(keys, "homie.5.$state"), "5")
        for topic in ("power", "engine.power"):
            self.assertEqual(
                self.fails(keys, "5", topic),
                "unknown-device: 'homie.5.*.#.set' takes others' commands too, by the layout homie",
            )
        keys = self.keys(
            self.section("one", pattern=("a.{device}.{topic}",), command=("c.{device}.{topic}",)),
            self.section("two", pattern=("b.{device}.{topic}",), command=("c.down.{device}",)),
        )
        keys.heard("d", self.layouts.place("amq.topic", b"b.d.t"))
        self.assertEqual(
            self.fails(keys, "d", "t"), "unknown-device: 'c.down.d' is for the device down, by the layout one"
        )
        keys = self.keys(names=("tasmota", "esphome"))
        self.assertIn(
            "takes others' commands too, by the layout tasmota",
            self.fails(keys, self.hear(keys, "cmnd.status"), "switch.relay"),
        )
        keys.heard("cmnd", None)
        self.assertIn("'cmnd.#' takes others' commands too", self.fails(keys, "cmnd", "down.x"))
        keys.heard("dev1", None)
        self.assertEqual(keys.of("dev1", "down.x"), CommandKey(b"dev1.down.x", "dev1.#"))
        apart = self.section("apart", use="esphome", command_exchange="other")
        keys = self.keys(self.section("plugs", use="tasmota"), apart)
        keys.heard("cmnd", LayoutSet((apart,)).place("amq.topic", b"cmnd.status"))
        self.assertEqual(
            keys.of("cmnd", "switch.relay"), CommandKey(b"cmnd.switch.relay.command", "cmnd.*.#.command", "other")
        )

    def test_a_key_that_would_be_read_as_anothers(self) -> None:
        section = self.section(
            "mine", pattern=("x.{device}-{site}.{topic}",), command=("x.{device}-{site}.do.{topic}",)
        )
        keys = self.keys(replace(section, values=(("site", "s"),)))
        self.assertEqual(keys.of("a", "t").key, b"x.a-s.do.t")
        self.assertIn("bad-device: 'a-b-s' would be read with 'a'", self.fails(keys, "a-b", "t"))

    def test_no_queue_is_bound_by_a_wildcard(self) -> None:
        """A device may say these words, and its queue must not get others' commands."""
        section = self.section("gateways", pattern=("gw.{gateway}.{topic}",), device="{header:id}")
        keys = self.keys(replace(section, command=("gw.{gateway}.down.{device}.{topic}",)), names=("tasmota",))
        for gateway in (b"#", b"*", b"\xff"):
            placement = self.layouts.place("amq.topic", b"gw.%b.up" % gateway, fetch=lambda field: "d")
            keys.heard("d", placement)
            self.assertIn("no-queue", self.fails(keys, "d", "x"))
            device = self.hear_bytes(keys, b"tele.%b.STATE" % gateway)
            self.assertIn("no-queue", self.fails(keys, device, "POWER"))
        keys.heard("d", self.layouts.place("amq.topic", b"gw.a*b#.up", fetch=lambda field: "d"))
        self.assertEqual(keys.of("d", "x").binding, "gw.a*b#.down.d.*")

    def test_no_more_devices_than_that(self) -> None:
        keys = self.keys(names=("tasmota",))
        for number in range(MAX_HEARD + 5):
            keys.heard(f"d{number}", None)
        self.assertEqual(len(keys._heard), MAX_HEARD)
        self.assertEqual(keys.of("d4", "x").key, b"cmnd.d4.x")
        self.assertEqual(keys.of("d5", "x").key, b"d5.x")
