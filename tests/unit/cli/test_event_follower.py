"""Following events: resuming, pausing, giving up."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectError
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseDone
from twisted.web.http_headers import Headers

from amqprouter.cli.event_follower import SILENCE, EventFollower
from amqprouter.cli.sse_reader import ServerSentEvent
from amqprouter.errors import EventsRefused


class FakeResponse:
    """A response whose body the test writes; `closed` once the follower hangs up."""

    def __init__(self, code: int = 200, kind: str = "text/event-stream", content: bytes = b"") -> None:
        self.code = code
        self.headers = Headers({"content-type": [kind]})
        self._content = content
        self.protocol: Protocol | None = None
        self.closed = False

    def content(self) -> Deferred[bytes]:
        return succeed(self._content)

    def deliverBody(self, protocol: Protocol) -> None:
        self.protocol = protocol
        protocol.makeConnection(self)

    def loseConnection(self) -> None:
        self.closed = True
        self.end()

    def write(self, data: bytes) -> None:
        assert self.protocol is not None
        self.protocol.dataReceived(data)

    def end(self) -> None:
        protocol, self.protocol = self.protocol, None
        if protocol is not None:
            protocol.connectionLost(Failure(ResponseDone()))


class EventFollowerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.answers: list[Any] = []
        self.requests: list[dict[str, Any]] = []
        self.taken: list[ServerSentEvent] = []
        self.said: list[str] = []
        self.wanted = 100

    def get(self, url: str, **options: Any) -> Deferred[Any]:
        self.requests.append(options)
        answer = self.answers.pop(0)
        return fail(answer) if isinstance(answer, Exception) else succeed(answer)

    def take(self, event: ServerSentEvent) -> bool:
        self.taken.append(event)
        return len(self.taken) < self.wanted

    def follow(self, *answers: Any, last_id: str = "") -> Deferred[None]:
        self.answers = list(answers)
        follower = EventFollower(
            self.clock,
            "http://h/events",
            ["a.#", "b"],
            ("ann", "pw"),
            take=self.take,
            say=self.said.append,
            random=lambda: 1.0,
            get=self.get,
        )
        return Deferred.fromCoroutine(follower.follow(last_id))

    def test_it_asks_for_what_it_should_and_ends_when_it_has_enough(self) -> None:
        self.wanted = 2
        response = FakeResponse()
        done = self.follow(response, last_id="41")
        request = self.requests[0]
        self.assertEqual(request["params"], [("topic", "a.#"), ("topic", "b")])
        self.assertEqual(request["auth"], ("ann", "pw"))
        self.assertEqual(request["headers"]["Last-Event-ID"], "41")
        response.write(b"id: 42\ndata: x\n\nid: 43\ndata: y\n\nid: 44\ndata: z\n\n")
        self.successResultOf(done)
        self.assertEqual([event.data for event in self.taken], ["x", "y"])
        self.assertTrue(response.closed)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_it_comes_back_behind_the_last_whole_event(self) -> None:
        first, second = FakeResponse(), FakeResponse()
        done = self.follow(first, second)
        self.assertNotIn("Last-Event-ID", self.requests[0]["headers"])
        first.write(b"retry: 3000\n\nid: 6\ndata: x\n\nid: 7\nevent: place\ndata: {}\n\nid: 8\ndata: half")
        first.end()
        self.assertEqual(len(self.requests), 1)
        self.clock.advance(3.0)
        self.assertEqual(self.requests[1]["headers"]["Last-Event-ID"], "7")
        second.write(b"id: 8\ndata: whole\n\n")
        self.assertEqual([event.data for event in self.taken], ["x", "whole"])
        self.assertNoResult(done)
        done.cancel()
        self.failureResultOf(done)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_pauses_grow_while_nobody_answers(self) -> None:
        done = self.follow(*[ConnectError()] * 3, FakeResponse(503), FakeResponse())
        for pause in (4.0, 8.0, 16.0, 30.0):
            before = len(self.requests)
            self.clock.advance(pause - 0.1)
            self.assertEqual(len(self.requests), before)
            self.clock.advance(0.1)
            self.assertEqual(len(self.requests), before + 1)
        self.assertIn("does not answer", self.said[0])
        self.assertIn("status 503", self.said[3])
        done.cancel()
        self.failureResultOf(done)

    def test_a_silent_connection_counts_as_dead(self) -> None:
        first = FakeResponse()
        done = self.follow(first, FakeResponse())
        self.clock.advance(SILENCE - 1)
        first.write(b":\n\n")
        self.clock.advance(SILENCE - 1)
        self.assertFalse(first.closed)
        self.clock.advance(1)
        self.assertTrue(first.closed)
        self.assertIn("not a byte", self.said[0])
        done.cancel()
        self.failureResultOf(done)

    def test_what_asking_again_would_not_help(self) -> None:
        refused = self.failureResultOf(self.follow(FakeResponse(401, content=b"login needed")), EventsRefused)
        self.assertIn("401: login needed", str(refused.value))
        refused = self.failureResultOf(self.follow(FakeResponse(kind="text/html")), EventsRefused)
        self.assertIn("text/html", str(refused.value))
