"""What the project says about itself holds together."""

from __future__ import annotations

import re
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.support.pages import read
from tests.support.shared_out import Unclaimed, modules
from tests.support.trial_summary import summary

ROOT = Path(__file__).parents[2]
PYPROJECT = (ROOT / "pyproject.toml").read_text()  # as text: Python 3.10 has no tomllib
_REQUIREMENT = re.compile(r"([\w.-]+)(?:\[\w+\])?>=([\d.]+)(?:;python_version(?:>=\"3\.11\"|<\"3\.14\"))?")


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
            raise AssertionError(f"{line!r} is not NAME>=VERSION, for Python from 3.11 or before 3.14 at most")
        floors[match[1]] = match[2]
    return floors


class RequirementTests(SynchronousTestCase):
    def test_every_floor_has_a_reason(self) -> None:
        """Setup.cfg and the table in docs/dependencies.rst name the same packages and versions."""
        setup = _setup()
        required = _floors(setup["options"]["install_requires"])
        for requirements in setup["options.extras_require"].values():
            required |= _floors(requirements)
        rows = re.findall(
            r"^ *\* - ``([\w.-]+)``\n *- ([\d.]+)\n *- \S", (ROOT / "docs/dependencies.rst").read_text(), re.M
        )
        self.assertEqual(dict(rows), required)

    def test_python_versions(self) -> None:
        """The oldest is the same for pip, mypy and ruff; the newest for classifiers, pages and set-up."""
        self.assertEqual(_setup()["options"]["python_requires"], ">=3.10")
        self.assertIn('\npython_version = "3.10"\n', PYPROJECT)
        self.assertIn('\ntarget-version = "py310"\n', PYPROJECT)
        classifiers = re.findall(r"Python :: 3\.(\d+)", _setup()["metadata"]["classifiers"])
        newest = f"3.{classifiers[-1]}"
        self.assertEqual(classifiers, [str(minor) for minor in range(10, int(classifiers[-1]) + 1)])
        self.assertIn(f"Python 3.10 to {newest}", (ROOT / "README.rst").read_text())
        self.assertIn(f"Python 3.10 to {newest}", (ROOT / "CONTRIBUTING.rst").read_text())
        self.assertIn(f" python3 python{newest} ", (ROOT / "script/bootstrap").read_text())


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

    def test_they_make_a_part_of_the_changelog(self) -> None:
        """Towncrier takes every one, and what it makes is good reStructuredText in the changelog's place."""
        command = [sys.executable, "-m", "towncrier", "build", "--draft", "--version", "9.9", "--date", "2026-01-02"]
        draft = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60).stdout
        self.assertTrue(draft.startswith("9.9 (2026-01-02)\n"), draft[:200])
        fragments = {path.name for path in (ROOT / "newsfragments").iterdir()} - {"README.rst", "template.rst"}
        # Those with equal words are one item.
        texts = {" ".join(line.split()) for name in fragments for line in [(ROOT / "newsfragments" / name).read_text()]}
        items = {" ".join(item.split()) for item in re.findall(r"(?m)^- (.*(?:\n  .*)*)", draft)}
        self.assertEqual(items, texts)
        head, mark, tail = (ROOT / "CHANGELOG.rst").read_text().partition(".. towncrier release notes start\n")
        self.assertTrue(mark)
        self.assertEqual(read(head + mark + "\n" + draft + tail)[1], "")


class ScriptTests(SynchronousTestCase):
    def test_shell_syntax(self) -> None:
        programs = (
            *("script/bootstrap", "script/docs", "script/test", "script/rabbitmq-root", "script/wheels"),
            ".ci/run",
        )
        findings = (f"findings/{path.name}" for path in (ROOT / "findings").glob("*-*.sh"))
        for name in (*programs, *findings):
            subprocess.run(["bash", "-n", ROOT / name], check=True)
            self.assertTrue((ROOT / name).stat().st_mode & 0o111, f"{name} is not executable")
        for name in ("rabbitmq.sh", "libraries.sh"):  # the others read them
            subprocess.run(["bash", "-n", ROOT / "findings" / name], check=True)


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


class SharedOutTests(SynchronousTestCase):
    """Which tests a process of many takes."""

    def _taken(self, *, alone: bool, broker: bool = False) -> list[str]:
        claims = Path(self.mktemp())
        claims.mkdir()
        for _ in Unclaimed(claims, alone=alone, broker=broker).suites():
            pass
        return [path.name for path in claims.iterdir()]

    def test_those_that_measure_have_the_machine_to_themselves(self) -> None:
        measuring, others = set(self._taken(alone=True)), set(self._taken(alone=False))
        self.assertIn("tests.integration.test_noisy_device.NoisyDeviceTests", measuring)
        self.assertEqual(measuring & others, set())
        taken = {name if name.startswith("tests.unit.") else name.rpartition(".")[0] for name in measuring | others}
        self.assertEqual(taken, set(modules()))

    def test_each_is_taken_once(self) -> None:
        claims = Path(self.mktemp())
        claims.mkdir()
        first, second = (Unclaimed(claims, alone=True, broker=False).suites() for _ in range(2))
        self.assertGreater(next(first).countTestCases(), 0)
        self.assertEqual(len([*first, *second]) + 1, len(list(claims.iterdir())))

    def test_those_that_make_no_packages(self) -> None:
        left = set(modules()) - set(modules(packaging=False))
        self.assertIn("tests.packaging.test_install", left)
        self.assertEqual([name for name in left if not name.startswith("tests.packaging.")], [])

    def test_those_that_talk_to_a_broker(self) -> None:
        """Also by way of what they import."""
        found = set(modules(broker=True))
        self.assertLess(found, set(modules()))
        self.assertIn("tests.integration.test_private_rabbitmq", found)
        self.assertIn("tests.integration.test_limits", found)
        self.assertNotIn("tests.integration.test_mongo", found)
        self.assertEqual([name for name in found if not name.startswith("tests.integration.")], [])
