"""The supervisor's end of a template: orders go out, and what becomes of the processes comes back."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReadDescriptor
from twisted.logger import Logger
from zope.interface import implementer

from amqprouter.processes.template import LONGEST_ORDER


class WatchesTemplate(Protocol):
    """Who is told what a template tells."""

    def forked(self, number: int, pid: int) -> None:
        """The process of this number is this one."""

    def not_forked(self, number: int, problem: str) -> None:
        """There is none, and why."""

    def exited(self, pid: int, status: int) -> None:
        """A process has ended, with this status, or minus the signal."""

    def template_lost(self, link: TemplateLink) -> None:
        """The template has ended; its processes go on."""


class Ends(NamedTuple):
    """A socket pair: ours, and what a child process inherits."""

    ours: socket.socket
    theirs: socket.socket


def order_pair() -> Ends:
    """For orders: messages stay apart, and descriptors can go along."""
    return Ends(*socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))


@implementer(IReadDescriptor)
class TemplateLink:
    """One template. `told` hears of what happens, from the reactor."""

    log = Logger()

    def __init__(self, reactor: Any, orders: socket.socket, told: WatchesTemplate) -> None:
        self._reactor = reactor
        self._orders = orders
        self._orders.setblocking(False)
        self._told = told
        self.is_there = True
        self._ready: Deferred[str] = Deferred()
        reactor.addReader(self)

    def ready(self) -> Deferred[str]:
        """Fires once the template takes orders, with nothing, or with what is wrong where it never will; asked for
        once."""
        return self._ready

    def fork(self, number: int, order: Mapping[str, Any], descriptors: Sequence[int]) -> None:
        """Have a process started, with these descriptors; they can be closed here afterwards.

        :raises OSError: the template cannot be told.
        """
        message = json.dumps({**order, "process": number}).encode()
        socket.send_fds(self._orders, [message], descriptors)

    def kill(self, pid: int, number: int) -> None:
        """Send a signal to a process of this template."""
        with suppress(OSError):  # then all of it is about to end
            if self.is_there:
                self._orders.send(json.dumps({"kill": pid, "signal": number}).encode())
            else:
                os.kill(pid, number)

    def close(self) -> None:
        """Let the template end."""
        if self.is_there:
            self.is_there = False
            self._reactor.removeReader(self)
            self._orders.close()
            if not self._ready.called:
                self._ready.callback("the code cannot be loaded, see the log")

    def doRead(self) -> None:
        """Called by the reactor."""
        while self.is_there:
            try:
                message = self._orders.recv(LONGEST_ORDER)
            except BlockingIOError:
                return
            except ConnectionError:
                message = b""
            if not message:
                self.close()
                self._told.template_lost(self)
                return
            self._hear(json.loads(message))

    def _hear(self, report: Mapping[str, Any]) -> None:
        if "template" in report:
            self._ready.callback(report["template"])
        elif "ended" in report:
            self._told.exited(report["ended"], report["status"])
        elif "problem" in report:
            self._told.not_forked(report["process"], report["problem"])
        else:
            self._told.forked(report["process"], report["pid"])

    def fileno(self) -> int:
        """See `IFileDescriptor`."""
        return self._orders.fileno()

    def connectionLost(self, reason: object) -> None:
        """See `IFileDescriptor`."""
        self.close()

    def logPrefix(self) -> str:
        """See `ILoggingContext`."""
        return "template"
