"""Answering a request with a stream of events: what ``/events`` and the Mercure hub do alike."""

from __future__ import annotations

from collections.abc import Callable

from twisted.web import http

from amqprouter.events.hub import Hub
from amqprouter.events.interest import Interest
from amqprouter.events.subscriber import MaySee, Scrutiny, Subscriber
from amqprouter.identity import Identity
from amqprouter.web.event_stream import EventStream
from amqprouter.web.granted_streams import GrantedStreams
from amqprouter.web.request import Grant, RouterRequest, reply_error

EVENT_STREAM = b"text/event-stream"
EXPRESSIONS_PER_TOPIC = 4
"""Parts of topic selectors that stand for others, on average over as many selectors as one subscription may have."""


def _nothing(subscriber: Subscriber) -> None:
    """For those who need not know."""


class StreamResponses:
    """Begins streams of the hub's events. `random` gives numbers in [0, 1); `streams` ends those that are open by a
    right that ends."""

    def __init__(self, hub: Hub, max_topics: int, random: Callable[[], float], streams: GrantedStreams) -> None:
        self._hub = hub
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
    ) -> None:
        """Begin a stream, or say why there is no place for it; `joined` is called before anything is written."""
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
        request.setHeader(b"Content-Type", EVENT_STREAM)
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
        )
        if grant is not None:
            self._streams.add(subscriber, grant)
        joined(subscriber)
        stream.begin(request, subscriber)


def last_event_id(request: RouterRequest) -> str:
    """The header's, which a reconnecting browser sends, or else the query's, for clients that cannot set headers."""
    raw = request.getHeader(b"Last-Event-ID")
    if raw is None:
        raw = request.args.get(b"lastEventID", [b""])[-1]
    return raw.decode("utf-8", "backslashreplace")
