"""The channel's guards: absolute deadlines, no bodies, limits that answer, back-pressure for late producers."""

from __future__ import annotations

from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from amqprouter.settings import HttpSettings
from tests.unit.web.harness import ALICE, Connection, Response, World, event


class DeadlineTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.world = World(http=HttpSettings(header_timeout=15.0))
        self.connection = self.world.connect()

    def test_a_trickle_of_bytes_gains_no_time(self) -> None:
        self.connection.send(b"GET /healthz HTTP/1.1\r\n")
        for second in range(14):
            self.world.clock.advance(1)
            self.connection.send(b"x-%d: y\r\n" % second)
        self.assertFalse(self.connection.transport.disconnecting)
        self.world.clock.advance(1)
        self.assertTrue(self.connection.transport.disconnecting)

    def test_silence(self) -> None:
        self.world.clock.advance(15)
        self.assertTrue(self.connection.transport.disconnecting)

    def test_a_client_that_does_not_let_go_is_aborted(self) -> None:
        self.world.clock.pump([15, 15])
        self.assertTrue(self.connection.transport.disconnected)

    def test_each_request_has_its_own_time(self) -> None:
        for _ in range(3):
            self.world.clock.advance(10)
            self.connection.get("/healthz")
            self.assertEqual(Response(self.connection.take()).status, 200)
        self.world.clock.advance(15)
        self.assertTrue(self.connection.transport.disconnecting)

    def test_a_stream_has_no_deadline(self) -> None:
        connection = self.world.stream()
        self.world.clock.pump([10] * 10)
        self.assertFalse(connection.transport.disconnecting)


class RefusalTests(SynchronousTestCase):
    def refused(self, data: bytes) -> Response:
        connection = World().connect()
        connection.send(data)
        self.assertTrue(connection.transport.disconnecting)
        response = Response(connection.take())
        connection.send(b"GET /healthz HTTP/1.1\r\n\r\n")  # what comes after a refusal is not looked at
        self.assertEqual(connection.take(), b"")
        self.assertIn("error", response.json())
        return response

    def test_a_body_is_refused_before_it_comes(self) -> None:
        response = self.refused(b"GET /events HTTP/1.1\r\nContent-Length: 1000000000000\r\n\r\nabc")
        self.assertEqual(response.status, 413)

    def test_a_chunked_body(self) -> None:
        response = self.refused(b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n")
        self.assertEqual(response.status, 413)

    def test_nobody_is_told_to_go_on(self) -> None:
        response = self.refused(b"POST /events HTTP/1.1\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
        self.assertEqual(response.status, 405)
        self.assertEqual(response.headers["allow"], "GET, HEAD")

    def test_a_long_url(self) -> None:
        self.assertEqual(self.refused(b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n").status, 414)

    def test_a_long_header(self) -> None:
        self.assertEqual(self.refused(b"GET / HTTP/1.1\r\nx: " + b"a" * 20_000 + b"\r\n\r\n").status, 431)

    def test_many_headers(self) -> None:
        connection = World().connect()
        connection.send(b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 600 + b"\r\n")
        self.assertEqual(Response(connection.take()).status, 400)
        self.assertTrue(connection.transport.disconnecting)

    def test_garbage(self) -> None:
        for data in (b"\x16\x03\x01\x02\x00", b"GET", b"GET / HTTP/1.1\r\nno colon", b"GET /\x1b[31m HTTP/1.1"):
            connection = World().connect()
            connection.send(data + b"\r\n\r\n")
            self.assertTrue(connection.transport.disconnecting, data)
            self.assertNotIn(b"Traceback", connection.take())


class BackPressureTests(SynchronousTestCase):
    def test_a_stream_behind_unread_responses_starts_blocked(self) -> None:
        """Requests sent ahead may fill the transport before the stream's turn comes."""

        class Full(StringTransport):
            def write(self, data: bytes) -> None:
                super().write(data)
                if self.producer is not None:
                    self.producer.pauseProducing()

        world = World()
        connection = Connection(world.site, Full())
        connection.get("/events", ALICE)
        connection.take()
        [subscriber] = world.hub.subscribers
        world.publish(event(0))
        self.assertEqual(connection.take(), b"")
        self.assertGreater(subscriber.buffered, 0)
        connection.unblock()
        self.assertIn(b"id: 0\n", connection.take())

    def test_http_2_is_never_offered(self) -> None:
        site = World().site
        self.assertEqual(site.acceptableProtocols(), [b"http/1.1"])
        channel = site.buildProtocol(None)
        transport = StringTransport()
        transport.negotiatedProtocol = b"h2"  # type: ignore[attr-defined]
        channel.makeConnection(transport)
        channel.dataReceived(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        self.assertNotIn(b"200", transport.value())
