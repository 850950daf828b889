"""Values that every reader of a body can be given: what a decoder made is held to them, and put into JSON's few.

The store has dates, bytes and decimal numbers of 34 digits, JSON has not, and Python has more than both. So a decoder's
value is walked once: what some reader could not hold is turned into what it can, by a rule, or the body is refused.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from datetime import date, datetime, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

from amqprouter.decoding.json_text import MAX_DEPTH, MAX_VALUES
from amqprouter.errors import Undecodable

MAX_DIGITS = 34
"""Of numbers that are neither doubles nor 64-bit integers: what MongoDB's Decimal128 holds (IEEE 754-2008)."""
_SMALLEST, _LARGEST = -6176, 6111
"""Exponents that a Decimal128 has, with its digits as a whole number (the same)."""
_INT64 = 1 << 63


def plain(value: object, max_values: int = MAX_VALUES) -> Any:
    """A decoder's value as `amqprouter.decoding.judgement.Decoded` has it.

    Tuples become lists, UUIDs and dates text, and integers over 64 bits decimal numbers; keys are text already.

    :raises Undecodable: something that has no such form, or over `max_values` of them, or nested over `MAX_DEPTH`.
    """
    return _Walk(max_values).plain(value, 0)


class _Walk:
    """One walk, which counts."""

    def __init__(self, most: int) -> None:
        self._left = most

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
        return _scalar(value)

    def _collection(self, value: Any, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise Undecodable("too-deep", f"nested over {MAX_DEPTH} deep")
        if not isinstance(value, Mapping):
            return [self.plain(one, depth) for one in value]
        fields = {}
        for key, one in value.items():
            if type(key) is not str:
                raise Undecodable("bad-key", f"a key is a {type(key).__name__}")
            fields[_text(key)] = self.plain(one, depth)
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
    if isinstance(value, (UUID, date)):
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
