"""ACL files: what is in force before, after and without one."""

from __future__ import annotations

from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from amqprouter.auth.acl_file import command_acl, device_acl, user_acl
from amqprouter.errors import AuthFileError
from amqprouter.identity import Identity
from amqprouter.interfaces import IReloadable
from tests.unit.auth.checkers.test_file import write


class AclFileTests(SynchronousTestCase):
    def test_without_a_file_devices_may_and_users_may_not(self) -> None:
        devices, users = device_acl(""), user_acl("")
        for acl in (devices, users):
            verifyObject(IReloadable, acl)
            acl.reload()
        self.assertTrue(devices.allows("dev1", "dev1.up"))
        self.assertFalse(users.allows("alice", "dev1.up"))
        self.assertEqual(
            devices.explain("dev1", "dev1.up"),
            "allowed by the default without [acl] devices: * -> #",
            "not line 2 of it",
        )
        self.assertIn("the default without [acl] users", users.explain("alice", "dev1.up"))

    def test_an_empty_file_allows_nothing(self) -> None:
        path = write(self.mktemp(), "")
        for acl in (device_acl(path), user_acl(path)):
            self.assertFalse(acl.allows("x", "x.up"))

    def test_each_has_its_marker(self) -> None:
        self.assertTrue(device_acl(write(self.mktemp(), "* -> %d.up")).allows("dev1", "dev1.up"))
        self.assertTrue(user_acl(write(self.mktemp(), "* -> %u.up")).allows("alice", "alice.up"))

    def test_a_reload_takes_the_new_file(self) -> None:
        path = write(self.mktemp(), "* -> %d.up")
        acl = device_acl(path)
        self.assertFalse(acl.allows("dev1", "dev1.down"))
        write(path, "* -> %d.down")
        acl.reload()
        self.assertEqual([acl.allows("dev1", "dev1.down"), acl.allows("dev1", "dev1.up")], [True, False])

    def test_a_bad_file_leaves_the_last_good_one_in_force(self) -> None:
        path = write(self.mktemp(), "* -> %d.up")
        acl = device_acl(path)
        write(path, "* -> #\n* -> a..b")
        error = self.assertRaises(AuthFileError, acl.reload)
        self.assertTrue(error.problems[0].startswith(f"{path}:2: "))
        self.assertEqual([acl.allows("dev1", "dev1.up"), acl.allows("dev1", "x")], [True, False])

    def test_whatever_is_wrong_with_a_file_nothing_of_it_counts(self) -> None:
        for name, bad, said in (
            ("an unknown group", b"@meters -> *.up\n", ":2: @meters: no line of this file defines that group"),
            ("a group twice", b"group a: x\ngroup a: y\n", ":3: group a is defined in line 2 already"),
            ("an empty group", b"group a:\n", ":2: group a is empty"),
            ("a nested group", b"group a: x\ngroup b: @a\n", ":3: group b: '@a': groups do not nest"),
            ("a bad glob", b"x" * 256 + b" -> a\n", ":2: device pattern"),
            ("a bad topic pattern", b"* -> a..b\n", ":2: topic pattern"),
            ("a marker on the left", b"deny %d -> a\n", ":2: device pattern '%d': markers"),
            ("a marker of users", b"deny * -> %u.a\n", ":2: topic pattern '%u.a': %u is a user's"),
            ("no arrow", b"deny meter-1\n", ":2: not one '->'"),
            ("no left side", b"deny -> a\n", ":2: deny whom?"),
            ("a line too many", b"* -> a\n" * 10_000, ":10001: this is one line more than 10000"),
            ("a return in a line", b"* -> a\r* -> b\n", ":2: a carriage return within the line"),
            ("a return in a comment", b"# all\rdeny * -> b\n", ":2: a carriage return within the line"),
            ("an invisible character", "deny a\u2060 -> #\n".encode(), ":2: character 7 is U+2060"),
            ("a NUL", b"* -> a\0\n", ": has a NUL byte in line 2"),
            ("no UTF-8", b"* -> \xff\n", ": is not UTF-8 in line 2"),
        ):
            with self.subTest(name):
                path = write(self.mktemp(), "* -> %d.good")
                acl = device_acl(path)
                content = b"* -> %d.worse\n" + bad
                with open(path, "wb") as file:
                    file.write(content)
                error = self.assertRaises(AuthFileError, acl.reload)
                self.assertIn(f"{path}{said}", error.problems[0])
                self.assertEqual([acl.allows("dev1", f"dev1.{last}") for last in ("good", "worse")], [True, False])
                self.assertRaises(AuthFileError, device_acl, path)

    def test_a_byte_order_mark(self) -> None:
        path = write(self.mktemp(), "\ufeff* -> %d.good")
        error = self.assertRaises(AuthFileError, device_acl, path)
        self.assertIn("byte order mark", error.problems[0])

    def test_line_ends_of_windows_are_fine(self) -> None:
        path = write(self.mktemp(), "")
        with open(path, "wb") as file:
            file.write(b"# all\r\ndeny * -> %d.x\r\n* -> %d.*\r\n")
        acl = device_acl(path)
        self.assertEqual([acl.allows("dev1", f"dev1.{last}") for last in ("x", "y")], [False, True])

    def test_what_a_checker_told(self) -> None:
        acl = user_acl(write(self.mktemp(), "@group/ops -> #\n@tenant/acme -> %t.%u.x"))
        for identity, topic, allowed in (
            (Identity("ann", groups=("ops",)), "x.y", True),
            (Identity("ann"), "x.y", False),
            (Identity("ann", tenant="acme"), "acme.ann.x", True),
            (Identity("ann", tenant="other"), "other.ann.x", False),
        ):
            self.assertEqual(acl.allows_identity(identity, topic), allowed)
            self.assertEqual(acl.explain("ann", topic, identity.groups, identity.tenant).startswith("allowed"), allowed)

    def test_lines_that_a_checker_told(self) -> None:
        """Without a file they alone count for whoever has some, and with one only where it says so."""
        restricted = Identity("dev1", acl=("%d.up.#",))
        devices, users, commands = device_acl(""), user_acl(""), command_acl("")
        self.assertEqual([devices.allows_identity(restricted, f"dev1.{last}") for last in ("up.x", "x")], [True, False])
        self.assertTrue(devices.allows_identity(Identity("dev1"), "dev1.x"))
        ann = Identity("ann", acl=("dev1.#",))
        self.assertEqual([users.allows_identity(ann, topic) for topic in ("dev1.x", "dev2.x")], [True, False])
        self.assertFalse(commands.allows_identity(ann, "dev1.x"))
        self.assertRaises(AuthFileError, command_acl, write(self.mktemp(), "registry"))

    def test_lines_that_do_not_count_are_told_of_once(self) -> None:
        acl = device_acl(write(self.mktemp(), "* -> %d.#"))
        with capturedLogs() as logs:
            for _ in range(2):
                self.assertTrue(acl.allows_identity(Identity("dev1", acl=()), "dev1.x"))
            self.assertTrue(acl.allows_identity(Identity("dev2"), "dev2.x"))
        (event,) = logs
        self.assertIn("has no line that says registry", formatEvent(event))

    def test_a_missing_file_is_an_error(self) -> None:
        self.assertRaises(AuthFileError, device_acl, "/nowhere/devices.acl")
