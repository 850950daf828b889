"""``amqprouter acl explain``."""

from __future__ import annotations

from tests.unit.cli.harness import CommandTestCase, amqprouter


class ExplainTests(CommandTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.file("devices.acl", "# devices\nmeter-* -> %d.reading\n")
        self.file("users.acl", "ann -> meter-1.#\n")
        routes = "[route all]\ntargets = events:\n"
        auth = "[auth]\naccept = user-id\n[acl]\ndevices = devices.acl\nusers = users.acl\n"
        self.config = self.file("config.ini", auth + routes)

    def test_devices(self) -> None:
        text = self.succeeds("acl", "explain", "-c", self.config, "meter-1", "meter-1.reading")
        self.assertIn("devices.acl:2: meter-* -> %d.reading", text)
        self.fails("acl", "explain", "-c", self.config, "meter-1", "meter-2.reading")

    def test_users(self) -> None:
        text = self.succeeds("acl", "explain", "-c", self.config, "--user", "ann", "meter-1.reading")
        self.assertIn("users.acl:1", text)
        self.fails("acl", "explain", "-c", self.config, "--user", "bob", "meter-1.reading")

    def test_commands(self) -> None:
        asked = ("acl", "explain", "-c", self.config, "--command")
        self.assertIn("default without [acl] commands", amqprouter(*asked, "amqp:shop", "meter-1.down.x").stdout)
        path = self.file("commands.acl", "amqp:shop -> *.down.#\n")
        self.file("config.ini", f"[acl]\ncommands = {path}\n[route all]\ntargets = events:\n")
        self.assertIn("commands.acl:1", self.succeeds(*asked, "amqp:shop", "meter-1.down.x"))
        self.fails(*asked, "shop", "meter-1.down.x")

    def test_operators(self) -> None:
        asked = ("acl", "explain", "-c", self.config, "--operator")
        self.assertIn("default without [acl] operators", amqprouter(*asked, "alice", "bob.events.kick").stdout)
        path = self.file("operators.acl", "* -> %u.events.ls\n")
        self.file("config.ini", f"[acl]\noperators = {path}\n[route all]\ntargets = events:\n")
        self.assertIn("operators.acl:1", self.succeeds(*asked, "bob", "bob.events.ls"))
        self.fails(*asked, "alice", "bob.events.ls")

    def test_publishers(self) -> None:
        asked = ("acl", "explain", "-c", self.config, "--publisher", "bridge-7", "lamp-3.state")
        self.assertIn("each device publishes for itself alone", amqprouter(*asked).stdout)
        self.fails(*asked)
        path = self.file("publishers.acl", "bridge-7 -> lamp-*: state\n")
        self.file("config.ini", f"[acl]\npublishers = {path}\n[route all]\ntargets = events:\n")
        self.assertIn("publishers.acl:1: bridge-7 -> lamp-*: state", self.succeeds(*asked))
        self.fails(*asked[:-1], "lamp-3.other")
        self.file("publishers.acl", "registry\n")
        self.assertIn("registry: lamp-*: #", self.succeeds(*asked, "--line", "lamp-*: #"))

    def test_what_denies_is_named(self) -> None:
        path = self.file("devices.acl", "group bad: meter-1\ndeny @bad -> #\n* -> #\n")
        ended = amqprouter("acl", "explain", "-c", self.config, "meter-1", "meter-1.reading")
        self.assertEqual((ended.status, ended.stderr), (1, ""))
        self.assertEqual(
            ended.stdout, f"denied by {path}:2: deny @bad -> #\n  'meter-1' is in @bad, as 'meter-1' in {path}:1\n"
        )

    def test_what_a_checker_would_tell(self) -> None:
        self.file("devices.acl", "@group/lab -> lab.#\n@group/x -> x.#\n@tenant/acme -> %t.x\n")
        asked = ("acl", "explain", "-c", self.config, "meter-1")
        self.assertIn("devices.acl:1", self.succeeds(*asked, "lab.x", "--group", "lab"))
        self.assertIn("devices.acl:2", self.succeeds(*asked, "x.x", "--group", "lab", "--group", "x"))
        told = self.succeeds(*asked, "acme.x", "--tenant", "acme")
        self.assertIn("'meter-1' is in @tenant/acme", told)
        self.assertNotIn("no checker was asked", told)
        ended = amqprouter(*asked, "acme.x")
        self.assertEqual(ended.status, 1)
        self.assertIn("no checker was asked", ended.stdout)

    def test_lines_that_a_checker_would_tell(self) -> None:
        self.file("devices.acl", "registry\n* -> %d.up.#\n")
        asked = ("acl", "explain", "-c", self.config, "meter-1")
        told = "--line", "deny %d.firmware.#", "--line", "%d.#"
        self.assertIn("devices.acl:1: registry: %d.#\n", self.succeeds(*asked, "meter-1.x", *told))
        ended = amqprouter(*asked, "meter-1.firmware.x", *told)
        self.assertEqual((ended.status, ended.stderr), (1, ""))
        self.assertIn("devices.acl:1: registry: deny %d.firmware.#\n", ended.stdout)
        self.assertIn("devices.acl:2", self.succeeds(*asked, "meter-1.up.x"))
        wrong = self.fails(*asked, "meter-1.up.x", "--line", "* -> #", status=2)
        self.assertIn("--line: line 1 is not [allow|deny] TOPIC PATTERN", wrong)

    def test_bad_files(self) -> None:
        self.assertIn("/no/such.ini", self.fails("acl", "explain", "-c", "/no/such.ini", "a", "a.b", status=2))
        self.file("devices.acl", "meter-*\n")
        self.assertIn("devices.acl:1", self.fails("acl", "explain", "-c", self.config, "a", "a.b", status=2))
