"""Mercure's active subscriptions: who listens to what, told as it changes, and to be asked for (0.x, "Active
Subscriptions").

House rules. These are the subscriptions at this gateway, made at the hub's own path; each topic selector of a
subscriber is one. When one begins and when it ends, a private update says so, on the stream that all gateways read. It
is news and not data: nobody waits for it, and while the broker is away it is lost and counted. The list is always
right; who keeps one too reads it first and then follows the updates from its ``lastEventID`` on, of which some may be
in it already.

Whether somebody may see a subscription, in an update or in a list, goes by its path, as a topic:
``/.well-known/mercure/subscriptions/{topic}/{subscriber}``, in both of which all but unreserved characters are escaped.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple
from urllib.parse import quote, unquote_to_bytes

from twisted.internet.defer import Deferred
from twisted.web import http

from amqprouter.core.event import Event
from amqprouter.errors import BadToken
from amqprouter.web.accept import refuse_unacceptable
from amqprouter.web.hub import EARLIEST, Hub
from amqprouter.web.hub_leaf import HubLeaf
from amqprouter.web.mercure_bearers import PATH as HUB
from amqprouter.web.mercure_bearers import MercureBearers, unauthorized
from amqprouter.web.request import JSON, RouterRequest, reply, reply_error
from amqprouter.web.subscriber import Subscriber

PATH = HUB + b"/subscriptions"
MOST_LISTED = 10_000
"""Subscriptions in one list, some megabytes; whoever asks for more is told to ask for one topic."""
AT_ONCE = 200
"""Entries of a list that are made in one turn of the reactor: about 2 ms."""

_LD_JSON = b"application/ld+json"
_CONTEXT = "https://mercure.rocks/"


class Active(NamedTuple):
    """One subscriber: its id, what it asked for, and what its token says of it (``mercure.payload``)."""

    subscriber: str
    topics: tuple[str, ...]
    payload: Any

    def document(self, topic: str, active: bool = True) -> dict[str, Any]:
        """What is told of one of its subscriptions."""
        document: dict[str, Any] = {
            "id": path_of(topic, self.subscriber),
            "type": "Subscription",
            "topic": topic,
            "subscriber": self.subscriber,
            "active": active,
        }
        if self.payload is not None:
            document["payload"] = self.payload
        return document


def path_of(*parts: str) -> str:
    """The path of a subscription, or of a list of them."""
    return "/".join((PATH.decode(), *(quote(part, safe="") for part in parts)))


class Subscriptions:
    """All that are active at this gateway. `tell` publishes an event and never waits; `new_id` gives one to each."""

    def __init__(self, tell: Callable[[Event], object], new_id: Callable[[], str]) -> None:
        self._tell = tell
        self._new_id = new_id
        self._active: dict[str, Active] = {}

    def begin(self, subscriber: Subscriber, topics: Sequence[str], payload: Any) -> None:
        """One has begun; its end is noticed."""
        active = Active(self._new_id(), tuple(dict.fromkeys(topics)), payload)
        self._active[active.subscriber] = active
        subscriber.on_gone = (*subscriber.on_gone, lambda: self._end(active))
        self._announce(active, True)

    def find(self, topic: str | None = None, subscriber: str | None = None) -> Iterator[tuple[Active, str]]:
        """Those of this topic selector and this subscriber, or of any."""
        if subscriber is None:
            some: list[Active] = list(self._active.values())
        else:
            some = [self._active[subscriber]] if subscriber in self._active else []
        return ((active, each) for active in some for each in active.topics if topic in (None, each))

    def _end(self, active: Active) -> None:
        del self._active[active.subscriber]
        self._announce(active, False)

    def _announce(self, active: Active, is_active: bool) -> None:
        for topic in active.topics:
            document = active.document(topic, is_active)
            data = json.dumps({"@context": _CONTEXT, **document}).encode()
            self._tell(Event(-1, (document["id"],), data))


class SubscriptionsLeaf(HubLeaf):
    """``/.well-known/mercure/subscriptions``, ``…/{topic}`` and ``…/{topic}/{subscriber}``."""

    def __init__(
        self,
        subscriptions: Subscriptions,
        bearers: MercureBearers,
        hub: Hub,
        allowed_origins: Collection[str],
        reactor: Any,
    ) -> None:
        super().__init__((b"GET", b"HEAD", b"OPTIONS"), allowed_origins)
        self._subscriptions = subscriptions
        self._bearers = bearers
        self._hub = hub
        self._reactor = reactor

    async def answer(self, request: RouterRequest) -> None:
        """Answer by the path."""
        if refuse_unacceptable(request, _LD_JSON, JSON):
            return
        try:
            bearer = await self._bearers.of(request)
        except BadToken as error:
            unauthorized(request, error.reason)
            return
        if request.gone:
            return
        try:
            parts = [unquote_to_bytes(part).decode() for part in request.path[len(PATH) :].split(b"/")[1:]]
        except UnicodeDecodeError:
            parts = [""]
        if len(parts) > 2 or not all(parts):
            reply_error(request, http.NOT_FOUND, "not found")
            return
        path = path_of(*parts)
        if not bearer.may_see((path,), True):
            if bearer.grant is None:
                unauthorized(request, "none")
            else:
                reply_error(request, http.FORBIDDEN, "the token does not allow to see these subscriptions")
            return
        latest = self._hub.window.latest_offset
        # Not its publisher's own id, if it has one: that may be of an update that is not for everybody's eyes.
        last = EARLIEST if latest is None else str(latest)
        found = self._subscriptions.find(*parts)
        if len(parts) == 2:
            await self._one(request, found, last)
        else:
            await self._many(request, found, path, last)

    async def _one(self, request: RouterRequest, found: Iterator[tuple[Active, str]], last: str) -> None:
        for active, topic in found:
            _reply(request, {"@context": _CONTEXT, **active.document(topic), "lastEventID": last})
            return
        reply_error(request, http.NOT_FOUND, "there is no such subscription")

    async def _many(self, request: RouterRequest, found: Iterator[tuple[Active, str]], path: str, last: str) -> None:
        documents: list[dict[str, Any]] = []
        while some := [active.document(topic) for active, topic in islice(found, AT_ONCE)]:
            documents += some
            if len(documents) > MOST_LISTED:
                problem = f"there are over {MOST_LISTED} subscriptions; ask for those of one topic"
                reply_error(request, http.SERVICE_UNAVAILABLE, problem)
                return
            turn: Deferred[None] = Deferred()
            self._reactor.callLater(0, turn.callback, None)
            await turn
            if request.gone:
                return
        _reply(
            request,
            {
                "@context": _CONTEXT,
                "id": path,
                "type": "Subscriptions",
                "lastEventID": last,
                "subscriptions": documents,
            },
        )


def _reply(request: RouterRequest, document: object) -> None:
    request.setHeader(b"Cache-Control", b"private, no-cache")
    reply(request, json.dumps(document).encode(), _LD_JSON)
