"""The compiled build passes the tests of what it compiles, and says so when it cannot be made."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.packaging.test_install import ROOT, source_copy
from tests.support.compiled import compiled_copy, missing

TESTED = (
    "tests.unit.amqp",
    "tests.unit.broker",
    "tests.unit.events.test_places",
    "tests.unit.pipeline",
    "tests.unit.scheduling",
    "tests.unit.storage.test_document",
    "tests.unit.storage.test_elements",
    "tests.unit.storage.test_json_body",
    "tests.unit.auth.test_aged_cache",
    "tests.unit.test_build_kind",
    "tests.unit.test_patterns",
    "tests.unit.test_topic_patterns",
)
"""All of them are for ``script/test --compiled``."""
ARE_COMPILED = "import amqprouter.amqp.wire as w, amqprouter.pipeline.pipeline as p; print(w.__file__, p.__file__)"


def run(*arguments: str, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env=clean | {"AMQPROUTER_COMPILE": "1"} | environ,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


class CompiledTests(SynchronousTestCase):
    def test_it_passes_its_tests(self) -> None:
        if reason := missing():
            raise SkipTest(reason)
        folder = compiled_copy(ROOT / ".run/compiled")
        files = run("-c", ARE_COMPILED, cwd=folder).stdout.split()
        self.assertEqual([Path(file).suffix for file in files], [".so", ".so"])
        tested = run("-m", "twisted.trial", *TESTED, cwd=folder)
        self.assertEqual(tested.returncode, 0, tested.stdout[-4000:] + tested.stderr[-2000:])

    def test_without_mypyc(self) -> None:
        folder = source_copy()
        (folder / "mypyc.py").write_text("raise ImportError")
        built = run("setup.py", "build_ext", cwd=folder)
        self.assertNotEqual(built.returncode, 0)
        self.assertIn("needs mypy", built.stderr)

    def test_without_a_compiler(self) -> None:
        if find_spec("mypyc") is None:
            raise SkipTest("no mypyc")
        built = run("setup.py", "build_ext", cwd=source_copy(), CC="no-such-compiler")
        self.assertNotEqual(built.returncode, 0)
        self.assertIn("there is no no-such-compiler", built.stderr)

    def test_an_editable_install_is_refused(self) -> None:
        built = run("setup.py", "develop", cwd=source_copy())
        self.assertIn("not for editable installs", built.stderr)
