"""Notices when nearly all messages of an exchange claim one device: then its id is elsewhere in the keys.

Theory of operation. Without a layout the first word of a key is the device, so that a whole network whose topics begin
with one word is one device, with one rate. Nothing fails then, it is only slow, so it is said: one line in the log,
with the layout that reads such keys. What is looked at is the first message of each batch, and of these a share of
`SHARE` out of at least `LEAST`, over at least `SECONDS`, with at least `KEYS` different keys. A device that sends all
of a quiet exchange's messages under a few topics is not meant.

Bounds: `_MOST_EXCHANGES` exchanges, each with one word and `_MOST_KEYS` keys.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from amqprouter.layouts.builtin import BUILTIN, DEFAULT
from amqprouter.layouts.layout_set import LayoutSet

SHARE = 0.95
"""Of the messages looked at, how many claim the one device."""
LEAST = 1000
"""Messages looked at before anything is said."""
SECONDS = 60.0
"""For so long at least: a device that comes back online may send more than that at once."""
KEYS = 10
"""Different keys at least."""
_MOST_KEYS = 64
_MOST_EXCHANGES = 64
_FITS = 0.9
"""Share of the keys that a layout must read to be named; others may be the system's own."""

Say = Callable[[str, str, int, str], None]
"""Told the exchange, the device, the number of different keys, and the built-in layout that reads them, or empty."""


class _Exchange:
    """One exchange; after a verdict nothing more is looked at."""

    __slots__ = ("device", "done", "hits", "keys", "since", "total")

    def __init__(self, device: bytes, now: float) -> None:
        self.device = device
        self.since = now
        self.hits = self.total = 0
        self.keys: set[bytes] = set()
        self.done = False


class OneDeviceWatch:
    """Looks at messages. `say` is told once of each exchange.

    :param layouts: those in force: where one applies, the first word of a key is no device.
    :param ignored: exchanges whose keys are something else.
    """

    def __init__(self, layouts: LayoutSet | None, ignored: Iterable[str], say: Say) -> None:
        self._layouts = layouts
        self._say = say
        self._exchanges: dict[bytes, _Exchange | None] = {exchange.encode(): None for exchange in ignored}

    def look(self, exchange: bytes, key: bytes, now: float) -> None:
        """Take note of a message. `now` is monotonic seconds."""
        device = key.partition(b".")[0]
        try:
            seen = self._exchanges[exchange]
        except KeyError:
            seen = self._add(exchange, device, now)
        if seen is None or seen.done:
            return
        seen.total += 1
        if device == seen.device:
            seen.hits += 1
            if len(seen.keys) < _MOST_KEYS:
                seen.keys.add(key)
        elif seen.total - seen.hits > LEAST * (1 - SHARE):
            self._exchanges[exchange] = _Exchange(device, now)
            return
        if seen.total >= LEAST and now - seen.since >= SECONDS:
            if seen.hits >= SHARE * seen.total and len(seen.keys) >= KEYS:
                seen.done = True
                names = exchange.decode("utf-8", "backslashreplace"), seen.device.decode("utf-8", "backslashreplace")
                self._say(*names, len(seen.keys), layout_for(seen.keys))
                seen.keys.clear()
            else:
                self._exchanges[exchange] = _Exchange(device, now)

    def _add(self, exchange: bytes, device: bytes, now: float) -> _Exchange | None:
        if len(self._exchanges) >= _MOST_EXCHANGES:
            return None
        name = exchange.decode("utf-8", "backslashreplace")
        applies = self._layouts is not None and bool(self._layouts.applying(name))
        seen = self._exchanges[exchange] = None if applies else _Exchange(device, now)
        return seen


def layout_for(keys: Iterable[bytes]) -> str:
    """The built-in layout that reads nearly all of these keys, those with a fixed beginning first; empty for none."""
    keys = list(keys)
    names = sorted((name for name in BUILTIN if name != DEFAULT), key=lambda name: first_words(name) == {"*"})
    for name in names:
        placements = [LayoutSet((), (name,)).place("", key) for key in keys]
        fits = sum(placement is not None and not placement.refusal for placement in placements)
        if keys and fits >= _FITS * len(keys):
            return name
    return ""


def first_words(name: str) -> set[str]:
    """What the keys of a built-in layout begin with; ``*`` for anything."""
    return {binding.partition(".")[0] for binding in LayoutSet((), (name,)).bindings("", ())}
