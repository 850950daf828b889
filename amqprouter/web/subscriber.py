"""One subscriber of the hub: what waits for it, and where it is. `amqprouter.web.hub` says how they work together."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from typing import TYPE_CHECKING, Protocol

from amqprouter.core import sse
from amqprouter.core.topic import TopicPattern
from amqprouter.interfaces import Identity

if TYPE_CHECKING:
    from amqprouter.web.hub import Hub


class Sink(Protocol):
    """A subscriber's connection, as the hub sees it."""

    def write(self, data: bytes) -> None:
        """Send; may call `Subscriber.pause` before it returns."""

    def cut(self) -> None:
        """Break the connection off, unsent data and all."""

    def finish(self) -> None:
        """End the connection once what was written is sent."""


class Subscriber:
    """One subscription. The sink's owner calls `start` once, `pause` and `resume` as the connection blocks, and `close`
    when it is gone; all else is the hub's.

    `cursor` is its place in the hub's window while it replays, and None once it is live. `notice` is written first.
    """

    __slots__ = (
        "_buffer",
        "_cursor",
        "_hub",
        "_notice",
        "_patterns",
        "_paused",
        "buffered",
        "delivered",
        "number",
        "sink",
        "user",
    )

    def __init__(
        self,
        hub: Hub,
        number: int,
        user: Identity,
        patterns: Collection[TopicPattern],
        sink: Sink,
        cursor: int | None,
        notice: bytes,
    ) -> None:
        self.number = number
        self.user = user
        self.sink = sink
        self.buffered = 0
        """Bytes that wait for the connection."""
        self.delivered = 0
        """Events written."""
        self._hub = hub
        self._patterns = patterns
        self._cursor = cursor
        self._notice = notice
        self._buffer: deque[bytes] = deque()
        self._paused = False

    def start(self) -> None:
        """The connection is ready, unless it said `pause` already."""
        if not self._paused:
            self._pump()

    def pause(self) -> None:
        """The connection takes no more for now."""
        self._paused = True

    def resume(self) -> None:
        """The connection takes data again."""
        self._paused = False
        self._pump()

    def close(self) -> None:
        """The connection is gone."""
        self._hub.leave(self)

    def wants(self, key: str) -> bool:
        """Whether one of its patterns matches and its user may see this event."""
        return any(pattern.matches(key) for pattern in self._patterns) and self._hub.allows(self.user, key)

    def offer(self, frame: bytes) -> bool:
        """Take a live event, which is in the window already; False when the subscriber is too slow for it."""
        if self._cursor is not None:
            return self._hub.holds(self._cursor)  # it will come to this event by itself
        if not self._paused:
            self._write(frame)
            return True
        if self.buffered + len(frame) > self._hub.settings.buffer_bytes:
            return False
        self._buffer.append(frame)
        self.buffered += len(frame)
        return True

    def restart(self, notice: bytes) -> bool:
        """The window was cleared: be live from here on, with this notice first; False when too slow even for that."""
        self._cursor = None
        return self.offer(notice)

    def beat(self) -> None:
        """Send a heartbeat, unless data that waits does the same."""
        if not self._paused:
            self.sink.write(sse.HEARTBEAT)

    def clear(self) -> None:
        """Forget everything that waits: nothing will be written any more."""
        self._buffer.clear()
        self.buffered = 0
        self._cursor = None
        self._notice = b""

    def _pump(self) -> None:
        """Write what waits until the connection blocks: the notice, then the buffer or the replay."""
        if self._notice:
            notice, self._notice = self._notice, b""
            self.sink.write(notice)
        while self._buffer and not self._paused:
            frame = self._buffer.popleft()
            self.buffered -= len(frame)
            self._write(frame)
        while self._cursor is not None and not self._paused:
            if not self._hub.holds(self._cursor):
                self._hub.cut(self)
                return
            entry = self._hub.entry(self._cursor)
            if entry is None:
                self._cursor = None
                return
            self._cursor += 1
            if self.number in self._hub.audience(entry.key):
                self._write(entry.frame)

    def _write(self, frame: bytes) -> None:
        self.delivered += 1
        self._hub.counters.events_delivered += 1
        self.sink.write(frame)
