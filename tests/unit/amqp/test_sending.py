"""What is written at once arrives in order, whatever the socket takes and however it ends."""

from __future__ import annotations

import socket

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.main import CONNECTION_LOST
from twisted.internet.protocol import Protocol
from twisted.internet.tcp import Connection as TcpConnection
from twisted.internet.testing import MemoryReactor, StringTransport
from twisted.trial.unittest import SynchronousTestCase

from amqprouter.amqp.sending import send


class Bed:
    """A Twisted transport on one end of a pair of sockets, with a reactor that has to be told to go on."""

    def __init__(self, room: int = 4096) -> None:
        near, self.far = socket.socketpair()
        near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, room)
        self.far.setblocking(False)
        self.reactor = MemoryReactor()
        self.transport = TcpConnection(near, Protocol(), self.reactor)
        self.transport.connected = True
        self.transport.protocol.makeConnection(self.transport)

    def arrived(self) -> bytes:
        """What the peer can read now."""
        chunks = []
        while True:
            try:
                chunk = self.far.recv(65_536)
            except BlockingIOError:
                break
            if not chunk:
                break
            chunks.append(chunk)
        return b"".join(chunks)

    @property
    def waits(self) -> bool:
        """Whether the reactor is to say when the socket takes more."""
        return self.transport in self.reactor.getWriters()

    def turn(self) -> object:
        """What the reactor does when the socket takes more."""
        return self.transport.doWrite()

    def close(self) -> None:
        self.far.close()
        self.transport.socket.close()


class SendTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.bed = Bed()
        self.addCleanup(self.bed.close)

    def test_at_once(self) -> None:
        """Without the reactor, which is not even asked."""
        send(self.bed.transport, b"frames")
        self.assertEqual(self.bed.arrived(), b"frames")
        self.assertFalse(self.bed.waits)

    def test_much_at_once(self) -> None:
        """More than the transport sends in one turn goes out all the same, where the socket takes it."""
        much = b"x" * (TcpConnection.SEND_LIMIT + 1)
        bed = Bed(4 * len(much))
        self.addCleanup(bed.close)
        send(bed.transport, much)
        self.assertFalse(bed.waits)
        self.assertEqual(bed.arrived(), much)

    @given(st.lists(st.integers(1, 300_000), min_size=1, max_size=8), st.randoms(use_true_random=False))
    def test_in_order(self, sizes: list[int], random: object) -> None:
        """However little the socket takes, and whenever its peer reads."""
        bed = Bed()
        try:
            expected, got = [], []
            for number, size in enumerate(sizes):
                data = bytes((number,)) * size
                expected.append(data)
                send(bed.transport, data)
                if random.random() < 0.5:  # type: ignore[attr-defined]
                    got.append(bed.arrived())
                if bed.waits and random.random() < 0.5:  # type: ignore[attr-defined]
                    self.assertIsNone(bed.turn())
            while bed.waits:
                got.append(bed.arrived())
                self.assertIsNone(bed.turn())
            got.append(bed.arrived())
            self.assertEqual(b"".join(got), b"".join(expected))
        finally:
            bed.close()

    def test_the_peer_is_gone(self) -> None:
        """The reactor meets the error, and nothing is raised here."""
        self.bed.far.close()
        send(self.bed.transport, b"frames")
        self.assertTrue(self.bed.waits)
        self.assertIs(self.bed.turn(), CONNECTION_LOST)

    def test_closing(self) -> None:
        """What was written before the close goes out first, and nothing overtakes it."""
        self.bed.transport.write(b"older")
        self.bed.transport.loseConnection()
        send(self.bed.transport, b", newer")
        self.bed.turn()
        self.assertEqual(self.bed.arrived(), b"older, newer")

    def test_behind_tls(self) -> None:
        """Where the transport encrypts, it has to see the bytes."""
        self.bed.transport.TLS = True
        written: list[bytes] = []
        self.bed.transport.write = written.append  # type: ignore[method-assign]
        send(self.bed.transport, b"secret")
        self.assertEqual((written, self.bed.arrived()), ([b"secret"], b""))

    def test_other_transports(self) -> None:
        transport = StringTransport()
        send(transport, b"frames")
        self.assertEqual(transport.value(), b"frames")
