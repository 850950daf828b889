"""Nothing that strangers chose does more in a log than be read."""

from __future__ import annotations

import json
from io import BytesIO, StringIO
from typing import Any

from twisted.logger import FileLogObserver, ILogObserver, Logger, LogLevel
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from amqprouter.daemon.logs import JsonObserver, text_line, text_observer
from amqprouter.text import printable, printable_lines

HOSTILE = (
    "\x1b[2J\x1b]0;title\x07",
    "\x9b31m",
    "a\rb",
    "a\nb",
    "a\x0bb\x0cb",
    "a\x85b\u2028c\u2029d",
    "\u202egnp.exe",
    "\u2066x\u2069\u200e\u200f\u061c",
    "\u200b\ufeff",
    "\x00\x7f\b",
    "\ud800",
    "\U000e0041",
)


class TextTests(SynchronousTestCase):
    def line(self, said: str, **fields: Any) -> str:
        lines: list[str] = []
        log = Logger("space", observer=lambda event: lines.append(text_line(event) or ""))  # type: ignore[arg-type]
        log.warn(said, **fields)
        [line] = lines
        return line.partition("] ")[2]

    def check(self, line: str) -> None:
        self.assertTrue(line.endswith("\n"))
        self.assertTrue(line[:-1].isprintable(), ascii(line))
        line.encode()

    def test_fields(self) -> None:
        for text in HOSTILE:
            for said in ("{name} did it", "{name!s}", "{name!r}", "{name:>40}", "{name:.5}", "{names}", "{error}"):
                self.check(self.line(said, name=text, names=[text], error=ValueError(text)))

    def test_what_is_escaped_can_be_told(self) -> None:
        self.assertEqual(self.line("{name}", name="a\x1b[1m\n"), "a\\x1b[1m\\n\n")
        self.assertEqual(self.line("{name!r}", name="a\x1b"), "'a\\x1b'\n")
        self.assertEqual(self.line("{name}", name="\u202e"), "\\u202e\n")

    def test_what_is_harmless_stays(self) -> None:
        self.assertEqual(self.line("{name}…", name="Zähler 17 — ✓ 東"), "Zähler 17 — ✓ 東…\n")
        self.assertEqual(self.line("{a:.1f} {b} {c.real}", a=1.25, b=None, c=3), "1.2 None 3\n")

    def test_what_is_no_field(self) -> None:
        self.check(self.line("evil \x1b[1m"))
        self.check(self.line("{thing}", thing=type("Thing", (), {"__str__": lambda self: "\x1b[1m"})()))

    def test_the_name_of_the_logger(self) -> None:
        for name in ("log_namespace", "log_system"):
            line = text_line({"log_format": "x", "log_time": 0.0, name: "a\x1b"}) or ""
            self.check(line)

    def test_a_traceback_has_lines_and_no_escapes(self) -> None:
        line = text_line({"log_format": "x", "log_time": 0.0, "log_failure": Failure(ValueError("a\x1b[1m\u202e"))})
        assert line is not None
        self.assertIn("\n\tTraceback", line)
        self.assertTrue(all(part.isprintable() for part in line.replace("\t", "").split("\n")), ascii(line))

    def test_nothing_to_say(self) -> None:
        self.assertIsNone(text_line({}))

    def test_files(self) -> None:
        for file in (StringIO(), BytesIO()):
            observer: Any = text_observer(file)  # type: ignore[arg-type]
            verifyObject(ILogObserver, observer)
            self.assertIsInstance(observer, FileLogObserver)
            observer({"log_format": "{x}", "x": "\ud800\x1b", "log_time": 0.0})
            self.assertIn("\\ud800\\x1b", str(file.getvalue()).replace("\\\\", "\\"))


class JsonTests(SynchronousTestCase):
    def test_machines_get_it_as_it_came(self) -> None:
        for text in HOSTILE:
            file = StringIO()
            JsonObserver(file)({"log_format": "{name}", "name": text, "log_time": 0.0})
            self.assertTrue(file.getvalue()[:-1].isprintable() and file.getvalue().isascii())
            self.assertEqual(json.loads(file.getvalue())["name"], text)


class ProcessTests(SynchronousTestCase):
    """Of several processes, each says which it is."""

    EVENT = {"log_format": "hello", "log_time": 0.0, "log_namespace": "a.b", "log_level": LogLevel.warn}  # noqa: RUF012

    def test_text(self) -> None:
        file = StringIO()
        text_observer(file, 2)(self.EVENT)
        self.assertIn(" [process 2: a.b#warn] hello\n", file.getvalue())

    def test_json(self) -> None:
        for process, told in ((2, {"process": 2}), (0, {})):
            file = StringIO()
            JsonObserver(file, process)(self.EVENT)
            line = json.loads(file.getvalue())
            self.assertEqual({name: line[name] for name in line if name == "process"}, told)


class PrintableTests(SynchronousTestCase):
    def test_lines(self) -> None:
        self.assertEqual(printable_lines("a\n\tb\r\x1b"), "a\n\tb\\r\\x1b")
        self.assertEqual(printable("a\n\tb"), "a\\n\\tb")
