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
