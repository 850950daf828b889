"""SIGHUP while there is nothing yet that could read its configuration again.

By default it ends a process, and systemd takes that for a clean end. A daemon that starts gets one now and then: from a
tool that has just changed a file, say. So it is caught as the first thing (`amqprouter.tap` takes a second to import),
and what came meanwhile is made good once the daemon runs. Before that, while Python and Twisted start, a process can
only inherit that it ignores the signal, as our systemd unit has it.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable

_came: list[bool] = []


def catch() -> None:
    """From now on SIGHUP is remembered."""
    if hasattr(signal, "SIGHUP") and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGHUP, lambda *_: _came.append(True))


def handle(action: Callable[[], None]) -> None:
    """From now on SIGHUP calls this, from a signal handler; at once if one came since `catch`."""
    if not hasattr(signal, "SIGHUP"):
        return
    signal.signal(signal.SIGHUP, lambda *_: action())
    if _came:
        _came.clear()
        action()


def ignore() -> None:
    """From now on SIGHUP does nothing: the process is about to end."""
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
