"""What the project says about itself holds together."""

from __future__ import annotations

import re
import subprocess
from configparser import ConfigParser
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.support.trial_summary import summary

ROOT = Path(__file__).parents[2]
PYPROJECT = (ROOT / "pyproject.toml").read_text()  # as text: Python 3.10 has no tomllib
_REQUIREMENT = re.compile(r"([\w.-]+)(?:\[\w+\])?>=([\d.]+)(?:;python_version>=\"3\.11\")?")


def _setup() -> ConfigParser:
    parser = ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def _floors(text: str) -> dict[str, str]:
    """Requirements, one a line, as names and versions; all must have a floor and nothing else."""
    floors = {}
    for line in text.split():
        match = _REQUIREMENT.fullmatch(line)
        if match is None:
            raise AssertionError(f"{line!r} is not NAME>=VERSION, for Python 3.11 at most")
        floors[match[1]] = match[2]
    return floors


class RequirementTests(SynchronousTestCase):
    def test_every_floor_has_a_reason(self) -> None:
        """Setup.cfg and the table in CONTRIBUTING.rst name the same packages and versions."""
        setup = _setup()
        required = _floors(setup["options"]["install_requires"])
        for requirements in setup["options.extras_require"].values():
            required |= _floors(requirements)
        rows = re.findall(r"^ *\* - ``([\w.-]+)``\n *- ([\d.]+)\n *- \S", (ROOT / "CONTRIBUTING.rst").read_text(), re.M)
        self.assertEqual(dict(rows), required)

    def test_python_versions(self) -> None:
        """The oldest Python is the same for pip, mypy and ruff."""
        self.assertEqual(_setup()["options"]["python_requires"], ">=3.10")
        self.assertIn('\npython_version = "3.10"\n', PYPROJECT)
        self.assertIn('\ntarget-version = "py310"\n', PYPROJECT)


class NewsfragmentTests(SynchronousTestCase):
    def test_names_and_length(self) -> None:
        """Each is one paragraph, in a file that towncrier takes."""
        kinds = re.findall(r'^\[\[tool\.towncrier\.type\]\]\ndirectory = "(\w+)"$', PYPROJECT, re.MULTILINE)
        for path in (ROOT / "newsfragments").iterdir():
            if path.name in ("README.rst", "template.rst"):
                continue
            with self.subTest(path.name):
                self.assertRegex(path.name, rf"\A\+?[\w-]+\.({'|'.join(kinds)})\.rst\Z")
                self.assertNotIn("\n\n", path.read_text().strip())


class ScriptTests(SynchronousTestCase):
    def test_shell_syntax(self) -> None:
        for name in ("script/bootstrap", "script/test", ".ci/run"):
            subprocess.run(["bash", "-n", ROOT / name], check=True)
            self.assertTrue((ROOT / name).stat().st_mode & 0o111, f"{name} is not executable")


class TrialSummaryTests(SynchronousTestCase):
    """The one line that says what a test run came to."""

    def test_counts(self) -> None:
        rule = "-" * 79
        for result, counts in {
            "PASSED (successes=3)": (3, 0, 0),
            "PASSED (skips=1, expectedFailures=1, successes=3)": (4, 0, 1),
            "FAILED (skips=2, failures=1, errors=3, unexpectedSuccesses=1, successes=5)": (5, 5, 2),
            "FAILED (errors=1)": (0, 1, 0),
        }.items():
            self.assertEqual(summary(f"  test_it ... [OK]\n{rule}\nRan 9 tests in 0.1s\n\n{result}\n"), counts)

    def test_no_result(self) -> None:
        for output in ("", "Ran 0 tests in 0.000s\n\nPASSED\n", "Ran 1 tests in 0.000s\n\nPASSED (skips=1)\n"):
            with self.assertRaises(ValueError):
                summary(output)

    def test_what_tests_print_does_not_count(self) -> None:
        output = "PASSED (successes=9)\nRan 2 tests in 0.1s\n\nFAILED (failures=1, successes=1)\n"
        self.assertEqual(summary(output), (1, 1, 0))
