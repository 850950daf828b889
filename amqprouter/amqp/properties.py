"""Basic-class message properties, read lazily and changed by splicing.

A `Properties` holds the bytes of a content header from its property flags on (AMQP 0-9-1, section 4.2.6.1), as the
broker sent them. Nothing is decoded until asked for: one pass finds where each property begins, and only what is read
gets decoded. `spliced` makes the bytes of a changed set; whatever it does not touch stays byte for byte as it came.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any

from amqprouter.amqp import field_table
from amqprouter.amqp.field_table import FieldValue

NAMES = (
    "content_type",
    "content_encoding",
    "headers",
    "delivery_mode",
    "priority",
    "correlation_id",
    "reply_to",
    "expiration",
    "message_id",
    "timestamp",
    "type",
    "user_id",
    "app_id",
    "cluster_id",
)
"""In wire order; the first has flag bit 15."""

_INDEX = {name: index for index, name in enumerate(NAMES)}
_FLAG = {name: 1 << (15 - index) for index, name in enumerate(NAMES)}
_HEADERS, _CONTENT_TYPE, _TIMESTAMP = _INDEX["headers"], _INDEX["content_type"], _INDEX["timestamp"]
_MESSAGE_ID_FLAG, _TIMESTAMP_FLAG = _FLAG["message_id"], _FLAG["timestamp"]
_STRINGS_BEFORE_ID = ("correlation_id", "reply_to", "expiration")
_SHORT, _LONG, _LONGLONG = struct.Struct(">H"), struct.Struct(">I"), struct.Struct(">Q")

# How long a property is, for the scan: its octets where that is fixed, or what else tells.
_STRING_KIND, _TABLE_KIND = 0, -1
_KIND = {"headers": _TABLE_KIND, "delivery_mode": 1, "priority": 1, "timestamp": 8}


@lru_cache(maxsize=1024)  # flag combinations in use are few; the bound only guards against a hostile sender
def _layout(flags: bytes) -> tuple[tuple[int, ...], dict[int, int]]:
    """What these flags announce: the kinds in wire order, and the place in that order of each property index.

    :raises ValueError: flags beyond those of the basic class, or not all of their bytes.
    """
    if len(flags) < 2:
        raise ValueError("truncated message properties")
    bits = _SHORT.unpack(flags)[0]
    if bits & 3:
        raise ValueError("unknown property flags")
    indices = [index for index in range(len(NAMES)) if bits & 1 << (15 - index)]
    kinds = tuple(_KIND.get(NAMES[index], _STRING_KIND) for index in indices)
    return kinds, {index: place for place, index in enumerate(indices)}


_NO_PLACES: dict[int, int] = {}


class Properties:
    """The properties of one message. Immutable.

    Every reader raises `ValueError` when the bytes are malformed, and returns None for a property that is not there.

    Thousands of these are alive at a time, and the garbage collector visits each object that can refer to others: so
    what a scan finds is kept in as few as can be, a list of numbers and a list of bytes.
    """

    __slots__ = ("_bounds", "_entries", "_headers", "_places", "front", "raw")

    def __init__(self, raw: bytes = b"\x00\x00") -> None:
        self.raw = raw
        self.front: Front | None = None
        """Set by who has seen the same bytes before (`amqprouter.pipeline.sender`): much is known from it at once."""
        self._bounds: list[int] | None = None  # where each property begins, and the last one ends
        self._places = _NO_PLACES  # index into `NAMES` → place in `_bounds`; shared, see `_layout`
        self._entries: list[bytes] | None = None
        self._headers: dict[str, FieldValue] | None = None

    def _scan(self) -> list[int]:
        bounds = self._bounds
        if bounds is not None:
            return bounds
        raw = self.raw
        kinds, places = _layout(raw[:2])
        position = 2
        bounds = [2]
        try:
            for kind in kinds:
                if not kind:
                    position += 1 + raw[position]
                elif kind > 0:
                    position += kind
                else:
                    position += 4 + _LONG.unpack_from(raw, position)[0]
                bounds.append(position)
        except (IndexError, struct.error):
            raise ValueError("truncated message properties") from None
        if position != len(raw):
            raise ValueError(f"message properties of {len(raw)} bytes, {position} announced")
        self._bounds, self._places = bounds, places
        return bounds

    @property
    def flags(self) -> int:
        """The property flags."""
        self._scan()
        return self.raw[0] << 8 | self.raw[1]

    def behind_headers(self) -> tuple[int, tuple[int, ...]]:
        """Where the header table ends or would, and the octets of each property behind it, 0 for a string."""
        bounds = self._scan()
        place = sum(index <= _HEADERS for index in self._places)
        return bounds[place], _layout(self.raw[:2])[0][place:]

    def _span(self, index: int) -> tuple[int, int] | None:
        bounds = self._bounds or self._scan()
        place = self._places.get(index)
        return None if place is None else (bounds[place], bounds[place + 1])

    def spans(self) -> dict[int, tuple[int, int]]:
        """Where each property's bytes lie in `raw`, by index into `NAMES`."""
        bounds = self._scan()
        return {index: (bounds[place], bounds[place + 1]) for index, place in self._places.items()}

    def _string(self, index: int) -> bytes | None:
        span = self._span(index)
        return None if span is None else self.raw[span[0] + 1 : span[1]]

    def text(self, name: str) -> str | None:
        """A short-string property such as ``message_id``; bytes that are not UTF-8 are escaped with a backslash."""
        raw = self._string(_INDEX[name])
        return None if raw is None else raw.decode("utf-8", "backslashreplace")

    def raw_text(self, name: str) -> bytes | None:
        """A short-string property as bytes."""
        if self.front is not None and not self.front.flags & _FLAG[name]:
            return None
        return self._string(_INDEX[name])

    @property
    def content_type(self) -> str | None:
        return self.text("content_type")

    @property
    def message_id(self) -> str | None:
        return self.text("message_id")

    @property
    def timestamp(self) -> int | None:
        """The sender's clock, in seconds since 1970."""
        span = self._span(_TIMESTAMP)
        return None if span is None else _LONGLONG.unpack_from(self.raw, span[0])[0]

    @property
    def headers(self) -> dict[str, FieldValue]:
        """All headers, decoded; empty when there are none."""
        if self._headers is None:
            span = self._span(_HEADERS)
            self._headers = {} if span is None else field_table.decode(self.raw, span[0] + 4, span[1])
        return self._headers

    def entries(self) -> list[bytes]:
        """The encoded headers, as `field_table.entries` has them. Not to be changed."""
        entries = self._entries
        if entries is None:
            span = self._span(_HEADERS)
            entries = self._entries = [] if span is None else field_table.entries(self.raw, span[0] + 4, span[1])
        return entries

    def header_count(self) -> int:
        """How many headers there are, without decoding them."""
        return len(self.entries()) if self.front is None else self.front.header_count

    def _entry(self, name: bytes) -> bytes | None:
        start = bytes((len(name),)) + name
        for entry in self._entries or self.entries():
            if entry.startswith(start):
                return entry
        return None

    def header(self, name: bytes) -> FieldValue:
        """One header, without decoding the others."""
        entry = self._entry(name)
        return None if entry is None else field_table.decode_value(entry, 1 + len(name), len(entry))[0]

    def raw_header(self, name: bytes) -> bytes | None:
        """One string or binary header as bytes; empty when it is of another type."""
        entry = self._entry(name)
        return None if entry is None else field_table.string_bytes(entry, 1 + len(name), len(entry))

    def spliced(
        self, drop: int, drop_headers: Collection[bytes], add_headers: bytes, drop_prefix: bytes = b""
    ) -> bytes:
        """The bytes of these properties, changed.

        `drop` is a mask of flag bits (see `flag_mask`) of properties to leave out, `drop_headers` the names of headers
        to leave out, and `add_headers` encoded table entries to append; a header that is added should be dropped too.
        Headers whose names begin with `drop_prefix`, in lower case, are left out as well, however they write it.
        """
        raw = self.raw
        kept = [entry for entry in self.entries() if entry[1 : 1 + entry[0]] not in drop_headers]
        if drop_prefix and drop_prefix in raw.lower():  # which a first look at all of them is quickest for
            size = len(drop_prefix)
            kept = [e for e in kept if e[0] < size or e[1 : 1 + size].lower() != drop_prefix]
        kept.append(add_headers)
        table = b"".join(kept)
        flags = raw[0] << 8 | raw[1]
        span = self._span(_HEADERS)
        if span is not None and table and not flags & drop:  # the usual case: all but the headers stays in one piece
            return b"".join((raw[: span[0]], _LONG.pack(len(table)), table, raw[span[1] :]))
        spans = self.spans()
        kept_flags = flags & ~drop
        pieces = [b""]
        for index, (start, end) in spans.items():
            if index < _HEADERS and kept_flags & 1 << (15 - index):
                pieces.append(raw[start:end])
        if table:
            kept_flags |= _FLAG["headers"]
            pieces.append(_LONG.pack(len(table)))
            pieces.append(table)
        else:
            kept_flags &= ~_FLAG["headers"]
        for index, (start, end) in spans.items():
            if index > _HEADERS and kept_flags & 1 << (15 - index):
                pieces.append(raw[start:end])
        pieces[0] = _SHORT.pack(kept_flags)
        return b"".join(pieces)


def flag_mask(*names: str) -> int:
    """The flag bits of the named properties, for `Properties.spliced`."""
    mask = 0
    for name in names:
        mask |= _FLAG[name]
    return mask


def with_user_id(raw: bytes, user: bytes) -> bytes:
    """These properties, which have no ``user_id``, with this one; as they are when it is empty.

    :raises ValueError: they are malformed, or the name is over 255 bytes.
    """
    if not user:
        return raw
    if len(user) > 255:
        raise ValueError("the account's name is over 255 bytes")
    before = [end for index, (_, end) in Properties(raw).spans().items() if index < _INDEX["user_id"]]
    at = max(before, default=2)
    flags = (raw[0] << 8 | raw[1]) | _FLAG["user_id"]
    return b"".join((_SHORT.pack(flags), raw[2:at], bytes((len(user),)), user, raw[at:]))


def encode_properties(
    *,
    content_type: str = "",
    content_encoding: str = "",
    headers: dict[str, FieldValue] | None = None,
    delivery_mode: int = 2,
    message_id: str = "",
    correlation_id: str = "",
    reply_to: str = "",
    timestamp: int | None = None,
    type: str = "",  # the AMQP property's own name
    user_id: str = "",
    app_id: str = "",
) -> bytes:
    """Properties of a new message; empty values are left out, and messages are persistent unless said otherwise.

    :raises Unencodable: a header cannot be written.
    :raises ValueError: a text is over 255 bytes.
    """
    values: dict[str, bytes] = {"delivery_mode": bytes((delivery_mode,))}
    texts = {
        "content_type": content_type,
        "content_encoding": content_encoding,
        "message_id": message_id,
        "correlation_id": correlation_id,
        "reply_to": reply_to,
        "type": type,
        "user_id": user_id,
        "app_id": app_id,
    }
    for name, text in texts.items():
        if text:
            raw = text.encode()
            if len(raw) > 255:
                raise ValueError(f"{name} of {len(raw)} bytes; 255 is the most")
            values[name] = bytes((len(raw),)) + raw
    if headers:
        values["headers"] = field_table.encode(headers)
    if timestamp is not None:
        values["timestamp"] = _LONGLONG.pack(timestamp)
    flags = flag_mask(*values)
    return _SHORT.pack(flags) + b"".join(values[name] for name in NAMES if name in values)


class Front:
    """The front of these properties, known by a digest, and what was found out about it.

    `digest` is a keyed hash without anything in it, as `hashlib` makes them.

    :raises ValueError: the properties are malformed.
    """

    __slots__ = (
        "_before_id",
        "_digest",
        "_expected",
        "_first",
        "_gaps",
        "_octets",
        "flags",
        "header_count",
        "known",
        "size",
    )

    def __init__(self, properties: Properties, digest: Any) -> None:
        self.flags = properties.flags
        self.header_count = properties.header_count()
        self.size, behind = properties.behind_headers()
        # Where the first string behind the front begins, or the end; and what is between each string and the next.
        gaps = [0]
        for octets in behind:
            if octets:
                gaps[-1] += octets
            else:
                gaps.append(0)
        self._first, self._gaps = self.size + gaps[0], gaps[1:]
        self._octets = self.size + sum([1 for name in ("delivery_mode", "priority") if self.flags & _FLAG[name]])
        self._before_id = sum([1 for name in _STRINGS_BEFORE_ID if self.flags & _FLAG[name]])
        self.known: dict[object, Any] = {}
        """What others worked out from the front and from whom it came, by who did; never a secret."""
        self._digest = digest.copy  # copying a keyed hash is cheaper than making one
        digest = digest.copy()
        digest.update(properties.raw[: self.size])
        self._expected = digest.digest()

    def is_of(self, raw: bytes) -> bool:
        """Whether these are well-formed properties with this front."""
        size = self.size
        digest = self._digest()
        digest.update(raw[:size])
        if digest.digest() != self._expected:
            return False
        position = self._first
        try:
            for gap in self._gaps:
                position += 1 + raw[position] + gap
        except IndexError:
            return False
        return position == len(raw)

    def id_and_time(self, raw: bytes) -> tuple[bytes, int | None]:
        """The message id, empty when there is none, and the timestamp of properties with this front (see `is_of`)."""
        flags, position, message_id = self.flags, self._octets, b""
        for _ in range(self._before_id):
            position += 1 + raw[position]
        if flags & _MESSAGE_ID_FLAG:
            start = position + 1
            position = start + raw[position]
            message_id = raw[start:position]
        return message_id, _LONGLONG.unpack_from(raw, position)[0] if flags & _TIMESTAMP_FLAG else None


def text_value(text: str) -> bytes:
    """A text as a property's value.

    :raises ValueError: it is over 255 bytes, more than a short string takes (AMQP 0-9-1, section 4.2.5.3).
    """
    raw = text.encode()
    if len(raw) > 255:
        raise ValueError(f"{len(raw)} bytes; 255 are the most")
    return bytes((len(raw),)) + raw


def with_values(raw: bytes, values: Mapping[str, bytes]) -> bytes:
    """Encoded properties with these, by name, set to encoded values.

    :raises ValueError: `raw` is malformed.
    """
    flags = int.from_bytes(raw[:2], "big") | flag_mask(*values)
    spans = Properties(raw).spans()
    pieces = [struct.pack(">H", flags)]
    for index, name in enumerate(NAMES):
        if name in values:
            pieces.append(values[name])
        elif index in spans:
            start, end = spans[index]
            pieces.append(raw[start:end])
    return b"".join(pieces)
