"""What operators are told about the checkers that are installed."""

from __future__ import annotations

from twisted.cred.strcred import findCheckerFactories
from twisted.trial.unittest import SynchronousTestCase

from amqprouter.auth.checkers import installed as checkers
from amqprouter.auth.checkers.help import explain_checker, list_checkers
from amqprouter.errors import ConfigError
from tests.unit.auth.checkers.test_installed import MemoryCheckerFactory


class HelpTests(SynchronousTestCase):
    def setUp(self) -> None:
        installed = list(findCheckerFactories())
        self.patch(checkers, "findCheckerFactories", lambda: [*installed, MemoryCheckerFactory()])

    def test_the_list(self) -> None:
        text = list_checkers()
        self.assertRegex(text, r"(?m)^  file:PATH +device_checker, user_checker$")
        self.assertRegex(text, r"(?m)^  memory:\[NAME\] +device_checker$")
        for name in ("anonymous:", "http://", "https://"):
            self.assertEqual(text.count(f"\n  {name}"), 1)
        self.assertNotIn("\n  unix:", text)  # Twisted's, which knows neither device secrets nor our passwords

    def test_one(self) -> None:
        for name in ("file", "http", "https", "anonymous"):
            text = explain_checker(name)
            self.assertTrue(text.startswith(f"{name}:"), text)
            self.assertIn("for [auth] device_checker, user_checker\n", text)
            self.assertTrue(all(len(line) <= 80 for line in text.splitlines()), text)
        self.assertEqual(explain_checker("memory"), "memory:[NAME]\nfor [auth] device_checker\n\n  For tests.")

    def test_none_of_that_name(self) -> None:
        for name in ("fiel", "", "unix"):
            error = self.assertRaises(ConfigError, explain_checker, name)
            self.assertIn("anonymous, file, http, https,", str(error))
