"""Who is subscribed at this gateway, and the end of one user's streams: what operators ask, over whichever way."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from amqprouter.events.hub import Hub
from amqprouter.events.subscriber import Subscriber

MOST_LISTED = 1000
"""Subscriptions in one answer, unless told otherwise: as much as anybody reads."""
TOPICS_SHOWN = 10
"""Topics of each: there may be a hundred, of a thousand characters."""
AT_ONCE = 100
"""Streams that are ended in one turn of the reactor: some milliseconds."""

_log = Logger()


def list_subscriptions(
    hub: Hub, may_list: Callable[[str], bool], user: str = "", topic: str = "", most: int = MOST_LISTED
) -> dict[str, object]:
    """Who is subscribed, the longest first, and how many there are; fit for JSON.

    :param may_list: whether the one who asks may know of this user's subscriptions; others are passed over.
    :param user: those of this user alone; empty for all.
    :param topic: those who asked for exactly this topic, pattern or selector; empty for all.
    :param most: how many are listed; all are counted.
    """
    known: dict[str, bool] = {}
    found: list[Subscriber] = []
    for subscriber in hub.subscribers:
        name = subscriber.user
        if user and name != user:
            continue
        if name not in known:
            known[name] = may_list(name)
        if known[name] and (not topic or _asks_for(subscriber, topic)):
            found.append(subscriber)
    return {"count": len(found), "subscriptions": [_shown(subscriber) for subscriber in found[:most]]}


async def end_streams(hub: Hub, user: str, operator: str) -> dict[str, object]:
    """End all streams of this user, now and in order; tells how many there were. Whether the client may come back is
    decided when it does.

    :param operator: who wants it so, for the log.
    """
    mine = [subscriber for subscriber in hub.subscribers if subscriber.user == user]
    ended = 0
    while mine:
        for subscriber in mine[-AT_ONCE:]:
            if not subscriber.gone:
                hub.end(subscriber)
                ended += 1
        del mine[-AT_ONCE:]
        turn: Deferred[None] = Deferred()
        hub.clock.callLater(0, turn.callback, None)
        await turn
    _log.info(
        "The event streams of {member} were ended by {operator}: {count}", member=user, operator=operator, count=ended
    )
    return {"user": user, "ended": ended}


def _asks_for(subscriber: Subscriber, topic: str) -> bool:
    interest = subscriber.interest
    return topic in interest.exact or any(pattern.text == topic for pattern in interest.patterns)


def _shown(subscriber: Subscriber) -> dict[str, object]:
    interest = subscriber.interest
    some = islice((*sorted(interest.exact), *(pattern.text for pattern in interest.patterns)), TOPICS_SHOWN)
    return {
        "user": subscriber.user,
        "address": subscriber.address,
        "topics": list(some),
        "topics_count": len(interest.exact) + len(interest.patterns),
        "live": subscriber.cursor is None,
        "buffered": subscriber.buffered,
    }
