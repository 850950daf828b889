"""The control socket: a Unix socket for the daemon's own user and root.

House rule: it never keeps the daemon from starting. Messages flow without it, and what is wrong is in the log.

Theory of operation. A socket's file outlives a process that was killed, and binding to it then fails. Whether it is
left over is asked of the kernel: whoever listens holds a lock (flock) on the file with ``.lock`` behind its name, which
ends with the process however it ends. With the lock in hand, a socket that is there belongs to nobody, and is replaced.
A process id in a file, as Twisted's own lock has it, would not do: in a container every daemon has the same.
"""

from __future__ import annotations

import fcntl
import os
import stat
from pathlib import Path
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IProtocolFactory
from twisted.logger import Logger

MODE = 0o600
"""Commands can do what the daemon's owner can, and no less is needed for them; root can always."""


class ControlSocket(Service):
    """Listens at `path` while it runs, or says in the log why it cannot."""

    log = Logger()

    def __init__(self, reactor: Any, path: str, factory: IProtocolFactory) -> None:
        self._reactor = reactor
        self._path = Path(path)
        self._factory = factory
        self._lock = -1
        self._port: Any = None

    def startService(self) -> None:
        super().startService()
        try:
            self._listen()
        except (OSError, CannotListenError) as error:
            self._unlock()
            self.log.warn(
                "No control socket ([control] socket): {error}; `amqprouter status` and the like will not work",
                error=_told(error, self._path),
            )

    def _listen(self) -> None:
        flags = os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
        self._lock = os.open(f"{self._path}.lock", flags, MODE)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            there = self._path.lstat()
        except FileNotFoundError:
            pass
        else:
            if not stat.S_ISSOCK(there.st_mode):
                raise OSError(f"{self._path} is there, and is no socket")
            self._path.unlink()
        self._port = self._reactor.listenUNIX(str(self._path), self._factory, mode=MODE)

    def stopService(self) -> Deferred[None]:
        super().stopService()
        return Deferred.fromCoroutine(self._close())

    async def _close(self) -> None:
        port, self._port = self._port, None
        try:
            if port is not None:
                if not self._path.exists():
                    self._path.touch()  # Twisted takes the file away, and fails where somebody else has
                await port.stopListening()
        finally:
            self._unlock()

    def _unlock(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def _told(error: Exception, path: Path) -> str:
    if isinstance(error, BlockingIOError):
        return f"another daemon listens at {path}; give each a socket of its own"
    if isinstance(error, FileNotFoundError):
        return f"{path.parent} is not there: make it, or set another path, or none to be without"
    return str(error)
