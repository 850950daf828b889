"""``script/wheels``, as far as nothing has to be built for it."""

from __future__ import annotations

import runpy
import subprocess
import sys
import tarfile
from fnmatch import fnmatch
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.support.shared_out import modules

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "script/wheels.py"
WHEELS = runpy.run_path(str(SCRIPT))
FAILED = WHEELS["Failed"]


def ended(result: str) -> str:
    """What trial prints at the end."""
    return f"  test_it ... [OK]\n{'-' * 79}\nRan 9 tests in 0.123s\n\n{result}\n"


class NameTests(SynchronousTestCase):
    def test_a_wheel_for_every_python_that_is_named(self) -> None:
        found = WHEELS["versions"]((ROOT / "setup.cfg").read_text())
        self.assertEqual((found[0], found[-1]), ("3.10", "3.14"))

    def test_which_file_it_is(self) -> None:
        pattern = WHEELS["compiled_name"]("0.1.0", "3.10")
        name = "amqprouter-0.1.0-cp310-cp310-manylinux2014_x86_64.manylinux_2_17_x86_64.whl"
        self.assertTrue(fnmatch(name, pattern))
        for other in (
            name.replace("310", "311"),
            name.replace("0.1.0", "0.1.1"),
            "amqprouter-0.1.0-cp310-cp310-manylinux_2_35_x86_64.whl",  # for newer systems only
            "amqprouter-0.1.0-py3-none-any.whl",
        ):
            self.assertFalse(fnmatch(other, pattern), other)

    def test_what_is_tried_is_there(self) -> None:
        module, cls, method = WHEELS["SMOKE"].rsplit(".", 2)
        self.assertIn(module, modules(broker=True))
        text = (ROOT / module.replace(".", "/")).with_suffix(".py").read_text()
        self.assertIn(f"class {cls}(", text)
        self.assertIn(f"    def {method}(self)", text)


class ResultTests(SynchronousTestCase):
    def test_how_many_passed(self) -> None:
        self.assertEqual(WHEELS["passed"](ended("PASSED (successes=9)"), skipped=False), 9)
        self.assertEqual(WHEELS["passed"](ended("PASSED (skips=2, successes=7)"), skipped=True), 7)

    def test_what_counts_as_none(self) -> None:
        """A broker that is not there has tests skipped, which must not be a release's reason."""
        for output in (
            "",
            ended("PASSED (skips=9)"),
            ended("FAILED (failures=1, successes=8)"),
            "PASSED (successes=9)",
        ):
            for skipped in (True, False):
                self.assertRaises(FAILED, WHEELS["passed"], output, skipped=skipped)
        self.assertRaises(FAILED, WHEELS["passed"], ended("PASSED (skips=2, successes=7)"), skipped=False)


class TestsOfTests(SynchronousTestCase):
    def test_the_package_is_the_installed_one(self) -> None:
        folder = Path(self.mktemp()).absolute()
        for name in ("amqprouter/a.py", "twisted/plugins/amqprouter_p.py", "tests/unit/test_a.py"):
            path = folder / "amqprouter-1.0" / name
            path.parent.mkdir(parents=True)
            path.write_text("source")
        sdist, installed = folder / "amqprouter-1.0.tar.gz", folder / "site-packages/amqprouter"
        with tarfile.open(sdist, "w:gz") as archive:
            archive.add(folder / "amqprouter-1.0", "amqprouter-1.0")
        plugin, others = (installed.parent / "twisted/plugins" / name for name in ("amqprouter_p.py", "twisted_o.py"))
        for path in (installed / "a.py", plugin, others):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("installed")
        for _ in range(2):  # what is left of an earlier time is in nobody's way
            tree = WHEELS["tests_of"](sdist, installed, folder / "unpacked")
        self.assertEqual((tree / "amqprouter/a.py").read_text(), "installed")
        self.assertEqual((tree / "tests/unit/test_a.py").read_text(), "source")
        self.assertEqual([path.name for path in (tree / "twisted/plugins").iterdir()], ["amqprouter_p.py"])
        self.assertEqual((tree / "twisted/plugins/amqprouter_p.py").read_text(), "installed")


class CommandLineTests(SynchronousTestCase):
    def test_pythons_that_we_do_not_support(self) -> None:
        ended = subprocess.run(
            [sys.executable, SCRIPT, "--python", "3.9"], capture_output=True, text=True, timeout=60, check=False
        )
        self.assertEqual(ended.returncode, 2)
        self.assertIn("3.10", ended.stderr)

    def test_steps_that_fail(self) -> None:
        """They say where all of the output is."""
        folder = Path(self.mktemp()).absolute()
        builder = WHEELS["Builder"](folder, folder / "work", folder)
        failed = self.assertRaises(FAILED, builder._run, "step", "sh", "-c", "echo told; exit 3")
        self.assertEqual(str(failed), f"step failed; all of the output is in {folder}/work/logs/step.log\ntold\n")
        failed = self.assertRaises(FAILED, builder._run, "slow", "sleep", "60", timeout=0.01)
        self.assertIn("slow took longer than", str(failed))
