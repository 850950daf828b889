"""The make-believe fleet: who, when and what."""

from __future__ import annotations

import json
import random
import stat
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from amqprouter.amqp.properties import Properties
from amqprouter.auth.acl_file import device_acl, user_acl
from amqprouter.auth.password_hash import matches
from amqprouter.auth.passwords import parse_passwords
from amqprouter.cli.fleet import DeviceKind, FleetDevice, Plan, Readings, device_ids, make_fleet
from amqprouter.cli.fleet_files import FILES, USER, prepare, read_secrets
from tests.unit.cli.harness import CommandTestCase

COUNTS = dict.fromkeys(DeviceKind, 2)


class FleetTests(SynchronousTestCase):
    def test_each_kind_has_the_secret_and_the_rate_that_it_should(self) -> None:
        secrets = {name: f"of {name}" for name in device_ids(COUNTS)}
        fleet = make_fleet(COUNTS, 1.0, 500.0, secrets)
        self.assertEqual([device.kind for device in fleet], [kind for kind in DeviceKind for _ in range(2)])
        for device in fleet:
            self.assertEqual(device.rate, 500.0 if device.kind is DeviceKind.NOISY else 1.0)
            if device.kind is not DeviceKind.UNAUTHENTICATED:
                self.assertEqual(device.secret, f"of {device.id}")
        strangers = {device.secret for device in fleet if device.kind is DeviceKind.UNAUTHENTICATED}
        self.assertEqual(len(strangers), 2)
        self.assertIn(None, strangers)

    def test_without_secrets_nobody_sends_one_and_a_missing_one_is_told(self) -> None:
        self.assertEqual({device.secret for device in make_fleet(COUNTS, 1, 1, None)}, {None})
        with self.assertRaisesRegex(ValueError, "no secret for meter-0001"):
            make_fleet(COUNTS, 1, 1, {})

    def test_devices_keep_their_rates(self) -> None:
        slow, fast = FleetDevice("slow", DeviceKind.GOOD, 1.0), FleetDevice("fast", DeviceKind.GOOD, 50.0)
        plan = Plan([slow, fast], random.Random(1), 0.0)
        turns = [device for tick in range(5001) for device in plan.due(tick * 0.02, 1000)]
        self.assertIn(turns.count(slow), range(90, 111))
        self.assertIn(turns.count(fast), range(4850, 5151))

    def test_whoever_was_held_up_does_not_make_up_for_all_of_it(self) -> None:
        plan = Plan([FleetDevice("d", DeviceKind.GOOD, 10.0)], random.Random(1), 0.0)
        self.assertLess(len(plan.due(1000.0, 10_000)), 25)
        plan = Plan([FleetDevice("d", DeviceKind.GOOD, 10.0)], random.Random(1), 0.0)
        self.assertEqual(len(plan.due(1000.0, 3)), 3)

    def test_readings_are_json_unless_the_device_is_malformed(self) -> None:
        readings = Readings("run", "x-secret", random.Random(1))
        good = readings.next(FleetDevice("d1", DeviceKind.GOOD, 1.0, "s"), 1700000000.9)
        properties = Properties(good.properties)
        self.assertEqual(good.routing_key, "d1.sensor.climate")
        self.assertEqual(json.loads(good.body)["n"], 1)
        self.assertEqual((properties.timestamp, properties.headers), (1700000000, {"x-secret": "s"}))
        bad = readings.next(FleetDevice("d2", DeviceKind.MALFORMED, 1.0), 0)
        self.assertEqual(Properties(bad.properties).content_type, "application/json")
        with self.assertRaises(ValueError):
            json.loads(bad.body)
        self.assertNotEqual(good.message_id, bad.message_id)

    def test_a_seed_gives_the_same_messages_again(self) -> None:
        device = FleetDevice("d", DeviceKind.GOOD, 1.0)
        first, second = (Readings("r", "s", random.Random(5)).next(device, 0) for _ in range(2))
        self.assertEqual(first, second)


class PrepareTests(CommandTestCase):
    def test_the_daemon_can_use_the_files(self) -> None:
        folder = self.folder / "fleet"
        prepare(folder, COUNTS)
        for name in FILES:
            self.assertEqual(stat.S_IMODE((folder / name).stat().st_mode), 0o600)
        hashes = parse_passwords((folder / "devices.passwd").read_text(), "devices.passwd")
        secrets = read_secrets(str(folder / "secrets"))
        self.assertEqual(set(hashes), set(device_ids(COUNTS)))
        for device in make_fleet(COUNTS, 1, 1, secrets):
            proven = device.secret is not None and matches(hashes[device.id], device.secret.encode())
            self.assertEqual(proven, device.kind is not DeviceKind.UNAUTHENTICATED)
        acl = device_acl(str(folder / "devices.acl"))
        for device in make_fleet(COUNTS, 1, 1, None):
            allowed = acl.allows(device.id, f"{device.id}.{device.topic}")
            self.assertEqual(allowed, device.kind is not DeviceKind.UNAUTHORISED)
        self.assertTrue(user_acl(str(folder / "users.acl")).allows(USER, "any.thing"))
        users = parse_passwords((folder / "users.passwd").read_text(), "users.passwd")
        self.assertTrue(matches(users[USER], (folder / "user.password").read_bytes().strip()))

    def test_no_file_is_overwritten(self) -> None:
        path = Path(self.file("devices.passwd", "mine"))
        self.assertIn("is there already", self.fails("simulate", "--prepare", str(self.folder)))
        self.assertEqual(path.read_text(), "mine")
        self.assertEqual([entry.name for entry in self.folder.iterdir()], ["devices.passwd"])

    def test_bad_secrets_and_options(self) -> None:
        secrets = self.file("secrets", "meter-0001:x\nhidden\n")
        complaint = self.fails("simulate", "--uri", "amqp://h", "--secrets", secrets)
        self.assertIn("secrets:2: not id:secret", complaint)
        self.assertNotIn("hidden", complaint)
        for arguments in (
            ["--devices", "0", "--uri", "amqp://h"],
            ["--devices", "-1", "--uri", "amqp://h"],
            ["--rate", "nan", "--uri", "amqp://h"],
            ["--rate", "0", "--uri", "amqp://h"],
            [],
        ):
            self.fails("simulate", *arguments, status=2)
