"""The command as a whole: help, version, exit statuses."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from amqprouter import __version__, build_kind
from amqprouter.cli.main import COMMANDS
from tests.unit.cli.harness import CommandTestCase

ROOT = Path(__file__).parents[3]


class MainTests(CommandTestCase):
    def test_version_and_help(self) -> None:
        self.assertEqual(self.succeeds("--version"), f"amqprouter {__version__} ({build_kind()})\n")
        text = self.succeeds("--help")
        for name in COMMANDS:
            self.assertIn(f"\n  {name} ", text)
        self.assertIn("130", text)

    def test_each_command_has_help_with_examples(self) -> None:
        for name in COMMANDS:
            text = self.succeeds(name, "--help")
            self.assertIn(f"usage: amqprouter {name}", text)
            self.assertIn(f"\nexamples:\n  amqprouter {name} ", text)

    def test_what_makes_no_sense_has_status_2(self) -> None:
        for arguments in ([], ["sned"], ["send"], ["check"], ["acl"], ["send", "-c", "x", "--uri", "amqp://h"]):
            self.assertIn("usage: amqprouter", self.fails(*arguments, status=2))

    def test_help_is_quick_for_it_imports_no_reactor(self) -> None:
        script = (
            "import sys; from amqprouter.cli.main import main\n"
            "try: main(['simulate', '--help'])\n"
            "except SystemExit: pass\n"
            "print([name for name in sys.modules if name in ('twisted.internet', 'treq', 'rich', 'pymongo', 'argon2')])"
        )
        ran = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
        self.assertEqual(ran.stdout.splitlines()[-1], "[]")
