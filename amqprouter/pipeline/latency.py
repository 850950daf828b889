"""How long messages take: histograms, cheap enough for the hot path, of each step on their way.

Theory of operation. A target mostly answers for many messages together, and messages that came together have the same
`received_at`. So a batch of answers looks at the clock once, and a histogram is told of all that have the same age in
one call: a message costs a comparison and an addition. Where there are classes, finding the device's costs more. When
its publisher sent a message takes longest to find out, so it is asked of some only: of the first of each batch and of
every `SAMPLED` behind it.

All is measured by the wall clock, for a message may have been parked, and the process restarted, since it was received:
when the clock is set, what is under way then is measured wrongly by so much. What would be negative counts as 0.

Bounds: a histogram for each class and for each pair of a target and a class, which are the configuration's.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

from amqprouter.amqp.properties import Properties
from amqprouter.pipeline.message import Message
from amqprouter.pipeline.settlement import Settlement

BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0)
"""Seconds, each included in its bucket. From what a quick target takes to what a parking queue keeps; with the last
bucket, for what takes longer, 18 for each label."""
SPAN = 60.0
"""Seconds: what is said to be recent is of the last one to two of these, as the histogram's marks lie."""
SAMPLED = 16
"""One message in so many is asked when it was sent: where nobody else had to find out, that takes two microseconds."""
OLDEST_SENT = 30 * 86_400.0
"""Seconds. A timestamp further back than any queue holds messages is no latency but a clock that was never set, which
begins at 1970 or 2000."""
AHEAD = 1.0
"""Seconds by which a timestamp may be ahead of our clock, as those of two hosts that keep time are; further ahead is a
wrong clock, and says nothing."""
UNKNOWN = "unknown"
"""Stands for the class of a device that is not in memory any more, as of messages that were parked for long."""

_MILLISECONDS = b"timestamp_in_ms"
"""The header that RabbitMQ sets beside the timestamp, which is in whole seconds, where it is told to
(``message_interceptors.incoming.set_header_timestamp.overwrite``, or the plugin rabbitmq_message_timestamp)."""


class Recent(NamedTuple):
    """Of the last minute or two: how many were measured, and seconds."""

    samples: int
    p50: float
    p99: float
    longest: float


class LatencyHistogram:
    """Counts by duration, since the start and of late. `now` is seconds by any clock, the same for all calls."""

    __slots__ = ("_before", "_longest", "_longest_before", "_mark", "_marked", "_next", "counts", "total")

    def __init__(self) -> None:
        size = len(BOUNDS) + 1
        self.counts = [0] * size
        """For each of `BOUNDS`, those that took no longer, but longer than the bound before; then those beyond."""
        self.total = 0.0
        """Seconds that all took together."""
        self._before = [0] * size  # the counts one mark ago
        self._mark = [0] * size  # at the latest mark
        self._marked, self._next = 0.0, 0.0  # when that was, and when there is to be another
        self._longest = self._longest_before = 0.0  # since the latest mark, and between the two

    def add(self, seconds: float, count: int, now: float) -> None:
        """So many took so long; negative counts as 0."""
        if not self._marked <= now < self._next:
            self._set_mark(now)
        if seconds > self._longest:
            self._longest = seconds
        elif seconds < 0.0:
            seconds = 0.0
        self.counts[bisect_left(BOUNDS, seconds)] += count
        self.total += seconds * count

    def _set_mark(self, now: float) -> None:
        if self._next <= now < self._next + SPAN:
            self._before, self._longest_before = self._mark, self._longest
        else:  # nothing came for longer, or the clock was set
            self._before, self._longest_before = self.counts.copy(), 0.0
        self._mark, self._longest = self.counts.copy(), 0.0
        self._marked, self._next = now, now + SPAN

    def recent(self, now: float) -> Recent | None:
        """What took how long of late; None when there was nothing."""
        if not self._marked <= now < self._next:
            self._set_mark(now)
        counts = [count - before for count, before in zip(self.counts, self._before, strict=True)]
        number, longest = sum(counts), max(self._longest, self._longest_before)
        if not number:
            return None
        return Recent(number, quantile(counts, 0.5, longest), quantile(counts, 0.99, longest), longest)

    def cumulative(self) -> Iterator[tuple[float, int]]:
        """Each bound, infinity at the end, with how many took no longer."""
        number = 0
        for bound, count in zip((*BOUNDS, float("inf")), self.counts, strict=True):
            number += count
            yield bound, number


def quantile(counts: Sequence[int], part: float, longest: float) -> float:
    """Seconds that this part of all took at most, as Prometheus estimates it: evenly spread within each bucket. Never
    more than the longest, which stands for those beyond all bounds.
    """
    wanted = part * sum(counts)
    below, lower = 0, 0.0
    for bound, count in zip(BOUNDS, counts, strict=False):
        if count and below + count >= wanted:
            return min(longest, lower + (bound - lower) * (wanted - below) / count)
        below, lower = below + count, bound
    return longest


class KnowsClasses(Protocol):
    """Who can tell the class of a device: the scheduler."""

    @property
    def only_class(self) -> str:
        """The class of all, where there is one only; else empty."""

    def class_of(self, name: str) -> str:
        """The class of a device; empty where it is not in memory."""


class OneClass:
    """As long as nobody knows of any."""

    only_class = "default"

    def class_of(self, name: str) -> str:
        """See `KnowsClasses`."""
        return self.only_class


class Latencies:
    """All histograms. `wall_clock` gives seconds since 1970."""

    def __init__(self, wall_clock: Callable[[], float]) -> None:
        self.wall_clock = wall_clock
        self.classes: KnowsClasses = OneClass()
        """Set once the scheduler is made."""
        self.publishing: dict[str, LatencyHistogram] = {}
        """From when a message was sent to when it was received, by class."""
        self.targets: dict[tuple[str, str], LatencyHistogram] = {}
        """From when a message was received to when its target has it for good, by target and class."""
        self.subscribers = LatencyHistogram()
        """From when the oldest message of a write was received to when that was written to a subscriber."""

    def received(self, messages: Iterable[Message]) -> None:
        """These have come, some of them from who they should. The others do not count: anybody can send any time."""
        now, classes = self.wall_clock(), self.classes
        only = classes.only_class
        for message in messages:
            verdict = message.verdict
            if verdict is None or not verdict.allowed or message.redelivered or message.is_replayed:
                continue
            sent = sent_at(message.properties)
            if sent is None or not -AHEAD <= message.received_at - sent <= OLDEST_SENT:
                continue
            name = only or classes.class_of(message.device) or UNKNOWN
            histogram = self.publishing.get(name)
            if histogram is None:
                histogram = self.publishing[name] = LatencyHistogram()
            histogram.add(message.received_at - sent, 1, now)

    def target(self, name: str) -> TargetLatency:
        """For the gate of this target."""
        return TargetLatency(self, name)

    def written(self, received_at: float) -> None:
        """Events were written to a subscriber, the oldest of a message that was received then."""
        now = self.wall_clock()
        self.subscribers.add(now - received_at, 1, now)

    def recent(self) -> list[dict[str, object]]:
        """What took how long of late, fit for JSON: in the order of the messages' way, where there was anything."""
        now = self.wall_clock()
        rows = [("published", "", name, histogram) for name, histogram in sorted(self.publishing.items())]
        rows += [("confirmed", target, name, histogram) for (target, name), histogram in sorted(self.targets.items())]
        rows.append(("written", "", "", self.subscribers))
        found: list[dict[str, object]] = []
        for step, target, name, histogram in rows:
            recent = histogram.recent(now)
            if recent is not None:
                labels = {"target": target, "class": name}
                found.append({"step": step, **{key: text for key, text in labels.items() if text}, **recent._asdict()})
        return found


class TargetLatency:
    """What a gate tells of its target."""

    __slots__ = ("_all", "_target")

    def __init__(self, latencies: Latencies, target: str) -> None:
        self._all = latencies
        self._target = target

    def answered(self, settlements: Sequence[Settlement]) -> None:
        """The target has all these messages, which are not finished yet: so their devices are in memory."""
        latencies = self._all
        now, classes = latencies.wall_clock(), latencies.classes
        only = classes.only_class
        if not only:
            self._by_class(settlements, classes.class_of, now)
            return
        histogram = self._histogram(only)
        latest, count = -1.0, 0
        for settlement in settlements:
            received_at = settlement.message.received_at
            if received_at != latest:
                if count:
                    histogram.add(now - latest, count, now)
                latest, count = received_at, 0
            count += 1
        if count:
            histogram.add(now - latest, count, now)

    def _by_class(self, settlements: Sequence[Settlement], class_of: Callable[[str], str], now: float) -> None:
        counts: dict[tuple[str, float], int] = {}
        for settlement in settlements:
            message = settlement.message
            key = class_of(message.device), message.received_at
            counts[key] = counts.get(key, 0) + 1
        for (name, received_at), count in counts.items():
            self._histogram(name or UNKNOWN).add(now - received_at, count, now)

    def _histogram(self, name: str) -> LatencyHistogram:
        key, targets = (self._target, name), self._all.targets
        histogram = targets.get(key)
        if histogram is None:
            histogram = targets[key] = LatencyHistogram()
        return histogram


def sent_at(properties: Properties) -> float | None:
    """When a message was sent, in seconds since 1970, by the word of the broker or of its publisher: to the millisecond
    where the broker sets a header, else in whole seconds, rounded down. None where nobody says.
    """
    raw, front = properties.raw, properties.front
    try:
        if _MILLISECONDS in raw:
            value = properties.header(_MILLISECONDS)
            if isinstance(value, int) and not isinstance(value, bool):
                return value / 1000
        return properties.timestamp if front is None else front.id_and_time(raw)[1]
    except ValueError:
        return None
