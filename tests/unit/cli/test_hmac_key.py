"""``amqprouter hmac-key``."""

from __future__ import annotations

import base64
from pathlib import Path

from amqprouter.auth.hmac_keys import parse_hmac_keys
from tests.unit.cli.harness import CommandTestCase


class HmacKeyTests(CommandTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.path = str(self.folder / "devices.keys")

    def keys(self) -> dict[str, bytes]:
        return parse_hmac_keys(Path(self.path).read_text(), self.path)

    def test_a_key_is_printed_and_kept(self) -> None:
        printed = self.succeeds("hmac-key", self.path, "meter-1").strip()
        self.assertEqual(self.keys(), {"meter-1": base64.b64decode(printed)})
        self.assertEqual(len(base64.b64decode(printed)), 32)
        self.assertEqual(Path(self.path).stat().st_mode & 0o777, 0o600)

    def test_a_new_key_takes_the_old_ones_place(self) -> None:
        first, _other, second = (self.succeeds("hmac-key", self.path, name).strip() for name in ("a", "b", "a"))
        self.assertNotEqual(first, second)
        self.assertEqual(list(self.keys()), ["a", "b"])
        self.assertEqual(self.keys()["a"], base64.b64decode(second))

    def test_removing(self) -> None:
        self.succeeds("hmac-key", self.path, "a")
        self.succeeds("hmac-key", self.path, "a", "--remove")
        self.assertEqual(self.keys(), {})
        self.assertIn("has no key for 'a'", self.fails("hmac-key", self.path, "a", "--remove"))

    def test_what_cannot_be_done(self) -> None:
        self.assertIn("cannot be a name", self.fails("hmac-key", self.path, "#a"))
        self.assertIn("/no/such", self.fails("hmac-key", "/no/such/file", "a"))
        self.file("devices.keys", "not a key\n")
        self.assertIn("devices.keys:1", self.fails("hmac-key", self.path, "a"))
