"""One subscriber of the hub: what waits for it, and where it is. How all work together says `amqprouter.events.hub`."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from amqprouter.counters import Counters
from amqprouter.events import sse
from amqprouter.events.batch import Batch
from amqprouter.events.interest import Interest, Steps
from amqprouter.events.slices import Work
from amqprouter.events.window import EventWindow
from amqprouter.identity import ANONYMOUS
from amqprouter.net import source_of

MaySee = Callable[[tuple[str, ...], bool], bool]
"""(an event's topics, whether it is private) → whether the subscriber may see it: one of the topics is enough.

It must answer at once and never raise, for it is called in the middle of publishing. Its answers are remembered until
`Hub.reload` is called, which must happen whenever they may have changed.
"""

_FLUSH_EVERY = 256
"""Events that are looked at before what was found so far is written, however little."""


OLD_PLACE = 1000
"""Events by which the place that a subscriber knows may be behind when it becomes live; else it is told at once."""


class Scrutiny(NamedTuple):
    """How `MaySee` is asked about a private event where it tries topic selectors: they may be many, topics long."""

    selectors: int
    """To be tried for each topic."""
    steps: Callable[[tuple[str, ...]], Steps]
    fixed_effort: int = 0
    """What trying them takes besides looking at the topic (`Interest.fixed_effort`)."""


_HEARTBEAT = Batch(None, sse.HEARTBEAT)


class Sink(Protocol):
    """A subscriber's connection, as the hub sees it."""

    def write(self, batch: Batch) -> None:
        """Send; may call `Subscriber.pause` before it returns."""

    def cut(self) -> None:
        """Break the connection off, unsent data and all."""

    def finish(self, retry_seconds: float = 0.0) -> None:
        """End the connection once what was written is sent; where told, ask for patience first."""


class Feed(Protocol):
    """Where a subscriber has its events from: what it needs of the hub."""

    closed: bool
    """Whether all subscriptions are being ended, for good."""
    counters: Counters
    window: EventWindow
    replay_bytes: int
    """Bytes that a replay writes at once."""

    @property
    def written(self) -> Callable[[float], None]:
        """To be called after each write of live events, with when the message of the oldest was received, in seconds
        since 1970."""

    @property
    def place(self) -> int | None:
        """The offset up to which those who are live have had everything, what is pending included; None while nobody
        knows."""

    def place_notice(self, place: int) -> Batch:
        """Tells a subscriber of its place."""

    def walk(self, subscriber: Subscriber) -> None:
        """Let it go on from its cursor, unless it does already."""

    def known(self, subscriber: Subscriber, topics: tuple[str, ...], private: bool) -> bool | None:
        """Whether it wants such events, if that is remembered or little work; else `asks`."""

    def asks(self, subscriber: Subscriber, topics: tuple[str, ...], private: bool) -> Steps:
        """Whether it wants such events, in steps."""

    def leave(self, subscriber: Subscriber) -> None:
        """Forget a subscriber; doing so twice does no harm."""

    def end(self, subscriber: Subscriber, retry_seconds: float = 0.0) -> None:
        """End one subscription in order: its time is over, or its permission."""

    def cut(self, subscriber: Subscriber) -> None:
        """A subscriber is too slow: disconnect it."""


class CatchingUp(Protocol):
    """What a subscriber waits for that has no place in the window yet: mostly what is read for it from before that
    (`amqprouter.events.catch_up`)."""

    @property
    def place(self) -> int | None:
        """The offset up to which the subscriber has had everything, what is pending included; None while unknown."""

    def steps(self) -> Steps:
        """Deal with what was read, as far as the connection takes it; whether it is beyond catching up."""

    def stop(self) -> None:
        """The subscriber is gone, or is beyond this. Doing so twice does no harm."""


class Subscriber:
    """One subscription. The sink's owner calls `start` once, `pause` and `resume` as the connection blocks, and `close`
    when it is gone; all else is the hub's.

    `cursor` is its place in the hub's window while it replays, `CATCHING_UP` before it is there, and None once it is
    live; `pending` is what waits for it: for the end of the reactor's turn, or for its connection.

    What it may take long to find out is found out in a `walk`, in slices of the reactor's time: whether it wants events
    that were not asked about before, and whatever else is behind its cursor.
    """

    __slots__ = (
        "account",
        "address",
        "catch_up",
        "cursor",
        "feed",
        "gone",
        "interest",
        "may_see",
        "notices",
        "number",
        "on_gone",
        "on_resumed",
        "paused",
        "pending",
        "place_told",
        "resumed_after",
        "scrutiny",
        "sink",
        "started",
        "user",
        "walking",
    )

    def __init__(
        self,
        feed: Feed,
        number: int,
        user: str,
        address: str,
        interest: Interest,
        may_see: MaySee,
        sink: Sink,
        scrutiny: Scrutiny | None = None,
    ) -> None:
        self.feed = feed
        self.number = number
        self.user = user
        self.address = address
        self.interest = interest
        self.may_see = may_see
        self.scrutiny = scrutiny
        self.account = f"{ANONYMOUS} at {source_of(address)}" if user == ANONYMOUS else user
        """Who it is one of, when work and turns are shared out: anonymous users are many people."""
        self.walking = False
        self.notices = True
        """Whether it is told of gaps and of its place."""
        self.sink = sink
        self.cursor: int | None = None
        self.catch_up: CatchingUp | None = None
        self.pending: Batch | None = None
        self.resumed_after: str | None = None
        """The id before the first event that it gets; empty when it did not resume, or that has no id, and None while
        that is not known yet."""
        self.place_told = -1
        """The latest offset that it knows as its place, by what it was sent or has named itself."""
        self.paused = False
        self.started = False
        self.gone = False
        self.on_gone: tuple[Callable[[], None], ...] = ()
        """Called once, when it has left the hub."""
        self.on_resumed: Callable[[], None] | None = None
        """Called once, when `resumed_after` is known, if it was not at the beginning."""

    @property
    def buffered(self) -> int:
        """Bytes that wait for the connection."""
        return self.pending.size if self.paused and self.pending is not None else 0

    def resumed(self, after: str) -> None:
        """It is known now behind which id it goes on."""
        self.resumed_after = after
        told, self.on_resumed = self.on_resumed, None
        if told is not None:
            told()

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
        self.feed.leave(self)

    def wants(self, topics: tuple[str, ...], private: bool) -> bool:
        """Whether it asked for such events and may see them."""
        interest = self.interest
        if interest.exact and interest.names(topics):
            return self.may_see(topics, private)
        # What may be seen is mostly remembered by others, and less than what could be matched.
        return bool(interest.patterns) and self.may_see(topics, private) and interest.matches(topics)

    def effort(self, topics: tuple[str, ...], private: bool) -> int:
        """About what `wants` takes, in the measure of `Interest.effort`."""
        effort = self.interest.effort(topics)
        if private and self.scrutiny is not None:
            scrutiny = self.scrutiny
            effort += scrutiny.selectors * sum(map(len, topics)) + scrutiny.fixed_effort * len(topics)
        return effort

    def asks(self, topics: tuple[str, ...], private: bool) -> Steps:
        """`wants`, in steps."""
        named = self.interest.names(topics)
        if not named and not self.interest.patterns:
            return False
        seen = yield from self.sees(topics, private)
        return seen and (named or (yield from self.interest.tries(topics)))

    def sees(self, topics: tuple[str, ...], private: bool) -> Steps:
        """`may_see`, in steps."""
        if not private or self.scrutiny is None:
            for topic in topics:
                if self.may_see((topic,), private):
                    return True
                yield
            return False
        return (yield from self.scrutiny.steps(topics))

    def beat(self) -> None:
        """Send a heartbeat, unless data that waits does the same: with its place, if that is another than it knows."""
        if self.started and not self.paused:
            self.flush()
            if not self.paused and not self.tell_place():
                self.sink.write(_HEARTBEAT)

    def tell_place(self) -> bool:
        """Tell it its place, where it may not know that; nothing may be pending. Whether there was anything to tell."""
        notice = self.place_notice()
        if notice is None:
            return False
        self.sink.write(notice)
        return True

    def tell_gap(self, notice: bytes) -> None:
        """Tell it that events are missing, before what it gets next."""
        if self.notices:
            self.pending = Batch(self.pending, notice)

    def place_notice(self) -> Batch | None:
        """What tells it its place; None where it may know that. Whoever asks must write it."""
        if not self.notices:
            return None
        if self.catch_up is not None:
            place = self.catch_up.place
        elif self.cursor is None:
            place = self.feed.place
        else:
            place = self.feed.window.offset_before(self.cursor)
        if place is None or place <= self.place_told:
            return None
        self.place_told = place
        return self.feed.place_notice(place)

    def pump(self) -> None:
        """Write what waits until the connection blocks: what is pending, then what is behind the cursor."""
        self.flush()
        if self.cursor is not None and not self.paused:
            self.feed.walk(self)

    def flush(self) -> None:
        """Write what is pending, if the connection takes it."""
        if self.pending is not None and self.started and not self.paused:
            batch, self.pending = self.pending, None
            self.send(batch)

    def resume_pump(self) -> None:
        """Write what waits, if the connection takes it."""
        if self.started and not self.paused:
            self.pump()

    def send(self, batch: Batch) -> None:
        """Write events now."""
        self.feed.counters.events_delivered += batch.count
        self.place_told = max(self.place_told, batch.offset)
        self.sink.write(batch)
        if batch.since:
            self.feed.written(batch.since)

    def walk(self) -> Work:
        """Go on from the cursor until it is live, its connection blocks, or it waits for what is being read for it."""
        while self.cursor is not None and self.started and not self.paused and not self.gone:
            if self.catch_up is None:
                yield from self._replay()
            elif not (yield from self.catch_up.steps()):
                break
        if not self.gone:
            self.flush()
            place = self.feed.place
            if self.cursor is None and place is not None and place > self.place_told + OLD_PLACE:
                self.beat()

    def _replay(self) -> Work:
        """Walk along the window. It is live once it has come to the end, cut when overtaken by the beginning."""
        feed, window = self.feed, self.feed.window
        looked_at = 0
        while self.cursor is not None and self.catch_up is None and not self.paused and not self.gone:
            cursor = self.cursor
            if cursor < window.first:
                feed.cut(self)
                return
            entry = window.entry(cursor)
            if entry is None:
                self.cursor = None
                return
            wanted = feed.known(self, entry.topics, entry.private)
            if wanted is None:
                self.flush()
                wanted = yield from feed.asks(self, entry.topics, entry.private)
                if self.cursor != cursor:
                    return  # the stream was made anew meanwhile, or the subscriber is gone
            self.cursor = cursor + 1
            looked_at += 1
            if wanted:
                self.pending = Batch(self.pending, entry.frame, entry.offset)
            if self.pending is not None and (self.pending.size >= feed.replay_bytes or looked_at % _FLUSH_EVERY == 0):
                self.flush()
            yield
