"""AMQP 0-9-1 field tables as RabbitMQ and its clients write them.

The type letters follow RabbitMQ's errata to the specification (https://www.rabbitmq.com/amqp-0-9-1-errata, section 3),
not the specification's own table: ``s`` is a signed 16-bit integer, and there is no short string inside a table.

House rules: nothing is read beyond the bytes given; a malformed table raises `ValueError` with the offset; `skip` walks
a table without building values, for splicing; unknown letters raise, because their length is unknown.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from decimal import Decimal

from amqprouter.errors import Unencodable

FieldValue = None | bool | int | float | Decimal | str | bytes | datetime | list["FieldValue"] | dict[str, "FieldValue"]

MAX_DEPTH = 64
"""Nesting beyond this is refused: deeper tables only serve to exhaust the stack."""

_INTEGERS = {
    ord("b"): struct.Struct(">b"),
    ord("B"): struct.Struct(">B"),
    ord("s"): struct.Struct(">h"),
    ord("u"): struct.Struct(">H"),
    ord("I"): struct.Struct(">i"),
    ord("i"): struct.Struct(">I"),
    ord("l"): struct.Struct(">q"),
    ord("L"): struct.Struct(">Q"),
    ord("f"): struct.Struct(">f"),
    ord("d"): struct.Struct(">d"),
}
_LONG = struct.Struct(">I")
_TIMESTAMP = struct.Struct(">Q")
_DECIMAL = struct.Struct(">Bi")
_DECIMAL_DIGITS = 10  # of the largest 32-bit number
_BOOLEAN, _STRING, _TABLE, _ARRAY = ord("t"), ord("S"), ord("F"), ord("A")
_BYTES, _VOID, _TIME, _EXACT = ord("x"), ord("V"), ord("T"), ord("D")

# Bytes that follow the type letter, where that is fixed.
_FIXED = {letter: packer.size for letter, packer in _INTEGERS.items()} | {_BOOLEAN: 1, _VOID: 0, _TIME: 8, _EXACT: 5}


def _skip_value(data: bytes, position: int, end: int) -> int:
    letter = data[position]
    position += 1
    size = _FIXED.get(letter)
    if size is None:
        if letter not in (_STRING, _TABLE, _ARRAY, _BYTES):
            raise ValueError(f"unknown field type {bytes((letter,))!r} at offset {position - 1}")
        if position + 4 > end:
            raise ValueError(f"truncated field at offset {position}")
        size = 4 + _LONG.unpack_from(data, position)[0]
    if position + size > end:
        raise ValueError(f"field at offset {position} runs past its table")
    return position + size


def entries(data: bytes, start: int, end: int) -> list[bytes]:
    """The entries, whole, of the table whose content is ``data[start:end]`` (without its length).

    :raises ValueError: the table is malformed.
    """
    found = []
    position = start
    while position < end:
        first = position
        value = position + 1 + data[position]
        if value >= end:
            raise ValueError(f"truncated entry at offset {position}")
        if data[value] == _STRING and value + 5 <= end:  # most are, and this is on the way of every message
            position = value + 5 + _LONG.unpack_from(data, value + 1)[0]
            if position > end:
                raise ValueError(f"field at offset {value + 1} runs past its table")
        else:
            position = _skip_value(data, value, end)
        found.append(data[first:position])
    return found


def entry_name(entry: bytes) -> bytes:
    """The name of one of `entries`."""
    return entry[1 : 1 + entry[0]]


def find(data: bytes, start: int, end: int, name: bytes) -> int:
    """The offset of the type letter of the first entry with this name in the table ``data[start:end]``, or -1.

    :raises ValueError: the table is malformed before that entry.
    """
    position, length = start, len(name)
    while position < end:
        size = data[position]
        value = position + 1 + size
        if value >= end:
            raise ValueError(f"truncated entry at offset {position}")
        if size == length and data.startswith(name, position + 1):
            return value
        position = _skip_value(data, value, end)
    return -1


def string_bytes(data: bytes, position: int, end: int) -> bytes:
    """The bytes of the string or binary value whose type letter is at `position`; empty for a value of another type.

    :raises ValueError: the value is malformed.
    """
    behind = _skip_value(data, position, end)
    return data[position + 5 : behind] if data[position] in (_STRING, _BYTES) else b""


def decode_value(data: bytes, position: int, end: int, depth: int = 0) -> tuple[FieldValue, int]:
    """Decode the value whose type letter is at `position`; returns it and the offset behind it.

    Strings that are not UTF-8 come back as `bytes`, as do ``x`` values.

    :raises ValueError: the value is malformed or nested too deeply.
    """
    if position >= end:
        raise ValueError(f"missing value at offset {position}")
    behind = _skip_value(data, position, end)
    letter = data[position]
    position += 1
    packer = _INTEGERS.get(letter)
    if packer is not None:
        return packer.unpack_from(data, position)[0], behind
    if letter == _STRING:
        raw = data[position + 4 : behind]
        try:
            return raw.decode(), behind
        except UnicodeDecodeError:
            return raw, behind
    if letter == _BOOLEAN:
        return data[position] != 0, behind
    if letter == _VOID:
        return None, behind
    if letter == _BYTES:
        return data[position + 4 : behind], behind
    if letter == _TIME:
        seconds = _TIMESTAMP.unpack_from(data, position)[0]
        try:
            return datetime.fromtimestamp(seconds, timezone.utc), behind
        except (OverflowError, OSError, ValueError):
            return seconds, behind  # beyond the year 9999: the number says more than an error would
    if letter == _EXACT:
        scale, unscaled = _DECIMAL.unpack_from(data, position)
        return Decimal(unscaled).scaleb(-scale), behind
    if depth >= MAX_DEPTH:
        raise ValueError(f"field tables nested over {MAX_DEPTH} deep")
    if letter == _TABLE:
        return decode(data, position + 4, behind, depth + 1), behind
    values: list[FieldValue] = []
    position += 4
    while position < behind:
        value, position = decode_value(data, position, behind, depth + 1)
        values.append(value)
    return values, behind


def decode(data: bytes, start: int, end: int, depth: int = 0) -> dict[str, FieldValue]:
    """Decode the table whose content is ``data[start:end]``; of entries with one name the first counts, as for `find`.

    :raises ValueError: the table is malformed.
    """
    table: dict[str, FieldValue] = {}
    for entry in entries(data, start, end):
        value, _ = decode_value(entry, 1 + entry[0], len(entry), depth)
        table.setdefault(entry_name(entry).decode("utf-8", "backslashreplace"), value)
    return table


def encode_value(value: FieldValue, depth: int = 0) -> bytes:
    """Encode one value with its type letter; integers take the smallest of ``I``, ``l`` and ``L`` that holds them.

    :raises Unencodable: the value has no AMQP type.
    """
    if value is None:
        return b"V"
    if value is True or value is False:
        return b"t\x01" if value else b"t\x00"
    if isinstance(value, str):
        try:
            raw = value.encode()
        except UnicodeEncodeError as error:
            raise Unencodable(f"text with a lone surrogate: {value!r}") from error
        return b"S" + _LONG.pack(len(raw)) + raw
    if isinstance(value, int):
        return _encode_integer(value)
    if isinstance(value, (bytes, bytearray)):  # a bytearray would pass for a sequence of integers
        return b"x" + _LONG.pack(len(value)) + value
    if isinstance(value, float):
        return b"d" + _INTEGERS[ord("d")].pack(value)
    if isinstance(value, datetime):
        return _encode_time(value)
    if isinstance(value, Decimal):
        return _encode_decimal(value)
    if depth >= MAX_DEPTH:
        raise Unencodable(f"value nested over {MAX_DEPTH} deep")
    if isinstance(value, Mapping):
        return b"F" + encode(value, depth + 1)
    if isinstance(value, Sequence):
        content = b"".join(encode_value(item, depth + 1) for item in value)
        return b"A" + _LONG.pack(len(content)) + content
    raise Unencodable(f"a {type(value).__name__} has no AMQP field type")


def _encode_integer(value: int) -> bytes:
    for letter in (b"I", b"l", b"L"):
        try:
            return letter + _INTEGERS[letter[0]].pack(value)
        except struct.error:
            continue
    raise Unencodable(f"integer {value} needs more than 64 bits")


def _encode_time(value: datetime) -> bytes:
    try:
        return b"T" + _TIMESTAMP.pack(int(value.timestamp()))
    except (struct.error, OverflowError, ValueError):  # before 1970, or naive and out of its time zone's range
        raise Unencodable(f"time {value} is not a number of seconds since 1970") from None


def _encode_decimal(value: Decimal) -> bytes:
    sign, digits, exponent = value.as_tuple()
    if not isinstance(exponent, int):
        raise Unencodable(f"decimal {value} is not finite")
    if len(digits) + max(exponent, 0) > _DECIMAL_DIGITS:  # before it is expanded: 1E+999999 is a short text
        raise Unencodable(f"a decimal of {len(digits)} digits with exponent {exponent} does not fit an AMQP decimal")
    unscaled = int("".join(map(str, digits)) or "0") * 10 ** max(exponent, 0) * (-1 if sign else 1)
    try:
        return b"D" + _DECIMAL.pack(max(-exponent, 0), unscaled)
    except struct.error:
        raise Unencodable(f"decimal {value} does not fit an AMQP decimal") from None


def encode_entry(name: str, value: FieldValue, depth: int = 0) -> bytes:
    """Encode one table entry.

    :raises Unencodable: the name is no text or over 255 bytes of UTF-8, or the value has no AMQP type.
    """
    try:
        raw = name.encode()
    except (AttributeError, UnicodeEncodeError):
        raise Unencodable(f"header name {name!r} is not text that UTF-8 can hold") from None
    if len(raw) > 255:
        raise Unencodable(f"header name of {len(raw)} bytes; 255 is the most")
    return bytes((len(raw),)) + raw + encode_value(value, depth)


def encode(table: Mapping[str, FieldValue], depth: int = 0) -> bytes:
    """Encode a table with its length in front.

    :raises Unencodable: some name or value cannot be written.
    """
    content = b"".join(encode_entry(name, value, depth) for name, value in table.items())
    return _LONG.pack(len(content)) + content
