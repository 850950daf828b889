"""The ports that all processes listen at: the supervisor opens them, and each process adopts them.

One listening socket is inherited by all, rather than one for each with SO_REUSEPORT: a connection that nobody has
accepted yet waits for whoever comes next, also while processes are exchanged, where with SO_REUSEPORT it would wait for
one process alone, and be reset if that one ends. A port that is taken fails the start, where with SO_REUSEPORT a second
service would share it unseen. And UNIX sockets, ports that need root, and sockets of systemd work alike. The kernel
wakes all that wait for the socket, and the one that is first accepts: a process that is busy gets less.

Theory of operation. An endpoint string is a plugin's to understand, and what it comes to is a call of ``listenTCP`` and
the like. So the same string is used on both sides, each with a reactor of which these calls are replaced: here by what
opens a port and never reads it, there by what adopts the open one.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any, NamedTuple

from twisted.application import strports
from twisted.application.service import Service
from twisted.internet import unix
from twisted.internet.endpoints import serverFromString
from twisted.internet.protocol import Factory
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure

BACKLOG = 1024
"""Connections that wait to be accepted: all that come while the processes of a busy gateway are exchanged. The kernel
takes the less of this and net.core.somaxconn."""


class SharedSocket(NamedTuple):
    """A listening socket, open in this process and in those that it forks."""

    descriptor: int
    family: int


class OpeningReactor:
    """A reactor whose ports are opened and not read; `ports` has them."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self.ports: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def _opened(self, port: Any) -> Any:
        port.stopReading()
        self.ports.append(port)
        return port

    def listenTCP(self, port: int, factory: Any, backlog: int = BACKLOG, interface: str = "") -> Any:
        """See `IReactorTCP`."""
        return self._opened(self._reactor.listenTCP(port, factory, max(backlog, BACKLOG), interface))

    def listenSSL(self, port: int, factory: Any, contextFactory: Any, backlog: int = 0, interface: str = "") -> Any:
        """See `IReactorSSL`. TLS is for whoever accepts."""
        return self.listenTCP(port, factory, backlog, interface)

    def listenUNIX(self, address: str, factory: Any, backlog: int = 0, mode: int = 0o666, wantPID: bool = False) -> Any:
        """See `IReactorUNIX`."""
        return self._opened(self._reactor.listenUNIX(address, factory, max(backlog, BACKLOG), mode, wantPID))

    def adoptStreamPort(self, fileDescriptor: int, addressFamily: int, factory: Any) -> Any:
        """See `IReactorSocket`: for what systemd has opened."""
        if addressFamily == socket.AF_UNIX:
            return self._opened(_adopt_unix(self._reactor, fileDescriptor, factory))
        return self._opened(self._reactor.adoptStreamPort(fileDescriptor, addressFamily, factory))

    @property
    def sockets(self) -> list[SharedSocket]:
        """What was opened, in order."""
        return [SharedSocket(port.fileno(), int(port.addressFamily)) for port in self.ports]


class AdoptingReactor:
    """A reactor whose ports are these, in this order, whatever is asked for."""

    def __init__(self, reactor: Any, sockets: Sequence[SharedSocket]) -> None:
        self._reactor = reactor
        self._left = list(sockets)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def _adopt(self, factory: Any) -> Any:
        if not self._left:
            raise OSError("the endpoint listens at more ports than the supervisor has opened: restart the service")
        shared = self._left.pop(0)
        if shared.family == socket.AF_UNIX:
            return _adopt_unix(self._reactor, shared.descriptor, factory)
        return self._reactor.adoptStreamPort(shared.descriptor, shared.family, factory)

    def listenTCP(self, port: int, factory: Any, backlog: int = 0, interface: str = "") -> Any:
        """See `IReactorTCP`."""
        return self._adopt(factory)

    def listenSSL(self, port: int, factory: Any, contextFactory: Any, backlog: int = 0, interface: str = "") -> Any:
        """See `IReactorSSL`."""
        return self._adopt(TLSMemoryBIOFactory(contextFactory, False, factory))

    def listenUNIX(self, address: str, factory: Any, backlog: int = 0, mode: int = 0o666, wantPID: bool = False) -> Any:
        """See `IReactorUNIX`."""
        return self._adopt(factory)

    def adoptStreamPort(self, fileDescriptor: int, addressFamily: int, factory: Any) -> Any:
        """See `IReactorSocket`."""
        return self._adopt(factory)


def open_endpoint(reactor: Any, description: str) -> OpeningReactor:
    """Open what such a string names, at once.

    :raises CannotListenError: it cannot be opened, as the port is taken.
    """
    opening = OpeningReactor(reactor)
    problems: list[Failure] = []
    endpoint: Any = serverFromString(opening, description)
    endpoint.listen(_Nobody()).addErrback(problems.append)
    for problem in problems:
        problem.raiseException()
    return opening


def adopted(reactor: Any, description: str, sockets: Sequence[SharedSocket], factory: Any) -> Service:
    """A service that listens at what the supervisor has opened for such a string."""
    if description.startswith("systemd:"):
        description = "tcp:0"  # such a string means something to the process alone that systemd has started
    adopting: Any = AdoptingReactor(reactor, sockets)
    service: Service = strports.service(description, factory, reactor=adopting)
    return service


class _Nobody(Factory):
    """The supervisor accepts nobody."""

    noisy = False


class _SharedUnixPort(unix.Port):
    """A UNIX socket that others listen at as well. Twisted's own port gives the socket's file the mode that it takes
    for usual when it adopts one, and when it closes it takes the file away and shuts the socket down, for all who have
    it (Twisted 26.10). To one whose name is not a file's it does neither of the first two."""

    _shouldShutdown = False  # as Twisted has it for TCP ports that it adopts

    def __init__(self, reactor: Any, descriptor: int, factory: Any) -> None:
        super().__init__(b"\0shared", factory, reactor=reactor)
        self._preexistingSocket = socket.fromfd(descriptor, socket.AF_UNIX, socket.SOCK_STREAM)


def _adopt_unix(reactor: Any, descriptor: int, factory: Any) -> Any:
    port: Any = _SharedUnixPort(reactor, descriptor, factory)
    port.startListening()
    return port
