"""The web endpoint over real sockets: clients that read too slowly, and clients that write too slowly."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

from treq.client import HTTPClient
from twisted.internet import defer
from twisted.internet.endpoints import SSL4ClientEndpoint, TCP4ClientEndpoint, serverFromString
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.ssl import CertificateOptions
from twisted.internet.task import LoopingCall, deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from twisted.web.client import Agent, HTTPConnectionPool

from amqprouter.settings import EventsSettings, HttpSettings
from tests.support.certificates import Authority
from tests.support.process import reactor, until
from tests.support.site import LiveSite, with_site

SUBSCRIBE = b"GET /events HTTP/1.1\r\nHost: test\r\nAuthorization: Basic YWxpY2U6d29uZGVy\r\n\r\n"


class Client(Protocol):
    """Keeps what it receives, and tells when it is over."""

    def __init__(self) -> None:
        self.received = b""
        self.lost: defer.Deferred[None] = defer.Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost.callback(None)


async def subscribed(site: LiveSite, count: int) -> None:
    """Wait until there are this many subscribers."""

    async def enough() -> bool:
        return len(site.hub.subscribers) == count

    await until(enough, what=f"{count} subscribers", timeout=10)


class WebTests(TestCase):
    timeout = 60

    async def connect(self, site: LiveSite) -> Client:
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", site.port)
        client = await endpoint.connect(Factory.forProtocol(Client))
        assert isinstance(client, Client)
        return client

    async def test_a_reader_that_stops_is_cut_and_others_get_everything(self) -> None:
        async with with_site(EventsSettings(buffer_bytes=100_000, window=100)) as site:
            slow, quick = await self.connect(site), await self.connect(site)
            for client in (slow, quick):
                client.transport.write(SUBSCRIBE)  # type: ignore[union-attr]
            await subscribed(site, 2)
            slow.transport.pauseProducing()  # type: ignore[union-attr]
            body = b'"' + b"x" * 50_000 + b'"'
            # The kernel's buffers of both sides take some megabytes before the daemon notices anything.
            while site.counters.slow_subscribers == 0:
                self.assertLess(site.offset, 1000)
                site.publish("dev1", "up", body)
                self.assertLess(sum(subscriber.buffered for subscriber in site.hub.subscribers), 100_001)
                await deferLater(reactor, 0)
            last = b"id: %d\n" % (site.offset - 1)

            async def complete() -> bool:
                return last in quick.received

            await until(complete, what="the quick one has everything", timeout=20)
            self.assertEqual(quick.received.count(b"\nid: "), site.offset)
            self.assertEqual([len(site.hub.subscribers), site.counters.slow_subscribers], [1, 1])
            slow.transport.resumeProducing()  # type: ignore[union-attr]
            await slow.lost
            quick.transport.loseConnection()  # type: ignore[union-attr]
            await quick.lost

    async def test_over_tls(self) -> None:
        """More than the buffers of both sides take at once, so that it blocks and goes on; then the end."""
        events = EventsSettings(buffer_bytes=50_000_000)
        async with with_site(events, tls=Authority().server_options("127.0.0.1")) as site:
            options = CertificateOptions(verify=False)
            endpoint = SSL4ClientEndpoint(reactor, "127.0.0.1", site.port, options)
            client: Any = await endpoint.connect(Factory.forProtocol(Client))
            client.transport.write(SUBSCRIBE)
            await subscribed(site, 1)
            client.transport.pauseProducing()
            body = b'"' + b"x" * 100_000 + b'"'
            for _ in range(100):
                site.publish("dev1", "up", body)
                await deferLater(reactor, 0)
            [subscriber] = site.hub.subscribers
            self.assertTrue(subscriber.paused)
            client.transport.resumeProducing()

            async def complete() -> bool:
                return bool(client.received.count(b"\nid: ") == 100)

            await until(complete, what="everything is there", timeout=20)
            await site.hub.close()
            await client.lost
            self.assertTrue(client.received.endswith(b"\r\n0\r\n\r\n"))

    async def test_tls_by_an_endpoint_string(self) -> None:
        """And HTTP/1.1 even for those who would rather speak HTTP/2."""
        certificate, key = Authority().issue("127.0.0.1")
        folder = Path(self.mktemp())
        folder.mkdir()
        for name, content in (("certificate.pem", certificate), ("key.pem", key)):
            (folder / name).write_bytes(content)
        where = f"ssl:0:interface=127.0.0.1:privateKey={folder}/key.pem:certKey={folder}/certificate.pem"
        async with with_site() as site:
            listener = await serverFromString(reactor, where).listen(site.factory)
            options = CertificateOptions(verify=False, acceptableProtocols=[b"h2", b"http/1.1"])
            endpoint = SSL4ClientEndpoint(reactor, "127.0.0.1", listener.getHost().port, options)
            client: Any = await endpoint.connect(Factory.forProtocol(Client))
            client.transport.write(SUBSCRIBE)
            await subscribed(site, 1)
            site.publish("dev1", "up", b"1")

            async def arrived() -> bool:
                return b"id: 0\n" in client.received

            await until(arrived, what="the event is there", timeout=20)
            self.assertEqual(client.transport.negotiatedProtocol, b"http/1.1")
            client.transport.loseConnection()
            await client.lost
            await listener.stopListening()

    async def test_a_trickled_request_is_cut_at_its_deadline(self) -> None:
        async with with_site(http=HttpSettings(header_timeout=0.5)) as site:
            client = await self.connect(site)
            client.transport.write(b"GET /healthz HTTP/1.1\r\nx: ")  # type: ignore[union-attr]
            trickle = LoopingCall(lambda: client.transport.write(b"y"))  # type: ignore[union-attr]
            begun = reactor.seconds()
            trickle.start(0.05)
            await client.lost
            trickle.stop()
            self.assertGreaterEqual(reactor.seconds() - begun, 0.4)
            self.assertLess(reactor.seconds() - begun, 5)
            self.assertEqual(client.received, b"")

    async def test_a_body_is_refused_while_it_comes(self) -> None:
        async with with_site() as site:
            client = await self.connect(site)
            client.transport.write(  # type: ignore[union-attr]
                b"POST /events HTTP/1.1\r\nHost: test\r\nContent-Length: 1000000000000\r\n\r\n" + b"x" * 10_000
            )
            await client.lost
            self.assertTrue(client.received.startswith(b"HTTP/1.1 405 "), client.received)

    async def test_an_ordinary_client(self) -> None:
        async with with_site() as site:
            client = HTTPClient(Agent(reactor, pool=HTTPConnectionPool(reactor, persistent=False)))
            base = f"http://127.0.0.1:{site.port}"
            for path, status in (("/healthz", 200), ("/readyz", 200), ("/metrics", 200), ("/", 401), ("/nope", 404)):
                response = await client.get(base + path)
                await response.content()
                self.assertEqual(response.code, status, path)

    async def test_leaving_clients_leave_nothing(self) -> None:
        async with with_site() as site:
            for _ in range(20):
                with socket.create_connection(("127.0.0.1", site.port)) as client:
                    client.sendall(SUBSCRIBE)
                    await subscribed(site, 1)
                await subscribed(site, 0)
