"""``amqprouter passwd``."""

from __future__ import annotations

import io
import sys
from pathlib import Path

from amqprouter.auth.password_hash import matches
from amqprouter.auth.passwords import parse_passwords
from tests.unit.cli.harness import CommandTestCase


class PasswdTests(CommandTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.path = str(self.folder / "devices.passwd")

    def hashes(self) -> dict[str, str]:
        return parse_passwords(Path(self.path).read_text(), self.path)

    def test_a_generated_secret_is_printed_and_verifies(self) -> None:
        secret = self.succeeds("passwd", self.path, "meter-1", "--generate").strip()
        self.assertTrue(matches(self.hashes()["meter-1"], secret.encode()))

    def test_a_secret_from_a_file_is_its_first_line(self) -> None:
        secret = self.file("secret", "open sesame\nsecond line\n")
        self.assertEqual(self.succeeds("passwd", self.path, "ann", "--secret-file", secret), "")
        self.assertTrue(matches(self.hashes()["ann"], b"open sesame"))

    def test_a_secret_from_standard_input(self) -> None:
        self.patch(sys, "stdin", io.StringIO("typed\n"))
        self.succeeds("passwd", self.path, "ann")
        self.assertTrue(matches(self.hashes()["ann"], b"typed"))

    def test_removing(self) -> None:
        self.succeeds("passwd", self.path, "ann", "--generate")
        self.succeeds("passwd", self.path, "ann", "--remove")
        self.assertEqual(self.hashes(), {})
        self.assertIn("has no name 'ann'", self.fails("passwd", self.path, "ann", "--remove"))

    def test_what_cannot_be_done(self) -> None:
        self.assertIn(
            "first line is empty", self.fails("passwd", self.path, "a", "--secret-file", self.file("s", "\n"))
        )
        self.assertIn("No such file", self.fails("passwd", self.path, "a", "--secret-file", "/no/such"))
        self.assertIn("cannot be a name", self.fails("passwd", self.path, "#a", "--generate"))
        self.assertIn("/no/such", self.fails("passwd", "/no/such/file", "a", "--generate"))
        self.file("devices.passwd", "not a hash\n")
        self.assertIn("devices.passwd:1", self.fails("passwd", self.path, "a", "--generate"))
