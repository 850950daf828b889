"""Hashes that bcrypt made elsewhere."""

from __future__ import annotations

import bcrypt
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from amqprouter.auth.checkers import file as file_checker
from amqprouter.auth.checkers.file import FileChecker
from amqprouter.auth.credentials import DeviceSecret
from amqprouter.auth.password_hash import matches, unmatched
from amqprouter.auth.passwords import hash_problem
from amqprouter.errors import AuthFileError, CheckerUnavailable
from tests.unit.auth.checkers.test_file import run_at_once, write


def hashed(secret: bytes) -> str:
    return bcrypt.hashpw(secret, bcrypt.gensalt(4)).decode()


class BcryptTests(SynchronousTestCase):
    def test_in_a_password_file(self) -> None:
        path = write(self.mktemp(), f"dev1:{hashed(b'sesame')}\ndev2:{hashed(bytes(range(1, 33)))}\n")
        checker = FileChecker(path, run_at_once)

        def ask(name: str, secret: bytes) -> Deferred[str]:
            return checker.requestAvatarId(DeviceSecret(name, secret))

        self.assertEqual(self.successResultOf(ask("dev1", b"sesame")), "dev1")
        self.assertEqual(self.successResultOf(ask("dev2", bytes(range(1, 33)))), "dev2")
        for name, secret in (("dev1", b"sesam"), ("dev1", b""), ("dev1", b"x" * 500), ("nobody", b"sesame")):
            self.failureResultOf(ask(name, secret), UnauthorizedLogin)

    def test_the_forms_of_other_tools(self) -> None:
        made = hashed(b"sesame")
        for prefix in ("$2a$", "$2b$", "$2y$"):
            other = prefix + made[4:]
            self.assertEqual(hash_problem(other), "")
            self.assertTrue(matches(other, b"sesame"))

    def test_what_bcrypt_does_not_see_counts(self) -> None:
        made = hashed(b"x" * 72)
        self.assertTrue(matches(made, b"x" * 72))
        self.assertFalse(matches(made, b"x" * 73))

    def test_bad_hashes(self) -> None:
        made = hashed(b"sesame")
        for bad in (made[:-1], made + "a", made.replace("$04$", "$03$"), made.replace("$04$", "$17$"), "$2b$04$"):
            self.assertNotEqual(hash_problem(bad), "")
            self.assertNotIn(bad, hash_problem(bad))
        self.assertRaises(CheckerUnavailable, matches, "$2b$99$" + made[7:], b"sesame")

    def test_a_stand_in_matches_nothing(self) -> None:
        made = hashed(b"sesame")
        self.assertEqual(hash_problem(unmatched(made)), "")
        self.assertFalse(matches(unmatched(made), b"sesame"))

    def test_without_the_library_the_file_is_refused(self) -> None:
        path = write(self.mktemp(), f"dev1:{hashed(b'sesame')}\n")
        self.patch(file_checker, "bcrypt_is_installed", lambda: False)
        error = self.assertRaises(AuthFileError, FileChecker, path)
        self.assertEqual(error.problems, [f"{path}: has bcrypt hashes; install amqprouter[bcrypt]"])
