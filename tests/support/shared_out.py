"""Every test, shared out between several trial processes: ``trial tests.support.shared_out`` in each of them.

A process takes the next share that none has taken, by making a file of its name in the directory that the environment
variable AMQPROUTER_TEST_CLAIMS names. A share is a test class where there are servers to wait for, and a module of unit
tests. (``trial --jobs`` would share out single tests, but fires the reactor's shutdown after each, which ends the
servers that tests share.)

Most tests wait for servers most of the time, so there are more processes than processors. Classes with ``measures =
True`` compare times, or what one thing costs another, which a crowd would spoil: they are left for a process that has
the machine to itself, with AMQPROUTER_TEST_ALONE set. With AMQPROUTER_TEST_BROKER set there are only those modules that
talk to a broker, and with AMQPROUTER_TEST_COMPILED set none about packages, which are made from the source.
"""

from __future__ import annotations

import ast
import os
import unittest
from collections.abc import Iterator
from functools import cache
from itertools import groupby
from pathlib import Path
from unittest import TestResult

from twisted.trial.runner import TestLoader

ROOT = Path(__file__).parents[2]
FOLDERS = "tests/packaging", "tests/integration", "tests/unit"
"""In this order: what takes longest first, and the quick ones when some processes have nothing else to do."""
FIRST = tuple(f"tests.{name}" for name in ("packaging.test_ansible", "integration.test_broker_faults"))
"""Modules with classes that take more than a minute: last, the others would wait for them."""
_UNIT, _BROKER = "tests.unit.", "tests.support.rabbitmq"


def modules(broker: bool = False, packaging: bool = True) -> list[str]:
    """All of them, by name; or those alone that talk to a broker; or without those about packages."""
    paths = (path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("test_*.py")))
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in paths]
    if not packaging:
        names = [name for name in names if not name.startswith("tests.packaging.")]
    if broker:
        names = [name for name in names if not name.startswith(_UNIT) and _BROKER in _reach(name)]
    return sorted(names, key=lambda name: FIRST.index(name) if name in FIRST else len(FIRST))


@cache
def _imports(name: str) -> frozenset[str]:
    """The modules of ours that a module imports, those of its package's and test support's among them."""
    path = ROOT.joinpath(*name.split(".")).with_suffix(".py")
    if not path.exists():
        return frozenset()
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return frozenset(name for name in found if name.startswith(("tests.", "benchmarks.", "script.")))


def _reach(name: str) -> set[str]:
    """What a module imports, and what that imports, as far as it is tests and benchmarks."""
    reached: set[str] = set()
    left = [name]
    while left:
        for each in _imports(left.pop()) - reached:
            reached.add(each)
            left.append(each)
    return reached


def _classes(name: str) -> Iterator[tuple[str, list[unittest.TestCase]]]:
    """The test classes of a module, by name, with their tests."""
    for cls, tests in groupby(_flat(TestLoader().loadByName(name)), type):
        yield f"{name}.{cls.__name__}", list(tests)


def _flat(suite: unittest.TestSuite) -> Iterator[unittest.TestCase]:
    for each in suite:
        if isinstance(each, unittest.TestSuite):
            yield from _flat(each)
        else:
            yield each


class Unclaimed(unittest.TestSuite):
    """The tests that nobody else takes, loaded as they are taken.

    :param alone: those that measure, and no others.
    :param broker: see `modules`, also for `packaging`.
    """

    def __init__(self, claims: Path, *, alone: bool, broker: bool, packaging: bool = True) -> None:
        super().__init__()
        self._claims = claims
        self._alone = alone
        self._broker = broker
        self._packaging = packaging

    def _take(self, share: str) -> bool:
        try:
            (self._claims / share).touch(exist_ok=False)
        except FileExistsError:
            return False
        return True

    def suites(self) -> Iterator[unittest.TestSuite]:
        """Take one share after the other."""
        for name in modules(self._broker, self._packaging):
            if name.startswith(_UNIT):  # nothing there measures anything
                if not self._alone and self._take(name):
                    yield TestLoader().loadByName(name)
                continue
            for share, tests in _classes(name):
                if getattr(tests[0], "measures", False) == self._alone and self._take(share):
                    yield unittest.TestSuite(tests)

    def run(self, result: TestResult, debug: bool = False) -> TestResult:
        """Take tests until there are no more."""
        for suite in self.suites():
            if result.shouldStop:
                break
            suite.run(result)
        return result


def test_suite() -> unittest.TestSuite:
    """What trial asks a module for.

    :raises KeyError: AMQPROUTER_TEST_CLAIMS is not set.
    """
    return Unclaimed(
        Path(os.environ["AMQPROUTER_TEST_CLAIMS"]),
        alone=bool(os.environ.get("AMQPROUTER_TEST_ALONE")),
        broker=bool(os.environ.get("AMQPROUTER_TEST_BROKER")),
        packaging=not os.environ.get("AMQPROUTER_TEST_COMPILED"),
    )
