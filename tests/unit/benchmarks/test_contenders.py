"""What is missing for a contender is said with what to do about it."""

from __future__ import annotations

import shutil

from twisted.trial.unittest import SynchronousTestCase

from benchmarks import contenders


class CompilerTests(SynchronousTestCase):
    def test_all_there(self) -> None:
        self.patch(contenders, "find_spec", lambda name: name)
        self.patch(shutil, "which", lambda name: name)
        self.assertEqual(contenders.compiler_missing(), "")

    def test_no_mypy(self) -> None:
        self.patch(contenders, "find_spec", lambda name: None)
        self.assertIn("pip install", contenders.compiler_missing())

    def test_no_c_compiler(self) -> None:
        self.patch(contenders, "find_spec", lambda name: name)
        self.patch(shutil, "which", lambda name: None)
        self.assertIn("apt-get install gcc", contenders.compiler_missing())
