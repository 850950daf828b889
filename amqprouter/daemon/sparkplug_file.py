"""What Sparkplug births have told, in a file: so that a restart does not take the names away until the next births."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from twisted.application.service import Service
from twisted.internet.defer import succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from amqprouter.clock import Clock
from amqprouter.decoding.sparkplug_names import Births
from amqprouter.files import replace_file

WRITE_EVERY = 10.0
"""Seconds between two writes, when there was a birth: a crash loses the names of so long. A write of all that may be
remembered takes 0.1 s [measured]; the usual hundreds of names, a millisecond."""
MAX_BYTES = 64 * 2**20
"""Of a file that is read: names of a few hundred bytes for as many metrics as are remembered."""


class SparkplugFile(Service):
    """Reads `path` when it is started, and writes it while it runs and when it is stopped.

    :param others: files of other processes, which are read as well: an edge node may have been another's.
    """

    log = Logger()

    def __init__(self, path: str, names: Births, clock: Clock, others: Sequence[str] = ()) -> None:
        self._path = path
        self._others = others
        self._names = names
        self._trouble = ""
        self._writing = LoopingCall(self.write)
        self._writing.clock = cast(IReactorTime, clock)  # it asks for no more than a `Clock` has

    def startService(self) -> None:
        """Know what was known. A file that makes no sense is told of and left alone until there is something new."""
        super().startService()  # type: ignore[no-untyped-call]
        for path in (self._path, *self._others):
            self._read(path)
        self._writing.start(WRITE_EVERY, now=False)

    def _read(self, path: str) -> None:
        try:
            with open(path, "rb") as file:
                content = file.read(MAX_BYTES + 1)
            if len(content) > MAX_BYTES:
                raise ValueError(f"over {MAX_BYTES} bytes")
            self._names.load(content.decode())
        except FileNotFoundError:
            pass
        except (OSError, ValueError, RecursionError) as error:
            self.log.warn(
                "The names of Sparkplug metrics cannot be read from {path}: {error}. Data sent under aliases have none "
                "until the edge nodes' next births; ask for these with the command 'Node Control/Rebirth'",
                path=path,
                error=str(error),
            )

    def stopService(self) -> object:
        """Write what is new."""
        super().stopService()  # type: ignore[no-untyped-call]
        if self._writing.running:
            self._writing.stop()
        self.write()
        return succeed(None)

    def write(self) -> None:
        """Write what is new, if anything is; trouble with that is told once, and it is tried again."""
        if not self._names.changed:
            return
        try:
            replace_file(self._path, self._names.dump().encode())
        except OSError as error:
            self._names.changed = True
            new, self._trouble = not self._trouble, str(error)
            if new:
                self.log.error(
                    "The names of Sparkplug metrics cannot be kept: {error}; without them a restart takes the names of "
                    "what is sent under aliases until the next births. See [decoding] sparkplug_names",
                    error=str(error),
                )
        else:
            self._trouble = ""
