"""The page of log events is what the source says."""

from __future__ import annotations

import ast
import re
import sys
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).parents[3]


class LogEventTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.patch(sys, "path", [str(ROOT / "script"), *sys.path])
        self.maker: Any = import_module("log_events")

    def test_it_is_up_to_date(self) -> None:
        self.assertEqual(self.maker.PAGE.read_text(), self.maker.page(), "run: python script/log_events.py")

    def test_what_is_found(self) -> None:
        with TemporaryDirectory() as folder:
            path = Path(folder, "some.py")
            path.write_text(
                """
log.warn("a {b!r} and {c.d:.1f}", b=1, c=x, more=2)
self._log.failure("oh", failure, failure=y)
self.log.emit(LogLevel.info, "i {j}", j=1)
self.log.emit(level, "k")
log.error(text, why=1)
log.unrelated("x")
math.log("x")
"""
            )
            self.assertEqual(
                list(self.maker.calls(path)),
                [
                    ("warn", "a {b!r} and {c.d:.1f}", ("b", "c", "more")),
                    ("critical", "oh", ()),
                    ("info", "i {j}", ("j",)),
                    ("differs", "k", ()),
                    ("error", "", ("why",)),
                ],
            )

    def test_every_logger_is_known_by_its_name(self) -> None:
        """Else its events would be missed."""
        for path in (ROOT / "amqprouter").rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Assign) and re.match(r"Logger\(", ast.unparse(node.value)):
                    self.assertIn(ast.unparse(node.targets[0]), ("log", "_log", "_access_log"), path)
