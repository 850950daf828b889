"""Subscribers that resume from before the window: what they missed is read from where all events are kept.

Theory of operation. A catch-up reads from the event that the client had last, that one included: if it does not come,
retention took it, and the client is told of a gap. What follows goes to the subscriber, filtered and at its own pace:
more is asked for when its connection has taken what there was. As soon as the reading has come to the window, the
subscriber walks along that, and is live at its end: history first, then news, and nothing twice. Live events meanwhile
only join the window, as they always do. The window may also grow to where the client was by itself, say when all
clients come back at once to a gateway that was just started: then nothing has to be read for them.

While the broker is away nobody can tell what is missing, and nothing new comes either: those who catch up wait for as
long as that takes, rather than being told of a gap that there may not be.

Only a few read at a time, and the others wait for their turn: readings share the broker's connection with live events.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from sys import maxsize
from typing import TYPE_CHECKING, Any, Protocol

from amqprouter.core import sse
from amqprouter.core.event import Event
from amqprouter.errors import BrokerUnavailable
from amqprouter.web.batch import Batch

if TYPE_CHECKING:
    from amqprouter.web.hub import Hub
    from amqprouter.web.subscriber import Subscriber

CATCHING_UP = maxsize
"""The cursor of a subscriber that has not come to the window yet."""
MOST_READINGS = 10
"""Subscribers that read at the same time; each has some hundred events under way."""
QUIET = 1.0
"""Seconds without an event after which a reading is taken to be at the end; the next one comes in milliseconds."""
AGAIN = 0.5
"""Seconds before another try, when a reading has failed."""
PATIENCE = 10.0
"""Seconds after which one that gets nothing, or is refused, gives up; those in which the broker is away don't count."""
MOST_AHEAD = 10_000
"""Events that another gateway may be ahead of this one; an id further ahead is none of this stream's."""


class Reading(Protocol):
    """One reading under way."""

    def more(self) -> None:
        """What was received is dealt with: go on."""

    def stop(self) -> None:
        """No more is needed."""


class History(Protocol):
    """Where all events are kept."""

    def read(
        self, offset: int, received: Callable[[Sequence[Event]], None], failed: Callable[[Exception], None]
    ) -> Reading:
        """Read from this offset on, or from the oldest behind it. `failed` is called once, if at all, never at once."""


class CatchUps:
    """All subscribers that catch up."""

    def __init__(self, hub: Hub, history: History, clock: Any) -> None:
        self.hub = hub
        self.history = history
        self.clock = clock
        self._waiting: deque[CatchUp] = deque()
        self._running: set[CatchUp] = set()

    def begin(self, subscriber: Subscriber, last: int) -> None:
        """Have this subscriber read what is behind the offset `last`, now or when it has its turn."""
        subscriber.cursor = CATCHING_UP
        subscriber.catch_up = CatchUp(self, subscriber, last)
        self._waiting.append(subscriber.catch_up)

    def start_some(self) -> None:
        """Start those whose turn it is."""
        while self._waiting and len(self._running) < MOST_READINGS:
            catch_up = self._waiting.popleft()
            if not catch_up.over and not catch_up.join_if_possible():
                self._running.add(catch_up)
                catch_up.read()

    def done(self, catch_up: CatchUp) -> None:
        """One is over: another may begin."""
        if catch_up not in self._running:
            return
        self._running.discard(catch_up)
        if self._waiting:
            self.clock.callLater(0, self.start_some)


class CatchUp:
    """One subscriber's."""

    def __init__(self, all_of_them: CatchUps, subscriber: Subscriber, last: int) -> None:
        self.over = False
        self._all = all_of_them
        self._subscriber = subscriber
        self._last = last
        self._found = False  # whether it is known that nothing is missing before what comes next
        self._reading: Reading | None = None
        self._owed = False  # whether more is to be asked for when the connection takes data again
        self._began: float | None = None  # when it began to lose patience
        self._timer: Any = None

    def read(self) -> None:
        """Begin, or begin again where it was."""
        clock = self._all.clock
        if self._began is None:
            self._began = clock.seconds()
        self._reading = self._all.history.read(self._last, self._received, self._failed)
        self._wait(QUIET, self._quiet)

    def join_if_possible(self) -> bool:
        """Go on with the window, if that is where it is; whether it does."""
        window = self._all.hub.window
        oldest, latest = window.oldest_offset, window.latest_offset
        # With the last event itself in the window nothing is missing; with the next one only if that was found out.
        if oldest is None or latest is None or not oldest - self._found <= self._last <= latest:
            return False
        self._join()
        return True

    def resume(self) -> None:
        """The subscriber's connection takes data again."""
        if self._owed:
            self._more()

    def stop(self) -> None:
        """The subscriber is gone, or is beyond this. Doing so twice does no harm."""
        if self.over:
            return
        self.over = True
        self._wait(0, None)
        if self._reading is not None:
            self._reading.stop()
        self._subscriber.catch_up = None
        self._all.done(self)

    def _wait(self, seconds: float, then: Callable[[], None] | None) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = self._all.clock.callLater(seconds, then) if then is not None else None

    def _more(self) -> None:
        self._owed = False
        if self._reading is not None:
            self._wait(QUIET, self._quiet)
            self._reading.more()

    def _received(self, events: Sequence[Event]) -> None:
        if self.over:
            return
        subscriber, hub = self._subscriber, self._all.hub
        batch = subscriber.pending
        for event in events:
            if event.offset < self._last:
                continue
            if not self._found:
                self._found = True
                if event.offset > self._last:
                    batch = Batch(batch, hub.gap("too old", event.offset - 1))
                    self._last = event.offset - 1
            if event.offset > self._last:
                self._last = event.offset
                if subscriber.wants(event.topics, event.private):
                    batch = Batch(batch, sse.encode(event))
        subscriber.pending = batch
        if batch is not None and subscriber.started and not subscriber.paused:
            subscriber.pending = None
            subscriber.send(batch)
        if self.over or self.join_if_possible():
            return
        if subscriber.paused:
            self._owed = True
            self._wait(0, None)
        else:
            self._more()

    def _quiet(self) -> None:
        """Nothing has come for a while."""
        if self.join_if_possible():
            return
        if self._found and self._all.hub.window.oldest_offset is None:
            self._join()  # it has read to the end, and the window begins with what comes next
        elif self._lost_patience():
            self._give_up()
        else:
            self._wait(QUIET, self._quiet)

    def _failed(self, error: Exception) -> None:
        """The reading has ended, say because the broker is away: try again."""
        if self.over:
            return
        self._reading = None
        if isinstance(error, BrokerUnavailable):
            self._began = None
        elif self._lost_patience():
            self._give_up()
            return
        self._wait(AGAIN, self._again)

    def _again(self) -> None:
        if not self.join_if_possible():
            self.read()

    def _lost_patience(self) -> bool:
        return self._began is not None and self._all.clock.seconds() - self._began >= PATIENCE

    def _join(self) -> None:
        subscriber = self._subscriber
        self.stop()
        subscriber.cursor = self._all.hub.window.behind(self._last)
        subscriber.resume_pump()

    def _give_up(self) -> None:
        subscriber = self._subscriber
        self.stop()
        self._all.hub.resume_with_gap(subscriber, self._last)
        subscriber.resume_pump()
