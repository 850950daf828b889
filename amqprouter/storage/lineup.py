"""Documents that wait to be written, and which of them may be: never two batches of one device at a time.

Two writes that are under way at once reach a store in whatever order. So the documents of a device whose earlier ones
are being written, or are to be tried again, stand behind these until they are in the store; other devices' go on.

Theory of operation. Each device that has documents here has a list of them, in order. A list stands in `_ready`, or in
`_behind` while the device is `_busy`. `take` makes a batch of whole lists as far as they go in, those first whose first
document came first (`_heads` is a heap of these): so a second batch finds other devices, as long as there are any,
several writes are under way even when few devices send much, and nobody waits for longer than it takes to write what
came before.

Acks. What came later than others can be acknowledged together with them only once these are in the store. So batches
are to be, as nearly as devices let them, what came one after another: of each list only those go in that came soon
after the very first (`AHEAD`). And a list for which there is no room waits for the next batch, for its rest would wait
for this one; it is cut only where the batch would be less than half of one without it.

Nothing is searched: each step costs as much as the documents that it moves, and the heap's logarithm for a list.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from heapq import heappop, heappush
from operator import itemgetter
from typing import Generic, TypeVar

from amqprouter.pipeline.settlement import Settlement

Document = TypeVar("Document")
Entry = tuple[Document, Settlement, int, int]
"""A document, who waits for it, its bytes, and its number: documents are numbered as they come."""

AHEAD = 2
"""Full batches from the oldest document on: what came later than that waits. With two, devices that send in turns still
have two writes under way, which are acknowledged together."""


class Lineup(Generic[Document]):
    """What waits. A batch has at most `most` documents, and `most_bytes` unless it has a single one."""

    def __init__(self, most: int, most_bytes: int) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._ready: dict[str, list[Entry[Document]]] = {}
        self._behind: dict[str, list[Entry[Document]]] = {}
        self._busy: set[str] = set()
        self._heads: list[
            tuple[int, str]
        ] = []  # a heap: the number of each ready list's first document, and its device
        self._number = 0
        self.free = 0
        """Documents that may be written now."""
        self.behind = 0
        """Documents that wait for their device's earlier ones."""
        self._free_bytes = 0

    def add(self, device: str, document: Document, settlement: Settlement, octets: int) -> bool:
        """One more document of this device, of so many bytes; whether what may be written fills a batch with it."""
        self._number = number = self._number + 1
        entry = (document, settlement, octets, number)
        if device in self._busy:
            self._behind.setdefault(device, []).append(entry)
            self.behind += 1
            return False
        entries = self._ready.get(device)
        if entries is None:
            self._ready[device] = [entry]
            heappush(self._heads, (number, device))
        else:
            entries.append(entry)
        self.free += 1
        self._free_bytes += octets
        return self.free >= self._most or self._free_bytes >= self._most_bytes

    @property
    def is_full(self) -> bool:
        """Whether what may be written fills a batch."""
        return self.free >= self._most or self._free_bytes >= self._most_bytes

    def take(self) -> tuple[list[Entry[Document]], list[str]]:
        """The next batch and its devices, which are busy until they are released."""
        taken: list[Entry[Document]] = []
        devices: list[str] = []
        size, most, most_bytes = 0, self._most, self._most_bytes
        fits_all = self._free_bytes <= most_bytes
        ready, heads = self._ready, self._heads
        horizon = heads[0][0] + AHEAD * most if heads else 0
        while heads and heads[0][0] < horizon:
            device = heads[0][1]
            entries = ready[device]
            near = len(entries)
            if entries[-1][3] >= horizon:
                near = bisect_left(entries, horizon, key=itemgetter(3))
            fit = min(near, most - len(taken))
            if not fits_all:
                for place, (_, _, octets, _) in enumerate(entries[:fit]):
                    size += octets
                    if size > most_bytes and (taken or place):
                        fit = place
                        break
            if not fit or (fit < near and 2 * len(taken) >= most):
                break
            heappop(heads)
            del ready[device]
            devices.append(device)
            if fit < len(entries):
                self._behind[device] = rest = entries[fit:]
                self.behind += len(rest)
                self._count(rest, -1)
                del entries[fit:]
            taken += entries
            if fit < near:
                break
        self._busy.update(devices)
        self._count(taken, -1)
        return taken, devices

    def _count(self, entries: list[Entry[Document]], sign: int) -> None:
        self.free += sign * len(entries)
        self._free_bytes += sign * sum([octets for _, _, octets, _ in entries])

    def release(self, devices: Iterable[str]) -> None:
        """The batch with these devices is in the store."""
        for device in devices:
            self._busy.discard(device)
            entries = self._behind.pop(device, None)
            if entries is not None:
                self._ready[device] = entries
                heappush(self._heads, (entries[0][3], device))
                self.behind -= len(entries)
                self._count(entries, 1)

    def clear(self) -> list[Entry[Document]]:
        """Everything that waits, in the order in which it came; nothing waits and nobody is busy any more."""
        lists = *self._ready.values(), *self._behind.values()
        left = sorted([entry for entries in lists for entry in entries], key=itemgetter(3))
        self._ready.clear()
        self._behind.clear()
        self._busy.clear()
        self._heads.clear()
        self.free = self.behind = self._free_bytes = 0
        return left
