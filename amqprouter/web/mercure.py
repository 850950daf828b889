"""``/.well-known/mercure``: the Mercure protocol, 0.x ("protocol version 8"), over the hub.

House rules. One 401 for everything that can be wrong with a token. A subscriber gets public updates of the topics that
it names, and private ones of these for which its token's selectors have a match, or which the users' ACL lets the
token's subject see: either is enough. Where specification and reference hub differ:

- a publisher's token that does not allow the topics is 403, as specified (the reference: 401);
- an id that is not known is answered with ``earliest``, but what follows is told by an event of the type ``gap`` and
  begins with the next update (the reference sends all that it has);
- a stream begins while the broker is away, from what is in memory: an EventSource would take a 503 for a final no.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.logger import Logger
from twisted.web import http
from twisted.web.server import NOT_DONE_YET

from amqprouter.core.event import Event
from amqprouter.core.interest import Interest
from amqprouter.core.mercure_claims import MercureClaims, read_mercure_claims
from amqprouter.core.topic_selector import TopicSelector
from amqprouter.core.update_form import ReservedTopic, read_update
from amqprouter.errors import BadToken, BrokerUnavailable
from amqprouter.interfaces import Identity
from amqprouter.settings import MercureSettings
from amqprouter.web.bearer import Bearers, Grant, Verified, Verify, token_of
from amqprouter.web.cors import Cors
from amqprouter.web.event_stream import EventStream
from amqprouter.web.hub import EARLIEST, Hub
from amqprouter.web.leaf import Leaf, reply, reply_error
from amqprouter.web.login import ANONYMOUS
from amqprouter.web.request import RouterRequest
from amqprouter.web.sse_resource import Permission, last_event_id
from amqprouter.web.subscriber import MaySee
from amqprouter.web.token_streams import TokenStreams

PATH = b"/.well-known/mercure"
DISCOVERY = b'</.well-known/mercure>; rel="mercure"'
"""The header ``Link`` of pages that have updates."""

CONFIRM_WITHIN = 5.0
"""Seconds in which the broker must confirm an update; it does in milliseconds. The publisher is told 503 then."""
MAX_UNCONFIRMED = 1000
"""Updates on their way to the broker; one more is told 503. Each is kept until the broker has it, however long."""

_FORM = b"application/x-www-form-urlencoded"

PublishUpdate = Callable[[Event], Awaitable[None]]
"""Publishes an update to the event stream and waits for the confirm.

:raises BrokerUnavailable: it cannot be published now.
"""


@dataclass(frozen=True)
class Bearer:
    """Whom a subscription is for: what the token says, and who the users' ACL takes its subject for, if for anybody."""

    claims: MercureClaims
    user: Identity | None = None
    grant: Grant | None = None


class MercureLeaf(Leaf):
    """The hub's resource. `subscribers` and `verify_publisher` are None where no keys are configured."""

    _log = Logger()
    methods = (b"GET", b"HEAD", b"POST", b"OPTIONS")

    def __init__(
        self,
        settings: MercureSettings,
        hub: Hub,
        allows: Permission,
        subscribers: Bearers | None,
        verify_publisher: Verify | None,
        publish: PublishUpdate,
        streams: TokenStreams,
        allowed_origins: Collection[str],
        *,
        reactor: Any,
        random: Callable[[], float],
        random_bits: Callable[[int], int],
    ) -> None:
        super().__init__()
        self._settings = settings
        self._cookie = settings.cookie_name.encode()
        self._hub = hub
        self._allows = allows
        self._subscribers = subscribers
        self._verify_publisher = verify_publisher
        self._publish = publish
        self._streams = streams
        self._cors = Cors(allowed_origins, self.methods, b"Last-Event-ID, Link")
        self._reactor = reactor
        self._random = random
        self._random_bits = random_bits
        self._unconfirmed = 0

    def render(self, request: RouterRequest) -> int:
        """Called by twisted.web."""
        self._cors.mark(request)
        request.setHeader(b"Link", DISCOVERY)
        return super().render(request)

    def respond(self, request: RouterRequest) -> int:
        """Answer by the method."""
        if request.method == b"OPTIONS":
            return self._cors.answer_options(request)
        answer = self._publishing if request.method == b"POST" else self._subscribing
        Deferred.fromCoroutine(answer(request)).addErrback(request.processingFailed)
        return NOT_DONE_YET

    # Subscribing.

    async def _subscribing(self, request: RouterRequest) -> None:
        try:
            bearer = await self.bearer(request)
        except BadToken as error:
            self._unauthorized(request, error.reason)
            return
        if request.gone:
            return
        try:
            interest = self._interest(request.args.get(b"topic", []))
        except ValueError as error:
            reply_error(request, http.BAD_REQUEST, str(error))
            return
        name = ANONYMOUS if bearer.user is None else bearer.user.name
        request.member = "" if bearer.user is None else name
        address = getattr(request.getClientAddress(), "host", "")
        refusal = self._hub.refusal(name, address)
        if refusal is not None:
            request.setHeader(b"Retry-After", b"10")
            reply_error(request, refusal.status, refusal.problem)
            return
        self._stream(request, interest, bearer, name, address)

    async def bearer(self, request: RouterRequest) -> Bearer:
        """Whom a request comes from.

        :raises BadToken: nobody who may subscribe.
        """
        sent = token_of(request, self._cookie)
        if sent is None:
            if self._settings.anonymous:
                return Bearer(MercureClaims())
            raise BadToken("none")
        if self._subscribers is None:
            raise BadToken("no-keys")
        verified = await self._subscribers.verify(sent.token)
        return Bearer(_mercure(verified), self._subscribers.user(verified), Grant(sent.token, verified.good_until))

    def _interest(self, raw: list[bytes]) -> Interest:
        if not raw:
            raise ValueError("the parameter topic is missing")
        if len(raw) > self._settings.max_topics:
            raise ValueError(f"{len(raw)} topics; {self._settings.max_topics} are the most")
        try:
            return Interest(TopicSelector(text.decode()) for text in raw)
        except UnicodeDecodeError:
            raise ValueError("a topic is not UTF-8") from None

    def _may_see(self, bearer: Bearer) -> MaySee:
        claims, user, allows = bearer.claims, bearer.user, self._allows

        def may_see(topics: tuple[str, ...], private: bool) -> bool:
            if not private or claims.may_see(topics):
                return True
            return user is not None and any(allows(user, topic) for topic in topics)

        return may_see

    def _stream(self, request: RouterRequest, interest: Interest, bearer: Bearer, name: str, address: str) -> None:
        request.setHeader(b"Content-Type", b"text/event-stream")
        request.setHeader(b"Cache-Control", b"private, no-cache, no-store, must-revalidate, max-age=0")
        request.setHeader(b"X-Accel-Buffering", b"no")
        if request.method == b"HEAD":
            request.write(b"")
            request.finish()
            return
        last = last_event_id(request)
        stream = EventStream(self._random)
        user = Identity(name) if bearer.user is None else bearer.user
        subscriber = self._hub.subscribe(
            user, interest, self._may_see(bearer), stream, address=address, last_event_id=last
        )
        if last:
            # Any other id than the client's own tells it no more than that something is missing, and may be of an
            # update that it must not know of.
            known = subscriber.resumed_after == last
            request.setHeader(b"Last-Event-ID", (last if known else EARLIEST).encode())
        if bearer.grant is not None:
            self._streams.add(subscriber, bearer.grant)
        stream.begin(request, subscriber)

    # Publishing.

    async def _publishing(self, request: RouterRequest) -> None:
        sent = token_of(request, self._cookie)
        try:
            if sent is None:
                raise BadToken("none")
            claims = _mercure(await _verified(self._verify_publisher, sent.token))
        except BadToken as error:
            self._unauthorized(request, error.reason)
            return
        if request.gone:
            return
        if sent.by_cookie and not self._cors.trusts(request):
            reply_error(request, http.FORBIDDEN, "with a cookie, Origin or Referer must be of an allowed site")
            return
        if (request.getHeader(b"Content-Type") or b"").partition(b";")[0].strip().lower() != _FORM:
            reply_error(request, http.UNSUPPORTED_MEDIA_TYPE, f"the body must be {_FORM.decode()}")
            return
        try:
            content: Any = request.content
            new_id = UUID(int=self._random_bits(128), version=4).urn
            update = read_update(content.read(), new_id, self._settings.max_topics)
        except ReservedTopic as error:
            reply_error(request, http.FORBIDDEN, str(error))
            return
        except ValueError as error:
            reply_error(request, http.BAD_REQUEST, str(error))
            return
        if not claims.may_publish(update.topics):
            reply_error(request, http.FORBIDDEN, "the token does not allow to publish updates of these topics")
            return
        problem = await self._published(update)
        if request.gone:
            return
        if problem:
            request.setHeader(b"Retry-After", b"5")
            reply_error(request, http.SERVICE_UNAVAILABLE, problem)
        else:
            request.setHeader(b"Cache-Control", b"no-store")
            reply(request, update.id.encode(), b"text/plain; charset=utf-8")

    async def _published(self, update: Event) -> str:
        """Publish, and say what went wrong, if anything."""
        if self._unconfirmed >= MAX_UNCONFIRMED:
            return "too many updates are on their way to the broker"
        self._unconfirmed += 1
        answered: Deferred[str] = Deferred()

        async def publish() -> None:
            try:
                await self._publish(update)
                problem = ""
            except BrokerUnavailable as error:
                self._log.warn("an update could not be published: {error}", error=str(error))
                problem = "the broker is away"
            finally:
                self._unconfirmed -= 1
            if not answered.called:
                answered.callback(problem)

        # A publish that has begun is not taken back: the broker may have it.
        Deferred.fromCoroutine(publish()).addErrback(
            lambda failure: self._log.failure("an update could not be published", failure=failure)
        )
        try:
            return await answered.addTimeout(CONFIRM_WITHIN, self._reactor)
        except DeferredTimeout:
            return "the broker did not confirm the update in time; it may still be published"

    def _unauthorized(self, request: RouterRequest, reason: str) -> None:
        self._log.debug("no token, or a bad one: {reason}", reason=reason)
        if not request.gone:
            request.setHeader(b"WWW-Authenticate", b'Bearer realm="amqprouter"')
            reply_error(request, http.UNAUTHORIZED, "a good token is needed")


async def _verified(verify: Verify | None, token: bytes) -> Verified:
    if verify is None:
        raise BadToken("no-keys")
    return await verify(token)


def _mercure(verified: Verified) -> MercureClaims:
    try:
        return read_mercure_claims(verified.claims)
    except ValueError:
        raise BadToken("bad-claims") from None
