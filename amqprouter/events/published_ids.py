"""Which event a publisher's own id stands for, for longer than the event itself is in memory.

A client that resumes brings the id that it had last. With those of devices' events, which are offsets, that is all it
takes; with a publisher's own, the offset must be looked up, and so must whether the client may know of it at all.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from amqprouter.events.event import Event
from amqprouter.events.window import topics_bytes

MOST_IDS = 50_000
"""Ids remembered, the latest ones: some 20 MB of the usual ones."""
MOST_BYTES = 33_554_432
"""What all of these may take, whatever their topics are: then there are fewer of them."""
_EACH = 300
"""About what one takes besides its topics."""


class Published(NamedTuple):
    """The event behind an id."""

    offset: int
    topics: tuple[str, ...]
    private: bool


class PublishedIds:
    """The latest ids that publishers gave. Of an id that comes more than once the earliest event that is remembered
    counts (Mercure 1.0, "Reconciliation"): who resumes from it may get some once more, and misses none."""

    def __init__(self, most: int = MOST_IDS, most_bytes: int = MOST_BYTES) -> None:
        self.bytes = 0
        """That they take, topics and all."""
        self._most = most
        self._most_bytes = most_bytes
        self._events: dict[str, Published | deque[Published]] = {}  # several where an id came again
        self._order: deque[str] = deque()  # the oldest first, each as often as it came

    def __len__(self) -> int:
        return len(self._order)

    def add(self, event: Event) -> None:
        """Remember the id of an event that has one of its own."""
        published = Published(event.offset, event.topics, event.private)
        before = self._events.get(event.id)
        if before is None:
            self._events[event.id] = published
        elif isinstance(before, deque):
            before.append(published)
        else:
            self._events[event.id] = deque((before, published))
        self._order.append(event.id)
        self.bytes += _EACH + topics_bytes(event.topics)
        while len(self._order) > self._most or self.bytes > self._most_bytes:
            self._drop_oldest()

    def find(self, id: str) -> Published | None:
        """What stands behind this id, if it is known."""
        found = self._events.get(id)
        return found[0] if isinstance(found, deque) else found

    def clear(self) -> None:
        """Forget them all."""
        self._events.clear()
        self._order.clear()
        self.bytes = 0

    def _drop_oldest(self) -> None:
        name = self._order.popleft()
        found = self._events[name]
        published = found.popleft() if isinstance(found, deque) else found
        if published is found or not found:
            del self._events[name]
        self.bytes -= _EACH + topics_bytes(published.topics)
