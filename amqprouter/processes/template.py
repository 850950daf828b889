"""A process out of which gateway processes are forked: everything is imported in it, and nothing runs.

What is imported takes most of a gateway's memory, and a forked process shares it with the one that it comes from, as
long as neither writes there. A process that is started anew has all of it to itself.

Theory of operation. The supervisor sends orders as JSON over a socket pair that keeps messages apart, with the
descriptors that a new process is to have. The template answers them, tells of each process that has ended, and kills:
it alone knows that a process id still means what it did. It ends when the supervisor is gone. It has no reactor and no
thread, for neither outlives a fork in good order; the reactor that imports have made is made anew in each process,
before anything has used it.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, NoReturn

from twisted.logger import Logger

LONGEST_ORDER = 65_536
"""Bytes of an order: some names and paths."""
MOST_DESCRIPTORS = 8
"""Descriptors that come with an order."""
_IGNORED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""Sent to all processes of the service, or of a terminal. It ends by the end of the supervisor."""

Run = Callable[[Mapping[str, Any], list[int]], None]
"""Runs a process to its end: by what the order says, with the descriptors that came with it."""

log = Logger()


def serve(orders: socket.socket, run: Run) -> NoReturn:
    """Fork a process for each order, until nobody is left to give any. Never returns, and runs no exit handlers."""
    status = 1
    try:
        _Template(orders, run).serve()
        status = 0
    except BaseException:  # whatever it is, the caller's code must not go on here
        traceback.print_exc()
    finally:
        os._exit(status)


class _Template:
    def __init__(self, orders: socket.socket, run: Run) -> None:
        self._orders = orders
        self._run = run
        self._children: set[int] = set()
        self._wakes = os.pipe()
        for end in self._wakes:
            os.set_blocking(end, False)

    def serve(self) -> None:
        for number in _IGNORED:
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wakes[1])
        self._orders.setblocking(True)
        self._report(template="")
        with selectors.DefaultSelector() as selector:
            selector.register(self._orders, selectors.EVENT_READ)
            selector.register(self._wakes[0], selectors.EVENT_READ)
            while True:
                ready = {key.fd for key, _ in selector.select()}
                if self._wakes[0] in ready:
                    with suppress(BlockingIOError):
                        os.read(self._wakes[0], 4096)
                    self._reap()
                if self._orders.fileno() in ready and not self._obey(selector):
                    return

    def _obey(self, selector: selectors.BaseSelector) -> bool:
        """One order; whether there may be more."""
        try:
            message, descriptors, _, _ = socket.recv_fds(self._orders, LONGEST_ORDER, MOST_DESCRIPTORS)
        except ConnectionError:
            return False
        if not message:
            return False
        order = json.loads(message)
        if "kill" in order:
            if order["kill"] in self._children:
                os.kill(order["kill"], order["signal"])
        else:
            self._fork(order, descriptors, selector)
        return True

    def _fork(self, order: Mapping[str, Any], descriptors: list[int], selector: selectors.BaseSelector) -> None:
        number = order["process"]
        try:
            pid = os.fork()
        except OSError as error:
            self._report(process=number, problem=f"cannot fork: {error.strerror or error}")
            pid = -1
        if pid == 0:
            status = 1
            try:
                signal.set_wakeup_fd(-1)
                for ignored in (*_IGNORED, signal.SIGCHLD):
                    signal.signal(ignored, signal.SIG_DFL)
                selector.close()
                for descriptor in (self._orders.fileno(), *self._wakes):
                    os.close(descriptor)
                self._run(order, descriptors)
                status = 0
            except BaseException:  # the loop above is the template's
                traceback.print_exc()
            finally:
                os._exit(status)
        for descriptor in descriptors:
            os.close(descriptor)
        if pid > 0:
            self._children.add(pid)
            self._report(process=number, pid=pid)

    def _reap(self) -> None:
        while self._children:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            self._children.discard(pid)
            self._report(ended=pid, status=os.waitstatus_to_exitcode(status))

    def _report(self, **fields: Any) -> None:
        with suppress(ConnectionError):  # then the next reading ends us
            self._orders.send(json.dumps(fields).encode())
