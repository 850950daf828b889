"""``/events``: the hub's events as server-sent events."""

from __future__ import annotations

from collections.abc import Callable, Collection

from twisted.web import http

from amqprouter.events.hub import Hub
from amqprouter.events.interest import Interest
from amqprouter.events.subscriber import MaySee
from amqprouter.identity import Identity
from amqprouter.patterns import TopicPattern
from amqprouter.settings import EventsSettings
from amqprouter.web.cors import Cors
from amqprouter.web.granted_streams import GrantedStreams
from amqprouter.web.leaf import MemberLeaf
from amqprouter.web.login import Login
from amqprouter.web.request import RouterRequest, refuse_unacceptable, reply_error
from amqprouter.web.stream_response import EVENT_STREAM, StreamResponses

Permission = Callable[[Identity, str], bool]
"""(user, topic) → whether that user may see private events of that topic: what the users' ACL says."""

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
        streams: GrantedStreams,
    ) -> None:
        """`streams` ends those that are open by a right that ends."""
        super().__init__(login)
        self.cors = Cors(allowed_origins, self.methods)
        self._responses = StreamResponses(hub, settings.max_topics, random, streams)
        self._settings = settings
        self._allows = allows

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
        self._responses.begin(request, user, interest, by_acl(self._allows, user), request.grant)


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
