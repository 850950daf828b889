"""What is wrong, or wasted, with a number of processes on this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from amqprouter.settings import Settings

EACH = 45_000_000
"""Bytes that a further process takes, idle (docs/processes.rst, "What it takes")."""
BASE = 80_000_000
"""Bytes of what all share: the supervisor, and all code."""


def count_of(settings: Settings) -> int:
    """How many processes there are to be."""
    return settings.daemon.processes or cores()


def cores() -> int:
    """On how many cores we may run: as the CPU affinity says, which systemd's ``CPUAffinity=`` and containers set."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def process_warnings(settings: Settings, cores: int, memory: int | None) -> Iterator[str]:
    """What an operator should know of ``[daemon] processes``.

    :param cores: on which we may run. :param memory: bytes that are left for us; None where nobody can tell.
    """
    count, shards = settings.daemon.processes or cores, settings.ingress.shards
    told = f"[daemon] processes = {settings.daemon.processes or f'auto, which is {count} here'}"
    if count == 1:
        return
    if count > cores:
        yield (
            f"{told}: we have {cores} core{'' if cores == 1 else 's'}, and more processes "
            "than that only take turns; set auto, or as many as there are"
        )
    if count > shards:
        yield (
            f"{told}: there are {shards} shards, so {count - shards} of the processes have none; set "
            f"[ingress] shards to a multiple of {count}, of which every gateway of the cluster must have as many"
        )
    needed = BASE + count * EACH
    if memory is not None and needed > memory:
        yield (
            f"{told}: they take {needed // 1_000_000} MB before any work; {memory // 1_000_000} MB "
            "are left; set fewer, or give it more (docs/processes.rst)"
        )


def memory_left(proc: str = "/proc", cgroups: str = "/sys/fs/cgroup") -> int | None:
    """Bytes that we may still take: of the machine, and of our control group if that has a limit (``MemoryMax=``)."""
    left = []
    try:
        for line in Path(proc, "meminfo").read_text().splitlines():
            name, _, rest = line.partition(":")
            if name == "MemAvailable":
                left.append(int(rest.split()[0]) * 1024)
    except (OSError, ValueError, IndexError):
        pass
    try:
        group = Path(proc, "self/cgroup").read_text().strip().rpartition("::")[2].lstrip("/")
        folder = Path(cgroups, group)
        limit = (folder / "memory.max").read_text().strip()
        if limit != "max":
            left.append(max(0, int(limit) - int((folder / "memory.current").read_text())))
    except (OSError, ValueError):
        pass
    return min(left, default=None)
