"""Checkers are found by what they are called and what they take."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from twisted.cred.checkers import FilePasswordDB
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.strcred import ICheckerFactory, InvalidAuthArgumentString, findCheckerFactories
from twisted.plugin import IPlugin
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

import amqprouter
from amqprouter.auth.checkers import installed as checkers
from amqprouter.auth.checkers.file import FileChecker
from amqprouter.auth.checkers.file_factory import FileCheckerFactory
from amqprouter.auth.checkers.installed import (
    Provisions,
    checker_factories,
    find_checker_factory,
    make_checker,
    make_checkers,
)
from amqprouter.errors import AuthFileError, ConfigError
from amqprouter.interfaces import IDeviceSecret, IUserPassword
from amqprouter.testing.auth import MemoryChecker
from tests.unit.auth.checkers.test_file import run_at_once, write


@implementer(ICheckerFactory, IPlugin)
class MemoryCheckerFactory:
    """A stranger's plugin, for devices only."""

    authType = "memory"
    authHelp = "For tests."
    argStringFormat = "[NAME]"
    credentialInterfaces = (IDeviceSecret,)

    def generateChecker(self, argstring: str) -> MemoryChecker:
        if argstring == "bad":
            raise InvalidAuthArgumentString("that is bad")
        return MemoryChecker({argstring: b"sesame"})


class FindTests(SynchronousTestCase):
    def problem(self, *arguments: Any) -> str:
        error: ConfigError = self.assertRaises(ConfigError, make_checker, *arguments)
        (problem,) = error.problems
        return problem

    def install(self, *factories: object) -> None:
        """These plugins, besides our ``file:`` and Twisted's."""
        installed = [factory for factory in findCheckerFactories() if factory.authType == "file"]
        self.patch(checkers, "findCheckerFactories", lambda: [*installed, *factories])

    def test_the_file_checker_is_ours_and_not_twisteds(self) -> None:
        path = write(self.mktemp(), "")
        for interface in (IDeviceSecret, IUserPassword):
            self.assertIsInstance(find_checker_factory("file:x", interface), FileCheckerFactory)
            self.assertIsInstance(make_checker(f"file:{path}", interface), FileChecker)
        self.assertIsInstance(make_checker(f"file:{path}", IUsernamePassword), FilePasswordDB)

    def test_the_factory_keeps_strcreds_contract(self) -> None:
        verifyObject(ICheckerFactory, FileCheckerFactory())

    def test_an_unknown_checker_names_the_legal_ones(self) -> None:
        self.install(MemoryCheckerFactory())
        self.assertRegex(
            self.problem("fiel:/etc/x", IDeviceSecret),
            r"^no checker 'fiel' for devices' secrets is installed; legal: .*file:PATH, .*memory:\[NAME\]$",
        )
        problem = self.problem("memory:x", IUserPassword)
        self.assertRegex(problem, "^no checker 'memory' for users' passwords is installed; legal: .*file:PATH")
        self.assertNotIn("memory:[", problem)
        self.assertIn("no checker '' for", self.problem("", IDeviceSecret))

    def test_one_of_a_strangers(self) -> None:
        self.install(MemoryCheckerFactory())
        self.assertIsInstance(make_checker("memory:dev1", IDeviceSecret, Provisions(run_at_once)), MemoryChecker)
        names = [str(factory.authType) for factory in checker_factories(IDeviceSecret)]
        self.assertEqual(names, sorted({*names, "file", "memory"}))

    def test_two_of_one_name_are_refused(self) -> None:
        self.install(MemoryCheckerFactory(), MemoryCheckerFactory())
        self.assertIn("2 checkers 'memory'", self.problem("memory:dev1", IDeviceSecret))
        self.assertIn("MemoryCheckerFactory", self.problem("memory:dev1", IDeviceSecret))

    def test_bad_arguments(self) -> None:
        self.install(MemoryCheckerFactory())
        self.assertEqual(self.problem("memory:bad", IDeviceSecret), "checker 'memory': that is bad")
        for description in ("file", "file:"):
            self.assertIn("legal: file:PATH", self.problem(description, IDeviceSecret))

    def test_a_bad_file_is_named(self) -> None:
        error = self.assertRaises(AuthFileError, make_checker, "file:/nowhere/x:y", IDeviceSecret)
        self.assertEqual(error.problems, ["/nowhere/x:y: cannot be read: No such file or directory"])

    def test_the_checker_gets_its_threads(self) -> None:
        checker = make_checker(f"file:{write(self.mktemp(), '')}", IDeviceSecret, Provisions(run_at_once))
        self.assertIs(checker._run_in_thread, run_at_once)  # type: ignore[attr-defined]

    def test_several_have_names_of_their_own(self) -> None:
        self.install(MemoryCheckerFactory())
        path = write(self.mktemp(), "")
        made = make_checkers(["memory:a", f"file:{path}", "memory:b"], IDeviceSecret)
        self.assertEqual([name for name, _ in made], ["memory", "file", "memory-2"])
        self.assertEqual(make_checkers([], IDeviceSecret), [])

    def test_nobody_is_asked_behind_one_that_lets_everybody_in(self) -> None:
        path = write(self.mktemp(), "")
        self.assertEqual(len(make_checkers([f"file:{path}", "anonymous:"], IDeviceSecret)), 2)
        for others in ([f"file:{path}"], [f"file:{path}", "anonymous:"]):
            self.assertRaises(ConfigError, make_checkers, ["anonymous:", *others], IDeviceSecret)

    def test_the_problems_of_all_of_them_are_told(self) -> None:
        self.install(MemoryCheckerFactory())
        error: ConfigError = self.assertRaises(
            ConfigError, make_checkers, ["memory:bad", "x:", "memory:a"], IDeviceSecret
        )
        self.assertEqual(len(error.problems), 2)


class DropinTests(SynchronousTestCase):
    def test_it_imports_nothing_heavy(self) -> None:
        """Every twistd, whatever it runs, loads every dropin."""
        program = (
            "import sys, twisted.plugins.amqprouter_checkers as dropin\n"
            "heavy = {'argon2', 'cffi', 'automat', 'twisted.web.client', 'twisted.internet.reactor', "
            "'txamqp', 'txmongo', 'amqprouter.auth.threads'}\n"
            "print(dropin.file_checker.authType, sorted(heavy & set(sys.modules)))"
        )
        root = Path(amqprouter.__file__).parents[1]
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=root, check=True, capture_output=True, text=True, timeout=60
        )
        self.assertEqual(done.stdout, "file []\n")
