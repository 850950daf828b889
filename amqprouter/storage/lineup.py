"""Documents that wait to be written, and which of them may be: never two batches of one device at a time.

Two writes that are under way at once reach a store in whatever order. So the documents of a device whose earlier ones
are being written, or are to be tried again, stand behind these until they are in the store; other devices' go on.

Theory of operation. Each device that has documents here has a list of them, in order. A list stands in `_ready`, in the
order in which the devices came, or in `_behind` while the device is `_busy`; once it is not, the list stands in
`_older`, before all that is ready. `take` makes a batch of whole lists as far as they go in: so a second batch finds
other devices, as long as there are any, and several writes are under way even when few devices send much. A list that
does not go in waits for the next one, for its rest would wait for this one, and the acks of all that came later with
it; it is cut only where the batch would be less than half of one without it. Nothing is searched: each step costs as
much as the documents that it moves.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from typing import Generic, TypeVar

from amqprouter.pipeline.settlement import Settlement

Document = TypeVar("Document")
Entry = tuple[Document, Settlement, int]
"""A document, who waits for it, and its bytes."""


class Lineup(Generic[Document]):
    """What waits. A batch has at most `most` documents, and `most_bytes` unless it has a single one."""

    def __init__(self, most: int, most_bytes: int) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._older: dict[str, list[Entry[Document]]] = {}
        self._ready: dict[str, list[Entry[Document]]] = {}
        self._behind: dict[str, list[Entry[Document]]] = {}
        self._busy: set[str] = set()
        self.free = 0
        """Documents that may be written now."""
        self.behind = 0
        """Documents that wait for their device's earlier ones."""
        self._free_bytes = 0

    def add(self, device: str, document: Document, settlement: Settlement, octets: int) -> None:
        """One more document of this device, of so many bytes."""
        entry = (document, settlement, octets)
        if device in self._busy:
            self._behind.setdefault(device, []).append(entry)
            self.behind += 1
            return
        entries = self._ready.get(device) or self._older.get(device)
        if entries is None:
            self._ready[device] = [entry]
        else:
            entries.append(entry)
        self.free += 1
        self._free_bytes += octets

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
        for device, entries in chain(self._older.items(), self._ready.items()):
            fit = most - len(taken)
            if not fits_all:
                for place, (_, _, octets) in enumerate(entries[:fit]):
                    size += octets
                    if size > most_bytes and (taken or place):
                        fit = place
                        break
            if not fit:
                break
            if fit < len(entries):
                if 2 * len(taken) < most:
                    devices.append(device)
                    taken += entries[:fit]
                    self._behind[device] = rest = entries[fit:]
                    self.behind += len(rest)
                    self._count(rest, -1)
                break
            devices.append(device)
            taken += entries
        for device in devices:
            if self._older.pop(device, None) is None:
                del self._ready[device]
        self._busy.update(devices)
        self._count(taken, -1)
        return taken, devices

    def _count(self, entries: list[Entry[Document]], sign: int) -> None:
        self.free += sign * len(entries)
        self._free_bytes += sign * sum([octets for _, _, octets in entries])

    def release(self, devices: Iterable[str]) -> None:
        """The batch with these devices is in the store."""
        for device in devices:
            self._busy.discard(device)
            entries = self._behind.pop(device, None)
            if entries is not None:
                self._older[device] = entries
                self.behind -= len(entries)
                self._count(entries, 1)

    def clear(self) -> list[Entry[Document]]:
        """Everything that waits, in each device's order; nothing waits and nobody is busy any more."""
        lists = *self._older.values(), *self._ready.values(), *self._behind.values()
        left = [entry for entries in lists for entry in entries]
        self._older.clear()
        self._ready.clear()
        self._behind.clear()
        self._busy.clear()
        self.free = self.behind = self._free_bytes = 0
        return left
