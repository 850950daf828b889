"""Keys as each system makes them, and what the built-in layouts find in them."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from amqprouter.layouts.builtin import BUILTIN
from amqprouter.layouts.layout import IGNORED
from amqprouter.layouts.layout_set import LayoutSet
from amqprouter.layouts.pattern import KeyPattern
from amqprouter.layouts.words import unescaped
from amqprouter.patterns import TopicPattern
from tests.fleets import messages

EUI, UUID = "0080e1150000abcd", "52f14cd4-c6f1-4fbd-8f87-4025e1d49242"
FOUND = {
    "chirpstack-v4": {
        f"application/{UUID}/device/{EUI}/event/up": (EUI, "up", f"application={UUID}"),
        f"application/{UUID}/device/{EUI}/event/join": (EUI, "join", f"application={UUID}"),
        f"application/{UUID}/device/{EUI}/state/status": (EUI, "status", f"application={UUID}"),
        f"application/{UUID}/device/{EUI.upper()}/event/up": (EUI, "up", f"application={UUID}&device={EUI.upper()}"),
    },
    "things-stack-v3": {
        "v3/app1@ttn/devices/eui-0080e1150000abcd/up": (f"eui-{EUI}", "up", "application=app1&tenant=ttn"),
        "v3/app1@ttn/devices/d/down/queued": ("d", "down.queued", "application=app1&tenant=ttn"),
        "v3/app1@ttn/devices/d/location/solved": ("d", "location.solved", "application=app1&tenant=ttn"),
        "v3/app1/devices/d/join": ("d", "join", "application=app1"),
    },
    "zigbee2mqtt": {
        "zigbee2mqtt/lamp": ("lamp", "state", ""),
        "zigbee2mqtt/0x00158d00018255df": ("0x00158d00018255df", "state", ""),
        "zigbee2mqtt/Living Room/Lamp": ("Living%20Room%2ELamp", "state", ""),
        "zigbee2mqtt/Living Room/Lamp/availability": ("Living%20Room%2ELamp", "availability", ""),
        "zigbee2mqtt/remote/action": ("remote", "action", ""),
        "zigbee2mqtt/bridge/state": ("bridge", "state", ""),
        "zigbee2mqtt/bridge/response/permit_join": ("bridge", "response.permit_join", ""),
    },
    "tasmota": {
        "tele/plug/STATE": ("plug", "STATE", "prefix=tele"),
        "tele/plug/LWT": ("plug", "LWT", "prefix=tele"),
        "stat/plug/POWER": ("plug", "POWER", "prefix=stat"),
    },
    "shelly-gen1": {
        "shellies/shelly1pm-8CAAB5/relay/0": ("shelly1pm-8CAAB5", "relay.0", ""),
        "shellies/shelly1pm-8CAAB5/relay/0/power": ("shelly1pm-8CAAB5", "relay.0.power", ""),
        "shellies/shelly1pm-8CAAB5/online": ("shelly1pm-8CAAB5", "online", ""),
    },
    "shelly-gen2": {
        "shellyplus1-a8032abe54dc/events/rpc": ("shellyplus1-a8032abe54dc", "events.rpc", ""),
        "shellyplus1-a8032abe54dc/status/switch:0": ("shellyplus1-a8032abe54dc", "status.switch:0", ""),
        "shellyplus1-a8032abe54dc/online": ("shellyplus1-a8032abe54dc", "online", ""),
    },
    "sparkplug-b": {
        "spBv1.0/Plant 1/DDATA/edge-7/press-3": ("press-3", "DDATA", "group=Plant%201&node=edge-7&space=spBv1.0"),
        "spBv1.0/Plant 1/NBIRTH/edge-7": ("edge-7", "NBIRTH", "group=Plant%201&space=spBv1.0"),
        "spBv1___0/P/DDEATH/e/d": ("d", "DDEATH", "group=P&node=e&space=spBv1___0"),
        "spBv1___0/P/NDATA/e": ("e", "NDATA", "group=P&space=spBv1___0"),
    },
    "homie-4": {
        "homie/super-car/engine/temperature": ("super-car", "engine.temperature", ""),
        "homie/super-car/$state": ("super-car", "$state", ""),
        "homie/super-car/engine/temperature/$unit": ("super-car", "engine.temperature.$unit", ""),
    },
    "homie-5": {
        "homie/5/super-car/engine/temperature": ("super-car", "engine.temperature", "domain=homie"),
        "ebus/5/super-car/$state": ("super-car", "$state", "domain=ebus"),
    },
    "homie": {
        "homie/5/super-car/$state": ("super-car", "$state", "domain=homie&version=5"),
        "homie/super-car/$state": ("super-car", "$state", "domain=homie"),
    },
    "aws-shadow": {
        "$aws/things/thing-1/shadow/update": ("thing-1", "shadow.update", ""),
        "$aws/things/thing-1/shadow/name/config/get": ("thing-1", "shadow.name.config.get", ""),
    },
    "telegraf": {
        "telegraf/web01/cpu": ("web01", "cpu", ""),
        "telegraf/web01.example.com/mem": ("web01%2Eexample%2Ecom", "mem", ""),
    },
    "telegraf-field": {
        "telegraf/web01.example.com/mem/free": ("web01%2Eexample%2Ecom", "mem.free", "plugin=mem&field=free"),
    },
    "openmqttgateway": {
        "home/OMG_ESP32/BTtoMQTT/A4C138AABBCC": ("a4c138aabbcc", "BTtoMQTT", "gateway=OMG_ESP32&device=A4C138AABBCC"),
        "home/OMG_ESP32/433toMQTT": ("OMG_ESP32", "433toMQTT", ""),
        "home/OMG_ESP32/LWT": ("OMG_ESP32", "LWT", ""),
    },
    "esphome": {
        "livingroom/sensor/temperature/state": ("livingroom", "sensor.temperature.state", ""),
        "livingroom/status": ("livingroom", "status", ""),
        "livingroom/debug": ("livingroom", "debug", ""),
    },
    "default": {"dev1/up/temp": ("dev1", "up.temp", ""), "dev 1/up/temp": ("dev%201", "up.temp", "")},
}
"""By layout and MQTT topic: device, topic, and what is kept besides."""
NOT_OF_DEVICES = {
    "chirpstack-v4": (f"application/{UUID}/device/{EUI}/command/down",),
    "things-stack-v3": ("v3/app1@ttn/devices/d/down/push", "v3/app1/devices/d/down/replace"),
    "zigbee2mqtt": (
        "zigbee2mqtt/lamp/set",
        "zigbee2mqtt/Living Room/Lamp/set/brightness",
        "zigbee2mqtt/lamp/get",
        "zigbee2mqtt/bridge/request/permit_join",
        "homeassistant/status",
    ),
    "tasmota": ("cmnd/plug/POWER", "tasmota/discovery/5CCF7F000001/config", "homeassistant/switch/plug_RL_1/config"),
    "shelly-gen1": (
        "shellies/announce",
        "shellies/command",
        "shellies/x/command",
        "shellies/x/relay/0/command",
        "shellies/x/light/0/set",
        "shellies/x/roller/0/command/pos",
    ),
    "shelly-gen2": ("shellyplus1-a/rpc", "shellyplus1-a/command", "shellyplus1-a/command/switch:0"),
    "sparkplug-b": (
        "spBv1.0/STATE/host",
        "spBv1.0/P/STATE/host",
        "STATE/host",
        "spBv1.0/P/NCMD/e",
        "spBv1___0/P/DCMD/e/d",
    ),
    "homie-4": ("homie/$broadcast/alert", "homie/super-car/engine/temperature/set"),
    "homie-5": ("homie/5/$broadcast/alert", "homie/5/super-car/engine/temperature/set"),
    "homie": ("homie/5/super-car/engine/temperature/set", "homie/super-car/engine/temperature/set"),
    "aws-shadow": ("$aws/things/t/shadow/update/delta", "$aws/things/t/shadow/name/n/get/accepted"),
    "openmqttgateway": ("home/OMG_ESP32/commands/MQTTtoBT/config",),
    "esphome": ("livingroom/switch/relay/command", "livingroom/fan/f/speed/command", "esphome/ping/livingroom"),
}
UNOWNED = {
    "zigbee2mqtt": {"homeassistant.{what:#}"},
    "tasmota": {"homeassistant.{what:#}", "tasmota.discovery.{what:#}"},
    "openmqttgateway": {"homeassistant.{what:#}"},
    "esphome": {"homeassistant.{what:#}", "esphome.{what:discover|discover.#|ping.#}"},
    "shelly-gen1": {"shellies.announce"},
}
"""By layout, what is about no device, so that publishers of all devices may use it. Each line is one to think about."""
STRANGE = ("application/x/gateway/y", "v4/x/devices/y/up", "spBv2.0/a/NDATA/b", "foo", "x/y", "x/y/z", "")
"""Keys that are none of these systems'."""


def key(topic: str) -> bytes:
    """What RabbitMQ makes of an MQTT topic."""
    return topic.replace("/", ".").encode()


class BuiltInTests(SynchronousTestCase):
    def test_every_layout_is_here(self) -> None:
        self.assertEqual(set(FOUND), set(BUILTIN))

    def test_devices(self) -> None:
        for name, topics in FOUND.items():
            layouts = LayoutSet((), (name,))
            for topic, (device, rest, words) in topics.items():
                placement = layouts.place("amq.topic", key(topic))
                assert placement is not None
                self.assertEqual((placement.refusal, placement.device, placement.topic), ("", device, rest), topic)
                self.assertEqual(placement.text, f"{name}?{words}" if words else name)

    def test_what_is_no_devices(self) -> None:
        for name, topics in NOT_OF_DEVICES.items():
            for topic in topics:
                placement = LayoutSet((), (name,)).place("amq.topic", key(topic))
                assert placement is not None
                self.assertEqual(placement.refusal, IGNORED, topic)

    def test_what_publishers_of_all_devices_may_use_besides(self) -> None:
        for name, settings in BUILTIN.items():
            layouts = LayoutSet((), (name,))
            (layout,) = layouts.layouts
            self.assertEqual({pattern.text for pattern in layout.unowned}, UNOWNED.get(name, set()), name)
            for pattern in settings.command:
                for sample in KeyPattern(pattern).samples(dict(settings.values)):
                    self.assertFalse(layouts.unowned("amq.topic", sample.encode()), sample)

    def test_what_is_none_of_theirs(self) -> None:
        for name in set(BUILTIN) - {"default"}:
            for topic in STRANGE:
                placement = LayoutSet((), (name,)).place("amq.topic", key(topic))
                assert placement is not None
                self.assertEqual(placement.refusal, "no-layout", (name, topic))

    def test_bindings_bring_all_of_it(self) -> None:
        for name, topics in FOUND.items():
            patterns = [TopicPattern(one) for one in LayoutSet((), (name,)).bindings("amq.topic", ["*.*.#"])]
            for topic in topics:
                self.assertTrue(any(one.matches(key(topic).decode()) for one in patterns), topic)


class RecordedTests(SynchronousTestCase):
    """What real systems sent, as it arrived over AMQP."""

    def test_discovery_of_home_assistant_is_nobodys(self) -> None:
        seen = set()
        for system in ("zigbee2mqtt", "openmqttgateway", "esphome"):
            for message in messages(system):
                if message.mqtt_topic.startswith("homeassistant/"):
                    seen.add(system)
                    self.assertTrue(LayoutSet((), (system,)).unowned("amq.topic", message.routing_key.encode()))
                else:
                    self.assertFalse(LayoutSet((), (system,)).unowned("amq.topic", message.routing_key.encode()))
        self.assertEqual(seen, {"zigbee2mqtt", "openmqttgateway", "esphome"})

    def test_every_message_is_its_devices(self) -> None:
        seen = set()
        for message in messages():
            fields = message.layout == "telegraf" and "." in message.topic
            name = "telegraf-field" if fields else message.layout
            for arrival in message.arrived.values():
                if arrival is None or name not in BUILTIN:
                    continue
                placement = LayoutSet((), (name,)).place(arrival.exchange, arrival.routing_key.encode())
                assert placement is not None
                if not message.device:
                    self.assertEqual(placement.refusal, IGNORED, message.mqtt_topic)
                    continue
                seen.add(name)
                found = unescaped(placement.device), placement.topic, placement.refusal
                self.assertEqual(found, (message.device_in_key, message.topic, ""), arrival.routing_key)
        self.assertEqual(seen, set(BUILTIN) - {"homie"})
