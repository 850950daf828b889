"""The account of a soak: where each message is that the broker confirmed to a device. Pure.

What is looked at are the store, the target's queue and the quarantine themselves, never the daemon's own counters.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

RESERVED = "x-amqprouter-"
"""No header of a device that begins so may reach a target."""
PROVEN = "x-amqprouter-device"
"""The one that the gateway itself adds: who sent it."""


class Duty(Enum):
    """What has to become of a message."""

    DELIVERED = "delivered"
    """At all its targets; or in quarantine, with a reason."""
    ANSWERED = "answered"
    """The same, but its place may well be the quarantine: while that is full it may be gone."""
    REFUSED = "refused"
    """At no target, whatever else."""


@dataclass(slots=True)
class Sent:
    """A message, as its device knows it. Times are seconds of one monotonic clock."""

    device: str
    number: int
    """Counts the device's messages."""
    digest: str
    duty: Duty
    at: float
    headers: Mapping[str, Any] | None = None
    """What the targets must have; None where they are not compared."""
    stored_as_sent: bool = True
    """Whether the store's copy of the body can be compared with what was sent."""
    published: int = 0
    """How often it was written to a connection; more than once where a connection was lost before the confirm."""
    confirmed: bool = False


@dataclass(slots=True)
class Arrival:
    """A message at the target's queue, however often it came."""

    at: float
    """Of the first time."""
    digests: set[str] = field(default_factory=set)
    headers: Mapping[str, Any] | None = None
    again: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Stored:
    """A document. In the order in which the store has them."""

    name: str
    """The message id."""
    digest: str
    headers: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Evidence:
    """What there is at the end."""

    sent: Mapping[str, Sent]
    """By message id, as everywhere."""
    arrived: Mapping[str, Arrival]
    """In the order of the first arrivals."""
    stored: Sequence[Stored]
    quarantined: Mapping[str, str]
    """Message id → the reason; empty where there was none."""
    waiting: Mapping[str, str]
    """Message id → the queue in which it still waits for its targets."""
    seen: Collection[str]
    """Message ids that the subscriber was told."""
    quarantine_was_full: bool = False


@dataclass(frozen=True)
class Account:
    """What became of them. Lists hold message ids, at most as many as there are."""

    published: int
    confirmed: int
    delivered: int
    """Well-behaved ones that are at both targets."""
    lost: list[str]
    """Confirmed, and neither at each target nor in quarantine nor waiting."""
    stuck: list[str]
    """Still waiting, although nothing is in the way any more."""
    twice: list[str]
    """In the store more than once."""
    changed: list[str]
    """Body or headers at a target differ from what was sent."""
    let_in: list[str]
    """At a target, and nobody who may sent it; or with a header that only the gateway may write."""
    gone: int
    """Refused ones for which the full quarantine had no room."""
    reasons: dict[str, int]
    """Of what is in quarantine, but for hostile devices' messages."""
    again: int
    """Times that a message came to the target's queue once more."""
    again_unasked: int
    """Of these, without any fault since it was sent, and not sent twice by the device."""
    disorder: list[str]
    """First arrivals at the target behind a later message of the same device, which it had sent only once."""
    disorder_stored: list[str]
    """The same in the store."""
    disorder_calm: tuple[int, int]
    """How many of either were sent, and came, while nothing was wrong."""
    unseen: list[str]
    """Delivered, and never told to the subscriber."""


@dataclass(frozen=True)
class Windows:
    """When something was wrong: from each fault's beginning until a while behind its end."""

    spans: Sequence[tuple[float, float]]

    def __contains__(self, moment: float) -> bool:
        return self.touch(moment, moment)

    def touch(self, begin: float, end: float) -> bool:
        """Whether anything was wrong at any time in between."""
        return any(first <= end and begin <= last for first, last in self.spans)


@dataclass(frozen=True)
class Waits:
    """How long messages were on their way, in seconds."""

    count: int
    p50: float
    p99: float
    most: float


def digest(body: bytes) -> str:
    """By which bodies are compared."""
    return hashlib.sha256(body).hexdigest()


def waits(lengths: Iterable[float]) -> Waits:
    """Their median, 99th percentile and greatest."""
    ordered = sorted(lengths)
    if not ordered:
        return Waits(0, 0.0, 0.0, 0.0)
    last = len(ordered) - 1
    return Waits(len(ordered), ordered[last // 2], ordered[min(last, len(ordered) * 99 // 100)], ordered[last])


def account(evidence: Evidence, windows: Windows) -> Account:
    """Compare what is where with what was sent."""
    sent, arrived = evidence.sent, evidence.arrived
    copies = Counter(one.name for one in evidence.stored)
    lost, stuck, unseen = [], [], []
    reasons: Counter[str] = Counter()
    delivered = gone = 0
    for name, message in sent.items():
        if message.duty is Duty.REFUSED:
            continue
        reason = evidence.quarantined.get(name)
        if reason:
            reasons[reason.partition(":")[0]] += 1
        if name in arrived and name in copies:
            delivered += 1
            if name not in evidence.seen:
                unseen.append(name)
        elif not message.confirmed or reason:
            continue
        elif name in evidence.waiting:
            stuck.append(name)
        elif evidence.quarantine_was_full and message.duty is Duty.ANSWERED:
            gone += 1
        else:
            lost.append(name)
    disorder, disorder_stored = _disorder(sent, arrived), _disorder(sent, copies)
    repeated = [
        (message, moment) for name, message in sent.items() if name in arrived for moment in arrived[name].again
    ]
    return Account(
        published=len(sent),
        confirmed=sum(message.confirmed for message in sent.values()),
        delivered=delivered,
        lost=lost,
        stuck=stuck,
        twice=[name for name, count in copies.items() if count > 1],
        changed=_changed(evidence),
        let_in=_let_in(evidence),
        gone=gone,
        reasons=dict(reasons.most_common()),
        again=len(repeated),
        again_unasked=sum(
            message.published == 1 and not windows.touch(message.at, moment) for message, moment in repeated
        ),
        disorder=disorder,
        disorder_stored=disorder_stored,
        disorder_calm=(_calm(evidence, disorder, windows), _calm(evidence, disorder_stored, windows)),
        unseen=unseen,
    )


def _calm(evidence: Evidence, names: Iterable[str], windows: Windows) -> int:
    """How many of these came while nothing was wrong, from their sending until they were at the target."""
    spans = [(evidence.sent[name].at, evidence.arrived.get(name)) for name in names]
    return sum(not windows.touch(at, at if arrival is None else arrival.at) for at, arrival in spans)


def _let_in(evidence: Evidence) -> list[str]:
    found = [(name, arrival.headers) for name, arrival in evidence.arrived.items()]
    found += [(one.name, one.headers) for one in evidence.stored]
    return sorted({name for name, headers in found if _is_guilty(evidence.sent.get(name), headers or {})})


def _is_guilty(message: Sent | None, headers: Mapping[str, Any]) -> bool:
    if message is None or message.duty is Duty.REFUSED or headers.get(PROVEN, message.device) != message.device:
        return True
    return any(name.startswith(RESERVED) and name != PROVEN for name in headers)


def _changed(evidence: Evidence) -> list[str]:
    changed = set()
    for name, arrival in evidence.arrived.items():
        message = evidence.sent.get(name)
        if message is not None and (arrival.digests != {message.digest} or _differ(message.headers, arrival.headers)):
            changed.add(name)
    for one in evidence.stored:
        message = evidence.sent.get(one.name)
        if message is None or not message.stored_as_sent:
            continue
        if one.digest != message.digest or _differ(message.headers, one.headers):
            changed.add(one.name)
    return sorted(changed)


def _differ(expected: Mapping[str, Any] | None, found: Mapping[str, Any] | None) -> bool:
    own = {name: value for name, value in (found or {}).items() if name != PROVEN}
    return expected is not None and expected != own


def _disorder(sent: Mapping[str, Sent], names: Iterable[str]) -> list[str]:
    """Those that come behind a later one of their device; not where the device itself sent one of the two again."""
    latest: dict[str, int] = {}
    late = []
    for name in names:
        message = sent.get(name)
        if message is None or message.published > 1:
            continue
        if message.number < latest.get(message.device, 0):
            late.append(name)
        else:
            latest[message.device] = message.number
    return late
