"""Whose turn it is among those that wait: shares by priority, and within one priority by weight.

Theory of operation. Within a priority this is deficit round robin (Shreedhar and Varghese, 1995): in each round
everyone who waits earns its weight, and sends a message once it has earned its cost. Whoever has not earned enough yet
is not visited in vain, but filed under the round in which it will have; so a turn takes the same time whether the next
message is due in this round or in a hundred, and whether ten devices wait or a million.

A message costs one, for its place in flight and the work that each takes, and one more for every `COST_BYTES` of its
body; so a device with large messages does not get more of the gateway than one with small ones.

Priorities are served by stride scheduling (Waldspurger and Weihl, 1995): while all of them have something waiting,
their turns are as `SHARES`; what one does not use goes to the others, the higher first. So alarms hardly notice
telemetry, and telemetry never starves. A priority that had nothing to do does not save up turns.

Some wait in groups: the devices that one publisher speaks for. A group takes its turns as one alone would, and those in
it take turns among themselves. So ten thousand devices behind a bridge get as much as one device beside it, and each of
them as much as its siblings.
"""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar

from amqprouter.scheduling.slot_ring import SlotRing

PRIORITIES = ("high", "normal", "low")
SHARES = (16, 4, 1)
"""Turns of each priority while all have something waiting: the rest keeps a fifth against the one above it."""
COST_BYTES = 8192
"""Bytes that cost about as much as a small message does altogether: ten microseconds or so, at memory's and loopback's
speed of a gigabyte a second."""
MOST_ROUNDS = 256
"""Rounds that one message may take to earn; a body over two megabytes counts as one of two."""
MOST_WEIGHT = 100
"""Turns in a row are what a weight comes down to among the equally backlogged: more would keep the others waiting."""


class Waiter(Protocol):
    """Somebody who takes turns. `Turns` keeps in `earned_in` the round in which its next message will be earned."""

    earned_in: float
    earned_with: object

    @property
    def priority(self) -> int:
        """Index in `PRIORITIES`."""

    @property
    def weight(self) -> float:
        """What it earns in a round, from 1 to `MOST_WEIGHT`."""

    @property
    def size(self) -> int:
        """Bytes of its next message."""


W = TypeVar("W", bound=Waiter)


class Turns(Generic[W]):
    """Those who wait for one thing, each once."""

    __slots__ = ("_first", "_passes", "_present", "_rounds", "count")

    def __init__(self) -> None:
        self._rounds: tuple[SlotRing[W], ...] = tuple(SlotRing(MOST_ROUNDS) for _ in PRIORITIES)
        self._passes = [0.0] * len(PRIORITIES)
        self._present = 0.0  # of the passes
        self._first: W | None = None
        self.count = 0

    def push(self, waiter: W) -> None:
        """Have it wait for its turn with its next message."""
        priority = waiter.priority
        rounds = self._rounds[priority]
        if not rounds.count:
            self._passes[priority] = max(self._passes[priority], self._present)
        begun = rounds.base
        if waiter.earned_with is rounds and waiter.earned_in > begun:
            earned = waiter.earned_in
        else:
            waiter.earned_with = rounds
            earned = float(begun)
        waiter.earned_in = earned = earned + (1.0 + waiter.size / COST_BYTES) / waiter.weight
        rounds.push(int(earned), waiter)
        self.count += 1

    def pop(self) -> W:
        """Whose turn it is; `IndexError` when nobody waits."""
        if self._first is not None:
            waiter, self._first = self._first, None
            self.count -= 1
            return waiter
        best = -1
        for priority, rounds in enumerate(self._rounds):
            if rounds.count and (best < 0 or self._passes[priority] < self._passes[best]):
                best = priority
        if best < 0:
            raise IndexError("nobody waits")
        self._present = self._passes[best]
        self._passes[best] += 1.0 / SHARES[best]
        self.count -= 1
        return self._rounds[best].pop()

    def put_back(self, waiter: W) -> None:
        """Have the one that was popped last wait on: it is still its turn."""
        self._first = waiter
        self.count += 1


IDLE_GROUPS = 64
"""Groups of which nobody waits that are kept, and as many more as there are others: one that comes again at once has
not lost what it had earned."""


class Member(Waiter, Protocol):
    """A waiter that may be in a group."""

    @property
    def group(self) -> str:
        """The group's name; empty for one that waits by itself."""


M = TypeVar("M", bound=Member)


class _Group(Generic[M]):
    """Those of one group and one priority. It is a `Waiter` with the next message of one of them."""

    __slots__ = ("earned_in", "earned_with", "head", "others", "priority", "size", "weight")

    def __init__(self, priority: int) -> None:
        self.priority = priority
        self.earned_in = 0.0
        self.earned_with: object = None
        self.head: M | None = None
        """Whose turn it is when it is the group's; None while nobody waits."""
        self.others: Turns[M] = Turns()
        self.size, self.weight = 0, 1.0

    def advance(self) -> None:
        """It is the next one's turn."""
        self.head = head = self.others.pop()
        self.size, self.weight = head.size, head.weight


class GroupedTurns(Generic[M]):
    """As `Turns`, and groups take their turns as one."""

    __slots__ = ("_busy", "_first", "_groups", "_turns", "count")

    def __init__(self) -> None:
        self._turns: Turns[M | _Group[M]] = Turns()
        self._groups: dict[tuple[str, int], _Group[M]] = {}
        self._busy = 0  # groups in which somebody waits
        self._first: M | None = None
        self.count = 0

    def push(self, waiter: M) -> None:
        """Have it wait for its turn with its next message."""
        self.count += 1
        name = waiter.group
        if not name:
            self._turns.push(waiter)
            return
        key = name, waiter.priority
        group = self._groups.get(key)
        if group is None:
            group = self._add(key)
        group.others.push(waiter)
        if group.head is None:
            self._busy += 1
            group.advance()
            self._turns.push(group)

    def pop(self) -> M:
        """Whose turn it is; `IndexError` when nobody waits."""
        first = self._first
        if first is not None:
            self._first = None
            self.count -= 1
            return first
        waiter = self._turns.pop()
        self.count -= 1
        if not isinstance(waiter, _Group):
            return waiter
        head = waiter.head
        assert head is not None  # or it would not wait
        if waiter.others.count:
            waiter.advance()
            self._turns.push(waiter)
        else:
            waiter.head = None
            self._busy -= 1
        return head

    def put_back(self, waiter: M) -> None:
        """Have the one that was popped last wait on: it is still its turn."""
        self._first = waiter
        self.count += 1

    def _add(self, key: tuple[str, int]) -> _Group[M]:
        if len(self._groups) >= IDLE_GROUPS + 2 * self._busy:
            self._groups = {known: group for known, group in self._groups.items() if group.head is not None}
        group: _Group[M] = _Group(key[1])
        self._groups[key] = group
        return group
