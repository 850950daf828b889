"""The front of a message's properties: from the property flags to the end of the header table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from amqprouter.core.properties import Properties


class Front:
    """The front of these properties, known by a digest, and what was found out about it.

    `digest` is a keyed hash without anything in it, as `hashlib` makes them.

    :raises ValueError: the properties are malformed.
    """

    __slots__ = ("_digest", "_expected", "_tail", "flags", "header_count", "known", "size")

    def __init__(self, properties: Properties, digest: Any) -> None:
        self.flags = properties.flags
        self.header_count = properties.header_count()
        self.size, self._tail = properties.behind_headers()
        self.known: dict[object, Any] = {}
        """What others worked out from the front and from whom it came, by who did; never a secret."""
        self._digest = digest.copy  # copying a keyed hash is cheaper than making one
        digest = digest.copy()
        digest.update(properties.raw[: self.size])
        self._expected = digest.digest()

    def is_of(self, raw: bytes) -> bool:
        """Whether these are well-formed properties with this front."""
        size = self.size
        digest = self._digest()
        digest.update(raw[:size])
        if digest.digest() != self._expected:
            return False
        position = size
        try:
            for octets in self._tail:
                position += octets or 1 + raw[position]  # 0 stands for a string, which begins with its length
        except IndexError:
            return False
        return position == len(raw)
