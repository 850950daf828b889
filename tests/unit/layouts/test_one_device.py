"""Where a layout is missing, it is said: once, and not of a device that just sends much."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from amqprouter.layouts.layout_set import LayoutSet
from amqprouter.layouts.one_device import LEAST, SECONDS, OneDeviceWatch, layout_for


class OneDeviceTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.said: list[tuple[str, str, int, str]] = []
        layouts = LayoutSet((), ("tasmota",), ("devices", "devices.by-id"))
        self.watch = OneDeviceWatch(layouts, ("devices.by-id", "replay"), lambda *told: self.said.append(told))

    def look(self, exchange: str, *keys: str, count: int = LEAST, start: float = 0.0, seconds: float = SECONDS) -> None:
        for number in range(count):
            now = start + number * seconds / (count - 1)
            self.watch.look(exchange.encode(), keys[number % len(keys)].encode(), now)

    def lorawan(self, devices: int = 20) -> list[str]:
        return [f"application.a.device.{number:016x}.event.up" for number in range(devices)]

    def test_a_network(self) -> None:
        self.look("devices", *self.lorawan())
        self.assertEqual(self.said, [("devices", "application", 20, "chirpstack-v4")])
        self.look("devices", *self.lorawan(), start=1000.0)
        self.assertEqual(len(self.said), 1)

    def test_a_network_among_few_others(self) -> None:
        self.look("devices", *self.lorawan(24), "dev1.up.x")
        self.assertEqual([told[1] for told in self.said], ["application"])

    def test_others_first(self) -> None:
        self.look("devices", *(f"dev{number}.up.x" for number in range(50)))
        self.assertEqual(self.said, [])
        self.look("devices", *self.lorawan(), start=100.0, count=2 * LEAST, seconds=2 * SECONDS)
        self.assertEqual([told[1] for told in self.said], ["application"])

    def test_what_nobody_knows(self) -> None:
        self.look("devices", *(f"site.pump{number}.up" for number in range(20)))
        self.assertEqual(self.said, [("devices", "site", 20, "")])

    def test_not_said(self) -> None:
        self.look("devices", *(f"dev{number}.up.x" for number in range(100)))
        self.look("few", *(f"plc.value.{number}" for number in range(5)), count=3 * LEAST)
        self.look("soon", *self.lorawan(), seconds=SECONDS / 2)
        self.look("rarely", *self.lorawan(), count=LEAST - 1)
        self.look("devices.by-id", *self.lorawan())
        self.look("replay", *self.lorawan())
        self.look("amq.topic", *self.lorawan())
        self.assertEqual(self.said, [])

    def test_bounds(self) -> None:
        for number in range(1000):
            self.watch.look(b"exchange%d" % number, b"a.b", 0.0)
        self.assertLessEqual(len(self.watch._exchanges), 64)
        self.watch = OneDeviceWatch(None, (), lambda *told: self.said.append(told))
        self.look("e", *self.lorawan(500))
        self.assertEqual(self.said, [("e", "application", 64, "chirpstack-v4")])

    def test_which_layout(self) -> None:
        for key, name in (
            (b"v3.app@ttn.devices.d.up", "things-stack-v3"),
            (b"zigbee2mqtt.Living Room.Lamp", "zigbee2mqtt"),
            (b"spBv1.0.G.DDATA.e.d", "sparkplug-b"),
            (b"homie.5.d.$state", "homie"),
            (b"homie.d.$state", "homie"),
            (b"shellies.s.relay.0", "shelly-gen1"),
            (b"site.s.x.y", ""),
        ):
            self.assertEqual(layout_for([key]), name)
