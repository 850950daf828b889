"""How one tells which build is installed."""

from __future__ import annotations

from importlib.machinery import EXTENSION_SUFFIXES, ModuleSpec
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import amqprouter
from amqprouter.pipeline import pipeline


class BuildKindTests(SynchronousTestCase):
    def test_of_what_runs_here(self) -> None:
        """These tests run on either."""
        expected = "interpreted" if Path(pipeline.__file__).suffix == ".py" else "compiled"
        self.assertEqual(amqprouter.build_kind(), expected)

    def test_by_the_file_that_would_be_imported(self) -> None:
        for origin, expected in {
            f"/lib/amqprouter/pipeline/pipeline{EXTENSION_SUFFIXES[0]}": "compiled",
            "/lib/amqprouter/pipeline/pipeline.py": "interpreted",
            None: "interpreted",
        }.items():
            self.patch(amqprouter, "find_spec", lambda name, origin=origin: ModuleSpec(name, None, origin=origin))
            self.assertEqual(amqprouter.build_kind(), expected)
            self.assertEqual(amqprouter.version_line(), f"amqprouter {amqprouter.__version__} ({expected})")
