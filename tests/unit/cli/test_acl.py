"""``amqprouter acl explain``."""

from __future__ import annotations

from tests.unit.cli.harness import CommandTestCase


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

    def test_bad_files(self) -> None:
        self.assertIn("/no/such.ini", self.fails("acl", "explain", "-c", "/no/such.ini", "a", "a.b"))
        self.file("devices.acl", "meter-*\n")
        self.assertIn("devices.acl:1", self.fails("acl", "explain", "-c", self.config, "a", "a.b"))
