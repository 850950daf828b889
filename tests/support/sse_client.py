"""Clients of ``/events`` in numbers: one object a connection, which keeps ids and what it was told."""

from __future__ import annotations

import re
import socket
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from tests.support.process import reactor, until

_FIELD = re.compile(rb"^(id|event|retry): (.*)$", re.M)
_PLACE = re.compile(rb"^id: (\d+)\nevent: place\ndata: .*\n\n", re.M)


def without_places(received: bytes) -> bytes:
    """A part of a stream without the events that tell its place."""
    return _PLACE.sub(b"", received)


class SseClient(Protocol):
    """One connection. It may be given the `ids` of one before, which it resumes."""

    def __init__(self, request: bytes) -> None:
        self.place: int | None = None
        """The latest that it was told; such events are no others of its `ids` and `types`."""
        self.ids: list[int] = []
        self.types: list[bytes] = []
        self.retry = 0
        self.status = 0
        self.over = False
        self._request = request
        self._rest = b""

    def connectionMade(self) -> None:
        transport: Any = self.transport
        transport.write(self._request)

    def dataReceived(self, data: bytes) -> None:
        if not self.status:
            self.status = int(data[9:12])
        whole, end, rest = (self._rest + data).rpartition(b"\n\n")
        self._rest = rest
        for told in _PLACE.findall(whole + end):
            self.place = int(told)
        for name, value in _FIELD.findall(without_places(whole + end)):
            if name == b"id":
                self.ids.append(int(value))
            elif name == b"event":
                self.types.append(value)
            else:
                self.retry = int(value)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.over = True
        if self.status:
            self.dataReceived(b"\n\n")  # the last line may tell when to come back


def request(path: str, authorization: str, last: int | None = None) -> bytes:
    """The bytes of a subscription."""
    resume = "" if last is None else f"Last-Event-ID: {last}\r\n"
    return f"GET {path} HTTP/1.1\r\nHost: test\r\nAuthorization: {authorization}\r\n{resume}\r\n".encode()


async def connect_all(port: int, requests: list[bytes]) -> list[SseClient]:
    """As many clients, all with a response."""
    clients: list[SseClient] = []
    for first in range(0, len(requests), 50):  # a listen backlog
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port)
        some: list[Deferred[Any]] = []
        for each in requests[first : first + 50]:
            client = SseClient(each)
            clients.append(client)
            factory = Factory()
            factory.protocol = lambda client=client: client
            some.append(endpoint.connect(factory))
        await gatherResults(some)

    async def answered() -> bool:
        return all(client.status or client.over for client in clients)

    await until(answered, what="every client has a response", timeout=30)
    return clients


def close_all(clients: list[SseClient]) -> None:
    for client in clients:
        transport: Any = client.transport
        if not client.over and transport is not None:
            transport.abortConnection()


def deaf_client(port: int, data: bytes) -> socket.socket:
    """A connection that never reads, with as small a buffer as can be."""
    deaf = socket.socket()
    deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    deaf.connect(("127.0.0.1", port))
    deaf.sendall(data)
    return deaf
