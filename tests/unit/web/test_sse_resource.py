"""``/events`` over memory transports: the way in, the stream, and its end."""

from __future__ import annotations

import re
import weakref
from collections.abc import Iterator
from math import inf
from typing import Any, cast

from twisted.logger import ILogObserver, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from amqprouter.errors import CheckerUnavailable, TooManyGuesses
from amqprouter.events import sse
from amqprouter.events.heartbeats import SPOKES
from amqprouter.settings import EventsSettings, HttpSettings
from amqprouter.web.event_stream import LINGER, MAX_CHATTER
from tests.unit.web.harness import ALICE, Connection, World, event, unchunk


class WayInTests(SynchronousTestCase):
    def test_headers(self) -> None:
        response = World().get("/events", ALICE)
        self.assertEqual(response.status, 200)
        self.assertEqual(response.headers["content-type"], "text/event-stream; charset=utf-8")
        self.assertIn("no-store", response.headers["cache-control"])
        self.assertEqual(response.headers["x-accel-buffering"], "no")
        self.assertNotIn("content-length", response.headers)

    def test_head(self) -> None:
        world = World()
        response = world.get("/events", ALICE, method="HEAD")
        self.assertEqual((response.status, response.body), (200, b""))
        self.assertEqual(response.headers["content-type"], "text/event-stream; charset=utf-8")
        self.assertEqual(len(world.hub.subscribers), 0)

    def test_login_is_needed(self) -> None:
        world = World()
        answers = set()
        for authorization in (
            None,
            "Basic",
            "Basic !!!",
            "Basic /w==",  # not UTF-8
            "Basic " + "YWxpY2U=",  # no colon
            "Basic " + "Ondvbmc=",  # no name
            "Basic " + "YWxpY2U6d3Jvbmc=",  # alice:wrong
            "Basic " + "bm9ib2R5Onc=",  # nobody:w
            "Bearer abc",
        ):
            response = world.get("/events", {} if authorization is None else {"Authorization": authorization})
            answers.add((response.status, response.headers["www-authenticate"], response.body))
        self.assertEqual(answers, {(401, 'Basic realm="amqprouter", charset="UTF-8"', b'{"error": "login needed"}')})
        self.assertEqual(len(world.hub.subscribers), 0)

    def test_anonymous(self) -> None:
        world = World(http=HttpSettings(anonymous=True))
        world.hidden.add(("anonymous", "dev1.up"))
        connection = world.connect()
        connection.get("/events")
        connection.take()
        world.publish(event(0))
        self.assertEqual(connection.take(), b"")
        self.assertEqual(world.get("/events", {"Authorization": "Basic YWxpY2U6d3Jvbmc="}).status, 401)

    def test_the_checker_is_down(self) -> None:
        world = World()
        world.checker_error = CheckerUnavailable("no such file")
        response = world.get("/events", ALICE)
        self.assertEqual(response.status, 503)
        self.assertIn("logins cannot be checked", response.json()["error"])
        self.assertNotIn(b"no such file", response.body)

    def test_too_many_guesses(self) -> None:
        world = World()
        world.checker_error = TooManyGuesses(29.2)
        for path in ("/events", "/", "/status"):
            response = world.get(path, ALICE)
            self.assertEqual((response.status, response.headers["retry-after"]), (429, "30"))
            self.assertEqual(response.json(), {"error": "too many wrong passwords, try again later"})

    def test_the_checker_breaks(self) -> None:
        world = World()
        world.checker_error = RuntimeError("secret")
        response = world.get("/events", ALICE)
        self.assertEqual((response.status, response.body), (500, b'{"error": "internal error"}'))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_bad_patterns(self) -> None:
        for query in ("topic=a..b", "topic=", "topic=a*", "topic=%ff", "topic=" + "a" * 1025, "topic=a&topic=b."):
            response = World().get(f"/events?{query}", ALICE)
            self.assertEqual(response.status, 400, query)
            self.assertIn("topic pattern", response.json()["error"])

    def test_too_many_topics(self) -> None:
        world = World(EventsSettings(max_topics=2))
        self.assertEqual(world.get("/events?topic=a&topic=b", ALICE).status, 200)
        response = world.get("/events?topic=a&topic=b&topic=c", ALICE)
        self.assertEqual((response.status, response.json()), (400, {"error": "3 topics; 2 are the most"}))

    def test_too_many_subscribers(self) -> None:
        world = World(EventsSettings(max_subscribers=1))
        first = world.stream()
        response = world.get("/events", ALICE)
        self.assertEqual((response.status, response.json()), (503, {"error": "too many subscribers"}))
        self.assertIn("retry-after", response.headers)
        first.lose()
        world.stream()

    def test_other_methods(self) -> None:
        response = World().get("/events", ALICE, method="DELETE")
        self.assertEqual(response.status, 405)
        self.assertEqual(response.headers["allow"], "GET, HEAD, OPTIONS")


class OriginTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.world = World(http=HttpSettings(allowed_origins=("https://app.example",)))

    def test_allowed(self) -> None:
        response = self.world.get("/events", {**ALICE, "Origin": "https://app.example"})
        self.assertEqual(response.headers["access-control-allow-origin"], "https://app.example")
        self.assertEqual(response.headers["access-control-allow-credentials"], "true")
        self.assertEqual(response.headers["vary"], "Origin")

    def test_errors_can_be_read_too(self) -> None:
        response = self.world.get("/events", {"Origin": "https://app.example"})
        self.assertEqual(response.status, 401)
        self.assertIn("access-control-allow-origin", response.headers)

    def test_nothing_but_the_exact_origin(self) -> None:
        for origin in ("https://app.example.evil", "http://app.example", "https://app.example:8443", "null", "*"):
            response = self.world.get("/events", {**ALICE, "Origin": origin})
            self.assertNotIn("access-control-allow-origin", response.headers, origin)
            self.assertEqual(response.headers["vary"], "Origin")

    def test_preflight(self) -> None:
        response = self.world.get("/events", {"Origin": "https://app.example"}, method="OPTIONS")
        self.assertEqual(response.status, 204)
        self.assertEqual(response.headers["access-control-allow-methods"], "GET, HEAD, OPTIONS")
        self.assertIn("last-event-id", response.headers["access-control-allow-headers"])

    def test_without_a_list_nobody(self) -> None:
        response = World().get("/events", {**ALICE, "Origin": "https://app.example"})
        self.assertNotIn("access-control-allow-origin", response.headers)


class StreamTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.world = World(EventsSettings(window=10, buffer_bytes=100))

    def publish(self, *offsets: int, key: str = "dev1.up") -> None:
        for offset in offsets:
            self.world.publish(event(offset, key))

    def ids(self, connection: Connection, first: bytes = b"") -> list[str]:
        return re.findall(r"id: (\d+)", (first + unchunk(connection.take())).decode())

    def test_events_arrive(self) -> None:
        connection = self.world.stream("/events?topic=dev1.%23&topic=*.down")
        self.publish(0)
        self.publish(1, key="dev2.down")
        self.publish(2, key="dev2.up")
        self.assertEqual(unchunk(connection.take()), sse.encode(event(0)) + sse.encode(event(1)))

    def test_everything_by_default(self) -> None:
        connection = self.world.stream()
        self.publish(0, key="any.thing.at.all")
        self.assertEqual(self.ids(connection), ["0"])

    def test_resume_by_header_or_query(self) -> None:
        self.publish(0, 1, 2, 3)
        for path, headers in (
            ("/events", {"Last-Event-ID": "1"}),
            ("/events?lastEventID=1", {}),
            ("/events?lastEventID=0", {"Last-Event-ID": "1"}),
            ("/events?lastEventId=1", {}),
            ("/events?last_event_id=1", {}),
            ("/events?Last-Event-ID=1", {}),
            ("/events?lastEventID=0&lastEventId=1", {}),
            ("/events?lastEventId=0", {"last-event-id": "1"}),
        ):
            connection = self.world.stream(path, headers)
            self.assertEqual(self.ids(connection, self.world.first_body), ["2", "3"], path)

    def test_a_gap_is_told(self) -> None:
        self.publish(*range(20, 40))
        self.world.stream(headers={"Last-Event-ID": "3"})
        self.assertTrue(
            self.world.first_body.startswith(
                b'id: 29\nevent: gap\ndata: {"reason": "too old", "resumes_after": 29}\n\n'
            )
        )

    def test_a_bad_id_is_a_gap(self) -> None:
        self.world.stream(headers={"Last-Event-ID": "urn:uuid:\xff"})
        self.assertTrue(self.world.first_body.startswith(b"event: gap\n"))

    def test_permission_is_live(self) -> None:
        connection = self.world.stream()
        self.publish(0)
        self.world.hidden.add(("alice", "dev1.up"))
        self.world.hub.reload()
        self.publish(1)
        self.assertEqual(self.ids(connection), ["0"])

    def test_it_ends_when_a_checker_said(self) -> None:
        for valid_for in (100.0, 0.0, -1.0):
            self.world.valid_for = valid_for
            self.world.stream()
            self.assertEqual(len(self.world.hub.subscribers), 1)
            self.world.clock.advance(max(0.0, valid_for))
            self.assertEqual(len(self.world.hub.subscribers), 0)
        for valid_for in (inf, 1e30):
            self.world.valid_for = valid_for
            self.world.stream()
        self.world.clock.advance(1e6)
        self.assertEqual(len(self.world.hub.subscribers), 2)

    def test_heartbeats(self) -> None:
        """One in every interval for each, and not for all at once."""
        self.world = World(EventsSettings(max_subscribers_per_user=0))
        connections = [self.world.stream() for _ in range(SPOKES)]
        at_once = []
        for _ in range(SPOKES):
            self.world.clock.advance(15 / SPOKES)
            at_once.append(sum(unchunk(connection.take()) == b":\n" for connection in connections))
        self.assertEqual(at_once, [1] * SPOKES)
        self.world.clock.pump([15 / SPOKES] * SPOKES)
        self.assertEqual({unchunk(connection.take()) for connection in connections}, {b":\n"})

    def test_retry_is_jittered(self) -> None:
        randoms: Iterator[float] = iter([0.0, 0.25, 0.999])
        world = World(random=lambda: next(randoms))
        retries = [re.findall(rb"retry: (\d+)", world.get("/events", ALICE).body)[0] for _ in range(3)]
        self.assertEqual(retries, [b"2000", b"2500", b"3998"])

    def test_a_slow_reader_is_cut_and_others_are_not(self) -> None:
        slow, quick = self.world.stream(), self.world.stream()
        slow.block()
        offset = 0
        while not slow.transport.disconnected:
            self.publish(offset)
            offset += 1
            self.assertLess(offset, 20)
        self.assertEqual(slow.take(), b"")
        self.assertEqual(len(self.ids(quick)), offset)
        self.assertEqual(self.world.counters.slow_subscribers, 1)
        slow.lose()
        self.assertEqual(len(self.world.hub.subscribers), 1)

    def test_a_reader_that_catches_up(self) -> None:
        connection = self.world.stream()
        connection.block()
        self.publish(0, 1)
        self.assertEqual(connection.take(), b"")
        connection.unblock()
        self.publish(2)
        self.assertEqual(self.ids(connection), ["0", "1", "2"])

    def test_the_client_leaves(self) -> None:
        connection = self.world.stream()
        connection.lose()
        self.publish(0)
        self.assertEqual(len(self.world.hub.subscribers), 0)
        self.assertEqual(connection.take(), b"")

    def test_the_daemon_stops(self) -> None:
        connection = self.world.stream()
        self.world.hub.close()
        self.assertEqual(unchunk(connection.take()), b"retry: 15000\n")  # and the last chunk, which ends the body
        response = self.world.get("/events", ALICE)
        self.assertEqual((response.status, response.json()), (503, {"error": "shutting down"}))
        self.assertEqual(self.world.get("/healthz").status, 200)

    def test_http_1_0_gets_no_chunks(self) -> None:
        connection = self.world.connect()
        connection.send(f"GET /events HTTP/1.0\r\nAuthorization: {ALICE['Authorization']}\r\n\r\n".encode())
        self.world.publish(event(0))
        head, _, body = connection.take().partition(b"\r\n\r\n")
        self.assertNotIn(b"Transfer-Encoding", head)
        self.assertEqual(body, b":\nretry: 3000\n" + sse.encode(event(0)))
        self.world.hub.close()
        self.assertEqual(connection.take(), b"retry: 15000\n")
        self.assertTrue(connection.transport.disconnecting)

    def test_an_ended_stream_that_nobody_reads_does_not_keep_its_connection(self) -> None:
        connection = self.world.stream()
        [subscriber] = self.world.hub.subscribers
        self.world.hub.end(subscriber)
        self.world.clock.advance(LINGER - 0.1)
        self.assertTrue(connection.transport.disconnecting)
        self.assertFalse(connection.transport.disconnected)
        self.world.clock.advance(0.1)
        self.assertTrue(connection.transport.disconnected)
        before = len(self.world.clock.getDelayedCalls())
        connection = self.world.stream()
        [subscriber] = self.world.hub.subscribers
        self.world.hub.end(subscriber)
        connection.lose()  # all was taken
        self.assertEqual(len(self.world.clock.getDelayedCalls()), before)

    def test_a_client_that_talks_on_is_cut(self) -> None:
        connection = self.world.stream()
        stream = connection.transport.protocol
        stream.dataReceived(b"GET / HTTP/1.1\r\n\r\n")  # sent ahead: it will never be answered
        self.assertFalse(connection.transport.disconnected)
        for _ in range(1 + MAX_CHATTER // 1000):
            stream.dataReceived(b"x" * 1000)
        self.assertTrue(connection.transport.disconnected)

    def test_nothing_holds_the_request(self) -> None:
        """A stream costs its transport, itself and its subscriber."""
        connection = self.world.stream()
        channel = weakref.ref(connection.channel)
        del connection.channel
        self.assertIsNone(channel())

    def test_the_log_tells_of_its_end(self) -> None:
        logged: list[Any] = []
        globalLogPublisher.addObserver(cast(ILogObserver, logged.append))
        self.addCleanup(globalLogPublisher.removeObserver, cast(ILogObserver, logged.append))
        connection = self.world.stream("/events?topic=secret")
        self.assertEqual([formatEvent(line) for line in logged], [])
        self.world.clock.advance(2.5)
        connection.lose()
        self.assertEqual([formatEvent(line) for line in logged], ["192.168.1.1 alice GET /events 200 26 B 2.500 s"])

    def test_heartbeats_end_with_the_site(self) -> None:
        self.world.site.stopFactory()
        self.assertEqual(self.world.clock.getDelayedCalls(), [])
