"""Mercure's active subscriptions: who listens to what, told as it changes, and to be asked for (0.x, "Active
Subscriptions").

House rules. These are the subscriptions at this gateway, made at the hub's own path; each topic selector of a
subscriber is one. When one begins and when it ends, a private update says so, on the stream that all gateways read. It
is news and not data: nobody waits for it, and while the broker is away it is lost and counted. One user's are told at a
bounded rate, however quickly its subscriptions come and go, and of what is over before it was told nothing is told. The
list is always right; who keeps one too reads it first and then follows the updates from its ``lastEventID`` on, of
which some may be in it already.

Whether somebody may see a subscription, in an update or in a list, goes by its path, as a topic:
``/.well-known/mercure/subscriptions/{topic}/{subscriber}``, in both of which all but unreserved characters are escaped.
"""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple
from urllib.parse import quote, unquote_to_bytes

from twisted.internet.defer import Deferred
from twisted.web import http

from amqprouter.clock import Clock
from amqprouter.events.event import EARLIEST, Event
from amqprouter.events.hub import Hub
from amqprouter.events.subscriber import Subscriber
from amqprouter.web.mercure.bearers import PATH as HUB
from amqprouter.web.mercure.bearers import MercureBearers, unauthorized
from amqprouter.web.mercure.leaf import HubLeaf
from amqprouter.web.request import JSON, RouterRequest, refuse_unacceptable, reply, reply_error

PATH = HUB + b"/subscriptions"
MOST_LISTED, MOST_LISTED_BYTES = 10_000, 16_777_216
"""Subscriptions in one list, and what they may take in it; whoever asks for more is told to ask for one topic."""
AT_ONCE = 200
"""Entries of a list that are made in one turn of the reactor: about 2 ms."""
TOLD_AT_ONCE, TOLD_EACH_SECOND = 200, 100
"""Of one user's subscriptions: all those of some browser windows, and then so many that nobody is held up by them. Each
is an event, at every gateway."""
TELL_EVERY = 0.1
"""Seconds between two goes at telling the rest."""

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


class _News:
    """What is to be told of one user's subscriptions: of those that are active, their beginnings, and of others the
    ends of what was told, of which no more come together than were active at once."""

    __slots__ = ("left", "since", "untold")

    def __init__(self, now: float) -> None:
        self.untold: OrderedDict[tuple[str, str, bool], Active] = OrderedDict()
        self.left, self.since = float(TOLD_AT_ONCE), now  # how many may be told, and since when

    def may_tell(self, now: float) -> bool:
        """Count one, if it may be told now."""
        if self.left < TOLD_AT_ONCE:
            self.left = min(TOLD_AT_ONCE, self.left + (now - self.since) * TOLD_EACH_SECOND)
        self.since = now
        if self.left < 1.0:
            return False
        self.left -= 1.0
        return True


class Subscriptions:
    """All that are active at this gateway. `tell` publishes an event and never waits; `new_id` gives one to each;
    `clock` is an `IReactorTime`."""

    def __init__(self, tell: Callable[[Event], object], new_id: Callable[[], str], clock: Clock) -> None:
        self._tell = tell
        self._new_id = new_id
        self._clock = clock
        self._active: dict[str, Active] = {}
        self._of_topic: dict[str, dict[str, Active]] = {}
        self._news: dict[str, _News] = {}  # by account
        self._timer: Any = None

    def begin(self, subscriber: Subscriber, topics: Sequence[str], payload: Any) -> None:
        """One has begun; its end is noticed."""
        active = Active(self._new_id(), tuple(dict.fromkeys(topics)), payload)
        self._active[active.subscriber] = active
        for topic in active.topics:
            self._of_topic.setdefault(topic, {})[active.subscriber] = active
        account = subscriber.account
        # At a stop, which takes its time, everything is told: nobody is there to do so later.
        subscriber.on_gone = (*subscriber.on_gone, lambda: self._end(account, active, subscriber.feed.closed))
        self._announce(account, active, True)

    def find(self, topic: str | None = None, subscriber: str | None = None) -> Iterator[tuple[Active, str]]:
        """Those of this topic selector and this subscriber, or of any."""
        filed = self._active if topic is None else self._of_topic.get(topic, {})
        if subscriber is None:
            some: list[Active] = list(filed.values())
        else:
            some = [filed[subscriber]] if subscriber in filed else []
        return ((active, each) for active in some for each in (active.topics if topic is None else (topic,)))

    def _end(self, account: str, active: Active, at_once: bool) -> None:
        del self._active[active.subscriber]
        for topic in active.topics:
            filed = self._of_topic[topic]
            del filed[active.subscriber]
            if not filed:
                del self._of_topic[topic]
        self._announce(account, active, False, at_once)

    def _announce(self, account: str, active: Active, is_active: bool, at_once: bool = False) -> None:
        now = self._clock.seconds()
        news = self._news.get(account)
        if news is None:
            news = self._news[account] = _News(now)
        untold = news.untold
        for topic in active.topics:
            if is_active or (active.subscriber, topic, True) not in untold:
                untold[active.subscriber, topic, is_active] = active
            else:  # its beginning was not told yet: then nothing is
                del untold[active.subscriber, topic, True]
        if at_once:
            news.left = math.inf
        self._tell_some(news, now)
        if self._timer is None and not at_once:
            self._timer = self._clock.callLater(TELL_EVERY, self._go_on)

    def _go_on(self) -> None:
        self._timer = None
        now = self._clock.seconds()
        for account, news in list(self._news.items()):
            self._tell_some(news, now)
            if not news.untold and news.left + (now - news.since) * TOLD_EACH_SECOND >= TOLD_AT_ONCE:
                del self._news[account]
        if self._news:
            self._timer = self._clock.callLater(TELL_EVERY, self._go_on)

    def _tell_some(self, news: _News, now: float) -> None:
        while news.untold and news.may_tell(now):
            (_, topic, is_active), active = news.untold.popitem(last=False)
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
        bearer = await self._bearers.of(request)
        if bearer is None:
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
            document = {"@context": _CONTEXT, **active.document(topic), "lastEventID": last}
            _reply(request, json.dumps(document).encode())
            return
        reply_error(request, http.NOT_FOUND, "there is no such subscription")

    async def _many(self, request: RouterRequest, found: Iterator[tuple[Active, str]], path: str, last: str) -> None:
        documents: list[bytes] = []
        size = 0
        while some := [json.dumps(active.document(topic)).encode() for active, topic in islice(found, AT_ONCE)]:
            documents += some
            size += sum(map(len, some))
            if len(documents) > MOST_LISTED or size > MOST_LISTED_BYTES:
                most = f"{MOST_LISTED} subscriptions, or {MOST_LISTED_BYTES} bytes of them"
                reply_error(request, http.SERVICE_UNAVAILABLE, f"there are over {most}; ask for those of one topic")
                return
            turn: Deferred[None] = Deferred()
            self._reactor.callLater(0, turn.callback, None)
            await turn
            if request.gone:
                return
        head = {"@context": _CONTEXT, "id": path, "type": "Subscriptions", "lastEventID": last}
        parts = (json.dumps(head).encode()[:-1], b', "subscriptions": [', b", ".join(documents), b"]}")
        _reply(request, b"".join(parts))


def _reply(request: RouterRequest, document: bytes) -> None:
    request.setHeader(b"Cache-Control", b"private, no-cache")
    reply(request, document, _LD_JSON)
