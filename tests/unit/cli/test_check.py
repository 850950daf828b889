"""``amqprouter check`` without ``--connect``; the rest needs servers (tests/integration/test_cli.py)."""

from __future__ import annotations

from tests.unit.cli.harness import CommandTestCase


class CheckTests(CommandTestCase):
    def test_a_good_configuration(self) -> None:
        config = self.file("config.ini", "[auth]\naccept = user-id\n[route all]\ntargets = events:\n")
        self.assertEqual(self.succeeds("check", "-c", config), f"configuration: {config} is good\n")

    def test_every_problem_is_told(self) -> None:
        config = self.file("config.ini", "[broker]\nheartbeet = 3\n[nonsense]\n[route all]\ntargets = nowhere:x\n")
        text = self.fails("check", "-c", config)
        self.assertIn("did you mean 'heartbeat'?", text)
        self.assertIn("nonsense", text)
        self.assertIn("nowhere:x", text)
        self.assertIn(f"problems in {config}", text)

    def test_the_files_that_it_names_are_read(self) -> None:
        passwords = self.file("users.passwd", "ann:password1\n")
        auth = f"[auth]\naccept = user-id\nuser_checker = file:{passwords}\n"
        config = self.file("config.ini", auth + "[route all]\ntargets = events:\n")
        text = self.fails("check", "-c", config)
        self.assertIn("users.passwd:1", text)
        self.assertNotIn("password1", text)

    def test_lines_of_access_lists_that_cannot_be_meant(self) -> None:
        devices = self.file("devices.acl", "* -> #\ndeny meter-1 -> #\n")
        users = self.file("users.acl", "* -> #\n" + "ann -> x\n" * 30)
        acl = f"[acl]\ndevices = {devices}\nusers = {users}\n"
        config = self.file("config.ini", f"[auth]\naccept = user-id\n{acl}[route all]\ntargets = events:\n")
        first, *warnings = self.succeeds("check", "-c", config).splitlines()
        self.assertEqual(first, f"configuration: {config} is good")
        self.assertEqual(len(warnings), 1 + 20 + 1)
        self.assertTrue(warnings[0].startswith(f"warning: {devices}:2: never decides"), warnings[0])
        self.assertEqual(warnings[-1], "warning: … and 10 more of that file")

    def test_a_fleet_that_would_be_one_device(self) -> None:
        ingress = "[ingress]\nexchanges = amq.topic\nbind = *.up.#, application.#, plant.#\n"
        rest = "[auth]\naccept = user-id\n[route all]\ntargets = events:\n"
        config = self.file("config.ini", ingress + rest)
        _, *warnings = self.succeeds("check", "-c", config).splitlines()
        self.assertEqual(len(warnings), 2)
        self.assertIn("[ingress] bind = application.#: all that it takes from amq.topic is of one device", warnings[0])
        self.assertIn("layouts = chirpstack-v4 reads such keys", warnings[0])
        self.assertNotIn("layouts = ", warnings[1])
        self.file("config.ini", f"{ingress}layouts = chirpstack-v4\n{rest}")
        self.assertEqual(len(self.succeeds("check", "-c", config).splitlines()), 1)

    def test_a_device_that_shares_a_word(self) -> None:
        rest = "[ingress]\nexchanges = amq.topic\n[auth]\naccept = user-id\n[route all]\ntargets = events:\n"
        layouts = (
            "[layout x]\npattern = {kind}-{unit}.{topic}\ndevice = d-{unit}\n"
            "[layout y]\npattern = {site}@{device}.{topic}\n"
            "[layout z]\npattern = {site}@{plant}.{device}.{topic}\n"
        )
        config = self.file("config.ini", f"{rest}{layouts}")
        _, first, second = self.succeeds("check", "-c", config).splitlines()
        self.assertIn("[layout x] pattern = {kind}-{unit}.{topic}: {unit} shares a word", first)
        self.assertIn("With that text in {kind} the device would be another one", first)
        self.assertIn("[layout y] pattern = {site}@{device}.{topic}: {device} shares a word", second)

    def test_a_layout_for_an_exchange_that_nothing_comes_from(self) -> None:
        rest = "[auth]\naccept = user-id\n[route all]\ntargets = events:\n"
        layouts = "[layout x]\nuse = tasmota\nexchange = amq.topci\n[layout y]\nuse = tasmota\nexchange = devices\n"
        config = self.file("config.ini", f"[ingress]\nexchanges = amq.topic\n{rest}{layouts}")
        _, warning = self.succeeds("check", "-c", config).splitlines()
        self.assertIn("[layout x] exchange = amq.topci: it is not in [ingress] exchanges", warning)
        self.file("config.ini", f"[ingress]\nexchanges = amq.topic\nqueues = mine\n{rest}{layouts}")
        self.assertEqual(len(self.succeeds("check", "-c", config).splitlines()), 1)
