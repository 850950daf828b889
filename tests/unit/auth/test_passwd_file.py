"""Changing password files: whole, careful, and read back by the checker."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

from twisted.cred.error import UnauthorizedLogin
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from amqprouter.auth.checkers.file import FileChecker
from amqprouter.auth.credentials import DeviceSecret
from amqprouter.auth.passwd_file import names, remove, set_password, set_random_secret
from amqprouter.auth.password_hash import Cost, hash_secret
from amqprouter.errors import AuthFileError
from tests.unit.auth.checkers.test_file import run_at_once, write


class PasswdFileTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = self.mktemp()
        os.mkdir(self.directory)
        self.path = os.path.join(self.directory, "devices.passwd")

    def mode(self) -> int:
        return stat.S_IMODE(os.stat(self.path).st_mode)

    def good(self, name: str, secret: bytes) -> bool:
        answer = FileChecker(self.path, run_at_once).requestAvatarId(DeviceSecret(name, secret))
        answer.addCallbacks(lambda _: True, lambda failure: failure.trap(UnauthorizedLogin) is None)
        return bool(self.successResultOf(answer))

    def problem(self, *arguments: object) -> str:
        error: AuthFileError = self.assertRaises(AuthFileError, *arguments)
        self.assertEqual(os.listdir(self.directory), ["devices.passwd"])  # nothing left lying about
        return error.problems[0]

    def test_a_new_file(self) -> None:
        old = os.umask(0)
        self.addCleanup(os.umask, old)
        set_password(self.path, "dev1", b"sesame")
        self.assertEqual(self.mode(), 0o600)
        self.assertEqual(os.listdir(self.directory), ["devices.passwd"])
        self.assertEqual([self.good("dev1", b"sesame"), self.good("dev1", b"other")], [True, False])
        self.assertIn("dev1:$argon2id$v=19$m=19456,t=2,p=1$", Path(self.path).read_text())

    def test_a_random_secret(self) -> None:
        secret = set_random_secret(self.path, "00:1b:44")
        self.assertEqual(len(secret), 32)
        self.assertTrue(self.good("00:1b:44", secret.encode()))
        self.assertIn("$m=64,t=1,p=1$", Path(self.path).read_text())
        self.assertNotEqual(secret, set_random_secret(self.path, "00:1b:44"))
        self.assertFalse(self.good("00:1b:44", secret.encode()))

    def test_change_keeps_comments_and_order(self) -> None:
        hashes = [hash_secret(b"x", Cost.RANDOM) for _ in range(3)]
        write(self.path, f"# fleet\n\na:{hashes[0]}\n  b:{hashes[1]}\r\n# end\nc:{hashes[2]}")
        set_random_secret(self.path, "b")
        lines = Path(self.path).read_text().split("\n")
        self.assertEqual(lines[:3], ["# fleet", "", f"a:{hashes[0]}"])
        self.assertTrue(lines[3].startswith("b:$argon2id$"))
        self.assertNotIn(hashes[1], lines[3])
        self.assertEqual(lines[4:], ["# end", f"c:{hashes[2]}", ""])
        self.assertEqual(names(self.path), ["a", "b", "c"])

    def test_remove(self) -> None:
        for name in ("a", "b"):
            set_random_secret(self.path, name)
        self.assertTrue(remove(self.path, "a"))
        self.assertEqual(names(self.path), ["b"])
        before = os.stat(self.path).st_ino
        self.assertFalse(remove(self.path, "a"))
        self.assertFalse(remove(self.path, ""))
        self.assertEqual(os.stat(self.path).st_ino, before)
        self.assertTrue(remove(self.path, "b"))
        self.assertEqual(Path(self.path).read_text(), "")
        set_random_secret(self.path, "c")
        self.assertEqual(names(self.path), ["c"])

    def test_bad_names_and_secrets(self) -> None:
        for name in ("", " a", "#a", "a\nb", "x" * 256, "\ud800"):
            error = self.assertRaises(ValueError, set_random_secret, self.path, name)
            self.assertIn("cannot be a name", str(error))
        for secret in (b"", b"x" * 8193):
            error = self.assertRaises(ValueError, set_password, self.path, "dev1", secret)
            self.assertNotIn("xx", str(error))
        self.assertFalse(os.path.exists(self.path))

    def test_mode_and_owner_stay(self) -> None:
        write(self.path, "", 0o640)
        group = next((group for group in os.getgroups() if group != os.getegid()), None)
        if os.geteuid() == 0:
            os.chown(self.path, 12345, 54321)
        elif group is not None:
            os.chown(self.path, -1, group)
        before = os.stat(self.path)
        set_random_secret(self.path, "dev1")
        after = os.stat(self.path)
        self.assertEqual((after.st_mode, after.st_uid, after.st_gid), (before.st_mode, before.st_uid, before.st_gid))

    def test_a_symbolic_link_stays_one(self) -> None:
        link = self.mktemp()
        os.symlink(os.path.abspath(self.path), link)
        set_random_secret(link, "dev1")
        self.assertTrue(os.path.islink(link))
        self.assertEqual(names(self.path), ["dev1"])

    def test_a_bad_file_is_left_alone(self) -> None:
        write(self.path, "dev1:plain\n")
        self.assertIn("devices.passwd:1: not an argon2id hash", self.problem(set_random_secret, self.path, "dev2"))
        self.assertIn("devices.passwd:1: not an argon2id hash", self.problem(remove, self.path, "dev1"))
        self.assertEqual(Path(self.path).read_text(), "dev1:plain\n")
        write(self.path, "", 0o644)
        self.assertIn("may be read by anybody", self.problem(set_random_secret, self.path, "dev2"))

    def test_missing(self) -> None:
        error = self.assertRaises(AuthFileError, remove, self.path, "dev1")
        self.assertIn("No such file", error.problems[0])
        error = self.assertRaises(AuthFileError, set_random_secret, "/nowhere/at/all", "dev1")
        self.assertIn("/nowhere/at/all: cannot be changed: No such file", error.problems[0])

    def test_a_failed_write_leaves_the_file_as_it_was(self) -> None:
        set_random_secret(self.path, "dev1")
        before = Path(self.path).read_text()

        def full(source: str, target: str) -> None:
            raise OSError(28, "No space left on device")

        self.patch(os, "replace", full)
        self.assertIn("No space left on device; it is as it was", self.problem(set_random_secret, self.path, "dev2"))
        self.assertEqual(Path(self.path).read_text(), before)

    def test_a_directory_that_cannot_be_written(self) -> None:
        if os.geteuid() == 0:
            raise SkipTest("root may write anywhere")
        set_random_secret(self.path, "dev1")
        os.chmod(self.directory, 0o500)
        self.addCleanup(os.chmod, self.directory, 0o700)
        self.assertIn("Permission denied", self.problem(set_random_secret, self.path, "dev2"))

    def test_changes_at_the_same_time_all_count(self) -> None:
        threads = [threading.Thread(target=set_random_secret, args=(self.path, f"dev{n}")) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(sorted(names(self.path)), [f"dev{n}" for n in range(8)])
