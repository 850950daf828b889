"""Which event a publisher's own id stands for, for longer than the event itself is in memory.

A client that resumes brings the id that it had last. With those of devices' events, which are offsets, that is all it
takes; with a publisher's own, the offset must be looked up, and so must whether the client may know of it at all.
"""

from __future__ import annotations

from typing import NamedTuple

from amqprouter.core.event import Event

MOST_IDS = 50_000
"""Ids remembered, the latest ones: some 20 MB when full."""


class Published(NamedTuple):
    """The event behind an id."""

    offset: int
    topics: tuple[str, ...]
    private: bool


class PublishedIds:
    """The latest ids that publishers gave; of an id that comes twice, the latest event counts."""

    def __init__(self, most: int = MOST_IDS) -> None:
        self._most = most
        self._events: dict[str, Published] = {}  # the oldest first

    def __len__(self) -> int:
        return len(self._events)

    def add(self, event: Event) -> None:
        """Remember the id of an event that has one of its own."""
        self._events.pop(event.id, None)
        self._events[event.id] = Published(event.offset, event.topics, event.private)
        if len(self._events) > self._most:
            del self._events[next(iter(self._events))]

    def find(self, id: str) -> Published | None:
        """What stands behind this id, if it is known."""
        return self._events.get(id)

    def clear(self) -> None:
        """Forget them all."""
        self._events.clear()
