"""Answering a request with a stream of events: what ``/events`` and the Mercure hub do alike."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.web import http

from amqprouter.events.hub import Hub
from amqprouter.events.interest import Interest
from amqprouter.events.subscriber import MaySee, Scrutiny, Subscriber
from amqprouter.identity import Identity
from amqprouter.web.event_stream import EventStream
from amqprouter.web.granted_streams import GrantedStreams
from amqprouter.web.request import Grant, RouterRequest, reply_error

EVENT_STREAM = b"text/event-stream"
_CONTENT_TYPE = EVENT_STREAM + b"; charset=utf-8"
"""Event streams are always UTF-8, but to libraries that know text in general, such as requests, this means Latin-1
unless it is said."""
EXPRESSIONS_PER_TOPIC = 4
"""Parts of topic selectors that stand for others, on average over as many selectors as one subscription may have."""


def _nothing(subscriber: Subscriber) -> None:
    """For those who need not know."""


class StreamResponses:
    """Begins streams of the hub's events. `random` gives numbers in [0, 1); `streams` ends those that do not
    last for ever; `notices` says whether subscribers are told of gaps and of their place."""

    def __init__(
        self,
        hub: Hub,
        max_topics: int,
        random: Callable[[], float],
        streams: GrantedStreams,
        *,
        notices: bool = True,
    ) -> None:
        self._hub = hub
        self._notices = notices
        self._max_expressions = EXPRESSIONS_PER_TOPIC * max_topics
        self._random = random
        self._streams = streams

    def begin(
        self,
        request: RouterRequest,
        user: Identity,
        interest: Interest,
        may_see: MaySee,
        grant: Grant | None = None,
        joined: Callable[[Subscriber], None] = _nothing,
        scrutiny: Scrutiny | None = None,
        wait: float = 0.0,
    ) -> None:
        """Begin a stream, or say why there is no place for it; `joined` is called before anything is written. For up to
        `wait` seconds, where the response's head is to tell, it is awaited whether anything is missing."""
        if interest.expressions > self._max_expressions:
            problem = f"topics with {interest.expressions} expressions; {self._max_expressions} are the most"
            reply_error(request, http.BAD_REQUEST, problem)
            return
        address = request.client_host
        refusal = self._hub.refusal(user.name, address, interest)
        if refusal is not None:
            request.setHeader(b"Retry-After", b"10")
            reply_error(request, refusal.status, refusal.problem)
            return
        request.setHeader(b"Content-Type", _CONTENT_TYPE)
        request.setHeader(b"Cache-Control", b"private, no-cache, no-store, must-revalidate, max-age=0")
        request.setHeader(b"X-Accel-Buffering", b"no")  # else nginx would hold events back until its buffer is full
        if request.method == b"HEAD":
            request.write(b"")
            request.finish()
            return
        stream = EventStream(self._random)
        subscriber = self._hub.subscribe(
            user,
            interest,
            may_see,
            stream,
            address=address,
            last_event_id=last_event_id(request),
            scrutiny=scrutiny,
            notices=self._notices,
        )
        self._streams.add(subscriber, grant)
        if wait and subscriber.resumed_after is None:
            waiting = self._begin_later(request, subscriber, stream, joined, wait)
            Deferred.fromCoroutine(waiting).addErrback(request.processingFailed)
            return
        joined(subscriber)
        stream.begin(request, subscriber)

    async def _begin_later(
        self,
        request: RouterRequest,
        subscriber: Subscriber,
        stream: EventStream,
        joined: Callable[[Subscriber], None],
        wait: float,
    ) -> None:
        known: Deferred[None] = Deferred()
        gone = request.notifyFinish()
        gone.addErrback(lambda failure: subscriber.close())

        def resumed() -> None:
            if not known.called:
                known.callback(None)

        subscriber.on_resumed = resumed
        subscriber.on_gone = (*subscriber.on_gone, resumed)
        with suppress(DeferredTimeout):  # the head says then that something may be missing
            await known.addTimeout(wait, self._hub.clock)  # type: ignore[arg-type]  # it has what that takes
        subscriber.on_resumed = None
        subscriber.on_gone = tuple(each for each in subscriber.on_gone if each is not resumed)
        if request.gone:
            subscriber.close()
        elif subscriber.gone:
            request.setHeader(b"Retry-After", b"10")
            reply_error(request, http.SERVICE_UNAVAILABLE, "the subscription was ended before it began; ask again")
        else:
            joined(subscriber)
            stream.begin(request, subscriber)


def last_event_id(request: RouterRequest) -> str:
    """The header's, which a reconnecting browser sends, or else the query's, for clients that cannot set headers.

    There it may be spelled ``lastEventID`` (Mercure 0.x), ``lastEventId`` (event-source-polyfill), ``last_event_id``
    (Mercure 1.0), ``Last-Event-ID``, or otherwise by case and separators. The last one counts: libraries add theirs
    behind one that a page has written into the URL, where it grows old.
    """
    raw = request.getHeader(b"Last-Event-ID")
    if raw is None:
        raw = b""
        for name, values in request.args.items():
            if name.lower().translate(None, b"-_") == b"lasteventid":
                raw = values[-1]
    return raw.decode("utf-8", "backslashreplace")
