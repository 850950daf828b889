"""Mercure's active subscriptions: who listens to what, told as it changes, and to be asked for.

House rules. These are the subscriptions at this gateway, made at the hub's own path; each topic selector of a
subscriber is one. When one begins and when it ends, a private update says so, on the stream that all gateways read. It
is news and not data: nobody waits for it, and while the broker is away it is lost and counted. One user's are told at a
bounded rate, however quickly its subscriptions come and go, and of what is over before it was told nothing is told. The
list is always right; who keeps one too reads it first and then follows the updates from its ``lastEventID`` on, of
which some may be in it already.

Whether somebody may see a subscription, in an update or in a list, goes by its path, as a topic:
``/.well-known/mercure/subscriptions/{topic}/{subscriber}``, and in 1.0
``/.well-known/mercure/subscriptions/{match_type}/{match}/{subscriber}``, in all of which all but unreserved characters
are escaped. A subscription is told of in the version of the parameter that made it, and listed for tokens of that.
"""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple
from urllib.parse import quote, unquote_to_bytes

from twisted.internet.defer import Deferred
from twisted.web import http

from amqprouter.clock import Clock
from amqprouter.events.event import EARLIEST, Event
from amqprouter.events.hub import Hub
from amqprouter.events.interest import Selector
from amqprouter.events.subscriber import Subscriber
from amqprouter.events.topic_selector import TopicSelector
from amqprouter.web.mercure.bearers import NO_TOKEN, MercureBearers, forbidden, unauthorized
from amqprouter.web.mercure.bearers import PATH as HUB
from amqprouter.web.mercure.leaf import HubLeaf
from amqprouter.web.mercure.version1 import EVENT_TYPE, Version1
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


class Subscription(NamedTuple):
    """One topic selector of a subscriber: of which kind (`Selector.kind`), its text, and what is told of it besides."""

    kind: str
    text: str
    payload: Any

    @property
    def of_1(self) -> bool:
        """Whether it was asked for in the words of 1.0."""
        return self.kind != TopicSelector.kind

    def path(self, subscriber: str) -> str:
        """Its path, and its topic."""
        return path_of(*((self.kind,) if self.of_1 else ()), self.text, subscriber)

    def document(self, subscriber: str, active: bool = True) -> dict[str, Any]:
        """What is told of it."""
        document: dict[str, Any] = {"id": self.path(subscriber)}
        if self.of_1:
            document |= {"type": "subscription", "match_type": self.kind, "match": self.text}
        else:
            document |= {"type": "Subscription", "topic": self.text}
        document |= {"subscriber": subscriber, "active": active}
        if self.payload is not None:
            document["payload"] = self.payload
        return document

    def event(self, subscriber: str, active: bool) -> Event:
        """The update that tells of its beginning or end."""
        document = self.document(subscriber, active)
        topics = (document["id"],)
        if self.of_1:
            return Event(-1, topics, json.dumps(document).encode(), type=EVENT_TYPE)
        return Event(-1, topics, json.dumps({"@context": _CONTEXT, **document}).encode())


class Active(NamedTuple):
    """One subscriber: its id, and what it asked for."""

    subscriber: str
    subscriptions: tuple[Subscription, ...]


def path_of(*parts: str) -> str:
    """The path of a subscription, or of a list of them."""
    return "/".join((PATH.decode(), *(quote(part, safe="") for part in parts)))


class _News:
    """What is to be told of one user's subscriptions: of those that are active, their beginnings, and of others the
    ends of what was told, of which no more come together than were active at once."""

    __slots__ = ("left", "since", "untold")

    def __init__(self, now: float) -> None:
        self.untold: OrderedDict[tuple[str, str, str, bool], Subscription] = OrderedDict()
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
        self._of_selector: dict[tuple[str, str], dict[str, Subscription]] = {}  # by kind and text, then subscriber
        self._news: dict[str, _News] = {}  # by account
        self._timer: Any = None

    def begin(self, subscriber: Subscriber, selectors: Sequence[Selector], payloads: Sequence[Any]) -> None:
        """One has begun, with a payload for each selector; its end is noticed."""
        different = {
            (selector.kind, selector.text): Subscription(selector.kind, selector.text, payload)
            for selector, payload in zip(selectors, payloads, strict=True)
        }
        active = Active(self._new_id(), tuple(different.values()))
        self._active[active.subscriber] = active
        for each in active.subscriptions:
            self._of_selector.setdefault((each.kind, each.text), {})[active.subscriber] = each
        account = subscriber.account
        # At a stop, which takes its time, everything is told: nobody is there to do so later.
        subscriber.on_gone = (*subscriber.on_gone, lambda: self._end(account, active, subscriber.feed.closed))
        self._announce(account, active, True)

    def all(self, of_1: bool) -> Iterator[tuple[str, Subscription]]:
        """Those of one version, each with its subscriber."""
        some = list(self._active.values())
        return ((active.subscriber, each) for active in some for each in active.subscriptions if each.of_1 is of_1)

    def of_selector(self, kind: str, text: str) -> Iterator[tuple[str, Subscription]]:
        """Those by one topic selector, each with its subscriber."""
        return iter(list(self._of_selector.get((kind, text), {}).items()))

    def one(self, kind: str, text: str, subscriber: str) -> Subscription | None:
        """That of this subscriber by this topic selector."""
        return self._of_selector.get((kind, text), {}).get(subscriber)

    def _end(self, account: str, active: Active, at_once: bool) -> None:
        del self._active[active.subscriber]
        for each in active.subscriptions:
            filed = self._of_selector[each.kind, each.text]
            del filed[active.subscriber]
            if not filed:
                del self._of_selector[each.kind, each.text]
        self._announce(account, active, False, at_once)

    def _announce(self, account: str, active: Active, is_active: bool, at_once: bool = False) -> None:
        now = self._clock.seconds()
        news = self._news.get(account)
        if news is None:
            news = self._news[account] = _News(now)
        untold = news.untold
        for each in active.subscriptions:
            begun = active.subscriber, each.kind, each.text, True
            if is_active or begun not in untold:
                untold[active.subscriber, each.kind, each.text, is_active] = each
            else:  # its beginning was not told yet: then nothing is
                del untold[begun]
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
            (subscriber, _, _, is_active), each = news.untold.popitem(last=False)
            self._tell(each.event(subscriber, is_active))


class SubscriptionsLeaf(HubLeaf):
    """``/.well-known/mercure/subscriptions``, ``…/{topic}`` and ``…/{topic}/{subscriber}``; to bearers of tokens of 1.0
    ``…/{match_type}/{match}`` and ``…/{match_type}/{match}/{subscriber}``."""

    def __init__(
        self,
        subscriptions: Subscriptions,
        bearers: MercureBearers,
        hub: Hub,
        allowed_origins: Collection[str],
        reactor: Any,
    ) -> None:
        super().__init__((b"GET", b"HEAD", b"OPTIONS"), allowed_origins, b"Link")
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
        of_1 = bearer.claims.details is not None
        try:
            parts = [unquote_to_bytes(part).decode() for part in request.path[len(PATH) :].split(b"/")[1:]]
        except UnicodeDecodeError:
            parts = [""]
        if len(parts) not in ((0, 2, 3) if of_1 else (0, 1, 2)) or not all(parts):
            reply_error(request, http.NOT_FOUND, "not found")
            return
        path = path_of(*parts)
        if not bearer.may_see((path,), True):
            if bearer.grant is None:
                unauthorized(request, NO_TOKEN, self._bearers.version1)
            else:
                problem = "the token does not allow to see these subscriptions"
                forbidden(request, problem, self._bearers.version1)
            return
        latest = self._hub.window.latest_offset
        # Not its publisher's own id, if it has one: that may be of an update that is not for everybody's eyes.
        last = EARLIEST if latest is None else str(latest)
        names = parts if of_1 or not parts else [TopicSelector.kind, *parts]
        answer = _Answer1(request, self._bearers.version1, last) if of_1 else _Answer0(request, last)
        if len(names) == 3:
            kind, text, subscriber = names
            found = self._subscriptions.one(kind, text, subscriber)
            if found is None:
                reply_error(request, http.NOT_FOUND, "there is no such subscription")
            else:
                answer.one(found.document(subscriber))
        else:
            every = self._subscriptions.of_selector(*names) if names else self._subscriptions.all(of_1)
            await self._many(request, every, path, answer)

    async def _many(
        self, request: RouterRequest, found: Iterator[tuple[str, Subscription]], path: str, answer: _Answer0 | _Answer1
    ) -> None:
        documents: list[bytes] = []
        size = 0
        while some := [json.dumps(each.document(subscriber)).encode() for subscriber, each in islice(found, AT_ONCE)]:
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
        answer.many(path, documents)


class _Answer0:
    """The documents of 0.x, JSON-LD with the cursor in them."""

    def __init__(self, request: RouterRequest, last: str) -> None:
        self._request = request
        self._last = last

    def one(self, document: Mapping[str, Any]) -> None:
        whole = {"@context": _CONTEXT, **document, "lastEventID": self._last}
        _reply(self._request, json.dumps(whole).encode(), _LD_JSON)

    def many(self, path: str, documents: Sequence[bytes]) -> None:
        head = {"@context": _CONTEXT, "id": path, "type": "Subscriptions", "lastEventID": self._last}
        _reply(self._request, _with_list(head, documents), _LD_JSON)


class _Answer1:
    """The documents of 1.0, JSON with the cursor in a header: what an update tells is what a request gets."""

    def __init__(self, request: RouterRequest, version1: Version1 | None, last: str) -> None:
        self._request = request
        url = HUB.decode() if version1 is None else version1.hub_url
        attributes = f'last-event-id="{last}"; type="{EVENT_TYPE}"; content-type="{JSON.decode()}"'
        request.setHeader(b"Link", f'<{url}>; rel="mercure"; {attributes}'.encode())

    def one(self, document: Mapping[str, Any]) -> None:
        _reply(self._request, json.dumps(document).encode(), JSON)

    def many(self, path: str, documents: Sequence[bytes]) -> None:
        _reply(self._request, _with_list({"id": path, "type": "subscriptions"}, documents), JSON)


def _with_list(head: Mapping[str, Any], documents: Sequence[bytes]) -> bytes:
    parts = json.dumps(head).encode()[:-1], b', "subscriptions": [', b", ".join(documents), b"]}"
    return b"".join(parts)


def _reply(request: RouterRequest, document: bytes, content_type: bytes) -> None:
    request.setHeader(b"Cache-Control", b"private, no-cache")
    reply(request, document, content_type)
