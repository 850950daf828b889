"""Every test module, shared out between several trial processes: ``trial tests.support.shared_out`` in each of them.

A process takes the next module that none has taken, by making a file of its name in the directory that the environment
variable AMQPROUTER_TEST_CLAIMS names. (``trial --jobs`` would share out single tests, but fires the reactor's shutdown
after each, which ends the servers that tests share.)
"""

from __future__ import annotations

import os
import unittest
from collections.abc import Iterator
from pathlib import Path
from unittest import TestResult

from twisted.trial.runner import TestLoader

ROOT = Path(__file__).parents[2]
FOLDERS = "tests/integration", "tests/packaging", "tests/unit"
"""In this order: the quick ones come last, when some processes have nothing else to do."""


def modules() -> list[str]:
    """All of them, by name."""
    paths = (path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("test_*.py")))
    return [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in paths]


class Unclaimed(unittest.TestSuite):
    """The tests of the modules that nobody else takes, loaded as they are taken."""

    def __init__(self, claims: Path) -> None:
        super().__init__()
        self._claims = claims

    def _take(self) -> Iterator[str]:
        for name in modules():
            try:
                (self._claims / name).touch(exist_ok=False)
            except FileExistsError:
                continue
            yield name

    def run(self, result: TestResult, debug: bool = False) -> TestResult:
        """Take modules until there are no more."""
        loader = TestLoader()
        for name in self._take():
            if result.shouldStop:
                break
            loader.loadByName(name).run(result)
        return result


def test_suite() -> unittest.TestSuite:
    """What trial asks a module for.

    :raises KeyError: AMQPROUTER_TEST_CLAIMS is not set.
    """
    return Unclaimed(Path(os.environ["AMQPROUTER_TEST_CLAIMS"]))
