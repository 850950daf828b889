"""The load client: compiled, started, and read through the counters that it shares."""

from __future__ import annotations

import mmap
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.support.process import Child, until

SOURCE = Path(__file__).parent / "peers" / "sse_load.c"
_HEAD, _BUCKETS = 16, 2048
_ALL = struct.Struct(f"={_HEAD + _BUCKETS}Q")
_ONE = struct.Struct("=Q")


def compile_client(folder: Path) -> Path:
    """The program; needs a C compiler."""
    program = folder / "sse_load"
    subprocess.run(["cc", "-O2", "-o", str(program), str(SOURCE)], check=True)
    return program


@dataclass(frozen=True)
class Snapshot:
    """What the client had counted at a moment."""

    numbers: tuple[int, ...]

    def since(self, earlier: Snapshot) -> list[int]:
        """Events by bucket of latency since then."""
        return [late - early for late, early in zip(self.numbers[_HEAD:], earlier.numbers[_HEAD:], strict=True)]


class Load:
    """Subscribers, in a process of their own."""

    def __init__(self, program: Path, folder: Path, port: int, connections: int, path: str) -> None:
        counters = folder / "counters"
        counters.write_bytes(bytes(_ALL.size))
        self.connections = connections
        with counters.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), _ALL.size)
        command = [str(program), str(port), str(connections), path, str(counters)]
        self.child = Child(command, log=folder / "load.log")

    @property
    def received(self) -> int:
        """Events that have come, over all subscribers."""
        return int(_ONE.unpack_from(self._map, 0)[0])

    @property
    def connected(self) -> int:
        """Subscribers whose response has begun, and that are not lost."""
        return int(_ONE.unpack_from(self._map, 8)[0]) - self.lost

    @property
    def lost(self) -> int:
        """Subscribers that were refused or disconnected."""
        return int(_ONE.unpack_from(self._map, 16)[0])

    def snapshot(self) -> Snapshot:
        return Snapshot(_ALL.unpack(self._map[:]))

    async def all_connected(self) -> None:
        """Wait for all; fail when one is refused."""

        async def connected() -> bool:
            assert not self.lost, f"{self.lost} subscribers were refused or lost"
            return self.connected == self.connections

        await until(connected, what=f"{self.connections} subscribers", timeout=60, child=self.child)

    async def stop(self) -> None:
        await self.child.kill()


def quantile(buckets: list[int], share: float) -> float:
    """Milliseconds within which this share of the events came; as exact as the buckets, which are 3 % wide."""
    left, number = sum(buckets) * share, -1
    if not left:
        return float("nan")
    while left > 0:
        number += 1
        left -= buckets[number]
    if number < 64:
        return number / 1000
    exponent, rest = number // 32 + 4, number % 32
    return (((32 + rest + 1) << (exponent - 5)) - 1) / 1000
