"""Field names that MongoDB gives a meaning of their own, escaped so that they come back exactly.

A ``.`` separates the steps of a path in queries, a leading ``$`` marks an operator, and a NUL cannot be written in
BSON at all. Each is written as ``%`` and two hexadecimal digits: ``%2E``, ``%24`` and ``%00``. A ``%`` is escaped
itself, as ``%25``, only where it would otherwise be read as one of these, so ``humidity_%`` stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from amqprouter.errors import Unstorable

_ESCAPED = re.compile(r"%(2E|24|25|00)")
_CODES = ("25", "2E", "24", "00")  # that of % itself first: no other replacement makes it
_BETWEEN = "\udfff"  # half a surrogate pair: no key that can be stored has it


def escaped(key: str) -> str:
    """The key as it is stored.

    :raises Unstorable: it holds a certain half of a surrogate pair; any other is found when it is encoded.
    """
    return escaped_all((key,))[0]


def escaped_all(keys: Collection[str]) -> list[str]:
    """Keys as they are stored, all in one go: so what strangers' keys cost does not depend on what is in them.

    :raises Unstorable: as `escaped`.
    """
    text = _BETWEEN.join(keys)
    if _BETWEEN in text and text.count(_BETWEEN) >= len(keys):
        raise Unstorable("bad-text", "half a surrogate pair in a key")
    if "%" in text:
        for code in _CODES:
            text = text.replace(f"%{code}", f"%25{code}")
    if "$" in text:
        text = f"{_BETWEEN}{text}".replace(f"{_BETWEEN}$", f"{_BETWEEN}%24")[1:]
    return text.replace(".", "%2E").replace("\0", "%00").split(_BETWEEN)


def unescaped(key: str) -> str:
    """The key as the device sent it: the inverse of `escaped`."""
    return _ESCAPED.sub(lambda found: chr(int(found[1], 16)), key)
