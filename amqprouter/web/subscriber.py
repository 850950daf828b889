"""One subscriber of the hub: what waits for it, and where it is. `amqprouter.web.hub` says how they work together."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from amqprouter.core import sse
from amqprouter.core.interest import Interest
from amqprouter.web.batch import Batch

if TYPE_CHECKING:
    from amqprouter.web.catch_up import CatchUp
    from amqprouter.web.hub import Hub

MaySee = Callable[[tuple[str, ...], bool], bool]
"""(an event's topics, whether it is private) → whether the subscriber may see it.

It must answer at once and never raise, for it is called in the middle of publishing. Its answers are remembered until
`Hub.reload` is called, which must happen whenever they may have changed.
"""

_HEARTBEAT = Batch(None, sse.HEARTBEAT)


class Sink(Protocol):
    """A subscriber's connection, as the hub sees it."""

    def write(self, batch: Batch) -> None:
        """Send; may call `Subscriber.pause` before it returns."""

    def cut(self) -> None:
        """Break the connection off, unsent data and all."""

    def finish(self, retry_seconds: float = 0.0) -> None:
        """End the connection once what was written is sent; where told, ask for patience first."""


class Subscriber:
    """One subscription. The sink's owner calls `start` once, `pause` and `resume` as the connection blocks, and `close`
    when it is gone; all else is the hub's.

    `cursor` is its place in the hub's window while it replays, `CATCHING_UP` before it is there, and None once it is
    live; `pending` is what waits for
    it: for the end of the reactor's turn, or for its connection.
    """

    __slots__ = (
        "address",
        "catch_up",
        "cursor",
        "gone",
        "hub",
        "interest",
        "may_see",
        "number",
        "on_gone",
        "paused",
        "pending",
        "resumed_after",
        "sink",
        "started",
        "user",
    )

    def __init__(
        self, hub: Hub, number: int, user: str, address: str, interest: Interest, may_see: MaySee, sink: Sink
    ) -> None:
        self.hub = hub
        self.number = number
        self.user = user
        self.address = address
        self.interest = interest
        self.may_see = may_see
        self.sink = sink
        self.cursor: int | None = None
        self.catch_up: CatchUp | None = None
        self.pending: Batch | None = None
        self.resumed_after = ""
        """The id before the first event that it gets; empty when it did not resume."""
        self.paused = False
        self.started = False
        self.gone = False
        self.on_gone: tuple[Callable[[], None], ...] = ()
        """Called once, when it has left the hub."""

    @property
    def buffered(self) -> int:
        """Bytes that wait for the connection."""
        return self.pending.size if self.paused and self.pending is not None else 0

    def start(self) -> None:
        """The connection is ready, unless it said `pause` already."""
        self.started = True
        self.resume_pump()

    def pause(self) -> None:
        """The connection takes no more for now."""
        self.paused = True

    def resume(self) -> None:
        """The connection takes data again."""
        self.paused = False
        self.resume_pump()

    def close(self) -> None:
        """The connection is gone."""
        self.hub.leave(self)

    def wants(self, topics: tuple[str, ...], private: bool) -> bool:
        """Whether it asked for such events and may see them."""
        return self.interest.matches(topics) and self.may_see(topics, private)

    def beat(self) -> None:
        """Send a heartbeat, unless data that waits does the same."""
        if self.started and not self.paused:
            self.sink.write(_HEARTBEAT)

    def pump(self) -> None:
        """Write what waits until the connection blocks: what is pending, then the replay."""
        if self.pending is not None and not self.paused:
            batch, self.pending = self.pending, None
            self.send(batch)
        if self.catch_up is not None:
            if not self.paused:
                self.catch_up.resume()
            return
        while self.cursor is not None and not self.paused:
            replayed = self._replayed(self.cursor)
            if replayed is not None:
                self.send(replayed)

    def resume_pump(self) -> None:
        """Write what waits, if the connection takes it."""
        if self.started and not self.paused:
            self.pump()

    def send(self, batch: Batch) -> None:
        """Write events now."""
        self.hub.counters.events_delivered += batch.count
        self.sink.write(batch)

    def _replayed(self, cursor: int) -> Batch | None:
        """The next events of the replay. It is live once it has come to the window's end, cut when overtaken by it."""
        window = self.hub.window
        if cursor < window.first:
            self.hub.cut(self)
            return None
        batch: Batch | None = None
        while batch is None or batch.size < self.hub.replay_bytes:
            entry = window.entry(cursor)
            if entry is None:
                self.cursor = None
                return batch
            cursor += 1
            if self.wants(entry.topics, entry.private):
                batch = Batch(batch, entry.frame)
        self.cursor = cursor
        return batch
