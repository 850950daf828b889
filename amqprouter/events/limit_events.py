"""What is said of messages that a limit holds up: in a metric for all, and in an event for the device's owner.

The event's topic is ``<device>.limits``, and its type ``limits``, which no device's message has: nobody can pretend to
be throttled, and a page that only listens for messages is not disturbed. Whoever may see the topic sees the event.
Events are for people: one for a device in ``[scheduler] limit_events`` seconds, for `MOST_DEVICES` devices at most.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timezone

from amqprouter.counters import Counters
from amqprouter.events.event import Event
from amqprouter.pipeline.settlement import Settlement
from amqprouter.scheduling.decision import Decision
from amqprouter.scheduling.scheduler import Scheduler

TOPIC = "limits"
"""The event's topic, behind the device id, and its type."""
MOST_DEVICES = 1000
"""Devices that are told of in one interval. With thousands over their limits, the metrics say it better."""
_FATE = {
    Decision.THROTTLED: "delayed",
    Decision.DROP: "dropped",
    Decision.REFUSED: "rejected",
    Decision.PARK: "rejected",  # as the pipeline does it
}


class Throttling:
    """Counts what is throttled by `counters.limited`, and has `tell` publish events, which must not block.

    :param wall_clock: seconds since 1970.
    :param interval: seconds between two events of a device; 0 for none.
    """

    def __init__(
        self,
        scheduler: Scheduler[Settlement],
        counters: Counters,
        tell: Callable[[Event], object],
        wall_clock: Callable[[], float],
        interval: float,
    ) -> None:
        self._scheduler = scheduler
        self._counters = counters
        self._tell = tell
        self._wall_clock = wall_clock
        self._notices = Notices(interval, MOST_DEVICES)

    def note(self, device: str, decision: Decision, size: int, now: float) -> None:
        """A message of `size` bytes met this decision; `now` is the scheduler's time."""
        self._counters.limited[self._scheduler.held_by(device, size, now)] += 1
        count = self._notices.due(device, now)
        if count:
            self._tell(self._event(device, decision, size, count, now))

    def _event(self, device: str, decision: Decision, size: int, count: int, now: float) -> Event:
        told = self._scheduler.explain(device, now, size)
        moment, worst = self._wall_clock(), told.worst
        body = {
            "fate": _FATE[decision],
            "limit": worst.text if worst is not None else "",
            "of": worst.key if worst is not None else "",
            "retry_after": round(told.retry_after, 3),
            "retry_at": _iso(moment + told.retry_after),
            "class": told.device_class,
            "waiting": told.waiting,
            "messages": count,
        }
        who = {"device": device} | ({"publisher": told.publisher} if told.publisher else {})
        data = {**who, "topic": TOPIC, "received_at": _iso(moment), "body": body}
        return Event(0, (f"{device}.{TOPIC}",), json.dumps(data, separators=(",", ":")).encode(), type=TOPIC)


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Notices:
    """At most one notice for a name in `seconds`, and at most `most` names; 0 seconds means none at all."""

    def __init__(self, seconds: float, most: int) -> None:
        self._seconds = seconds
        self._most = most
        self._told: dict[str, tuple[float, int]] = {}  # when, and how many came since; in the order of time

    def due(self, name: str, now: float) -> int:
        """Note that something came. Returns 0, or when it is time to tell: how much came since the last notice, this
        one included. `now` is seconds on a clock that never goes back.
        """
        told = self._told
        entry = told.get(name)
        if entry is not None:
            at, since = entry
            if now < at + self._seconds:
                told[name] = at, since + 1
                return 0
            del told[name]
        elif len(told) >= self._most:
            oldest = next(iter(told), None)
            if oldest is None or now < told[oldest][0] + self._seconds:
                return 0
            del told[oldest]
        if not self._seconds:
            return 0
        told[name] = now, 0
        return 1 if entry is None else entry[1] + 1
