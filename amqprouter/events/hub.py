"""The hub: every event goes in here once, and out to each subscriber that asked for it and may see it.

House rules: no sockets; publishing never waits; everything that grows has a bound.

Theory of operation. The hub keeps the latest events, already serialised, in its window. A subscriber is in one of three
states:

- *catching up*: it resumes from an event older than the window, and reads from the stream
  (`amqprouter.events.catch_up`).
- *replaying*: it resumes from an earlier event and has a place in the window. Nothing is buffered for it: it walks
  along the window as fast as its connection takes the bytes, and is live when it reaches the end. So history comes
  before news, and the two never mix. If the window moves on past its place, it is too slow.
- *live*: events join its batch (see `amqprouter.events.batch`). Batches are written once the reactor's turn is over, so
  that many events make one write; or when the connection takes data again, if it is blocked. What waits for a blocked
  connection is bounded in bytes; a subscriber whose bound would be exceeded is too slow.

One that is too slow is cut and counted. It may connect again and resume; of what the window no longer holds by then it
is told by an event of the type ``gap``.

With thousands of subscribers, writing their batches takes longer than one turn should: it is done in slices, and the
source of the events is asked to wait meanwhile (`throttle`). So the daemon's other work has its turns, a slow hub makes
larger batches instead of a longer queue, and no subscriber is found too slow for what is the daemon's own slowness.

Whether a subscriber wants an event is remembered for the event's topics. Where it is not, finding out may take long: as
long as a user's selectors and a publisher's topics please. So it is asked at once only where that is little work, and
its user has not had much of it lately; else the subscriber falls behind, and walks along the window like one that
resumes, in slices that are shared out by user (`amqprouter.events.slices`). It gets its events in order, only later.
"""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Callable, Collection
from itertools import islice
from math import ceil
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from amqprouter.clock import Clock
from amqprouter.counters import Counters
from amqprouter.events import sse
from amqprouter.events.audiences import MAX_REMEMBERED, Audiences
from amqprouter.events.batch import Batch
from amqprouter.events.catch_up import CATCHING_UP, CatchUps, History
from amqprouter.events.event import EARLIEST, GAP, LARGEST_OFFSET, Event, received_at
from amqprouter.events.heartbeats import Heartbeats
from amqprouter.events.interest import Interest, Steps
from amqprouter.events.look_back import LookBack
from amqprouter.events.pending_ids import PendingIds
from amqprouter.events.published_ids import Published, PublishedIds
from amqprouter.events.receipts import Receipts
from amqprouter.events.slices import BURST, SLICE, Slices
from amqprouter.events.subscriber import MaySee, Scrutiny, Sink, Subscriber
from amqprouter.events.topic_history import TopicHistory
from amqprouter.events.window import WINDOW_BYTES, EventWindow
from amqprouter.identity import ANONYMOUS, Identity
from amqprouter.interfaces import IReloadable
from amqprouter.net import source_of
from amqprouter.settings import EventsSettings

_AT_ONCE = 32
"""Subscribers written to between two looks at the clock."""
LITTLE_EFFORT = 2000
"""Characters to be looked at for an answer that is given at once: less than a millisecond at worst."""
TINY_EFFORT = 64
"""The same for an answer that is always given at once: to put it off would take longer."""
REPLAY_BYTES = 65_536
"""Bytes that a replay writes at once, rounded up to whole events: about what a socket takes."""

CLOSING_RETRY_SECONDS = 10.0
"""Least wait, of up to twice as much, before a client comes back after a shutdown, which takes longer than a hiccup."""
CLOSE_WITHIN = 4.0
"""Seconds in which all subscriptions are ended at a stop: less than a step of the stop may take."""
CLOSE_EVERY, CLOSE_AT_ONCE = 0.05, 100
"""Seconds between the parts of it, and the least of a part."""
EXPRESSIONS_EACH, CHARACTERS_EACH = 20, 4096
"""Of all of a user's topic selectors, as many times as the user may have subscriptions: selectors are tried for each
new topic, and kept. A single subscription may have more of them than its part."""
MOST_AHEAD = 10_000
"""Events that another gateway may be ahead of this one; an id further ahead is none of this stream's."""
UNGUESSABLE = "urn:uuid:"
"""How ids begin that nobody guesses: those that are made here have 122 random bits. Whoever knows one was told it, such
as a page's visitor by the page (Mercure, "Discovery")."""
NOTHING = Interest(())


class Refusal(NamedTuple):
    """Why there is no place for another subscriber, as an HTTP status and in words."""

    status: int
    problem: str


def _nothing(wait: bool) -> None:
    """For sources that cannot wait."""


@implementer(IReloadable)
class Hub:
    """All subscribers of this gateway, and the events that they may resume from.

    :param history: where what those who resume from before the window have missed is read.
    :param written: see `Feed`.
    :param throttle: is called with True when the source of events should wait, and with False when it may go on.
    """

    _log = Logger()

    def __init__(
        self,
        settings: EventsSettings,
        counters: Counters,
        clock: Clock,
        *,
        history: History | None = None,
        throttle: Callable[[bool], None] = _nothing,
        written: Callable[[float], None] = lambda received_at: None,
        window_bytes: int = WINDOW_BYTES,
        replay_bytes: int = REPLAY_BYTES,
        max_remembered: int = MAX_REMEMBERED,
    ) -> None:
        self.settings = settings
        self.counters = counters
        self.closed = False
        self.replay_bytes = replay_bytes
        self.window = EventWindow(settings.window, window_bytes)
        self.slices = Slices(clock)
        """Where work for users has its turns."""
        self.receipts = Receipts()
        """Who waits to be told what became of an update, by its id."""
        self._published_ids = PublishedIds()
        self.on_reload: tuple[Callable[[], None], ...] = ()
        """Called by `reload`, for others who hold what is permitted now."""
        self.clock = clock
        self.written = written
        self._subscribers: dict[int, Subscriber] = {}  # by number, hence in the order in which they joined
        self._latest_number = 0
        self._audiences = Audiences(max_remembered)
        self._heartbeats = Heartbeats()
        self._catch_ups = None if history is None else CatchUps(self, history, clock)
        self._pending_ids = PendingIds(clock, self._place)
        self._end: int | None = None  # where the stream ended when it was last read to its end
        self._has_caught_up = True  # not so before it was first read to its end, where that is told of
        self._topic_history = TopicHistory()
        self._place_notice: tuple[int, Batch] | None = None
        self._users: Counter[str] = Counter()
        self._expressions: Counter[str] = Counter()  # in selectors, by user
        self._characters: Counter[str] = Counter()
        self._addresses: Counter[str] = Counter()  # by source
        self._unwritten: deque[Subscriber] = deque()  # those whose batch waits for the end of the turn
        self._writing: Any = None  # the timer of the next slice
        self._throttle = throttle
        self._throttled = False

    @property
    def subscribers(self) -> Collection[Subscriber]:
        """Those that are connected now."""
        return self._subscribers.values()

    def refusal(self, user: str, address: str, interest: Interest = NOTHING) -> Refusal | None:
        """Why this user, from this address, cannot subscribe to this now; None when it can."""
        settings = self.settings
        if self.closed:
            return Refusal(503, "shutting down")
        if len(self._subscribers) >= settings.max_subscribers:
            return Refusal(503, "too many subscribers")
        if user != ANONYMOUS and 0 < settings.max_subscribers_per_user <= self._users[user]:
            return Refusal(429, f"this user has {self._users[user]} subscriptions, the most")
        if user != ANONYMOUS and settings.max_subscribers_per_user:
            for what, counted, each, more in (
                ("expressions", self._expressions, EXPRESSIONS_EACH, interest.expressions),
                ("characters", self._characters, CHARACTERS_EACH, interest.characters),
            ):
                most = each * settings.max_subscribers_per_user
                if counted[user] + more > most:
                    has = f"the topics of this user's subscriptions have {counted[user]} {what}"
                    return Refusal(429, f"{has}, and these {more} more; {most} are the most")
        source = source_of(address)
        if address and 0 < settings.max_subscribers_per_address <= self._addresses[source]:
            return Refusal(429, f"this address has {self._addresses[source]} subscriptions, the most")
        return None

    def publish(self, event: Event, live: bool = True) -> None:
        """Pass an event on; one that is not `live` is only kept for those who resume.

        One that is not newer than the latest is a repeat, from a stream read again: ignored.

        :raises ValueError: its type or id holds CR, LF or NUL.
        """
        latest = self.window.latest_offset
        if latest is not None and event.offset <= latest:
            return
        frame = sse.encode(event)
        self.window.append(event, frame)
        self._topic_history.note(event.topics, event.offset)
        if event.id:
            self._published_ids.add(event)
        if not live:
            return
        audience = self._audiences.of(event.topics, event.private, self._ask)
        members = audience.members
        first = self.window.first
        made: dict[Batch | None, Batch] = {}
        unwritten = self._unwritten
        missing: list[Subscriber] = []
        behind = 0
        for subscriber in members.values():
            if subscriber.gone:
                missing.append(subscriber)
                continue
            if subscriber.cursor is not None:  # it will come to this event by itself, unless overtaken
                behind += 1
                if subscriber.cursor < first:
                    self.cut(subscriber)
                continue
            before = subscriber.pending
            batch = made.get(before)
            if batch is None:
                batch = made[before] = Batch(before, frame, event.offset, 0.0 if before else received_at(event))
            subscriber.pending = batch
            if before is None:
                unwritten.append(subscriber)
            if subscriber.paused and batch.size > self.settings.buffer_bytes:
                self.cut(subscriber)
        for subscriber in missing:
            del members[subscriber.number]
        if event.id and event.id in self.receipts:
            self.receipts.tell(event.id, len(members) - behind)
        if audience.unasked:
            self._fall_behind(audience.unasked)
        self._write_soon()

    def subscribe(
        self,
        user: Identity,
        interest: Interest,
        may_see: MaySee,
        sink: Sink,
        *,
        address: str = "",
        last_event_id: str = "",
        scrutiny: Scrutiny | None = None,
        notices: bool = True,
    ) -> Subscriber:
        """Add a subscriber; nothing is written to `sink` before its `Subscriber.start` is called.

        `last_event_id` is what the client sent, or empty: it then gets what is published from now on. The caller has
        looked at `refusal`, for the same `address`.
        """
        self._latest_number += 1
        subscriber = Subscriber(self, self._latest_number, user.name, address, interest, may_see, sink, scrutiny)
        subscriber.notices = notices
        self._resume(subscriber, last_event_id)
        self._subscribers[subscriber.number] = subscriber
        self._users[subscriber.user] += 1
        self._expressions[subscriber.user] += interest.expressions
        self._characters[subscriber.user] += interest.characters
        self._addresses[source_of(address)] += 1
        self._audiences.join(subscriber)
        self._heartbeats.join(subscriber)
        return subscriber

    @property
    def latest_offset(self) -> int | None:
        """The offset of the latest event that there is, in the window or not; None while that is not known."""
        latest = self.window.latest_offset
        return self._end if latest is None or (self._end is not None and self._end > latest) else latest

    @property
    def place(self) -> int | None:
        """See `Feed`. While this gateway reads history at its start nobody has had that."""
        return self.latest_offset if self._has_caught_up else None

    def place_notice(self, place: int) -> Batch:
        """See `Feed`; thousands are told the same."""
        if self._place_notice is None or self._place_notice[0] != place:
            self._place_notice = place, Batch(None, sse.place(place), place)
        return self._place_notice[1]

    def fell_behind(self) -> None:
        """The source of events has begun to read, or has to begin again: there may be events that it has not seen."""
        self._pending_ids.fell_behind()
        if self._end is None:
            self._has_caught_up = False

    def caught_up(self, latest: int | None) -> None:
        """The source of events has read all there is, up to this offset; None where nobody knows."""
        self._end, self._has_caught_up = latest, True
        self._pending_ids.caught_up()

    def restart(self) -> None:
        """The stream was made anew and counts from 0 again: forget its events, and tell everybody of the gap."""
        self.window.clear()
        self._published_ids.clear()
        self._topic_history.clear()
        self._end = None
        notice = self.gap("stream restarted")
        for subscriber in list(self._subscribers.values()):
            if subscriber.catch_up is not None:
                subscriber.catch_up.stop()
            subscriber.cursor, subscriber.place_told = None, -1
            if subscriber.resumed_after is None:
                subscriber.resumed("")
            if not subscriber.notices:  # the head of its next response will say it
                self.end(subscriber)
                continue
            before = subscriber.pending
            subscriber.pending = Batch(before, notice)
            if subscriber.paused and subscriber.pending.size > self.settings.buffer_bytes:
                self.cut(subscriber)
            elif before is None:
                self._unwritten.append(subscriber)
        self._write_soon()

    def heartbeat(self) -> None:
        """Write a comment, or its place in the stream, to those whose turn it is; called `SPOKES` times in each
        interval (`amqprouter.events.heartbeats`)."""
        for subscriber in self._heartbeats.turn():
            subscriber.beat()

    def reload(self) -> None:
        """Permissions may have changed: ask again about everybody, also those who are connected."""
        self._audiences.forget()
        for tell in self.on_reload:
            tell()

    def end(self, subscriber: Subscriber, retry_seconds: float = 0.0) -> None:
        """End one subscription in order: its time is over, or its permission."""
        if not subscriber.gone:
            self.leave(subscriber)
            subscriber.sink.finish(retry_seconds)

    def close(self) -> Deferred[None]:
        """End all subscriptions in order, and for good; fires when all are ended, within `CLOSE_WITHIN` seconds.

        A few are ended at once, thousands over a while, and each is told another time to come back.
        """
        self.closed = True
        done: Deferred[None] = Deferred()
        self._close_some(max(CLOSE_AT_ONCE, ceil(len(self._subscribers) * CLOSE_EVERY / CLOSE_WITHIN)), done)
        return done

    def _close_some(self, count: int, done: Deferred[None]) -> None:
        for subscriber in list(islice(self._subscribers.values(), count)):
            self.end(subscriber, CLOSING_RETRY_SECONDS)
        if self._subscribers:
            self.clock.callLater(CLOSE_EVERY, self._close_some, count, done)
        else:
            done.callback(None)

    def _write_soon(self) -> None:
        if self._unwritten and self._writing is None:
            self._writing = self.clock.callLater(0, self._write)

    def _write(self) -> None:
        """Write batches: for as long as a slice lasts, and the rest after others had their turn."""
        self._writing = None
        unwritten, end = self._unwritten, self.clock.seconds() + SLICE
        while unwritten:
            for _ in range(min(_AT_ONCE, len(unwritten))):
                subscriber = unwritten.popleft()
                if subscriber.started and not subscriber.paused:
                    subscriber.pump()
            if unwritten and self.clock.seconds() >= end:
                break
        self._write_soon()
        if self._throttled != bool(unwritten):
            self._throttled = bool(unwritten)
            self._throttle(self._throttled)

    def _resume(self, subscriber: Subscriber, last_event_id: str) -> None:
        """Put it where in the window it goes on, and have it told first what it has missed for good."""
        if not last_event_id:
            subscriber.resumed("")
        elif last_event_id == EARLIEST:
            subscriber.cursor = self.window.first
            subscriber.resumed(EARLIEST)
        elif not self._place(subscriber, last_event_id, False):
            self._wait_for(subscriber, last_event_id)

    def _place(self, subscriber: Subscriber, last_event_id: str, last_chance: bool) -> bool:
        """Have it go on behind this id; False if that must wait, which at its last chance it need not."""
        last = self._offset_of(subscriber, last_event_id)
        if last is not None:
            subscriber.place_told = last
        if last is not None and self._may_skip(subscriber, last, last_event_id):
            return True
        return self._go_on_behind(subscriber, last, last_event_id, last_chance)

    def _may_skip(self, subscriber: Subscriber, last: int, last_event_id: str) -> bool:
        """Whether it need not look at what came behind `last`, for it asked for none of that; or has begun to find out.

        Most who come back are quiet ones, and of thousands none should read what all others have had meanwhile.
        """
        place = self.place
        if place is None or last > place:
            return False
        topics = self._topic_history.maybe_missed(subscriber.interest, last)
        if topics is None:
            return False
        self._is_placed(subscriber)
        if not topics:
            subscriber.resumed(last_event_id)
            return True
        end = self.window.end

        def found(missed: bool) -> None:
            self._is_placed(subscriber)
            if missed or end < self.window.first:
                if not self._go_on_behind(subscriber, last, last_event_id, False):
                    self._wait_for(subscriber, last_event_id)
            else:
                subscriber.cursor = end
                subscriber.resumed(last_event_id)
            subscriber.resume_pump()

        subscriber.cursor = CATCHING_UP
        subscriber.catch_up = look_back = LookBack(subscriber, topics, found)
        look_back.begin(self.slices)
        return True

    def _wait_for(self, subscriber: Subscriber, last_event_id: str) -> None:
        subscriber.cursor = CATCHING_UP
        self._pending_ids.add(subscriber, last_event_id)

    def _go_on_behind(self, subscriber: Subscriber, last: int | None, last_event_id: str, last_chance: bool) -> bool:
        """`_place`, of which it is known which offset the id stands for, if any."""
        window, most = self.window, self.latest_offset
        oldest, latest = window.oldest_offset, window.latest_offset
        if last is None:
            if self._pending_ids.behind and not last_chance:
                return False
        elif oldest is not None and latest is not None and oldest - 1 <= last <= latest:
            self._is_placed(subscriber)
            subscriber.cursor = window.behind(last)
            subscriber.resumed(last_event_id)
            return True
        elif most is None or last <= most:
            if latest is None and last == most and not self._pending_ids.behind:
                self._is_placed(subscriber)
                subscriber.resumed(last_event_id)
                return True
            if self._catch_ups is not None and last <= LARGEST_OFFSET:
                self._is_placed(subscriber)
                self._catch_ups.begin(subscriber, last, last_event_id)
                self.clock.callLater(0, self._catch_ups.start_some)
                return True
        elif not last_chance and (self._pending_ids.behind or last <= most + MOST_AHEAD):
            return False
        self._is_placed(subscriber)
        self.resume_with_gap(subscriber, last)
        return True

    def _offset_of(self, subscriber: Subscriber, last_event_id: str) -> int | None:
        """The offset behind this id, if it is known."""
        published = self._published_ids.find(last_event_id)
        if published is not None:
            # Whether there is an update of an id that may be guessed must not be found out by trying.
            told = last_event_id.startswith(UNGUESSABLE)
            return published.offset if told or self._may_resume_from(subscriber, published) else None
        try:
            return sse.parse_last_event_id(last_event_id)
        except ValueError:
            return None

    def _is_placed(self, subscriber: Subscriber) -> None:
        """It waits for nothing any more."""
        if subscriber.catch_up is not None:
            subscriber.catch_up.stop()
        subscriber.cursor = None

    def _may_resume_from(self, subscriber: Subscriber, published: Published) -> bool:
        """Whether it may see this, as far as that can be found out at once: its response begins with the answer."""
        clock, steps = self.clock, subscriber.sees(published.topics, published.private)
        began = now = clock.seconds()
        seen = False
        while now - began < BURST:
            try:
                next(steps)
            except StopIteration as end:
                seen = end.value
                break
            now = clock.seconds()
        self.slices.charge(subscriber.account, clock.seconds() - began)
        return seen

    def resume_with_gap(self, subscriber: Subscriber, last: int | None) -> None:
        """What is behind `last`, or behind an id that nobody knows, cannot be had: tell so, and go on with the rest."""
        window = self.window
        oldest = window.oldest_offset
        reason, resumes_after = "unknown id", self.latest_offset
        subscriber.cursor, subscriber.place_told = None, -1
        if last is not None and oldest is not None and last < oldest:
            reason, resumes_after = "too old", oldest - 1
            subscriber.cursor = window.first
        subscriber.tell_gap(self.gap(reason, resumes_after))
        subscriber.resumed("" if resumes_after is None else str(resumes_after))

    def gap(self, reason: str, resumes_after: int | None = None) -> bytes:
        """Tell that events are missing. It has an id, so that a client cut off right behind it is not told again."""
        data = json.dumps({"reason": reason, "resumes_after": resumes_after}).encode()
        return sse.encode_fields(data, id="" if resumes_after is None else str(resumes_after), event_type=GAP)

    def _ask(self, subscriber: Subscriber, topics: tuple[str, ...], private: bool) -> bool | None:
        """Whether it wants such events, if that can be said at once."""
        account, slices = subscriber.account, self.slices
        effort = subscriber.effort(topics, private)
        if effort > TINY_EFFORT and (effort > LITTLE_EFFORT or not slices.may_ask(account)):
            return None
        began = self.clock.seconds()
        wanted = subscriber.wants(topics, private)
        slices.charge(account, self.clock.seconds() - began)
        return wanted

    def _fall_behind(self, unasked: dict[int, Subscriber]) -> None:
        """Have those who are live find out by themselves whether they want the latest event."""
        first, latest = self.window.first, self.window.end - 1
        for subscriber in list(unasked.values()):
            if subscriber.gone:
                del unasked[subscriber.number]
            elif subscriber.cursor is None:
                subscriber.cursor = latest
                subscriber.resume_pump()
            elif subscriber.cursor < first:
                self.cut(subscriber)

    # The rest is for subscribers.

    def walk(self, subscriber: Subscriber) -> None:
        """Let it go on from its cursor, unless it does already."""
        if not subscriber.walking:
            subscriber.walking = True
            self.slices.submit(subscriber.account, subscriber.walk()).addBoth(self._walked, subscriber)

    def _walked(self, result: object, subscriber: Subscriber) -> None:
        subscriber.walking = False
        if isinstance(result, Failure):
            self._log.failure("a subscriber cannot go on, and is disconnected", failure=result)
            if not subscriber.gone:
                self.cut(subscriber)

    def known(self, subscriber: Subscriber, topics: tuple[str, ...], private: bool) -> bool | None:
        """Whether it wants such events, if that is remembered or little work; else `asks`."""
        wanted = self._audiences.recall(subscriber, topics, private)
        if wanted is None and subscriber.effort(topics, private) <= LITTLE_EFFORT:
            wanted = subscriber.wants(topics, private)
            self._audiences.learn(subscriber, topics, private, wanted)
        return wanted

    def asks(self, subscriber: Subscriber, topics: tuple[str, ...], private: bool) -> Steps:
        """Whether it wants such events, in steps."""
        audiences = self._audiences
        while True:
            generation, wanted = audiences.generation, False
            steps = subscriber.asks(topics, private)
            while not subscriber.gone:
                try:
                    next(steps)
                except StopIteration as end:
                    wanted = end.value
                    break
                yield
            if generation == audiences.generation:  # else permissions have changed meanwhile
                audiences.learn(subscriber, topics, private, wanted)
                return wanted

    def leave(self, subscriber: Subscriber) -> None:
        """Forget a subscriber; doing so twice does no harm."""
        if subscriber.gone:
            return
        subscriber.gone = True
        if subscriber.catch_up is not None:
            subscriber.catch_up.stop()
        subscriber.pending = subscriber.cursor = None
        del self._subscribers[subscriber.number]
        self._audiences.leave(subscriber)
        self._heartbeats.leave(subscriber)
        user, interest = subscriber.user, subscriber.interest
        for counter, key, count in (
            (self._users, user, 1),
            (self._expressions, user, interest.expressions),
            (self._characters, user, interest.characters),
            (self._addresses, source_of(subscriber.address), 1),
        ):
            counter[key] -= count
            if not counter[key]:
                del counter[key]
        for callback in subscriber.on_gone:
            callback()

    def cut(self, subscriber: Subscriber) -> None:
        """A subscriber is too slow: disconnect it."""
        self.counters.slow_subscribers += 1
        self.leave(subscriber)
        subscriber.sink.cut()
