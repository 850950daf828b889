"""What can be wrong with a configuration file as a file and as INI text."""

from __future__ import annotations

import os

from amqprouter.config import load
from amqprouter.errors import ConfigError
from tests.support.config import ConfigTestCase


class UnreadableFileTests(ConfigTestCase):
    def refused(self, path: str, reason: str) -> None:
        error = self.assertRaises(ConfigError, load, path)
        self.assertEqual(len(error.problems), 1)
        self.assertTrue(error.problems[0].startswith(f"{path}: "), error.problems)
        self.assertIn(reason, error.problems[0])

    def test_missing(self) -> None:
        self.refused(self.path, "No such file or directory")

    def test_directory(self) -> None:
        self.refused(str(self.folder), "a directory")

    def test_not_a_regular_file(self) -> None:
        """A FIFO must not block the start, and SIGHUP could not read it again."""
        os.mkfifo(self.path)
        self.refused(self.path, "not a regular file")

    def test_unreadable(self) -> None:
        if os.geteuid() == 0:
            os.symlink(self.path, self.path)  # the superuser may read anything but a loop
            self.refused(self.path, "Too many levels of symbolic links")
        else:
            self.refused(self.file("daemon.ini", "", 0o000), "Permission denied")

    def test_path_with_nul(self) -> None:
        self.refused("a\0b", "cannot be read")

    def test_huge(self) -> None:
        self.refused(self.file("daemon.ini", b"# \n" * 400_000), "not a configuration file")


class EncodingTests(ConfigTestCase):
    def test_what_is_not_plain_utf_8(self) -> None:
        for content, line, reason in (
            (b"\xef\xbb\xbf[broker]\n", 1, "byte-order mark"),
            ("[broker]\n".encode("utf-16"), 1, "byte-order mark"),
            (b"[broker]\n\nvhost = a\0b\n", 3, "NUL"),
            (b"[broker]\n# gr\xfc\xdfe\n", 2, "byte 0xfc is not UTF-8"),
        ):
            problem = self.problem(content)
            self.assertTrue(problem.startswith(f"{line}: "), problem)
            self.assertIn(reason, problem)

    def test_utf_8_and_any_line_ends_are_fine(self) -> None:
        settings = self.load("# größer\r\n[broker]\r\nvhost = Gerät\r\nheartbeat = 9\r\n")
        self.assertEqual((settings.broker.vhost, settings.broker.heartbeat), ("Gerät", 9))


class SyntaxTests(ConfigTestCase):
    def test_each_problem_names_its_line(self) -> None:
        for content, line, reason in (
            ("[broker]\nheartbeat = 9\nheartbeat = 10\n", 3, "heartbeat is set a second time"),
            ("[http]\n[broker]\n\n[http]\nendpoint =\n", 4, "[http] begins a second time"),
            ("[broker]\nheartbeat 9\n", 2, "neither 'key = value'"),
            ("\nheartbeat = 9\n[broker]\n", 2, "before the first [section]"),
            ("[broker\n", 1, "before the first [section]"),
            ("[ingress]\nbind =\n  a.*\n  #\n", 4, "on one line"),
            ("[ingress]\nbind =\n  a.*\n  #.alarm\n", 4, "on one line"),
        ):
            problem = self.problem(content)
            self.assertTrue(problem.startswith(f"{line}: "), problem)
            self.assertIn(reason, problem)

    def test_all_at_once(self) -> None:
        problems = self.problems(
            "early = 1\n"
            "[broker]\nheartbeat = 9\nheartbeat = 10\n  continued\nheartbeat = 11\nnonsense\n"
            "[http]\nanonymous = perhaps\n[broker]\nvhost = x\n[nowhere]\n"
        )
        expected = (
            "1: this stands before",
            "4: [broker] heartbeat",
            "6: [broker] heartbeat",
            "10: [broker] begins",
            "7: neither",
            "[http] anonymous",
            "[nowhere]: unknown section",
        )
        self.assertEqual(len(problems), len(expected), problems)
        for problem, start in zip(problems, expected, strict=True):
            self.assertTrue(problem.startswith(start), problem)

    def test_a_broken_line_is_not_repeated(self) -> None:
        """It may be a password that lost its key."""
        self.assertNotIn("hunter2", self.problem("[broker]\nhunter2\n"))

    def test_a_wrong_file_makes_a_short_report(self) -> None:
        for content in ("nonsense\n" * 10_000, "[a]\n" + "nonsense\n" * 10_000, "[a]\n" + "b = c\n" * 10_000):
            problems = self.problems(content)
            self.assertLess(len(problems), 60)

    def test_comments_and_blank_lines_in_lists(self) -> None:
        settings = self.load("[ingress]\nbind =\n  a.*\n\n  # about b\n  b.*\n  ; and c\n  c.*, d.#\n")
        self.assertEqual(settings.ingress.bind, ("a.*", "b.*", "c.*", "d.#"))

    def test_percent_is_literal(self) -> None:
        settings = self.load("[broker]\nuri = amqp://a:b%40c@host/%2F\nvhost = %d\n")
        self.assertEqual((settings.broker.uri, settings.broker.vhost), ("amqp://a:b%40c@host/%2F", "%d"))

    def test_an_option_indented_by_mistake(self) -> None:
        problem = self.problem("[broker]\nvhost = a\n  heartbeat = 9\n")
        self.assertIn("[broker] vhost", problem)
        self.assertIn("a line that begins with a space continues the one above", problem)

    def test_a_comment_behind_a_value(self) -> None:
        for line in ("heartbeat = 9 ; seconds", "vhost = a # the plant's", "username = bob ;me"):
            self.assertIn("a comment needs a line of its own", self.problem(f"[broker]\n{line}\n"))
        self.assertEqual(self.load("[ingress]\nbind = a.*, #, #.b\n").ingress.bind, ("a.*", "#", "#.b"))

    def test_there_is_no_default_section(self) -> None:
        self.assertIn("[DEFAULT]: unknown section", self.problem("[DEFAULT]\nheartbeat = 9\n"))
