"""Events of the daemon's own, put on the stream without waiting for anybody."""

from __future__ import annotations

from collections.abc import Callable

from twisted.logger import Logger

from amqprouter.amqp.properties import encode_properties
from amqprouter.amqp.publisher import Publisher
from amqprouter.counters import Counters
from amqprouter.events.event import Event

MOST_OUTSTANDING = 1000
"""Events not yet confirmed. While the broker is away, newer ones are lost and counted: they are news, not data."""
_TOPIC_LIMIT = 16_384
"""Bytes that an event's topic may have: enough for a subscription's, in which a selector of 1,024 characters is written
with up to 12 for each; and a fraction of a frame, which all headers must fit into."""


class EventPublisher:
    """Publishes events to the stream; it is the receipt of each. `wall_clock` gives seconds since 1970."""

    _log = Logger()

    def __init__(self, publisher: Publisher, stream: str, counters: Counters, wall_clock: Callable[[], float]) -> None:
        self._publisher = publisher
        self._stream = stream.encode()
        self._counters = counters
        self._wall_clock = wall_clock
        self._outstanding = 0

    def tell(self, event: Event) -> bool:
        """Publish an event, unless too many are under way. Returns whether it did; never raises, never waits."""
        if self._outstanding >= MOST_OUTSTANDING or len(event.topics[0].encode()) > _TOPIC_LIMIT:
            self._counters.announcements_lost += 1
            return False
        self._outstanding += 1
        # Readers tell by the timestamp what is news, and what is only kept for those who resume.
        properties = encode_properties(
            content_type="application/json", headers=event.headers(), timestamp=int(self._wall_clock())
        )
        self._publisher.publish(b"", self._stream, properties, event.data, self)
        self._publisher.flush()
        return True

    def delivered(self) -> None:
        """See `Receipt`."""
        self._outstanding -= 1
        self._counters.events_published += 1

    def refused(self, reason: str) -> None:
        """See `Receipt`."""
        self._outstanding -= 1
        self._counters.announcements_lost += 1
        self._log.warn("An event of the daemon's own was not published: {reason}", reason=reason)
