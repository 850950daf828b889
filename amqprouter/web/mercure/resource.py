"""``/.well-known/mercure``: the Mercure protocol over the hub, 0.x ("protocol version 8") and, where the hub has a URL,
1.0 as well. Each request is taken for what it is: which names its parameters have, and of which kind its token is.

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
from typing import Any
from uuid import UUID

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.logger import Logger
from twisted.web import http

from amqprouter.errors import BadToken, BrokerUnavailable
from amqprouter.events.event import EARLIEST, Event
from amqprouter.events.hub import Hub
from amqprouter.events.interest import Interest, Selector
from amqprouter.events.subscriber import Subscriber
from amqprouter.identity import ANONYMOUS, Identity
from amqprouter.net import source_of
from amqprouter.settings import MercureSettings
from amqprouter.web.bearer import Verify
from amqprouter.web.granted_streams import GrantedStreams
from amqprouter.web.mercure.bearers import NO_TOKEN, MercureBearers, Tokens, forbidden, unauthorized
from amqprouter.web.mercure.leaf import HubLeaf
from amqprouter.web.mercure.matchers import Query
from amqprouter.web.mercure.subscriptions import Subscriptions
from amqprouter.web.mercure.update_form import ReservedTopic, Rules, TooLarge, read_update, rules_of_1
from amqprouter.web.mercure.version1 import EVENT_TYPE
from amqprouter.web.preference import SUBSCRIPTIONS, preferred_wait, tell_subscriptions
from amqprouter.web.request import TOO_MANY_REQUESTS, RouterRequest, refuse_unacceptable, reply, reply_error
from amqprouter.web.stream_response import EVENT_STREAM, StreamResponses, last_event_id

CONFIRM_WITHIN = 5.0
"""Seconds in which the broker must confirm an update; it does in milliseconds. The publisher is told 503 then."""
KNOWN_WITHIN = 5.0
"""Seconds that the response's head waits for whether anything is missing, which it is to tell; no proxy loses patience
within these, and mostly it is known at once."""
MAX_UNCONFIRMED = 1000
"""Updates on their way to the broker; one more is told 503. Each is kept until the broker has it, however long."""
MOST_WAITING = 100
"""Updates of one publisher that wait until its token's selectors have been tried on their topics; one more is told 429.
Nearly all are looked at within a millisecond."""

_FORM = b"application/x-www-form-urlencoded"
_LAST_EVENT_ID = (b"Last-Event-ID", b"Mercure-Last-Event-ID")
"""Of responses, in 0.x and in 1.0."""

PublishUpdate = Callable[[Event], Awaitable[None]]
"""Publishes an update to the event stream and waits for the confirm.

:raises BrokerUnavailable: it cannot be published now.
"""


class MercureLeaf(HubLeaf):
    """The hub's resource. `verify_publisher` is None where no keys are configured, `subscriptions` where nobody is to
    know of them."""

    _log = Logger()

    def __init__(
        self,
        settings: MercureSettings,
        hub: Hub,
        bearers: MercureBearers,
        tokens: Tokens,
        verify_publisher: Verify | None,
        publish: PublishUpdate,
        streams: GrantedStreams,
        allowed_origins: Collection[str],
        *,
        reactor: Any,
        random: Callable[[], float],
        random_bits: Callable[[int], int],
        subscriptions: Subscriptions | None = None,
    ) -> None:
        exposed = b"Last-Event-ID, Mercure-Last-Event-ID, Link, " + SUBSCRIPTIONS
        super().__init__((b"GET", b"HEAD", b"POST", b"OPTIONS"), allowed_origins, exposed)
        self._settings = settings
        self._slices = hub.slices
        self._receipts = hub.receipts
        self._responses = StreamResponses(hub, settings.max_topics, random, streams, notices=settings.notices)
        self._bearers = bearers
        self._tokens = tokens
        self._rules = self._rules_of_1 = Rules(settings.max_topics)
        self._version1 = version1 = tokens.version1
        if version1 is not None:
            own = settings.max_topics, version1.is_reserved, EVENT_TYPE
            self._rules = rules_of_1(*own, publisher_of_1=False)
            self._rules_of_1 = rules_of_1(*own, publisher_of_1=True)
        self._verify_publisher = verify_publisher
        self._publish = publish
        self._reactor = reactor
        self._random_bits = random_bits
        self._subscriptions = subscriptions
        self._unconfirmed = 0

    async def answer(self, request: RouterRequest) -> None:
        """Answer by the method."""
        await (self._publishing(request) if request.method == b"POST" else self._subscribing(request))

    # Subscribing.

    async def _subscribing(self, request: RouterRequest) -> None:
        if refuse_unacceptable(request, EVENT_STREAM):
            return
        bearer = await self._bearers.of(request)
        if bearer is None:
            return
        version1 = self._version1
        work = f"{ANONYMOUS} at {source_of(request.client_host)}" if bearer.user is None else bearer.name
        try:
            query = Query(
                request.uri.partition(b"?")[2], self._settings.max_topics, version1.matcher if version1 else None
            )
            selectors: list[Selector] = await self._slices.submit(work, query.selectors())
        except ValueError as error:
            if not request.gone:
                reply_error(request, http.BAD_REQUEST, str(error))
            return
        payloads: list[Any] = []
        if self._subscriptions is not None:
            payloads = await self._slices.submit(work, bearer.claims.payloads([each.text for each in selectors]))
        if request.gone:
            return
        request.member = "" if bearer.user is None else bearer.name
        user = bearer.user or Identity(bearer.name)
        self._responses.begin(
            request,
            user,
            Interest(selectors),
            bearer.may_see,
            bearer.grant,
            lambda subscriber: self._joined(request, subscriber, selectors, payloads),
            bearer.scrutiny,
            KNOWN_WITHIN,
        )

    def _joined(
        self, request: RouterRequest, subscriber: Subscriber, selectors: list[Selector], payloads: list[Any]
    ) -> None:
        last = last_event_id(request)
        if last:
            # Any other id than the client's own tells it no more than that something is missing, and may be of an
            # update that it must not know of.
            known = subscriber.resumed_after == last
            for name in _LAST_EVENT_ID:
                request.setHeader(name, (last if known else EARLIEST).encode())
        if self._subscriptions is not None:
            self._subscriptions.begin(subscriber, selectors, payloads)

    # Publishing.

    async def _publishing(self, request: RouterRequest) -> None:
        version1 = self._version1
        try:
            sent = self._tokens.sent(request)
            if sent is None:
                raise BadToken(NO_TOKEN)
            verified, claims = await self._tokens.read(sent, self._verify_publisher, "publisher")
        except BadToken as error:
            unauthorized(request, error.reason, version1)
            return
        if request.gone:
            return
        if sent.by_cookie and not self.cors.trusts(request):
            reply_error(request, http.FORBIDDEN, "with a cookie, Origin or Referer must be of an allowed site")
            return
        if (request.getHeader(b"Content-Type") or b"").partition(b";")[0].strip().lower() != _FORM:
            reply_error(request, http.UNSUPPORTED_MEDIA_TYPE, f"the body must be {_FORM.decode()}")
            return
        of_1 = claims.details is not None
        try:
            content: Any = request.content
            new_id = UUID(int=self._random_bits(128), version=4).urn
            update = read_update(content.read(), new_id, self._rules_of_1 if of_1 else self._rules)
        except ReservedTopic as error:
            reply_error(request, http.BAD_REQUEST if of_1 else http.FORBIDDEN, str(error))
            return
        except TooLarge as error:
            reply_error(request, http.REQUEST_ENTITY_TOO_LARGE if of_1 else http.BAD_REQUEST, str(error))
            return
        except ValueError as error:
            reply_error(request, http.BAD_REQUEST, str(error))
            return
        account = f"publisher {verified.claims.get('sub', '')}"
        if self._slices.waiting(account) >= MOST_WAITING:
            request.setHeader(b"Retry-After", b"5")
            reply_error(request, TOO_MANY_REQUESTS, "too many updates of this publisher wait to be looked at")
            return
        allowed = await self._slices.submit(account, claims.publishes(update.topics))
        if request.gone:
            return
        if not allowed:
            forbidden(request, "the token does not allow to publish updates of these topics", version1)
            return
        wait = preferred_wait(request)
        written = self._receipts.expect(update.id) if wait else None
        problem = await self._published(update)
        if written is not None:
            if problem:
                written.cancel()
            else:
                await tell_subscriptions(request, written, wait, self._reactor)
        if request.gone:
            return
        if problem:
            request.setHeader(b"Retry-After", b"5")
            reply_error(request, http.SERVICE_UNAVAILABLE, problem)
        else:
            request.setHeader(b"Cache-Control", b"private, no-store")
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
