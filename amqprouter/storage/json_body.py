"""JSON bodies as values that MongoDB can hold, read strictly: nothing that two readers could take for different things.

Refused, beyond what is not JSON at all (RFC 8259): duplicate keys, which the RFC leaves open and an attacker may use
to show two faces to two readers; NaN and Infinity, also as 1e400; encodings other than UTF-8; nesting over 64, where
the server's own bound is 100; what would take too long to read. Half surrogate pairs and integers over 64 bits are
found when the value is encoded. Numbers become what MongoDB has: 32- and 64-bit integers, and doubles.

Theory of operation. `decode` says what is right, with Python's own parser and a call for each object. msgspec reads the
same text, as strictly, several times as fast, and tells no difference between names that stand twice and once. So
`JsonBodies` has it read the text, and keeps what it says where the value cannot have been anything else to `decode`:
`_is_as_it_stands` finds that out with a few searches in C, instead of a look at each name. Whatever is left, and
whatever anything in this refused, goes through `decode`, which decides.

And a device's bodies mostly differ in their numbers alone. The text without its digits and minus signs, its shape,
tells all that matters here, names, brackets and quotes, as long as nothing is escaped and no object has names that
differ in these only: then whatever other digits stand where, there are as many different names, none with a meaning of
its own, nested as deep. So such shapes are remembered, once they were seen twice.
"""

from __future__ import annotations

import json
import math
import re
from typing import NoReturn

import msgspec
from bson import encode

from amqprouter.decoding.json_text import MAX_DEPTH, MAX_VALUES, is_deep, is_heavy
from amqprouter.errors import Unstorable
from amqprouter.storage.elements import ENCODING_ERRORS, elements
from amqprouter.storage.keys import escaped_all

_NOT_AS_IT_STANDS = (msgspec.MsgspecError, ValueError, Unstorable, *ENCODING_ERRORS)
MAX_SHAPES = 1024 * 1024
"""Bytes of shapes that are remembered: some thousands of the usual ones. When they are more all are forgotten, which
costs a longer look at two bodies of each."""
MAX_SHAPE = 16 * 1024
"""Bytes of a body whose shape is looked at. Longer ones are rarely alike, and few would drive out all others."""
MAX_SEEN = 16 * 1024
"""Shapes that were seen once, known by their hashes: 1 MB. Forgotten likewise; bodies that are all different cost no
more than this."""
_SHAPE_OVERHEAD = 100
_IN_NUMBERS = b"0123456789-"
_NO_DIGITS = dict.fromkeys(_IN_NUMBERS)
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


class JsonBodies:
    """Reads bodies that weigh up to `max_values`, and remembers shapes of them: 1 MiB at most."""

    def __init__(self, max_values: int = MAX_VALUES) -> None:
        self._max_values = max_values
        self._shapes: set[bytes] = set()
        self._room = MAX_SHAPES
        self._seen: set[int] = set()

    def encoded(self, body: bytes) -> bytes:
        """The element named ``body`` of a document, with the value that a JSON text stands for; its keys are escaped.

        :raises Unstorable: as `decode`, and where BSON cannot hold the value.
        """
        if not is_heavy(body, self._max_values):
            shape, is_known, is_short = b"", False, len(body) <= MAX_SHAPE
            if is_short:
                shape = body.translate(None, _IN_NUMBERS)
                is_known = shape in self._shapes
            try:
                value = _read(body)
                if is_known or _is_as_it_stands(value, body):
                    element = encode({"body": value})[4:-1]
                    if is_short and not is_known:
                        self._see(shape, value)
                    return element
            except _NOT_AS_IT_STANDS:
                pass  # the strict way knows the reason, or has none
        return elements({"body": decode(body, self._max_values)})

    def _see(self, shape: bytes, value: object) -> None:
        """Remember the shape of a body that `_is_as_it_stands`, if it is the second of that shape."""
        mark = hash(shape)
        if mark not in self._seen:
            if len(self._seen) >= MAX_SEEN:
                self._seen.clear()
            self._seen.add(mark)
        elif b"\\" not in shape and _differs_without_digits(value):
            self._room -= len(shape) + _SHAPE_OVERHEAD
            if self._room < 0:
                self._shapes.clear()
                self._room = MAX_SHAPES - len(shape) - _SHAPE_OVERHEAD
            self._shapes.add(shape)


def _differs_without_digits(value: object) -> bool:
    """Whether each object's names are different ones without digits and minus signs too."""
    level = [value]
    while level:
        inside: list[object] = []
        for outer in level:
            if type(outer) is dict:
                if len({name.translate(_NO_DIGITS) for name in outer}) != len(outer):
                    return False
                inside += outer.values()
            elif type(outer) is list:
                inside += outer
        level = inside
    return True


def _is_as_it_stands(value: object, body: bytes) -> bool:
    """Whether `decode` would make the same of this body as msgspec did, for sure; False where that takes a longer look.

    Each field has a colon in the text, so where there are as many as fields, no name stands twice. There are more where
    texts have colons. So the value is written again: a field that msgspec has dropped took its colons with it, and no
    others can have come, as long as none was escaped. In what is written a name is what stands before a quote and a
    colon, whatever else is left out between them. NUL in a name is not looked for: it cannot be encoded.
    """
    opening = body.translate(None, _NOT_OPENING)
    colons = opening.count(b":")
    opened = len(opening) - colons
    if opened == 1 and type(value) is dict and len(value) == colons:
        names = "".join(value)
        return not ("." in names or "$" in names or "%" in names)
    if b"\\" in body and b"\\u003" in body:
        return False
    text = _write(value)
    if b"\\" in text:
        text = text.replace(b"\\\\", b"").replace(b'\\"', b"")  # quotes that are left are the ends of texts
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
