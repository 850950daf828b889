"""Subscribers who resume from an id of which it is not known yet whether there is such an event.

Theory of operation. A gateway that has just started, or whose broker was away, is behind: it does not know what others
have published meanwhile. Whoever resumes then from an id that it does not know waits until it has caught up; as long as
the broker is away that takes, nothing new comes either. After that an id may still be ahead of this gateway by what is
on its way, for the client had it from another one: for that it waits a moment. What is unknown then is told so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from amqprouter.clock import Clock
from amqprouter.events.interest import Steps
from amqprouter.events.subscriber import Subscriber

AHEAD_WITHIN = 2.0
"""Seconds in which an event that another gateway has had must come to this one: it does in milliseconds."""
LOOK_EVERY = 0.1
"""Seconds between two looks at whether one has come."""


class PendingIds:
    """All of them, at most one for each subscriber. `place` puts one where it goes on, and says whether it could; told
    that this is its last chance, it does so in any case."""

    def __init__(self, clock: Clock, place: Callable[[Subscriber, str, bool], bool]) -> None:
        self.behind = False
        """Whether there may be events that this gateway does not know of yet."""
        self.place = place
        self._clock = clock
        self._pending: dict[int, PendingId] = {}  # by the subscriber's number
        self._timer: Any = None

    def __len__(self) -> int:
        return len(self._pending)

    def add(self, subscriber: Subscriber, last_event_id: str) -> None:
        """Have this one wait; its `catch_up` stands for that."""
        pending = PendingId(self, subscriber, last_event_id, self._clock.seconds() + AHEAD_WITHIN)
        self._pending[subscriber.number] = pending
        subscriber.catch_up = pending
        self._look_soon()

    def fell_behind(self) -> None:
        """There may be events that are not known."""
        self.behind = True

    def caught_up(self) -> None:
        """All that there was is known."""
        self.behind = False
        until = self._clock.seconds() + AHEAD_WITHIN
        for pending in list(self._pending.values()):
            pending.until = until
        self._look()

    def forget(self, subscriber: Subscriber) -> None:
        """One that waits no longer."""
        self._pending.pop(subscriber.number, None)

    def _look_soon(self) -> None:
        if self._timer is None and self._pending and not self.behind:
            self._timer = self._clock.callLater(LOOK_EVERY, self._look_again)

    def _look_again(self) -> None:
        self._timer = None
        if not self.behind:
            self._look()

    def _look(self) -> None:
        now = self._clock.seconds()
        for pending in list(self._pending.values()):
            if not pending.over:
                pending.look(now >= pending.until)
        self._look_soon()


class PendingId:
    """One's; it is a `CatchingUp`."""

    place: int | None = None
    """See there: nothing has been written yet."""

    def __init__(self, all_of_them: PendingIds, subscriber: Subscriber, last_event_id: str, until: float) -> None:
        self.over = False
        self.until = until
        """When it is over, as long as this gateway is not behind; in the clock's seconds."""
        self._all = all_of_them
        self._subscriber = subscriber
        self._last_event_id = last_event_id

    def look(self, last_chance: bool) -> None:
        """Go on, if that can be done."""
        subscriber = self._subscriber
        if self._all.place(subscriber, self._last_event_id, last_chance):
            subscriber.resume_pump()

    def steps(self) -> Steps:
        """There is nothing to be done but to wait."""
        yield from ()
        return False

    def stop(self) -> None:
        """The subscriber is gone, or is beyond this. Doing so twice does no harm."""
        if not self.over:
            self.over = True
            self._subscriber.catch_up = None
            self._all.forget(self._subscriber)
