"""What goes wrong when in a soak, made from a seed. Pure: the same seed, length and choice give the same schedule.

Theory of operation. There are two lanes, one of processes and the network and one of what an operator sets on the
broker, and in each of them one fault follows the other: so at most two things are wrong at a time, and never two of
which the one undoes the other. A lane deals its faults from a shuffled deck, and shuffles again when it is empty, so
that a long run has each of them about equally often and a short one has no fault twice. Between two faults of a lane
there is time for all to flow again.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable
from dataclasses import dataclass

FIRST = 6.0
"""Seconds until the first fault: the fleet flows by then."""
PROCESSES, OPERATOR = "processes and network", "operator"
PAUSES = {PROCESSES: (10.0, 24.0), OPERATOR: (16.0, 44.0)}
"""Seconds between the end of a fault and the next one of its lane, at least and at most: so that there are times with
one thing wrong, with two, and with none."""


@dataclass(frozen=True)
class Kind:
    """A fault that there is; it lasts from `least` to `most` seconds, 0 where it is over at once."""

    name: str
    lane: str
    least: float
    most: float
    text: str


KINDS = (
    Kind("daemon-killed", PROCESSES, 0, 4, "SIGKILL, and started again"),
    Kind("daemon-restarted", PROCESSES, 0, 4, "SIGTERM, and started again"),
    Kind("daemon-reloaded", PROCESSES, 2, 8, "SIGHUP with other limits, or with a configuration that is wrong"),
    Kind("daemon-stands-still", PROCESSES, 3, 12, "SIGSTOP, SIGCONT"),
    Kind("broker-killed", PROCESSES, 0, 5, "SIGKILL of the broker's VM, and started again"),
    Kind("broker-restarted", PROCESSES, 0, 5, "stopped in order, and started again"),
    Kind("broker-stands-still", PROCESSES, 3, 20, "SIGSTOP, SIGCONT"),
    Kind("connections-closed", PROCESSES, 0, 0, "all of them, devices' too, by the broker"),
    Kind("memory-alarm", PROCESSES, 3, 12, "the broker takes no publishes"),
    Kind("disk-alarm", PROCESSES, 3, 12, "the broker takes no publishes"),
    Kind("store-killed", PROCESSES, 0, 15, "SIGKILL, and started again"),
    Kind("store-stands-still", PROCESSES, 3, 20, "SIGSTOP, SIGCONT"),
    Kind("store-refuses", PROCESSES, 2, 15, "every insert is answered with 'not primary'"),
    Kind("broker-cut", PROCESSES, 0, 5, "the daemon's connections to the broker are reset, and new ones refused"),
    Kind("broker-silent", PROCESSES, 3, 20, "nothing that the daemon and the broker send arrives"),
    Kind("broker-slow", PROCESSES, 4, 15, "each way between them takes up to 0.5 s, in small pieces"),
    Kind("store-cut", PROCESSES, 0, 5, "as broker-cut, between the daemon and the store"),
    Kind("store-silent", PROCESSES, 3, 20, "as broker-silent"),
    Kind("store-slow", PROCESSES, 4, 15, "as broker-slow"),
    Kind("queues-limited", OPERATOR, 4, 20, "max-queues of the virtual host is what there are"),
    Kind("connections-limited", OPERATOR, 4, 15, "max-connections is 2, and the daemon's connections are reset"),
    Kind("quarantine-full", OPERATOR, 4, 20, "a policy: rejected and dead letters take 5, and reject what is more"),
    Kind("parking-full", OPERATOR, 4, 20, "a policy: parking queues take 5, and reject what is more"),
    Kind("permissions-taken", OPERATOR, 3, 12, "the daemon's account may not write, or nothing at all"),
    Kind("target-full", OPERATOR, 3, 15, "a policy: the target's queue takes 5, and nobody reads it"),
    Kind("target-unbound", OPERATOR, 2, 10, "the target's exchange has no binding"),
    Kind("target-deleted", OPERATOR, 2, 10, "the target's exchange is not there"),
)
NAMES = tuple(kind.name for kind in KINDS)


@dataclass(frozen=True)
class Planned:
    """One fault to come."""

    at: float
    """Seconds from the start; it comes later when the one before it in its lane takes longer than it should."""
    kind: Kind
    seconds: float
    """How long it lasts."""
    chance: float
    """A number from 0 to 1 that decides between the fault's variants."""

    def __str__(self) -> str:
        return f"{self.at:7.1f} s  {self.kind.name:<20} {self.seconds:4.1f} s  {self.kind.text}"


def chosen(only: Collection[str] = (), without: Collection[str] = ()) -> list[Kind]:
    """The faults that these options leave; without `only` all of them.

    :raises ValueError: there is no fault of such a name, or none is left.
    """
    unknown = sorted({*only, *without} - {*NAMES})
    if unknown:
        raise ValueError(f"no such fault: {', '.join(unknown)}; there are {', '.join(NAMES)}")
    left = [kind for kind in KINDS if (not only or kind.name in only) and kind.name not in without]
    if not left:
        raise ValueError("no fault is left")
    return left


def plan(seed: int, seconds: float, kinds: Iterable[Kind] = KINDS) -> list[Planned]:
    """All faults of a run, by time; each is lifted before the run's end."""
    kinds = list(kinds)
    planned: list[Planned] = []
    for lane in (PROCESSES, OPERATOR):
        # A lane's own randomness: to leave faults of the one out does not change the other.
        chance = random.Random(f"{seed} {lane}")
        planned += _lane([kind for kind in kinds if kind.lane == lane], PAUSES[lane], seconds, chance)
    return sorted(planned, key=lambda one: one.at)


def _lane(kinds: list[Kind], pauses: tuple[float, float], seconds: float, chance: random.Random) -> Iterable[Planned]:
    at = FIRST + chance.uniform(0, pauses[0])
    deck: list[Kind] = []
    while kinds:
        if not deck:
            deck = chance.sample(kinds, len(kinds))
        kind = deck.pop()
        lasts = chance.uniform(kind.least, kind.most)
        if at + lasts > seconds:
            return
        yield Planned(round(at, 1), kind, round(lasts, 1), round(chance.random(), 3))
        at += lasts + chance.uniform(*pauses)
