"""JSON bodies as values that MongoDB can hold, read strictly: nothing that two readers could take for different things.

Refused, beyond what is not JSON at all (RFC 8259): duplicate keys, which the RFC leaves open and an attacker may use
to show two faces to two readers; NaN and Infinity, also as 1e400; encodings other than UTF-8; nesting over 64, where
the server's own bound is 100; what would take too long to read. Half surrogate pairs and integers over 64 bits are
found when the value is encoded. Numbers become what MongoDB has: 32- and 64-bit integers, and doubles.

Theory of operation. `decode` says what is right, with Python's own parser and a call for each object. msgspec reads the
same text, as strictly, several times as fast, and tells no difference between names that stand twice and once. So
`encoded` has it read the text, and keeps what it says where the value cannot have been anything else to `decode`:
`_is_as_it_stands` finds that out with a few searches in C, instead of a look at each name. Whatever is left, and
whatever anything in this refused, goes through `decode`, which decides.
"""

from __future__ import annotations

import json
import math
import re
from typing import NoReturn

import msgspec

from amqprouter.errors import Unstorable
from amqprouter.pipeline.json_text import MAX_DEPTH, MAX_VALUES, is_deep, is_heavy
from amqprouter.storage.elements import ENCODING_ERRORS, elements
from amqprouter.storage.keys import escaped_all

_NOT_AS_IT_STANDS = (msgspec.MsgspecError, ValueError, Unstorable, *ENCODING_ERRORS)
_SHALLOW = 12
"""Rounds in which `_is_shallow` takes the innermost brackets away; deeper nesting than this is rare."""


def _all_but(octets: bytes) -> bytes:
    return bytes(set(range(256)) - set(octets))


_NOT_OPENING = _all_but(b":{[")
_NOT_OF_NAMES = _all_but(b'".:$%')
_AS_DOTS = bytes.maketrans(b"$%", b"..")
_NAME_WITH_DOTS = re.compile(rb'\.:*":')
_NO_BRACKETS = _all_but(b'"[]{}')
_AS_SQUARE = bytes.maketrans(b"{}", b"[]")

_read = msgspec.json.Decoder().decode
_write = msgspec.json.Encoder().encode


def encoded(body: bytes, max_values: int = MAX_VALUES) -> bytes:
    """The element named ``body`` of a document, with the value that a JSON text stands for; its keys are escaped.

    :raises Unstorable: as `decode`, and where BSON cannot hold the value.
    """
    if not is_heavy(body, max_values):
        try:
            value = _read(body)
            if _is_as_it_stands(value, body):
                return elements({"body": value})
        except _NOT_AS_IT_STANDS:
            pass  # the strict way knows the reason, or has none
    return elements({"body": decode(body, max_values)})


def _is_as_it_stands(value: object, body: bytes) -> bool:
    """Whether `decode` would make the same of this body as msgspec did, for sure; False where that takes a longer look.

    Each field has a colon in the text, so where there are as many as fields, no name stands twice. There are more where
    texts have colons. So the value is written again: a field that msgspec has dropped took its colons with it, and no
    others can have come, as long as none was escaped. In what is written a name is what stands before a quote and a
    colon, whatever else is left out between them.
    """
    opening = body.translate(None, _NOT_OPENING)
    colons = opening.count(b":")
    opened = len(opening) - colons
    if opened == 1 and type(value) is dict and len(value) == colons:
        names = "".join(value)
        return not ("." in names or "$" in names or "%" in names or "\0" in names)
    if b"\\" in body and b"\\u003" in body:
        return False
    text = _write(value)
    if b"\\" in text:
        text = text.replace(b"\\\\", b"").replace(b'\\"', b"")  # quotes that are left are the ends of texts
        if b"\\u0000" in text:
            return False
    left = text.translate(_AS_DOTS, _NOT_OF_NAMES)
    if left.count(b":") != colons or b'.":' in left or (b".:" in left and _NAME_WITH_DOTS.search(left)):
        return False
    return opened <= MAX_DEPTH or _is_shallow(text) or not is_deep(value)


def _is_shallow(text: bytes) -> bool:
    """Whether JSON is nested up to `_SHALLOW` deep, for sure; no, where texts in it have brackets or escaped quotes."""
    left = text.translate(_AS_SQUARE, _NO_BRACKETS).replace(b'""', b"")
    for _ in range(_SHALLOW):
        left = left.replace(b"[]", b"")
        if not left:
            return True
    return False


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    if not pairs:
        return {}
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise Unstorable("bad-json", "an object has the same key twice")
    names = "".join(fields)  # one string to search is much cheaper than a loop over the keys
    if "." in names or "$" in names or "%" in names or "\0" in names:
        return dict(zip(escaped_all(fields), fields.values(), strict=True))
    return fields


def _constant(text: str) -> NoReturn:
    raise Unstorable("bad-json", f"{text} is not JSON")


def _float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise Unstorable("number-too-large", "a number is beyond what a double holds, 1.8e308")
    return value


_decode = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant, parse_float=_float).decode


def decode(body: bytes, max_values: int = MAX_VALUES) -> object:
    """The value that a JSON text stands for, with its keys escaped (see `amqprouter.storage.keys`).

    :raises Unstorable: it is not strict JSON, nested over `MAX_DEPTH`, or weighs over `max_values`.
    """
    if is_heavy(body, max_values):
        raise Unstorable("too-many-values", f"the JSON weighs over {max_values} values, see [limits] max_body_values")
    try:
        value: object = _decode(body.decode())
    except ValueError as error:  # UnicodeDecodeError, JSONDecodeError, and an integer of over 4300 digits
        raise Unstorable("bad-json", type(error).__name__) from None
    except RecursionError:
        raise Unstorable("json-too-deep") from None
    if body.count(b"{") + body.count(b"[") > MAX_DEPTH and is_deep(value):
        raise Unstorable("json-too-deep", f"nested over {MAX_DEPTH} deep")
    return value
