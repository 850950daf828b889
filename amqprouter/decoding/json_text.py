"""JSON that strangers wrote: how much work it is to read, and how deep it goes.

Python makes an object of each value, so a body costs by its values rather than by its bytes: a megabyte of text is read
in a millisecond, a megabyte of ``{}`` takes three hundred times as long, and nothing else happens meanwhile. Threads
would not help, for the parser does not let go of the interpreter. So the work is estimated first, from the commas and
brackets, which takes a millisecond for a megabyte, and a body that is too much is not read as JSON.
"""

from __future__ import annotations

from itertools import chain
from typing import Any

MAX_VALUES = 300_000
"""What a body may weigh unless configured: the heaviest then keeps the store for 20 to 100 ms, and a Celery task for up
to 125 [measured, Python 3.11, a busy core of a virtual machine]. Readings of the form ``{"t":1764540000,"v":20.5}``
weigh 11 each."""
COLLECTION = KEY = 3
"""What an object or array counts for, and each key, where a number counts for one: as what they take [measured]."""
MAX_DEPTH = 64
"""Objects and arrays in one another; MongoDB's own bound is 100."""

_COLLECTIONS = frozenset((dict, list))


def weight(body: bytes) -> int:
    """An upper bound on the values in a JSON text, where objects, arrays and keys count several times.

    What looks like JSON within strings counts too: a look that told them apart would cost as much as reading them.
    """
    commas, opened = body.count(b","), body.count(b"{") + body.count(b"[")
    keys = min(body.count(b":"), commas + opened)  # there are colons in times of day as well
    return 1 + commas + COLLECTION * opened + KEY * keys


def is_heavy(body: bytes, most: int) -> bool:
    """Whether a JSON text weighs more than `most`; a short one cannot, and is not looked at."""
    return len(body) * COLLECTION > most and weight(body) > most


def is_deep(value: object) -> bool:
    """Whether objects and arrays in this decoded JSON are nested over `MAX_DEPTH` deep."""
    level: list[Any] = [value] if type(value) in _COLLECTIONS else []
    for _ in range(MAX_DEPTH):
        insides = [outer.values() if type(outer) is dict else outer for outer in level]
        level = [inner for inner in chain.from_iterable(insides) if type(inner) in _COLLECTIONS]
        if not level:
            return False
    return True
