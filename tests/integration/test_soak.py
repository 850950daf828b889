"""The soak runs, and closes: a short one, with faults that have nothing to do with how fast the machine is."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from twisted.trial.unittest import TestCase

from tests.support.gateway import ROOT
from tests.support.process import run
from tests.support.rabbitmq import missing


class SoakTests(TestCase):
    skip = missing or None
    timeout = 240

    async def test_a_short_one(self) -> None:
        figures = Path(self.mktemp()).absolute()
        finished = await run(
            *(sys.executable, "-m", "benchmarks.soak", "--minutes", "0.25", "--queue-type", "classic"),
            *("--only", "daemon-killed,connections-closed,target-deleted", "--seed", "4", "--json", str(figures)),
            cwd=ROOT,
            timeout=self.timeout - 10,
            check=False,
        )
        self.assertEqual(finished.status, 0, finished.stdout + finished.stderr)
        told = json.loads(figures.read_text())
        self.assertEqual(told["failures"], {})
        self.assertEqual(told["faults"], 2)
        account = told["account"]
        self.assertGreater(account["confirmed"], 1000)
        self.assertGreater(account["delivered"], 600)
        self.assertGreater(account["reasons"]["rate-limited"], 0)
