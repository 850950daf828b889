"""JSON bodies as values that MongoDB can hold, read strictly: nothing that two readers could take for different things.

Refused, beyond what is not JSON at all (RFC 8259): duplicate keys, which the RFC leaves open and an attacker may use
to show two faces to two readers; NaN and Infinity, also as 1e400; encodings other than UTF-8; nesting over 64, where
the server's own bound is 100; what would take too long to read. Half surrogate pairs and integers over 64 bits are
found when the document is encoded. Numbers become what MongoDB has: 32- and 64-bit integers, and doubles.
"""

from __future__ import annotations

import json
import math
from typing import NoReturn

from amqprouter.errors import Unstorable
from amqprouter.pipeline.json_text import MAX_DEPTH, MAX_VALUES, is_deep, is_heavy
from amqprouter.storage.keys import escaped_all


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
