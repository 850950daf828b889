"""Things filed under whole numbers of a moving span, the lowest number first, each step in constant time.

Theory of operation. One bit for each number of the span says whether anything is filed there, so that the next number
in use is found by arithmetic on one integer of a few machine words, however many things there are. Things under the
same number come out in the order in which they went in. The span begins at `base`, which follows what is taken out.
"""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

Thing = TypeVar("Thing")


class SlotRing(Generic[Thing]):
    """Numbers from `base` up to `base` + `span`, without the last."""

    __slots__ = ("_bits", "_slots", "base", "count", "span")

    def __init__(self, span: int, base: int = 0) -> None:
        self.span = span
        self.base = base
        self.count = 0
        self._bits = 0
        self._slots: dict[int, deque[Thing]] = {}

    def push(self, number: int, thing: Thing) -> None:
        """File a thing; a number outside the span counts as the nearest one inside."""
        offset = number - self.base
        if not 0 <= offset < self.span:
            offset = min(max(offset, 0), self.span - 1)
            number = self.base + offset
        slot = self._slots.get(number)
        if slot is None:
            slot = self._slots[number] = deque()
            self._bits |= 1 << offset
        slot.append(thing)
        self.count += 1

    def first(self) -> int | None:
        """The lowest number in use."""
        bits = self._bits
        return self.base + (bits & -bits).bit_length() - 1 if bits else None

    def pop(self) -> Thing:
        """Take the first thing of the lowest number in use, which becomes the base."""
        slot = self._slots.get(self.base)
        if slot is None:
            number = self.first()
            if number is None:
                raise IndexError("nothing is filed")
            self.advance(number)
            slot = self._slots[number]
        thing = slot.popleft()
        if not slot:
            del self._slots[self.base]
            self._bits ^= 1
        self.count -= 1
        return thing

    def pop_all(self, number: int) -> deque[Thing]:
        """Take everything of the lowest number in use, which this must be."""
        self.advance(number)
        slot = self._slots.pop(number)
        self._bits ^= 1
        self.count -= len(slot)
        return slot

    def advance(self, base: int) -> None:
        """Move the base on, as far as nothing is left behind."""
        if base <= self.base:
            return
        first = self.first()
        if first is not None and first < base:
            base = first
        if base > self.base:
            self._bits >>= base - self.base
            self.base = base
