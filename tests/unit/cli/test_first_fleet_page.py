"""What readers of docs/first-fleet.rst copy, all of it, is a configuration of which nothing is amiss."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from tests.support.broker_auth_guide import AS_DOCUMENTED
from tests.support.first_fleet import COMMON, HOUSE, LORAWAN, broker_lines, ini, make_files, published
from tests.unit.cli.harness import CommandTestCase


class FirstFleetTests(CommandTestCase):
    def setUp(self) -> None:
        folder = TemporaryDirectory()  # the name of a socket in it is not to be too long
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def configured(self, heading: str) -> str:
        for part in (COMMON, heading):
            make_files(part, self.folder, {"alice": "wonder", "chirpstack": "uplink"})
        return self.file("amqprouter.ini", ini(heading))

    def test_they_pass_the_check(self) -> None:
        for heading in (HOUSE, LORAWAN):
            config = self.configured(heading)
            self.assertEqual(self.succeeds("check", "-c", config), f"configuration: {config} is good\n")

    def test_each_device_is_found_by_its_own_name(self) -> None:
        expected = {
            HOUSE: [
                ("hall", "state"),
                ("plug", "SENSOR"),
                ("shelly1pm-53A010", "relay.0.power"),
                ("shellyplus1pm-53a040", "status.switch:0"),
            ],
            LORAWAN: [("0080e1150000abcd", "up")],
        }
        for heading, devices in expected.items():
            config = self.configured(heading)
            for (topic, _), (device, rest) in zip(published(heading), devices, strict=True):
                told = self.succeeds("topic", "-c", config, topic)
                self.assertRegex(told, rf"device: +{device}\n")
                self.assertRegex(told, rf"topic: +{rest}\n")

    def test_the_brokers_side_is_the_guides(self) -> None:
        lines = broker_lines()
        self.assertEqual({key: AS_DOCUMENTED[key] for key in lines}, lines)
        self.assertIn("auth_http.topic_path", lines)
