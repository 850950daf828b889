"""What the daemon tells whoever started it: systemd, by the protocol of sd_notify(3).

A message is one datagram of lines ``NAME=value`` to the socket in ``NOTIFY_SOCKET``. The protocol is this small, and
is promised to stay; so there is no library in between. The variables are taken out of the environment, so that no
child process speaks for us.

* ``READY=1`` once the daemon's parts are started and its configuration is in force. A broker that is down is no reason
  not to be: the daemon goes on by itself when it is back, and to be ended and started over and over would help nobody.
  ``STATUS=`` says what is not ready for work, as ``/readyz`` does.
* ``RELOADING=1`` before the configuration is read again, and ``READY=1`` after.
* ``STOPPING=1``, and how long that takes at most.
* ``WATCHDOG=1``, twice in the time that systemd grants, while the reactor makes progress: a timer writes a byte into a
  socket pair, and what is told is that it came out at the other end. So a ping stands for timers and sockets being
  served, which all else that the daemon does depends on. That somebody else is down does not keep it back.

House rules. Nothing here raises or waits: a manager that does not listen is no trouble of the daemon's. A message that
the socket has no room for is owed, and goes with the next one.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, MutableMapping, Sequence
from contextlib import suppress
from typing import Any

from twisted.internet.interfaces import IReadDescriptor
from twisted.logger import Logger
from zope.interface import implementer

from amqprouter.interfaces import IReadiness
from amqprouter.pipeline.routes import CONTROL

STATUS_EVERY = 2.0
"""Seconds between two looks at what there is to say in STATUS, which is sent when it has changed."""
MOST_STATUS = 500
"""Characters of STATUS: a few lines in `systemctl status`."""
SOONEST = 0.05
"""Seconds between two pings at least, whatever the manager asks for."""


class Notifier:
    """Sends datagrams to `address`, a path or a name of Linux's abstract namespace that begins with ``@``; none when it
    is empty.

    :param watchdog: seconds without a ping after which the manager ends us; 0 for never.
    :param watched: the process that is to ping; 0 for whichever.
    """

    log = Logger()

    def __init__(self, address: str = "", watchdog: float = 0.0, watched: int = 0) -> None:
        self.watchdog = watchdog if address else 0.0
        self.watched = watched
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._socket: socket.socket | None = None
        self._owed: dict[str, str] = {}
        if address and not address.startswith(("/", "@")):
            self.log.warn("Cannot notify {address!r}: only paths and abstract sockets are known", address=address)
            self._address, self.watchdog = "", 0.0

    @classmethod
    def of(cls, environment: MutableMapping[str, str]) -> Notifier:
        """What the manager asks for in these variables, which are removed."""
        address = environment.pop("NOTIFY_SOCKET", "")
        texts = environment.pop("WATCHDOG_USEC", ""), environment.pop("WATCHDOG_PID", "")
        microseconds, watched = (int(text) if text.isascii() and text.isdigit() else 0 for text in texts)
        return cls(address, microseconds / 1e6, watched)

    def __bool__(self) -> bool:
        return self._address != ""

    def tell(self, **fields: str | int) -> None:
        """Send these, and what is owed; values of texts that a stranger may have written must be one line."""
        if "READY" in fields:  # a reload that was not told of is over
            self._owed.pop("RELOADING", None)
        if not self._address or not (fields or self._owed):
            return
        self._owed |= {name: str(value) for name, value in fields.items()}
        data = "\n".join(f"{name}={value}" for name, value in self._owed.items()).encode("utf-8", "replace")
        try:
            if self._socket is None:
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
                self._socket.setblocking(False)
            self._socket.sendto(data, self._address)
        except BlockingIOError:
            return
        except (OSError, ValueError) as error:
            self.log.warn("Cannot tell the service manager: {error}", error=str(error))
        self._owed.clear()

    def close(self) -> None:
        """Nothing more is told."""
        if self._socket is not None:
            self._socket.close()
        self._address = ""


class ServiceManager:
    """Tells of the daemon's states.

    :param reactor: timers, and descriptors to be read from.
    :param monotonic: nanoseconds of CLOCK_MONOTONIC.
    :param makes_progress: whether all others do that must, at each ping; without a yes there is none.
    """

    def __init__(
        self,
        reactor: Any,
        notifier: Notifier,
        readiness: Sequence[IReadiness],
        *,
        monotonic: Callable[[], int] = time.monotonic_ns,
        makes_progress: Callable[[], bool] = lambda: True,
    ) -> None:
        self._reactor = reactor
        self._notifier = notifier
        self._readiness = readiness
        self._monotonic = monotonic
        self._makes_progress = makes_progress
        self._ready = False
        self._told = ""
        self._remark = ""
        self._timers: dict[Callable[[], None], Any] = {}
        self._beat: _Beat | None = None

    def start(self) -> None:
        """Everything is started: tell so once the reactor turns."""
        if self._notifier:
            self._reactor.callWhenRunning(self._run)

    def _run(self) -> None:
        if not self._notifier:
            return  # stopped already
        self._ready = True
        self._told = self._status()
        self._notifier.tell(READY=1, STATUS=self._told)
        self._again(STATUS_EVERY, self._tell_status)
        if self._notifier.watchdog and self._notifier.watched in (0, os.getpid()):
            self._beat = _Beat(lambda: self._notifier.tell(WATCHDOG=1))
            self._reactor.addReader(self._beat)
            self._pulse()

    def _again(self, seconds: float, action: Callable[[], None]) -> None:
        self._timers[action] = self._reactor.callLater(seconds, action)

    def _tell_status(self) -> None:
        self._again(STATUS_EVERY, self._tell_status)
        status = self._status()
        changed = {} if status == self._told else {"STATUS": status}
        self._told = status
        self._notifier.tell(**changed)

    def _pulse(self) -> None:
        self._again(max(self._notifier.watchdog / 2, SOONEST), self._pulse)
        if self._beat is not None and self._makes_progress():
            self._beat.pulse()

    def _status(self) -> str:
        problems = [f"{part.name}: {problem}" for part in self._readiness if (problem := part.problem())]
        text = f"Not ready for work: {'; '.join(problems)}" if problems else "Ready for work"
        return _one_line(text + self._remark)

    def reloading(self) -> None:
        """The configuration is about to be read again."""
        if self._ready:
            self._notifier.tell(RELOADING=1, MONOTONIC_USEC=self._monotonic() // 1000)

    def reloaded(self, problems: Sequence[str]) -> None:
        """It was, and this is wrong with it."""
        told = f". The configuration was not taken over, for it has problems: {len(problems)}" if problems else ""
        self._remark = told
        if self._ready:
            self._told = self._status()
            self._notifier.tell(READY=1, STATUS=self._told)

    def stopping(self, seconds: float) -> None:
        """The daemon is about to stop, which takes so long at most. Nothing is told afterwards."""
        limit = round(seconds * 1e6)
        if self._notifier:
            self._notifier.tell(STOPPING=1, STATUS="Finishing what is under way", EXTEND_TIMEOUT_USEC=limit)
        self._ready = False
        self._notifier.close()
        for timer in self._timers.values():
            if timer.active():
                timer.cancel()
        if self._beat is not None:
            self._reactor.removeReader(self._beat)
            self._beat.close()


def _one_line(text: str) -> str:
    """Problems quote brokers and files: a line end would begin a field of its own."""
    line = CONTROL.sub(" ", text)
    return line if len(line) <= MOST_STATUS else line[: MOST_STATUS - 1] + "…"


@implementer(IReadDescriptor)
class _Beat:
    """A socket pair; `came` is called when the reactor has read what `pulse` wrote."""

    def __init__(self, came: Callable[[], None]) -> None:
        self._came = came
        self._near, self._far = socket.socketpair()
        for end in (self._near, self._far):
            end.setblocking(False)

    def pulse(self) -> None:
        with suppress(BlockingIOError):  # none of many was read
            self._near.send(b".")

    def doRead(self) -> None:
        try:
            self._far.recv(4096)
        except BlockingIOError:
            return
        self._came()

    def fileno(self) -> int:
        return self._far.fileno()

    def connectionLost(self, reason: object) -> None:
        self.close()

    def logPrefix(self) -> str:
        return "watchdog"

    def close(self) -> None:
        self._near.close()
        self._far.close()
