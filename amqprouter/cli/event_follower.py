"""Following the event stream: connected, kept, and connected again from the last event seen.

After a loss the pause is drawn from the whole interval up to a ceiling that grows with each failure, so that after a
restart of the daemon its followers do not come back all at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import treq
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone

from amqprouter.cli.sse_reader import ServerSentEvent, SseReader
from amqprouter.clock import Backoff
from amqprouter.errors import EventsRefused

SILENCE = 60.0
"""Seconds without a byte after which the connection counts as dead: four of the daemon's default heartbeats."""
FIRST_RETRY, MAX_RETRY = 2.0, 30.0
"""Seconds; the ceiling of the first pause, where the server names none, and of the longest."""
CONNECT_TIMEOUT = 15.0
"""Seconds until the response must have begun."""
PLACE = "place"
"""The type of events that say no more than how far the stream has come: for the reader, which keeps their id."""


class EventFollower:
    """Hands each event to `take`, those of the type `PLACE` apart, for as long as `take` returns True; `say` is told of
    trouble."""

    def __init__(
        self,
        reactor: Any,
        url: str,
        topics: Sequence[str],
        login: tuple[str, str] | None,
        *,
        take: Callable[[ServerSentEvent], bool],
        say: Callable[[str], None],
        random: Callable[[], float],
        get: Callable[..., Deferred[Any]] = treq.get,
    ) -> None:
        self._reactor = reactor
        self._url = url
        self._topics = topics
        self._login = login
        self._take = take
        self._say = say
        self._random = random
        self._get = get

    async def follow(self, last_id: str = "") -> None:
        """Follow until `take` has enough. A `last_id` resumes behind that event.

        :raises EventsRefused: the endpoint will not, and asking again would not help.
        """
        reader, failures = SseReader(last_id), 0
        while True:
            body = _Body(self._reactor, reader, self._take)
            try:
                problem = await self._connection(reader.last_id, body)
            finally:
                body.hang_up()
            if body.enough:
                return
            failures = 0 if body.heard else failures + 1
            delay = Backoff(reader.retry or FIRST_RETRY, MAX_RETRY, self._random, chance=1).pause(failures)
            self._say(f"{problem}; connecting again in {delay:.1f} s")
            await deferLater(self._reactor, delay)
            reader = _resumed(reader)

    async def _connection(self, last_id: str, body: _Body) -> str:
        """One connection, to its end; why it ended."""
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
        if last_id:
            headers["Last-Event-ID"] = last_id
        try:
            response = await self._get(
                self._url,
                params=[("topic", topic) for topic in self._topics],
                headers=headers,
                auth=self._login,
                reactor=self._reactor,
                timeout=CONNECT_TIMEOUT,
                unbuffered=True,
                persistent=False,
            )
        except Exception as error:
            return f"{self._url} does not answer: {_words(error)}"
        if response.code >= 500:
            return f"{self._url} answers with status {response.code}"
        if response.code != 200:
            text = (await response.content())[:200].decode("utf-8", "replace")
            raise EventsRefused(f"{self._url} answers with status {response.code}: {text}")
        kind = response.headers.getRawHeaders("content-type", [""])[0]
        if not kind.startswith("text/event-stream"):
            raise EventsRefused(
                f"{self._url} is no event stream but {kind or 'of no content type'}; should it be …/events?"
            )
        response.deliverBody(body)
        return await body.over


def _resumed(reader: SseReader) -> SseReader:
    """A fresh reader, for half an event at the end of one connection is not half of one on the next."""
    fresh = SseReader(reader.last_id)
    fresh.retry = reader.retry
    return fresh


def _words(error: BaseException | None) -> str:
    reasons = getattr(error, "reasons", None)  # of a ResponseFailed
    inner = reasons[0].value if reasons else error
    return str(inner) or type(inner).__name__


class _Body(Protocol):
    """A response's body as it comes."""

    def __init__(self, reactor: Any, reader: SseReader, take: Callable[[ServerSentEvent], bool]) -> None:
        self.over: Deferred[str] = Deferred()
        self.heard = False
        self.enough = False
        self._reactor = reactor
        self._reader = reader
        self._take = take
        self._problem = ""
        self._silence: Any = None

    def connectionMade(self) -> None:
        self._silence = self._reactor.callLater(SILENCE, self._silent)

    def _silent(self) -> None:
        self._problem = f"not a byte for {SILENCE:g} s"
        self.hang_up()

    def dataReceived(self, data: bytes) -> None:
        if self.enough:
            return
        self.heard = True
        self._silence.reset(SILENCE)
        try:
            events = self._reader.feed(data)
        except ValueError as error:
            self._problem = str(error)
            self.hang_up()
            return
        for event in events:
            if event.type != PLACE and not self._take(event):
                self.enough = True
                self.hang_up()
                return

    def hang_up(self) -> None:
        """End the connection, if there is one."""
        if self.transport is not None:
            transport, self.transport = self.transport, None
            transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.transport = None
        if self._silence is not None and self._silence.active():
            self._silence.cancel()
        ended = (
            "the daemon ended the stream" if reason.check(ResponseDone) else f"lost the stream: {_words(reason.value)}"
        )
        if not self.over.called:
            self.over.callback(self._problem or ended)
