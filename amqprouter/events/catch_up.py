"""Subscribers that resume from before the window: what they missed is read from where all events are kept.

Theory of operation. A catch-up reads from the event that the client had last, that one included: if neither it nor the
next one comes, retention took some, and the client is told of a gap. What follows goes to the subscriber, filtered and
at its own pace: more is asked for when its connection has taken what there was. As soon as the reading has come to the
window, the subscriber walks along that, and is live at its end: history first, then news, and nothing twice. Live
events meanwhile only join the window, as they always do. The window may also grow to where the client was by itself,
say when all clients come back at once to a gateway that was just started: then nothing has to be read for them.

While the broker is away nobody can tell what is missing, and nothing new comes either: those who catch up wait for as
long as that takes, rather than being told of a gap that there may not be.

Only a few read at a time, and the others wait for their turn: readings share the broker's connection with live events.
Turns go round by user, of whom each has a few at most. A turn is over when the reading has come to the window; when the
subscriber does not take what was read, or takes long to decide what of it it wants; and when it has lasted for a while
and somebody else waits. What was read and not looked at is forgotten then, and read again in the next turn.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from sys import maxsize
from typing import Any, Protocol

from amqprouter.clock import Clock
from amqprouter.errors import BrokerUnavailable
from amqprouter.events import sse
from amqprouter.events.batch import Batch
from amqprouter.events.event import Event
from amqprouter.events.interest import Steps
from amqprouter.events.subscriber import Feed, Subscriber

CATCHING_UP = maxsize
"""The cursor of a subscriber that has not come to the window yet."""
MOST_READINGS = 10
"""Subscribers that read at the same time; each has some hundred events under way."""
MOST_FOR_USER = 2
"""Readings of one user among these: five users and more have to come together to have others wait."""
HOLD = 0.5
"""Seconds that a reading may hold its turn while what was read is not dealt with."""
TURN = 2.0
"""Seconds after which a reading lets others go first: some ten thousand events, against milliseconds to begin again."""
STALLED = 60.0
"""Seconds after which a subscriber that catches up, and takes nothing of it, is cut: its client is not there."""
QUIET = 1.0
"""Seconds without an event after which a reading is taken to be at the end; the next one comes in milliseconds."""
AGAIN = 0.5
"""Seconds before another try, when a reading has failed."""
PATIENCE = 10.0
"""Seconds after which one that gets nothing, or is refused, gives up; those in which the broker is away don't count."""


class Reading(Protocol):
    """One reading under way."""

    def more(self) -> None:
        """What was received is dealt with: go on."""

    def stop(self) -> None:
        """No more is needed."""


class History(Protocol):
    """Where all events are kept."""

    def read(
        self, offset: int, received: Callable[[Iterable[Event]], None], failed: Callable[[Exception], None]
    ) -> Reading:
        """Read from this offset on, or from the oldest behind it. `failed` is called once, if at all; perhaps at once,
        where there is no connection. What `received` is called with may be decoded as it is iterated over, once."""


class GapFeed(Feed, Protocol):
    """A feed that tells of what cannot be had: what a catch-up needs of the hub."""

    def gap(self, reason: str, resumes_after: int | None = None) -> bytes:
        """Tell that events are missing."""

    @property
    def latest_offset(self) -> int | None:
        """The offset of the latest event that there is, in the window or not; None while that is not known."""

    def resume_with_gap(self, subscriber: Subscriber, last: int | None) -> None:
        """What is behind `last`, or behind an id that nobody knows, cannot be had: tell so, and go on with the rest."""


class CatchUps:
    """All subscribers that catch up. Those who wait are bounded in number as subscribers are."""

    def __init__(self, feed: GapFeed, history: History, clock: Clock) -> None:
        self.feed = feed
        self.history = history
        self.clock = clock
        self._waiting: OrderedDict[str, deque[CatchUp]] = OrderedDict()  # by account; whose turn is next comes first
        self._running: set[CatchUp] = set()
        self._of_account: Counter[str] = Counter()  # of those running

    def begin(self, subscriber: Subscriber, last: int, last_event_id: str) -> None:
        """Have this subscriber read what is behind the offset `last`, of the event that it knows by this id, now or
        when it has its turn."""
        subscriber.cursor = CATCHING_UP
        subscriber.catch_up = catch_up = CatchUp(self, subscriber, last, last_event_id)
        self._line_up(catch_up)

    def start_some(self) -> None:
        """Start those whose turn it is."""
        while len(self._running) < MOST_READINGS:
            catch_up = self._next()
            if catch_up is None:
                return
            if not catch_up.over and not catch_up.join_if_possible():
                self._running.add(catch_up)
                self._of_account[catch_up.account] += 1
                catch_up.read()

    def wait(self, catch_up: CatchUp) -> None:
        """One that had its turn wants another."""
        self._line_up(catch_up)
        self.clock.callLater(0, self.start_some)

    def others_wait(self, catch_up: CatchUp) -> bool:
        """Whether somebody could have the turn that this one has."""
        return any(
            self._of_account[account] - (account == catch_up.account) < MOST_FOR_USER for account in self._waiting
        )

    def done(self, catch_up: CatchUp) -> None:
        """The turn of one is over: another may begin."""
        if catch_up not in self._running:
            return
        self._running.discard(catch_up)
        self._of_account[catch_up.account] -= 1
        if not self._of_account[catch_up.account]:
            del self._of_account[catch_up.account]
        if self._waiting:
            self.clock.callLater(0, self.start_some)

    def _line_up(self, catch_up: CatchUp) -> None:
        self._waiting.setdefault(catch_up.account, deque()).append(catch_up)

    def _next(self) -> CatchUp | None:
        """Take out the next of the first user who has not as many running as may be."""
        for account, waiting in self._waiting.items():
            if self._of_account[account] < MOST_FOR_USER:
                catch_up = waiting.popleft()
                if waiting:
                    self._waiting.move_to_end(account)
                else:
                    del self._waiting[account]
                return catch_up
        return None


class CatchUp:
    """One subscriber's."""

    def __init__(self, all_of_them: CatchUps, subscriber: Subscriber, last: int, last_event_id: str) -> None:
        self.over = False
        self.account = subscriber.account
        self._all = all_of_them
        self._subscriber = subscriber
        self._last = last
        self._last_event_id = last_event_id
        self._found = False  # whether it is known that nothing is missing before what comes next
        self._reading: Reading | None = None
        # What was read and not looked at, no more than a reading has under way: decoded one by one, in its user's time.
        self._events: deque[Iterator[Event]] = deque()
        self._owed = False  # whether more is to be asked for, or another turn, once these are dealt with
        self._turn_began = 0.0
        self._failed_at_once = False
        self._began: float | None = None  # when it began to lose patience
        self._timer: Any = None

    @property
    def place(self) -> int | None:
        """Where it is; None while it is not known whether anything is missing before."""
        return self._last if self._found else None

    def read(self) -> None:
        """Begin, or begin again where it was."""
        self._turn_began = self._all.clock.seconds()
        if self._began is None:
            self._began = self._turn_began
        self._failed_at_once = False
        reading = self._all.history.read(self._last, self._received, self._failed)
        if not self._failed_at_once:
            self._reading = reading
            self._wait(QUIET, self._quiet)

    def join_if_possible(self) -> bool:
        """Go on with the window, if that is where it is; whether it does."""
        window = self._all.feed.window
        oldest, latest = window.oldest_offset, window.latest_offset
        if oldest is None or latest is None:
            # Nothing was published of late: it is at the end when it had the latest that there is.
            if not self._found or self._last != self._all.feed.latest_offset:
                return False
        # With the last event itself in the window nothing is missing; with the next one only if that was found out.
        elif not oldest - self._found <= self._last <= latest:
            return False
        self._join()
        return True

    def steps(self) -> Steps:
        """Deal with what was read, as far as the connection takes it; whether it is beyond catching up."""
        subscriber, feed = self._subscriber, self._all.feed
        while not subscriber.paused and (event := self._next_event()) is not None:
            if event.offset <= self._last:
                continue
            wanted = feed.known(subscriber, event.topics, event.private)
            if wanted is None:
                subscriber.flush()
                wanted = yield from feed.asks(subscriber, event.topics, event.private)
                if self.over:
                    return True
            self._last = event.offset
            if wanted:
                subscriber.pending = Batch(subscriber.pending, sse.encode(event), event.offset)
                if subscriber.pending.size >= feed.replay_bytes:
                    subscriber.flush()
            yield
            if self.over:
                return True
        subscriber.flush()
        if self.over or self.join_if_possible():
            return True
        if subscriber.paused:
            if self._reading is None:
                self._wait(STALLED, self._stalled)
        elif self._owed:
            self._go_on()
        return False

    def stop(self) -> None:
        """The subscriber is gone, or is beyond this. Doing so twice does no harm."""
        if self.over:
            return
        self.over = True
        self._wait(0, None)
        self._events.clear()
        self._subscriber.catch_up = None
        self._end_turn()

    def _wait(self, seconds: float, then: Callable[[], None] | None) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = self._all.clock.callLater(seconds, then) if then is not None else None

    def _end_turn(self) -> None:
        reading, self._reading = self._reading, None
        if reading is not None:
            reading.stop()
        self._all.done(self)

    def _go_on(self) -> None:
        """Have more read, in this turn or in another."""
        self._owed = False
        if self._reading is not None:
            lasted = self._all.clock.seconds() - self._turn_began
            if lasted < TURN or not self._all.others_wait(self):
                self._wait(QUIET, self._quiet)
                self._reading.more()
                return
            self._end_turn()
        self._wait(0, None)
        self._began = None
        self._all.wait(self)

    def _next_event(self) -> Event | None:
        """The next that was read; None when all are dealt with."""
        events = self._events
        while events:
            event = next(events[0], None)
            if event is not None:
                return event
            events.popleft()
        return None

    def _received(self, events: Iterable[Event]) -> None:
        if self.over or self._reading is None:
            return
        self._began = self._all.clock.seconds()
        unread = iter(events)
        self._events.append(unread if self._found else self._find(unread))
        self._owed = True
        self._wait(HOLD, self._held)
        self._subscriber.resume_pump()

    def _find(self, events: Iterator[Event]) -> Iterator[Event]:
        """See whether the stream still begins with the event that the subscriber had last, or the one behind it, or
        later; what is left."""
        first = next((event for event in events if event.offset >= self._last), None)
        if first is None:
            return events
        self._found = True
        subscriber = self._subscriber
        # Nothing is missing when the stream begins right behind: the id of a gap, or a place, is of no event that need
        # be there.
        if first.offset > self._last + 1:
            self._last = first.offset - 1
            subscriber.tell_gap(self._all.feed.gap("too old", self._last))
            subscriber.resumed(str(self._last))
        else:
            subscriber.resumed(self._last_event_id)
        return chain((first,), events)

    def _held(self) -> None:
        """What was read is not dealt with yet: let others have the turn."""
        self._end_turn()
        if self._subscriber.paused:
            self._events.clear()
            self._wait(STALLED, self._stalled)

    def _stalled(self) -> None:
        if self._subscriber.paused:
            self._all.feed.cut(self._subscriber)

    def _quiet(self) -> None:
        """Nothing has come for a while."""
        if self.join_if_possible():
            return
        if self._found and self._all.feed.window.oldest_offset is None:
            self._join()  # it has read to the end, and the window begins with what comes next
        elif self._lost_patience():
            self._give_up()
        else:
            self._wait(QUIET, self._quiet)

    def _failed(self, error: Exception) -> None:
        """The reading has ended, say because the broker is away: try again."""
        if self.over:
            return
        self._reading, self._failed_at_once = None, True
        if self._owed:  # what it has is dealt with first, and then another turn is asked for
            self._end_turn()
            return
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
        if not self._found:
            subscriber.resumed(self._last_event_id)
        subscriber.cursor = self._all.feed.window.behind(self._last)
        subscriber.resume_pump()

    def _give_up(self) -> None:
        subscriber = self._subscriber
        self.stop()
        self._all.feed.resume_with_gap(subscriber, self._last)
        subscriber.resume_pump()
