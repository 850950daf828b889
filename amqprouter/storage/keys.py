"""Field names that MongoDB gives a meaning of their own, escaped so that they come back exactly.

A ``.`` separates the steps of a path in queries, a leading ``$`` marks an operator, and a NUL cannot be written in
BSON at all. Each is written as ``%`` and two hexadecimal digits: ``%2E``, ``%24`` and ``%00``. A ``%`` is escaped
itself, as ``%25``, only where it would otherwise be read as one of these, so ``humidity_%`` stays as it is.
"""

from __future__ import annotations

import re

_SPECIAL = re.compile(r"^\$|\.|\x00|%(?=2E|24|25|00)")
_ESCAPED = re.compile(r"%(2E|24|25|00)")


def escaped(key: str) -> str:
    """The key as it is stored."""
    return _SPECIAL.sub(lambda found: f"%{ord(found[0]):02X}", key)


def unescaped(key: str) -> str:
    """The key as the device sent it: the inverse of `escaped`."""
    return _ESCAPED.sub(lambda found: chr(int(found[1], 16)), key)
