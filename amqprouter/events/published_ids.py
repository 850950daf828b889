"""Which event a publisher's own id stands for, for longer than the event itself is in memory.

A client that resumes brings the id that it had last. With those of devices' events, which are offsets, that is all it
takes; with a publisher's own, the offset must be looked up, and so must whether the client may know of it at all.
"""

from __future__ import annotations

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
    """The latest ids that publishers gave; of an id that comes twice, the latest event counts."""

    def __init__(self, most: int = MOST_IDS, most_bytes: int = MOST_BYTES) -> None:
        self.bytes = 0
        """That they take, topics and all."""
        self._most = most
        self._most_bytes = most_bytes
        self._events: dict[str, Published] = {}  # the oldest first

    def __len__(self) -> int:
        return len(self._events)

    def add(self, event: Event) -> None:
        """Remember the id of an event that has one of its own."""
        self._drop(event.id)
        self._events[event.id] = Published(event.offset, event.topics, event.private)
        self.bytes += _EACH + topics_bytes(event.topics)
        while len(self._events) > self._most or self.bytes > self._most_bytes:
            self._drop(next(iter(self._events)))

    def find(self, id: str) -> Published | None:
        """What stands behind this id, if it is known."""
        return self._events.get(id)

    def clear(self) -> None:
        """Forget them all."""
        self._events.clear()
        self.bytes = 0

    def _drop(self, id: str) -> None:
        published = self._events.pop(id, None)
        if published is not None:
            self.bytes -= _EACH + topics_bytes(published.topics)
