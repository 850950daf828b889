"""The file of what Sparkplug births have told."""

from __future__ import annotations

from pathlib import Path

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from amqprouter.daemon.sparkplug_file import WRITE_EVERY, SparkplugFile
from amqprouter.decoding.sparkplug_names import Births


class SparkplugFileTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = Path(self.mktemp()).absolute()
        self.clock = Clock()

    def start(self) -> tuple[SparkplugFile, Births]:
        names = Births()
        kept = SparkplugFile(str(self.path), names, self.clock)
        kept.startService()
        return kept, names

    def test_what_was_known_is_known_again(self) -> None:
        kept, names = self.start()
        names.born("g", "n", "", [("temp", 1, 10)])
        kept.stopService()
        again, names = self.start()
        self.assertEqual(names.metrics("g", "n", "").by_alias, {1: "temp"})
        self.addCleanup(again.stopService)

    def test_what_other_processes_know(self) -> None:
        """It is read, but each writes its own file."""
        own, names = self.start()
        names.born("g", "n", "", [("temp", 1, 10)])
        own.stopService()
        other = Path(self.mktemp()).absolute()
        names = Births()
        kept = SparkplugFile(str(other), names, self.clock, [str(self.path), str(self.path) + ".3"])
        kept.startService()
        self.assertEqual(names.metrics("g", "n", "").by_alias, {1: "temp"})
        before = self.path.read_bytes()
        names.born("g", "m", "", [("speed", 1, 10)])
        kept.stopService()
        self.assertEqual(self.path.read_bytes(), before)
        self.assertIn("speed", other.read_text())

    def test_it_is_written_while_the_daemon_runs(self) -> None:
        kept, names = self.start()
        self.addCleanup(kept.stopService)
        self.clock.advance(WRITE_EVERY)
        self.assertFalse(self.path.exists())  # there was nothing new
        names.born("g", "n", "", [("temp", 1, 10)])
        self.clock.advance(WRITE_EVERY)
        self.assertIn("temp", self.path.read_text())

    def test_a_file_that_makes_no_sense_is_left_alone(self) -> None:
        for content in (b"{", b"\xff", b"[[1]]"):
            self.path.write_bytes(content)
            kept, names = self.start()
            kept.stopService()
            self.assertEqual((len(names), self.path.read_bytes()), (0, content))

    def test_a_folder_that_is_not_there(self) -> None:
        self.path = self.path / "missing" / "sparkplug.json"
        kept, names = self.start()
        names.born("g", "n", "", [("temp", 1, 10)])
        self.clock.advance(WRITE_EVERY)
        self.path.parent.mkdir(parents=True)
        self.clock.advance(WRITE_EVERY)
        self.assertTrue(self.path.exists())
        kept.stopService()
