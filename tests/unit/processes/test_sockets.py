"""Ports that are opened once and adopted by several."""

from __future__ import annotations

import os
import shutil
import socket
import stat
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import TestCase

from amqprouter.processes.sockets import OpeningReactor, adopted, open_endpoint
from tests.support.process import reactor


class _Greets(Factory):
    noisy = False

    def __init__(self, name: bytes) -> None:
        self.name = name

    def buildProtocol(self, addr: object) -> Protocol:
        greeting = self.name

        class Greets(Protocol):
            def connectionMade(self) -> None:
                transport: Any = self.transport
                transport.write(greeting)
                transport.loseConnection()

        return Greets()


class SocketTests(TestCase):
    timeout = 30

    def opened(self, text: str) -> OpeningReactor:
        opening = open_endpoint(reactor, text)
        for port in opening.ports:
            self.addCleanup(port.stopListening)
        return opening

    async def connected(self, family: int, address: Any) -> bytes:
        """What whoever answers there says."""
        heard: Deferred[bytes] = Deferred()

        class Hears(Protocol):
            data = b""

            def dataReceived(self, data: bytes) -> None:
                self.data += data

            def connectionLost(self, reason: object = None) -> None:
                heard.callback(self.data)

        near = socket.socket(family)
        near.connect(address)
        near.setblocking(False)
        reactor.adoptStreamConnection(near.fileno(), family, Factory.forProtocol(Hears))
        near.close()
        return await heard

    async def test_what_waits_is_taken_by_whoever_comes(self) -> None:
        opening = self.opened("tcp:0:interface=127.0.0.1")
        (shared,) = opening.sockets
        address = opening.ports[0].socket.getsockname()
        first = Deferred.fromCoroutine(self.connected(socket.AF_INET, address))
        self.assertNoResult(first)
        service = adopted(reactor, "tcp:0:interface=127.0.0.1", [shared], _Greets(b"one"))
        service.privilegedStartService()
        service.startService()
        self.assertEqual(await first, b"one")
        await service.stopService()
        second = Deferred.fromCoroutine(self.connected(socket.AF_INET, address))  # it waits, and is not refused
        for name in (b"two",):
            other = adopted(reactor, "systemd:domain=INET:index=0", [shared], _Greets(name))
            other.privilegedStartService()
            other.startService()
            self.assertEqual(await second, name)
            await other.stopService()

    async def test_a_taken_port(self) -> None:
        port = self.opened("tcp:0:interface=127.0.0.1").ports[0].socket.getsockname()[1]
        self.assertRaises(CannotListenError, open_endpoint, reactor, f"tcp:{port}:interface=127.0.0.1")

    async def test_a_unix_socket_keeps_its_file_and_mode(self) -> None:
        folder = mkdtemp()
        self.addCleanup(shutil.rmtree, folder)
        path = Path(folder, "web.sock")
        opening = self.opened(f"unix:{path}:mode=660")
        self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o660)
        for name in (b"one", b"two"):
            service = adopted(reactor, f"unix:{path}:mode=660", opening.sockets, _Greets(name))
            service.privilegedStartService()
            service.startService()
            self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o660)
            self.assertEqual(await self.connected(socket.AF_UNIX, str(path)), name)
            await service.stopService()
            self.assertTrue(path.exists())
