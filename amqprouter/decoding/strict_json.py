"""JSON read strictly: nothing that two readers could take for different things.

Refused, beyond what is not JSON at all (RFC 8259): a byte order mark and anything else before or behind the one value;
equal keys in an object; NaN and Infinity, and numbers that a double makes Infinity of; integers over 64 bits, signed;
half surrogate pairs; encodings other than UTF-8; nesting over `MAX_DEPTH`; what would take too long to read.

Theory of operation. msgspec reads several times as fast as the standard library, but keeps the last of equal keys, and
integers of any size. So what it gives is walked once, level by level, counting fields: where all objects together have
as many as the text has colons, none was left out. What is in doubt (colons in strings, deep nesting) and what msgspec
does not take goes to the standard library's parser, which decides, and says what is wrong.
"""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

import msgspec

from amqprouter.decoding.json_text import MAX_DEPTH, MAX_VALUES, is_deep, is_heavy
from amqprouter.errors import Undecodable

_NINETEEN_DIGITS = re.compile(rb"[0-9]{19}")
"""The least that an integer over 64 bits has."""
_INT64 = 1 << 63

_read = msgspec.json.Decoder().decode


def parse(body: bytes, max_values: int = MAX_VALUES, *, any_integers: bool = False) -> Any:
    """The value that a JSON text stands for.

    :param any_integers: also those over 64 bits, which nobody could store.
    :raises Undecodable: it is not strict JSON, or weighs over `max_values`.
    """
    if is_heavy(body, max_values):
        raise Undecodable("too-many-values", f"the JSON weighs over {max_values} values, see [limits] max_body_values")
    try:
        value = _read(body)
    except (msgspec.MsgspecError, RecursionError, ValueError):
        return _parse_slowly(body, any_integers)
    if not _is_sure(value, body) or (not any_integers and _may_have_large_integers(body)):
        return _parse_slowly(body, any_integers)
    return value


def parse_guessing(body: bytes, max_values: int = MAX_VALUES) -> Any:
    """As `parse`, for what may well be no JSON at all: it takes less to find that out, and the reason is not told."""
    if is_heavy(body, max_values):
        raise Undecodable("too-many-values")
    try:
        value = _read(body)
    except (msgspec.MsgspecError, RecursionError, ValueError):
        raise Undecodable("bad-json") from None
    if not _is_sure(value, body) or _may_have_large_integers(body):
        return _parse_slowly(body)
    return value


def _may_have_large_integers(body: bytes) -> bool:
    return len(body) >= 19 and _NINETEEN_DIGITS.search(body) is not None


def _is_sure(value: Any, body: bytes) -> bool:
    """Whether no name stands twice in an object, and nothing is nested too deep."""
    kind = type(value)
    if kind is not dict and kind is not list:
        return True
    colons = body.count(b":")
    if kind is dict and len(value) == colons and body.count(b"[") < MAX_DEPTH:
        return True  # so there are no fields further in, and what else there is are lists
    return _fields(value) == colons


def _fields(value: Any) -> int:
    """How many fields all objects have together; -1 where they are nested too deep."""
    kind = type(value)
    if kind is not dict and kind is not list:
        return 0
    fields = 0
    level = [value]
    for _ in range(MAX_DEPTH):
        inner: list[Any] = []
        for outer in level:
            if type(outer) is dict:
                fields += len(outer)
                inner += [one for one in outer.values() if type(one) is dict or type(one) is list]
            else:
                inner += [one for one in outer if type(one) is dict or type(one) is list]
        if not inner:
            return fields
        level = inner
    return -1


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise Undecodable("bad-json", "an object has the same key twice")
    return fields


def _constant(text: str) -> NoReturn:
    raise Undecodable("bad-json", f"{text} is not JSON")


def _integer(text: str) -> int:
    value = int(text)
    if not -_INT64 <= value < _INT64:
        raise Undecodable("integer-too-large", "an integer needs more than 64 bits")
    return value


def _float(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise Undecodable("number-too-large", "a number is beyond what a double holds")
    return value


_parse = json.JSONDecoder(
    object_pairs_hook=_object, parse_constant=_constant, parse_int=_integer, parse_float=_float
).decode


_parse_any = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant, parse_float=_float).decode


def _parse_slowly(body: bytes, any_integers: bool = False) -> Any:
    try:
        text = body.decode()
        value = (_parse_any if any_integers else _parse)(text)
    except ValueError as error:  # UnicodeDecodeError, JSONDecodeError, and an integer of over 4300 digits
        raise Undecodable("bad-json", type(error).__name__) from None
    except RecursionError:
        raise Undecodable("json-too-deep") from None
    if is_deep(value):
        raise Undecodable("json-too-deep", f"nested over {MAX_DEPTH} deep")
    if "\\ud" in text or "\\uD" in text:
        _check_surrogates(value)
    return value


def _check_surrogates(value: Any) -> None:
    try:
        msgspec.json.encode(value)  # it writes no half pairs
    except UnicodeEncodeError:
        raise Undecodable("bad-text", "half a surrogate pair") from None
