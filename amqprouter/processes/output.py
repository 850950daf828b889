"""Where the logs of all processes meet: each writes its lines to a socket, and one process writes them all to the file.

So lines stay whole, and a log file has one writer, which is Twisted's condition for keeping one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.protocol import Protocol

LONGEST_LINE = 65_536
"""Bytes; what is longer is cut into lines of so many, for memory has an end."""


class OutputLines(Protocol):
    """Hands on what a process writes, a line at a time, without line ends."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._rest = b""

    def dataReceived(self, data: bytes) -> None:
        """Some bytes."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        while len(self._rest) > LONGEST_LINE:
            lines.append(self._rest[:LONGEST_LINE])
            self._rest = self._rest[LONGEST_LINE:]
        for line in lines:
            self._write(line.decode("utf-8", "backslashreplace"))

    def connectionLost(self, reason: Any = None) -> None:
        """The process has ended."""
        rest, self._rest = self._rest, b""
        if rest:
            self._write(rest.decode("utf-8", "backslashreplace"))
