"""``/events``: the hub's events as server-sent events."""

from __future__ import annotations

from collections.abc import Callable, Collection

from twisted.web import http

from amqprouter.core.interest import Interest
from amqprouter.core.topic import TopicPattern
from amqprouter.interfaces import Identity
from amqprouter.settings import EventsSettings
from amqprouter.web.accept import refuse_unacceptable
from amqprouter.web.event_stream import EventStream
from amqprouter.web.hub import Hub
from amqprouter.web.leaf import MemberLeaf, reply, reply_error
from amqprouter.web.login import Login
from amqprouter.web.request import RouterRequest
from amqprouter.web.subscriber import MaySee
from amqprouter.web.token_streams import TokenStreams

Permission = Callable[[Identity, str], bool]
"""(user, topic) → whether that user may see private events of that topic: what the users' ACL says."""

EVENT_STREAM = b"text/event-stream"
MAX_PATTERN = 1024
"""Characters of one topic pattern; routing keys have at most 255 bytes (AMQP 0-9-1, section 4.2.5.3)."""


class EventsLeaf(MemberLeaf):
    """``GET /events?topic=PATTERN&topic=…``; ``#`` when no topic is given."""

    methods = (b"GET", b"HEAD", b"OPTIONS")

    def __init__(
        self,
        login: Login,
        hub: Hub,
        settings: EventsSettings,
        allows: Permission,
        allowed_origins: Collection[str],
        random: Callable[[], float],
        streams: TokenStreams | None = None,
    ) -> None:
        """`streams` ends those that are open by the right of a token."""
        super().__init__(login)
        self._streams = streams
        self._hub = hub
        self._settings = settings
        self._allows = allows
        self._allowed_origins = frozenset(origin.encode() for origin in allowed_origins)
        self._random = random

    def respond(self, request: RouterRequest) -> int:
        """Say which other sites may read the answer, then give it."""
        self._allow_origin(request)
        if request.method == b"OPTIONS":
            request.setHeader(b"Allow", b", ".join(self.methods))
            return reply(request, b"", b"text/plain", http.NO_CONTENT)
        return super().respond(request)

    def respond_to(self, request: RouterRequest, user: Identity) -> None:
        """Begin the stream, or say why not."""
        if refuse_unacceptable(request, EVENT_STREAM):
            return
        texts = request.args.get(b"topic", [b"#"])
        if len(texts) > self._settings.max_topics:
            reply_error(request, http.BAD_REQUEST, f"{len(texts)} topics; {self._settings.max_topics} are the most")
            return
        try:
            interest = Interest(_parse_pattern(text) for text in texts)
        except ValueError as error:
            reply_error(request, http.BAD_REQUEST, str(error))
            return
        address = request.client_host
        refusal = self._hub.refusal(user.name, address)
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
            by_acl(self._allows, user),
            stream,
            address=address,
            last_event_id=last_event_id(request),
        )
        if request.grant is not None and self._streams is not None:
            self._streams.add(subscriber, request.grant)
        stream.begin(request, subscriber)

    def _allow_origin(self, request: RouterRequest) -> None:
        if not self._allowed_origins:
            return
        request.setHeader(b"Vary", b"Origin")
        origin = request.getHeader(b"Origin")
        if origin in self._allowed_origins:
            request.setHeader(b"Access-Control-Allow-Origin", origin)
            request.setHeader(b"Access-Control-Allow-Credentials", b"true")
            if request.method == b"OPTIONS":
                request.setHeader(b"Access-Control-Allow-Methods", b"GET, HEAD")
                request.setHeader(b"Access-Control-Allow-Headers", b"authorization, cache-control, last-event-id")
                request.setHeader(b"Access-Control-Max-Age", b"600")


def by_acl(allows: Permission, user: Identity) -> MaySee:
    """What this user may see: public events, and private ones of topics that the ACL allows."""
    return lambda topics, private: not private or any(allows(user, topic) for topic in topics)


def _parse_pattern(raw: bytes) -> TopicPattern:
    if len(raw) > MAX_PATTERN:
        raise ValueError(f"a topic pattern of {len(raw)} bytes; {MAX_PATTERN} are the most")
    try:
        return TopicPattern(raw.decode())
    except UnicodeDecodeError:
        raise ValueError("a topic pattern is not UTF-8") from None


def last_event_id(request: RouterRequest) -> str:
    """The header's, which a reconnecting browser sends, or else the query's, for clients that cannot set headers."""
    raw = request.getHeader(b"Last-Event-ID")
    if raw is None:
        raw = request.args.get(b"lastEventID", [b""])[-1]
    return raw.decode("utf-8", "backslashreplace")
