"""What operators may ask about event streams over the control socket: ``amqprouter events``."""

from __future__ import annotations

from itertools import islice

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.web import http

from amqprouter.control.site import ControlCommand
from amqprouter.errors import ControlRefused
from amqprouter.events.hub import Hub
from amqprouter.events.subscriber import Subscriber

MOST_LISTED = 1000
"""Subscriptions in one answer, unless told otherwise: as much as anybody reads."""
TOPICS_SHOWN = 10
"""Topics of each: there may be a hundred, of a thousand characters."""
AT_ONCE = 100
"""Streams that are ended in one turn of the reactor: some milliseconds."""


class SubscriptionCommands:
    """The commands, about this gateway's subscriptions alone."""

    _log = Logger()

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def commands(self) -> list[ControlCommand]:
        """All of them."""
        return [ControlCommand("GET", "/events", self.list), ControlCommand("POST", "/events/kick", self.kick)]

    def list(self, user: str = "", topic: str = "", most: str = "") -> dict[str, object]:
        """Who is subscribed, the longest first: all, or those of this user, or those who asked for exactly this topic,
        pattern or selector; and how many there are.

        :raises ControlRefused: `most` is no number.
        """
        if most and not (most.isascii() and most.isdigit() and len(most) < 7):
            raise ControlRefused(http.BAD_REQUEST, f"{most[:80]!r} is no number of subscriptions")
        found = [
            subscriber
            for subscriber in self._hub.subscribers
            if (not user or subscriber.user == user) and (not topic or _asks_for(subscriber, topic))
        ]
        listed = [_shown(subscriber) for subscriber in found[: int(most or MOST_LISTED)]]
        return {"count": len(found), "subscriptions": listed}

    async def kick(self, user: str) -> dict[str, object]:
        """End all streams of this user, now and in order; returns how many there were. Whether the client may come back
        is decided when it does."""
        mine = [subscriber for subscriber in self._hub.subscribers if subscriber.user == user]
        ended = 0
        while mine:
            for subscriber in mine[-AT_ONCE:]:
                if not subscriber.gone:
                    self._hub.end(subscriber)
                    ended += 1
            del mine[-AT_ONCE:]
            turn: Deferred[None] = Deferred()
            self._hub.clock.callLater(0, turn.callback, None)
            await turn
        self._log.info("The event streams of {member} were ended by an operator: {count}", member=user, count=ended)
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
