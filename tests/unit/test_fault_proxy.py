"""The fault proxy of the tests: it must do to a connection what it says, and nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from twisted.internet import error
from twisted.internet.defer import Deferred, DeferredQueue
from twisted.internet.protocol import ClientFactory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.support.fault_proxy import HIGH_WATER, Conditions, FaultProxy, Lane, Link
from tests.support.process import reactor, until


class WritesApart(StringTransport):
    """Remembers each write."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.writes.append(data)


class LaneTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.source, self.sink = WritesApart(), WritesApart()
        self.resets: list[int] = []
        self.lane = Lane(self.clock, self.source, self.sink, Conditions(), lambda: self.resets.append(1))

    def turns(self, count: int = 10) -> None:
        self.clock.pump([0] * count)

    def test_normal(self) -> None:
        self.lane.take(b"one")
        self.lane.take(b"two")
        self.assertEqual(self.sink.writes, [b"one", b"two"])

    def test_slices_leave_one_a_turn_and_in_order(self) -> None:
        self.lane.slice(2)
        self.lane.take(b"abcde")
        self.assertEqual(self.sink.writes, [b"ab"])
        self.lane.take(b"fg")
        self.turns()
        self.assertEqual(self.sink.writes, [b"ab", b"cd", b"e", b"fg"])
        self.lane.take(b"hij")
        self.lane.normal()
        self.lane.take(b"klm")
        self.turns()
        self.assertEqual(self.sink.writes[4:], [b"hi", b"j", b"klm"])

    def test_a_delay_keeps_the_order(self) -> None:
        self.lane.delay(2)
        self.lane.take(b"one")
        self.clock.advance(1)
        self.lane.take(b"two")
        self.clock.advance(0.9)
        self.assertEqual(self.sink.writes, [])
        self.clock.advance(0.1)
        self.assertEqual(self.sink.writes, [b"one"])
        self.lane.normal()
        self.lane.take(b"three")
        self.clock.advance(1)
        self.assertEqual(self.sink.writes, [b"one", b"two", b"three"])

    def test_a_black_hole_swallows_and_stays_one(self) -> None:
        closed: list[int] = []
        self.lane.black_hole()
        self.lane.take(b"lost")
        self.lane.normal()
        self.lane.take(b"after the hole")
        self.lane.end(lambda: closed.append(1))
        self.assertEqual((self.sink.writes, closed, self.lane.swallowed), ([], [], 18))

    def test_a_black_hole_that_swallowed_nothing_passes_again(self) -> None:
        self.lane.black_hole()
        self.lane.normal()
        self.lane.take(b"x")
        self.assertEqual(self.sink.writes, [b"x"])

    def test_reset_at_the_byte(self) -> None:
        done = self.lane.reset_after(5)
        self.lane.take(b"abc")
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.lane.take(b"defg")
        self.lane.take(b"hij")
        self.assertEqual(self.resets, [])
        self.clock.advance(0.1)
        self.assertEqual((b"".join(self.sink.writes), self.resets), (b"abcde", [1]))
        self.assertNoResult(done)
        self.lane.stop()
        self.successResultOf(done)

    def test_reset_at_once(self) -> None:
        self.lane.reset_after(0)
        self.turns(1)
        self.assertEqual(self.resets, [1])

    def test_the_end_comes_behind_what_is_under_way(self) -> None:
        closed: list[int] = []
        self.lane.delay(1)
        self.lane.take(b"last words")
        self.lane.end(lambda: closed.append(1))
        self.assertEqual(closed, [])
        self.clock.advance(1)
        self.assertEqual((self.sink.writes, closed), ([b"last words"], [1]))

    def test_a_full_sink_or_a_full_lane_pauses_the_source(self) -> None:
        self.lane.pauseProducing()
        self.assertEqual(self.source.producerState, "paused")
        self.lane.resumeProducing()
        self.assertEqual(self.source.producerState, "producing")
        self.lane.delay(1)
        self.lane.take(b"x" * (HIGH_WATER + 1))
        self.assertEqual(self.source.producerState, "paused")
        self.clock.advance(1)
        self.assertEqual(self.source.producerState, "producing")

    def test_stopped_it_leaves_nothing_behind(self) -> None:
        self.lane.delay(1)
        self.lane.take(b"x")
        self.lane.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])


class Peer(Protocol):
    """What came, and how it ended."""

    transport: Any

    def __init__(self) -> None:
        self.received = b""
        self.ended: Deferred[Any] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.ended.callback(reason.type)

    async def has(self, data: bytes) -> None:
        async def arrived() -> bool:
            return self.received == data

        await until(arrived, what=f"{data!r} arrives", timeout=5)


class Peers(ClientFactory):
    """Makes peers, as server and as client."""

    noisy = False

    def __init__(self) -> None:
        self.made: DeferredQueue[Peer] = DeferredQueue()
        self.refused: DeferredQueue[Any] = DeferredQueue()

    def buildProtocol(self, addr: object) -> Peer:
        peer = Peer()
        self.made.put(peer)
        return peer

    def clientConnectionFailed(self, connector: object, reason: Failure) -> None:
        self.refused.put(reason.type)


class FaultProxyTests(TestCase):
    timeout = 20

    @asynccontextmanager
    async def proxy(self) -> AsyncIterator[FaultProxy]:
        self.servers, self.clients = Peers(), Peers()
        listener = reactor.listenTCP(0, self.servers, interface="127.0.0.1")
        try:
            async with FaultProxy(listener.getHost().port) as proxy:
                yield proxy
        finally:
            await listener.stopListening()

    async def connected(self, proxy: FaultProxy) -> tuple[Peer, Peer, Link]:
        reactor.connectTCP("127.0.0.1", proxy.port, self.clients)
        client, server = await self.clients.made.get(), await self.servers.made.get()
        link = proxy.links[-1]

        async def complete() -> bool:
            return bool(link.lanes)

        await until(complete, what="the proxy has heard from the server", timeout=5)
        return client, server, link

    async def test_both_ways_and_the_end(self) -> None:
        async with self.proxy() as proxy:
            client, server, link = await self.connected(proxy)
            client.transport.write(b"I am one; ping")
            await server.has(b"I am one; ping")
            self.assertIs(proxy.link(b"I am one"), link)
            with self.assertRaises(LookupError):
                proxy.link(b"I am two")
            server.transport.write(b"pong")
            server.transport.loseConnection()
            self.assertIs(await client.ended, error.ConnectionDone)
            self.assertEqual(client.received, b"pong")

    async def test_slices_and_delay_for_those_that_come_later_too(self) -> None:
        async with self.proxy() as proxy:
            proxy.slice(1)
            proxy.delay(0.05)
            client, server, _ = await self.connected(proxy)
            body = bytes(range(256)) * 10
            began = reactor.seconds()
            client.transport.write(body)
            await server.has(body)
            self.assertGreater(reactor.seconds() - began, 0.05)

    async def test_much_passes_whole(self) -> None:
        async with self.proxy() as proxy:
            client, server, _ = await self.connected(proxy)
            body = bytes(range(256)) * 20_000
            client.transport.write(body)
            await server.has(body)

    async def test_reset(self) -> None:
        """At the byte, and as a reset, not as an orderly end, to both sides."""
        async with self.proxy() as proxy:
            client, server, link = await self.connected(proxy)
            reset = link.to_server.reset_after(3)
            left: list[int] = []
            reset.addCallback(lambda _: left.append(len(proxy.links)))
            client.transport.write(b"abcdef")
            self.assertIs(await server.ended, error.ConnectionLost)
            self.assertIs(await client.ended, error.ConnectionLost)
            self.assertEqual(server.received, b"abc")
            await reset
            self.assertEqual(left, [0], "whoever waits for the reset must not find the connection there still")

    async def test_a_black_hole_hides_even_the_end(self) -> None:
        async with self.proxy() as proxy:
            client, server, link = await self.connected(proxy)
            proxy.black_hole()
            client.transport.write(b"lost")
            client.transport.loseConnection()
            await client.ended
            server.transport.write(b"lost too")

            async def swallowed() -> bool:
                return link.to_client.swallowed > 0

            await until(swallowed, what="both have written", timeout=5)
            self.assertEqual((server.received, client.received, server.ended.called), (b"", b"", False))
            proxy.normal()
            after, _, _ = await self.connected(proxy)
            self.assertFalse(after.ended.called)

    async def test_one_direction_only(self) -> None:
        async with self.proxy() as proxy:
            client, server, link = await self.connected(proxy)
            link.to_client.black_hole()
            server.transport.write(b"lost")
            client.transport.write(b"found")
            await server.has(b"found")
            self.assertEqual(client.received, b"")

    async def test_down_and_up(self) -> None:
        """New ones are refused, those that are there stay, and it comes back at the same port."""
        async with self.proxy() as proxy:
            client, server, _ = await self.connected(proxy)
            port = proxy.port
            await proxy.refuse()
            reactor.connectTCP("127.0.0.1", port, self.clients)
            self.assertIs(await self.clients.refused.get(), error.ConnectionRefusedError)
            client.transport.write(b"still there")
            await server.has(b"still there")
            proxy.normal()
            self.assertEqual(proxy.port, port)
            await self.connected(proxy)

    async def test_a_target_that_is_down(self) -> None:
        async with self.proxy() as proxy:
            pass
        async with FaultProxy(proxy.target_port) as lonely:
            reactor.connectTCP("127.0.0.1", lonely.port, self.clients)
            client = await self.clients.made.get()
            self.assertIs(await client.ended, error.ConnectionLost)

    async def test_uri(self) -> None:
        async with self.proxy() as proxy:
            found = proxy.uri_of("amqp://a%40b:c@127.0.0.1:5672/v%2Fhost?heartbeat=5")
            self.assertEqual(found, f"amqp://a%40b:c@127.0.0.1:{proxy.port}/v%2Fhost?heartbeat=5")
