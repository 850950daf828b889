"""What a user sees of the events, by a users' ACL file that changes while the stream is open."""

from __future__ import annotations

import os
import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from amqprouter.auth.acl_file import user_acl
from amqprouter.errors import AuthFileError
from tests.unit.web.harness import ALICE, Connection, World, event, unchunk


class PermissionTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        self.write("@operators -> @meters.#\nalice -> gw-1.alarm\ngroup operators: bob\ngroup meters: meter-*")
        self.world = World()
        self.acl = user_acl(str(self.path))
        self.world.allows = self.acl.allows_identity
        self.offset = 0

    def write(self, text: str) -> None:
        self.path.write_text(text)
        os.chmod(self.path, 0o600)

    def reload(self) -> None:
        """As the daemon does: the ACL first, then the hub."""
        self.acl.reload()
        self.world.hub.reload()

    def sees(self, connection: Connection, *keys: str) -> list[str]:
        """Those of the keys whose events come through when they are published now."""
        published = {}
        for key in keys:
            self.offset += 1
            published[str(self.offset)] = key
            self.world.publish(event(self.offset, key))
        return [published[found] for found in re.findall(r"^id: (.*)$", unchunk(connection.take()).decode(), re.M)]

    def test_a_change_applies_to_streams_that_are_open(self) -> None:
        keys = "meter-1.up", "meter-2.up", "gw-1.alarm", "gw-1.up"
        stream = self.world.stream()
        self.assertEqual(self.sees(stream, *keys), ["gw-1.alarm"])
        self.write("group meters: meter-*\nalice -> @meters.#, gw-1.#")
        self.assertEqual(self.sees(stream, *keys), ["gw-1.alarm"])
        self.reload()
        self.assertEqual(self.sees(stream, *keys), list(keys))
        self.write("group meters: meter-*\ndeny alice -> meter-2.#\nalice -> @meters.#")
        self.reload()
        self.assertEqual(self.sees(stream, *keys), ["meter-1.up"])
        self.write("deny alice -> #\n* -> #")
        self.reload()
        self.assertEqual(self.sees(stream, *keys), [])

    def test_a_bad_file_changes_nothing(self) -> None:
        stream = self.world.stream()
        self.write("* -> #\n@nobody -> #")
        self.assertRaises(AuthFileError, self.acl.reload)
        self.world.hub.reload()
        self.assertEqual(self.sees(stream, "gw-1.alarm", "gw-1.up"), ["gw-1.alarm"])

    def test_what_the_checker_told_at_login(self) -> None:
        self.write("@group/lab -> lab-1.#")
        self.reload()
        without = self.world.stream()
        self.world.groups = ("lab", "other")
        within = self.world.stream()
        self.assertEqual(self.sees(within, "lab-1.up", "gw-1.alarm"), ["lab-1.up"])
        self.assertEqual(self.sees(without), [])
        self.write("@group/other -> gw-1.#")
        self.reload()
        self.assertEqual(self.sees(within, "lab-1.up", "gw-1.alarm"), ["gw-1.alarm"])

    def test_a_replay_is_asked_about_too(self) -> None:
        for offset, key in enumerate(("gw-1.alarm", "gw-1.up", "meter-1.up", "gw-1.alarm"), 1):
            self.world.publish(event(offset, key))
        self.world.stream(headers={**ALICE, "Last-Event-ID": "1"})
        self.assertEqual(re.findall(rb"^id: (.*)$", self.world.first_body, re.M), [b"4"])
