"""The hub: every event goes in here once, and out to each subscriber that asked for it and may see it.

House rules: no reactor and no sockets; publishing never waits; everything that grows has a bound.

Theory of operation. The hub keeps the latest events, already serialised, in its window. A subscriber is in one of two
states:

- *replaying*: it resumes from an earlier event and has a place in the window. Nothing is buffered for it: it walks
  along the window as fast as its connection takes the bytes, and is live when it reaches the end. So history comes
  before news, and the two never mix. If the window moves on past its place, it is too slow.
- *live*: an event is written at once, or waits in the subscriber's buffer while the connection is blocked. The buffer
  is bounded in bytes; a subscriber whose buffer would overflow is too slow.

One that is too slow is cut and counted. It may connect again and resume; of what the window no longer holds by then it
is told by an event of the type ``gap``.

Who gets an event depends on its key alone, so the answer is remembered for each key: its *audience*, a set of
subscribers' numbers. It is brought up to date whenever its key comes up: numbers of those who left drop out, and only
those who joined since are asked about. So an event costs what its own audience costs, however many others there are.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Collection, Iterator
from typing import NamedTuple

from zope.interface import implementer

from amqprouter.core import sse
from amqprouter.core.counters import Counters
from amqprouter.core.event import Event
from amqprouter.core.topic import TopicPattern
from amqprouter.interfaces import Identity, IReloadable
from amqprouter.settings import EventsSettings
from amqprouter.web.subscriber import Sink, Subscriber

Permission = Callable[[Identity, str], bool]
"""(user, event key) → whether that user may see that event."""

WINDOW_BYTES = 67_108_864
"""The window's bound in bytes, besides the one in events: a body may be a megabyte, and thousands of those too much."""

MAX_REMEMBERED = 100_000
"""Keys and members that all audiences together may hold, about 20 MB at worst; beyond it they are worked out anew."""


class Entry(NamedTuple):
    """An event in the window."""

    offset: int
    key: str
    frame: bytes
    """The event as it is written to every subscriber."""


class _Audience:
    """Who gets events of one key: of the subscribers numbered up to `asked`, the ones in `members`."""

    __slots__ = ("asked", "members")

    def __init__(self) -> None:
        self.asked = 0
        self.members: set[int] = set()


@implementer(IReloadable)
class Hub:
    """All subscribers of this gateway, and the events that they may resume from.

    `allows` must answer at once and never raise: it is called in the middle of publishing. Its answers are remembered
    until `reload` is called, which must happen whenever they may have changed.
    """

    def __init__(
        self,
        settings: EventsSettings,
        counters: Counters,
        allows: Permission,
        *,
        window_bytes: int = WINDOW_BYTES,
        max_remembered: int = MAX_REMEMBERED,
    ) -> None:
        self.settings = settings
        self.counters = counters
        self.allows = allows
        self.closed = False
        self.window_bytes = 0
        """Bytes that the window holds now."""
        self._window: deque[Entry] = deque()
        self._max_window_bytes = window_bytes
        self._first = 0  # sequence number of the window's first entry; subscribers' cursors are sequence numbers
        self._subscribers: dict[int, Subscriber] = {}  # by number, hence in the order in which they joined
        self._latest_number = 0
        self._audiences: dict[str, _Audience] = {}
        self._remembered = 0
        self._max_remembered = max_remembered

    @property
    def subscribers(self) -> Collection[Subscriber]:
        """Those that are connected now."""
        return self._subscribers.values()

    @property
    def full(self) -> bool:
        """Whether another subscriber would be one too many."""
        return len(self._subscribers) >= self.settings.max_subscribers

    def publish(self, event: Event, live: bool = True) -> None:
        """Pass an event on; one that is not `live` is only kept for those who resume.

        One that is not newer than the latest is a repeat, from a stream read again: ignored.
        """
        window = self._window
        if window and event.offset <= window[-1].offset:
            return
        frame = sse.encode(event)
        window.append(Entry(event.offset, event.key, frame))
        self.window_bytes += len(frame)
        # The latest stays, however large: what comes next, and what clients resume from, is compared with it.
        while len(window) > 1 and (len(window) > self.settings.window or self.window_bytes > self._max_window_bytes):
            self.window_bytes -= len(window.popleft().frame)
            self._first += 1
        if not live:
            return
        audience = self.audience(event.key)
        gone = []
        for number in audience:
            subscriber = self._subscribers.get(number)
            if subscriber is None:
                gone.append(number)
            elif not subscriber.offer(frame):
                self.cut(subscriber)
        audience.difference_update(gone)

    def subscribe(
        self, user: Identity, patterns: Collection[TopicPattern], sink: Sink, last_event_id: str = ""
    ) -> Subscriber:
        """Add a subscriber; nothing is written to `sink` before its `Subscriber.start` is called.

        `last_event_id` is what the client sent, or empty: it then gets what is published from now on. The caller has
        looked at `full` and `closed`.
        """
        cursor, notice = self._resume_from(last_event_id)
        self._latest_number += 1
        subscriber = Subscriber(self, self._latest_number, user, patterns, sink, cursor, notice)
        self._subscribers[subscriber.number] = subscriber
        return subscriber

    def restart(self) -> None:
        """The stream was made anew and counts from 0 again: forget its events, and tell everybody of the gap."""
        self._first += len(self._window)
        self._window.clear()
        self.window_bytes = 0
        notice = self._gap("stream restarted")
        for subscriber in list(self._subscribers.values()):
            if not subscriber.restart(notice):
                self.cut(subscriber)

    def heartbeat(self) -> None:
        """Write a comment to every subscriber whose connection is free."""
        for subscriber in list(self._subscribers.values()):
            subscriber.beat()

    def reload(self) -> None:
        """Permissions may have changed: ask again about everybody, also those who are connected."""
        self._forget()

    def close(self) -> None:
        """End all subscriptions in order, and for good."""
        self.closed = True
        for subscriber in list(self._subscribers.values()):
            self.leave(subscriber)
            subscriber.sink.finish()

    def _resume_from(self, last_event_id: str) -> tuple[int | None, bytes]:
        """Where in the window to go on, None for behind its end, and what to tell the client first."""
        try:
            last = sse.parse_last_event_id(last_event_id)
        except ValueError:
            return None, self._gap("unknown id")
        if last is None:
            return None, b""
        window = self._window
        if not window or last > window[-1].offset:
            return None, self._gap("unknown id")  # a stream made anew counts from 0 again; waiting would be for ever
        if last < window[0].offset - 1:
            return self._first, self._gap("too old", window[0].offset - 1)
        newer = 0  # counted, not subtracted, for offsets may have holes; and from the end, where most resume
        for entry in reversed(window):
            if entry.offset <= last:
                break
            newer += 1
        return self._first + len(window) - newer, b""

    def _gap(self, reason: str, resumes_after: int | None = None) -> bytes:
        """Tell that events are missing. It has an id, so that a client cut off right behind it is not told again."""
        if resumes_after is None and self._window:
            resumes_after = self._window[-1].offset
        data = json.dumps({"reason": reason, "resumes_after": resumes_after}).encode()
        return sse.encode_fields(data, id="" if resumes_after is None else str(resumes_after), event_type="gap")

    # The rest is for subscribers.

    def leave(self, subscriber: Subscriber) -> None:
        """Forget a subscriber; doing so twice does no harm."""
        self._subscribers.pop(subscriber.number, None)
        subscriber.clear()

    def cut(self, subscriber: Subscriber) -> None:
        """A subscriber is too slow: disconnect it."""
        self.counters.slow_subscribers += 1
        self.leave(subscriber)
        subscriber.sink.cut()

    def holds(self, sequence: int) -> bool:
        """Whether the window still holds this entry, or has yet to get it."""
        return sequence >= self._first

    def entry(self, sequence: int) -> Entry | None:
        """The entry of this sequence number; None behind the end of the window."""
        index = sequence - self._first
        return self._window[index] if index < len(self._window) else None

    def audience(self, key: str) -> set[int]:
        """The numbers of all who get events of this key, and of some who have left."""
        if self._remembered > self._max_remembered:
            self._forget()
        audience = self._audiences.get(key)
        if audience is None:
            audience = self._audiences[key] = _Audience()
            self._remembered += 1
        if audience.asked < self._latest_number:
            joined = {subscriber.number for subscriber in self._joined_after(audience.asked) if subscriber.wants(key)}
            audience.members |= joined
            audience.asked = self._latest_number
            self._remembered += len(joined)
        return audience.members

    def _joined_after(self, number: int) -> Iterator[Subscriber]:
        for subscriber in reversed(self._subscribers.values()):
            if subscriber.number <= number:
                return
            yield subscriber

    def _forget(self) -> None:
        self._audiences.clear()
        self._remembered = 0
