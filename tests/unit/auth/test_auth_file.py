"""Files for authentication are read whole or refused, with a word on what to do."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from amqprouter.auth import auth_file as module
from amqprouter.auth.auth_file import read_auth_file
from amqprouter.errors import AuthFileError


class ReadTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = self.mktemp()

    def write(self, content: bytes, mode: int = 0o600) -> None:
        Path(self.path).write_bytes(content)
        os.chmod(self.path, mode)

    def problem(self, *, secret: bool = True) -> str:
        error: AuthFileError = self.assertRaises(AuthFileError, read_auth_file, self.path, secret=secret)
        (problem,) = error.problems
        self.assertTrue(problem.startswith(f"{self.path}: "), problem)
        return problem

    def test_a_good_file(self) -> None:
        for mode in (0o400, 0o600, 0o640, 0o660):
            self.write("dev1:é\n".encode(), mode)
            self.assertEqual(read_auth_file(self.path, secret=True), "dev1:é\n")
        self.write(b"* -> #\n", 0o644)
        self.assertEqual(read_auth_file(self.path, secret=False), "* -> #\n")

    def test_a_symbolic_link_is_followed(self) -> None:
        self.write(b"x")
        link = self.mktemp()
        os.symlink(os.path.abspath(self.path), link)
        self.assertEqual(read_auth_file(link, secret=True), "x")

    def test_missing(self) -> None:
        self.assertIn("No such file", self.problem())

    def test_a_directory_and_a_pipe(self) -> None:
        os.mkdir(self.path)
        self.assertIn("Is a directory", self.problem())
        self.path = self.mktemp()
        os.mkfifo(self.path)
        self.assertIn("not a regular file", self.problem())  # and does not wait for a writer

    def test_a_path_that_is_none(self) -> None:
        error = self.assertRaises(AuthFileError, read_auth_file, "a\0b", secret=True)
        self.assertIn("null byte", error.problems[0])

    def test_readable_by_anybody(self) -> None:
        self.write(b"x", 0o644)
        self.assertIn("may be read by anybody (mode 0644); chmod o-rwx", self.problem())

    def test_writable_by_anybody(self) -> None:
        self.write(b"x", 0o602)
        for secret in (True, False):
            self.assertIn("may be written by anybody", self.problem(secret=secret))

    def test_what_is_no_text(self) -> None:
        for content, said in (
            (b"\xef\xbb\xbfx", "byte order mark"),
            (b"\xff\xfex\0", "byte order mark"),
            (b"a\nb\0", "NUL byte in line 2"),
            (b"a\n\nb\xe9", "not UTF-8 in line 3"),
        ):
            self.write(content)
            self.assertIn(said, self.problem())

    def test_too_large(self) -> None:
        self.patch(module, "MAX_BYTES", 10)
        self.write(b"x" * 10)
        read_auth_file(self.path, secret=True)
        self.write(b"x" * 11)
        self.assertIn("over 10 bytes", self.problem())
