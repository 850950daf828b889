"""What an operator is told of a number of processes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from amqprouter.processes.checks import BASE, EACH, memory_left, process_warnings
from amqprouter.settings import DaemonSettings, IngressSettings, Settings

PLENTY = 10**12


def warnings(processes: int, *, cores: int = 64, shards: int = 64, memory: int | None = PLENTY) -> list[str]:
    settings = replace(Settings(), daemon=DaemonSettings(processes), ingress=IngressSettings(shards=shards))
    return list(process_warnings(settings, cores, memory))


class WarningTests(SynchronousTestCase):
    def test_nothing_to_say(self) -> None:
        self.assertEqual(warnings(1, cores=1, shards=1, memory=0), [])
        self.assertEqual(warnings(4, cores=4, shards=4), [])
        self.assertEqual(warnings(0, cores=1), [])
        self.assertEqual(warnings(2, memory=None), [])

    def test_more_than_there_is_use_for(self) -> None:
        (cores,) = warnings(4, cores=1)
        self.assertIn("[daemon] processes = 4: we have 1 core, and more processes", cores)
        (shards,) = warnings(6, shards=4)
        self.assertIn("there are 4 shards, so 2 of the processes have none", shards)
        self.assertIn("a multiple of 6", shards)
        (automatic,) = warnings(0, cores=8, shards=4)
        self.assertIn("[daemon] processes = auto, which is 8 here: there are 4 shards", automatic)

    def test_memory(self) -> None:
        enough = BASE + 4 * EACH
        self.assertEqual(warnings(4, memory=enough), [])
        (memory,) = warnings(4, memory=enough - 1)
        self.assertIn(f"they take {enough // 1_000_000} MB before any work", memory)


class MemoryTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.proc, self.groups = Path(self.mktemp()), Path(self.mktemp())
        (self.proc / "self").mkdir(parents=True)
        (self.groups / "system.slice/amqprouter.service").mkdir(parents=True)

    def left(self) -> int | None:
        return memory_left(str(self.proc), str(self.groups))

    def test_of_the_machine_and_of_the_group(self) -> None:
        self.assertIsNone(self.left())
        (self.proc / "meminfo").write_text("MemTotal:  100 kB\nMemAvailable:    40 kB\n")
        self.assertEqual(self.left(), 40 * 1024)
        (self.proc / "self/cgroup").write_text("0::/system.slice/amqprouter.service\n")
        group = self.groups / "system.slice/amqprouter.service"
        for limit, left in (("max", 40 * 1024), ("5000", 4000), ("10", 0)):
            (group / "memory.max").write_text(f"{limit}\n")
            (group / "memory.current").write_text("1000\n")
            self.assertEqual(self.left(), left)
