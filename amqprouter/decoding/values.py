"""Values that every reader of a body can be given: what a decoder made is held to them, and put into JSON's few.

The store has dates, bytes and decimal numbers of 34 digits, JSON has not, and Python has more than both. So a decoder's
value is walked once: what some reader could not hold is turned into what it can, by a rule, or the body is refused.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Mapping
from datetime import date, datetime, timezone
from decimal import Decimal
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from typing import Any
from uuid import UUID

from amqprouter.decoding.json_text import MAX_DEPTH, MAX_VALUES
from amqprouter.errors import Undecodable

MAX_DIGITS = 34
"""Of numbers that are neither doubles nor 64-bit integers: what MongoDB's Decimal128 holds (IEEE 754-2008)."""
_SMALLEST, _LARGEST = -6176, 6111
"""Exponents that a Decimal128 has, with its digits as a whole number (the same)."""
_INT64 = 1 << 63
_NAMES = (UUID, date, IPv4Address, IPv6Address, IPv4Network, IPv6Network, IPv4Interface, IPv6Interface)
"""Types whose values are written as text, in the usual way."""


def plain(
    value: object,
    max_values: int = MAX_VALUES,
    key_of: Callable[[object], str] | None = None,
    voids: tuple[object, ...] = (),
) -> Any:
    """A decoder's value as `amqprouter.decoding.judgement.Decoded` has it.

    Tuples become lists, UUIDs, dates and network addresses text, and integers over 64 bits decimal numbers. Keys that
    are no text `key_of` makes text of; it may raise `Undecodable`, and without it they are refused. Each of `voids`
    becomes None.

    :raises Undecodable: something that has no such form, or over `max_values` of them, or nested over `MAX_DEPTH`.
    """
    return _Walk(max_values, key_of or _no_key, voids).plain(value, 0)


def key_text(key: object) -> str:
    """A key that is no text, as text: ``1``, ``true``, ``null``.

    :raises Undecodable: it is bytes, an array, a map or the like.
    """
    if key is None:
        return "null"
    if isinstance(key, bool):
        return "true" if key else "false"
    if isinstance(key, (int, float)):
        return str(key)
    raise Undecodable("bad-key", f"a key is a {type(key).__name__}")


def _no_key(key: object) -> str:
    raise Undecodable("bad-key", f"a key is a {type(key).__name__}")


class _Walk:
    """One walk, which counts."""

    def __init__(self, most: int, key_of: Callable[[object], str], voids: tuple[object, ...]) -> None:
        self._left = most
        self._voids = voids
        self._key_of = key_of

    def plain(self, value: Any, depth: int) -> Any:
        self._left -= 1
        if self._left < 0:
            raise Undecodable("too-many-values", "see [limits] max_body_values")
        kind = type(value)
        if value is None or kind is bool or kind is float or kind is bytes:
            return value
        if kind is str:
            return _text(value)
        if kind is int:
            return value if -_INT64 <= value < _INT64 else _decimal(value)
        if isinstance(value, (list, tuple, Mapping)):
            return self._collection(value, depth + 1)
        return None if any(value is void for void in self._voids) else _scalar(value)

    def _collection(self, value: Any, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise Undecodable("too-deep", f"nested over {MAX_DEPTH} deep")
        if not isinstance(value, Mapping):
            return [self.plain(one, depth) for one in value]
        fields: dict[str, Any] = {}
        for key, one in value.items():
            name = _text(key if type(key) is str else self._key_of(key))
            if name in fields:
                raise Undecodable("bad-key", "two keys are one when they are text")
            fields[name] = self.plain(one, depth)
        return fields


def _text(text: str) -> str:
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise Undecodable("bad-text", "half a surrogate pair") from None
    return text


def _scalar(value: Any) -> Any:
    """What is none of JSON's."""
    if isinstance(value, datetime):
        try:
            return value.astimezone(timezone.utc) if value.tzinfo else value.replace(tzinfo=timezone.utc)
        except OverflowError:
            raise Undecodable("bad-time", "before the year 1 or after 9999 in UTC") from None
    if isinstance(value, Decimal):
        return _decimal(value)
    if isinstance(value, _NAMES):
        return str(value)
    if isinstance(value, (bytearray, memoryview)):
        return bytes(value)
    if isinstance(value, bool | int | float | str):  # of a class of its own, such as an enumeration
        return plain(next(kind for kind in (bool, int, float, str) if isinstance(value, kind))(value))
    raise Undecodable("no-such-value", f"a {type(value).__name__} has no form that can be stored")


def _decimal(value: int | Decimal) -> Decimal:
    """An exact decimal number that Decimal128 holds."""
    if isinstance(value, int) and value.bit_length() > 4 * MAX_DIGITS:  # before it takes time to write it down
        raise Undecodable("integer-too-large", f"over {MAX_DIGITS} digits")
    number = Decimal(value)
    if not number.is_finite():
        return number
    _, digits, exponent = number.as_tuple()
    if not isinstance(exponent, int) or len(digits) > MAX_DIGITS or not _SMALLEST <= exponent <= _LARGEST:
        reason = "integer-too-large" if isinstance(value, int) else "number-too-large"
        raise Undecodable(reason, f"over {MAX_DIGITS} digits, or an exponent beyond a Decimal128's")
    return number


def json_form(value: Any) -> Any:
    """The value as JSON can say it: bytes become ``{"base64": …}``, moments ISO 8601 in UTC with milliseconds, decimal
    numbers text with all their digits, and what is no number to JSON the text ``NaN``, ``Infinity``, ``-Infinity``."""
    kind = type(value)
    if kind is dict:
        return {key: json_form(one) for key, one in value.items()}
    if kind is list:
        return [json_form(one) for one in value]
    if kind is float and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    if isinstance(value, datetime):
        return value.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if isinstance(value, Decimal):
        return str(value)
    return value
