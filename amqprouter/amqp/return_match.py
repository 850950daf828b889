"""Which of the publishes under way a returned message stands for.

A basic.return carries no sequence number, and not always the message as it was published. RabbitMQ gives exchange,
routing key and body back unchanged, and since 4.0 the properties otherwise: headers sorted by name, the first of each
name only, unsigned 64-bit integers as signed ones, and whatever its interceptors add and overwrite. What is wrongly
taken for delivered is lost, what is wrongly taken for returned is only sent once more. So a publish is ruled out only
where it cannot be the one.

House rules: nothing here costs anything until a message is returned, and then a return costs about as much as a
publish, however many are under way and whatever strangers wrote into their headers.

Theory of operation. A `ReturnMatch` looks at the publisher's own record of what is under way, by sequence number, and
indexes it at the first return: by exchange, routing key and body. Publishes that agree in these and in the bytes of
their properties can stand for each other: the first that waits is taken, since returns come in the order of publishes,
and so the one that is meant is none before it. Where the properties differ, those are looked for that say the same as
the returned ones, whatever their order and types; what RabbitMQ's own interceptors write is left out of that. Where
none says the same, something else wrote into the message, and those with its ``message_id``, and with none, may be
meant; else all.

Of several that may be meant, all are handed out. To take the one that is most like the returned message would not do:
when it is not the one, its own return finds the other confirmed meanwhile. Each publish is handed out once; of what was
handed out in doubt, as many returns may yet come as there were too many, and these find nothing more.

Where nothing under way has this exchange, key and body, either the publish has been given up meanwhile (its confirm was
overdue), or the broker does what no broker is known to do: then whatever has the same exchange and key is handed out,
else the same exchange, else everything.
"""

from __future__ import annotations

import struct
from collections import Counter, deque
from collections.abc import Callable, Container
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from amqprouter.amqp import field_table
from amqprouter.amqp.properties import NAMES, Properties
from amqprouter.amqp.wire import Returned

MOST_BYTES = 4096
"""Properties longer than this are not read, only compared as a whole: reading takes time by their length, and these are
a stranger's to choose."""
MOST_OVERDUE = 65_536
"""Publishes given up of which a trace is kept, 8 bytes each and what a dict takes; the oldest are forgotten first."""
_SLACK = 1000
"""Entries for publishes that are over, which the index may have before it is made anew."""
STAMPS = frozenset((b"timestamp_in_ms", b"x-routed-by", b"x-opt-mqtt-client-id"))
"""Headers that RabbitMQ's interceptors write (https://www.rabbitmq.com/docs/message-interceptors), with the property
``timestamp``."""

_HEADERS, _TIMESTAMP = NAMES.index("headers"), NAMES.index("timestamp")
_STRINGS, _NESTED = b"Sx", b"FA"
_DOUBLE = struct.Struct(">d")

Value = int | bytes | tuple[bytes, bytes]
Form = frozenset[tuple[int | bytes, Value]] | None
"""What properties say: each property by its index, each header by its name. None when they are too long to read, or
malformed."""


class Publish(Protocol):
    """What has to be known of a publish."""

    exchange: bytes
    routing_key: bytes
    properties: bytes
    body: bytes
    returned: str
    """Why it is taken for returned; empty as long as it is not."""


P = TypeVar("P", bound=Publish)


class Match(NamedTuple):  # which cannot be generic before Python 3.11
    """The publishes that a return may stand for, and have not been handed out before."""

    publishes: list[Any]
    how: str
    """``one``: it is this one, or equal to it. ``several``: it is one of them, or of some handed out before. ``late``:
    it had been given up. ``none``: it is none that is known, and these are the nearest."""


class ReturnMatch(Generic[P]):
    """Matches what is returned on one channel.

    :param under_way: the publisher's record, by sequence number and in that order, which goes on changing.
    """

    def __init__(self, under_way: dict[int, P]) -> None:
        self._under_way = under_way
        self._alike: dict[tuple[bytes, bytes, bytes], _Alike] = {}  # by exchange, routing key and body
        self._near: dict[tuple[bytes, ...], list[int]] | None = None  # by exchange and key, by exchange, and all
        self._newest = 0  # the last sequence number in the index
        self._entries = 0
        self._overdue: dict[int, None] = {}  # by hash, oldest first

    def match(self, returned: Returned) -> Match:
        """Find what a returned message may stand for."""
        self._catch_up()
        identity = returned.exchange, returned.routing_key, returned.body
        alike = self._alike.get(identity)
        if alike is not None:
            sequences, certain = alike.take(returned.properties, self._waits)
            if sequences or alike.any_taken(self._under_way):
                return Match([self._under_way[n] for n in sequences], "one" if certain else "several")
        if self._overdue.pop(hash(identity), self) is None:
            return Match([], "late")
        return Match([self._under_way[n] for n in self._nearest(returned)], "none")

    def overdue(self, publish: P) -> None:
        """A publish is no longer under way though the broker has not answered; its return may still come."""
        if len(self._overdue) >= MOST_OVERDUE:
            del self._overdue[next(iter(self._overdue))]
        self._overdue[hash((publish.exchange, publish.routing_key, publish.body))] = None

    def forget(self) -> None:
        """Let go of the index, which keeps bodies; it is made again when it is needed."""
        self._alike.clear()
        self._near = None
        self._newest = self._entries = 0

    def _waits(self, sequence: int) -> bool:
        """Whether this publish is under way and not yet handed out."""
        publish = self._under_way.get(sequence)
        return publish is not None and not publish.returned

    def _catch_up(self) -> None:
        under_way = self._under_way
        newest = next(reversed(under_way), 0)
        most = 2 * len(under_way) + _SLACK
        if not self._newest or self._entries > most or newest - self._newest > most:
            self.forget()
            for sequence, publish in under_way.items():
                self._add(sequence, publish)
        else:
            for sequence in range(self._newest + 1, newest + 1):
                found = under_way.get(sequence)
                if found is not None:
                    self._add(sequence, found)
        self._newest = newest

    def _add(self, sequence: int, publish: P) -> None:
        self._entries += 1
        identity = publish.exchange, publish.routing_key, publish.body
        alike = self._alike.get(identity)
        if alike is None:
            alike = self._alike[identity] = _Alike()
        if publish.returned:
            alike.taken.append(sequence)
        else:
            alike.add(sequence, publish.properties)
        if self._near is not None:
            self._add_near(sequence, publish)

    def _add_near(self, sequence: int, publish: P) -> None:
        assert self._near is not None
        for place in _places(publish):
            self._near.setdefault(place, []).append(sequence)

    def _nearest(self, returned: Returned) -> list[int]:
        if self._near is None:
            self._near = {}
            for sequence, publish in self._under_way.items():
                self._add_near(sequence, publish)
        for place in _places(returned):
            sequences = self._near.get(place)
            if sequences is not None:  # perhaps empty: all have been handed out
                self._near[place] = []
                return list(filter(self._waits, sequences))
        return []


def _places(message: Publish | Returned) -> tuple[tuple[bytes, ...], ...]:
    """From near to far."""
    return (message.exchange, message.routing_key), (message.exchange,), ()


class _Alike:
    """Publishes with equal exchange, routing key and body. Those with equal properties are of one kind."""

    __slots__ = ("_by_form", "_by_id", "_kinds", "_owed", "taken")

    def __init__(self) -> None:
        self.taken: deque[int] = deque()
        """Sequence numbers that were handed out, some of them over by now."""
        self._kinds: dict[bytes, deque[int]] = {}  # properties → sequence numbers, some of them over by now
        self._by_form: dict[Form, dict[bytes, None]] = {}  # these two are empty until they are needed
        self._by_id: dict[bytes, dict[bytes, None]] = {}
        self._owed: Counter[Form] = Counter()  # returns that may come of what has been handed out in doubt

    def add(self, sequence: int, properties: bytes) -> None:
        sequences = self._kinds.get(properties)
        if sequences is None:
            sequences = self._kinds[properties] = deque()
            if self._by_form:
                self._sort_in(properties)
        sequences.append(sequence)

    def take(self, properties: bytes, waits: Callable[[int], bool]) -> tuple[list[int], bool]:
        """The sequence numbers that a return with these properties may stand for, and whether that is certain."""
        said: Form = None
        if len(self._kinds) == 1 and not self._owed:
            kinds = self._waiting(self._kinds, waits)
        else:
            for kind in self._kinds if not self._by_form else ():
                self._sort_in(kind)
            said, name = _reading(properties)
            kinds = self._waiting(self._by_form.get(said, {}), waits) if said is not None else []
            if kinds:
                kinds += self._waiting(self._by_form.get(None, {}), waits)
            elif said is not None and self._owed[said] > 0:
                self._owed[said] -= 1
                return [], False
            elif name:
                kinds = self._waiting(self._by_id.get(name, {}), waits) + self._waiting(self._by_id.get(b"", {}), waits)
            kinds = kinds or self._waiting(self._kinds, waits)
        if len(kinds) == 1:
            self.taken.append(self._kinds[kinds[0]].popleft())
            return [self.taken[-1]], True
        handed_out = []
        forms: Counter[Form] = Counter()
        for kind in kinds:
            sequences = list(filter(waits, self._kinds.pop(kind)))
            handed_out += sequences
            forms[_reading(kind)[0]] += len(sequences)
        if said in forms:  # else the broker writes what is not foreseen, and no other return will say what these do
            forms[said] -= 1
            self._owed += forms
        self.taken += handed_out
        return handed_out, False

    def any_taken(self, under_way: Container[int]) -> bool:
        """Whether something that was handed out is still under way."""
        while self.taken and self.taken[0] not in under_way:
            self.taken.popleft()
        return bool(self.taken)

    def _sort_in(self, kind: bytes) -> None:
        said, name = _reading(kind)
        self._by_form.setdefault(said, {})[kind] = None
        self._by_id.setdefault(name, {})[kind] = None

    def _waiting(self, kinds: dict[bytes, Any], waits: Callable[[int], bool]) -> list[bytes]:
        """Those of these kinds of which a publish still waits; the others are forgotten."""
        found = []
        for kind in list(kinds):
            sequences: deque[int] = self._kinds.get(kind) or deque()
            while sequences and not waits(sequences[0]):
                sequences.popleft()
            if sequences:
                found.append(kind)
            else:
                self._kinds.pop(kind, None)
                kinds.pop(kind, None)
        return found


def _reading(properties: bytes) -> tuple[Form, bytes]:
    """What properties say, without what RabbitMQ's interceptors write, and their ``message_id`` (empty without one)."""
    if len(properties) > MOST_BYTES:
        return None, b""
    read = Properties(properties)
    said: dict[int | bytes, Value] = {}
    try:
        for index, (start, end) in read.spans().items():
            if index not in (_HEADERS, _TIMESTAMP):
                said[index] = properties[start:end]
        for entry in read.entries():
            at = 1 + entry[0]
            name = entry[1:at]
            if name not in STAMPS and name not in said:  # of headers with one name the first, as RabbitMQ does
                said[name] = _value(entry, at)
        return frozenset(said.items()), read.raw_text("message_id") or b""
    except ValueError:
        return None, b""


def _value(entry: bytes, at: int) -> Value:
    """What the value with its type letter at `at` says, whatever its type."""
    letter = entry[at : at + 1]
    if letter in _NESTED:
        return _NESTED  # their content is not read: it may be long, and what differs there is handed out all the same
    if letter in _STRINGS:
        return entry[at + 5 :]
    if letter == b"D":
        return b"D", entry[at + 1 :]
    if letter == b"T":
        return int.from_bytes(entry[at + 1 :], "big")
    value = field_table.decode_value(entry, at, len(entry))[0]
    if isinstance(value, float):
        return b"d", _DOUBLE.pack(value)  # NaN equals itself then
    number = int(value or 0)  # type: ignore[arg-type]  # it is a number, a truth value or nothing
    return number - (1 << 64) if number >= 1 << 63 else number  # 4.x gives an unsigned one back as a signed one
