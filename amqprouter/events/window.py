"""The recent events, already serialised, for subscribers that resume."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable
from sys import getsizeof
from typing import NamedTuple

from amqprouter.events.event import Event

WINDOW_BYTES = 67_108_864
"""The window's bound in bytes, besides the one in events: a body may be a megabyte, and thousands of those too much."""
ENTRY_BYTES = 300
"""About what an entry takes besides what is in it."""


def topics_bytes(topics: Iterable[str]) -> int:
    """Bytes of memory that topics take: a publisher may give an update a hundred, of a thousand characters each."""
    return sum(map(getsizeof, topics))


class Entry(NamedTuple):
    """An event in the window."""

    offset: int
    topics: tuple[str, ...]
    private: bool
    frame: bytes
    """The event as it is written to every subscriber."""
    bytes: int
    """That it counts for in the window."""


class EventWindow:
    """The latest events, at most `max_events` of them and about `max_bytes`.

    Places in it are sequence numbers, which go on growing as events leave at the old end.
    """

    def __init__(self, max_events: int, max_bytes: int = WINDOW_BYTES) -> None:
        self.first = 0
        """Sequence number of the oldest entry."""
        self.bytes = 0
        """Bytes of memory of all entries: frames, topics, and the rest."""
        self._entries: deque[Entry] = deque()
        self._max_events = max_events
        self._max_bytes = max_bytes

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def end(self) -> int:
        """Sequence number that the next entry will have."""
        return self.first + len(self._entries)

    @property
    def oldest_offset(self) -> int | None:
        """The offset of the oldest entry."""
        return self._entries[0].offset if self._entries else None

    @property
    def latest_offset(self) -> int | None:
        """The offset of the latest entry."""
        return self._entries[-1].offset if self._entries else None

    def append(self, event: Event, frame: bytes) -> None:
        """Add an event that is newer than all others."""
        entries = self._entries
        topics = event.topics
        size = len(frame) + ENTRY_BYTES + (getsizeof(topics[0]) if len(topics) == 1 else topics_bytes(topics))
        entries.append(Entry(event.offset, topics, event.private, frame, size))
        self.bytes += size
        # The latest stays, however large: what comes next, and what clients resume from, is compared with it.
        while len(entries) > 1 and (len(entries) > self._max_events or self.bytes > self._max_bytes):
            oldest = entries.popleft()
            self.bytes -= oldest.bytes
            self.first += 1

    def clear(self) -> None:
        """Forget all entries; their sequence numbers do not come again."""
        self.first += len(self._entries)
        self._entries.clear()
        self.bytes = 0

    def entry(self, sequence: int) -> Entry | None:
        """The entry of this sequence number, which must not be before `first`; None behind the end."""
        index = sequence - self.first
        return self._entries[index] if index < len(self._entries) else None

    def offset_before(self, sequence: int) -> int | None:
        """The offset of the entry in front of this sequence number; None if that has left, or never was."""
        index = sequence - self.first - 1
        return self._entries[index].offset if 0 <= index < len(self._entries) else None

    def behind(self, offset: int) -> int:
        """Sequence number of the first entry behind `offset`."""
        return self.first + bisect_right(self._entries, offset, key=lambda entry: entry.offset)
