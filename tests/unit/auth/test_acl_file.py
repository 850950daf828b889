"""ACL files: what is in force before, after and without one."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from amqprouter.auth.acl_file import device_acl, user_acl
from amqprouter.errors import AuthFileError
from amqprouter.interfaces import IReloadable
from tests.unit.auth.test_file_checker import write


class AclFileTests(SynchronousTestCase):
    def test_without_a_file_devices_may_and_users_may_not(self) -> None:
        devices, users = device_acl(""), user_acl("")
        for acl in (devices, users):
            verifyObject(IReloadable, acl)
            acl.reload()
        self.assertTrue(devices.allows("dev1", "dev1.up"))
        self.assertFalse(users.allows("alice", "dev1.up"))
        self.assertIn("the default without [acl] devices", devices.explain("dev1", "dev1.up"))
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

    def test_a_missing_file_is_an_error(self) -> None:
        self.assertRaises(AuthFileError, device_acl, "/nowhere/devices.acl")
