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

    __slots__ = ("_digest", "_expected", "_first", "_gaps", "flags", "header_count", "known", "size")

    def __init__(self, properties: Properties, digest: Any) -> None:
        self.flags = properties.flags
        self.header_count = properties.header_count()
        self.size, behind = properties.behind_headers()
        # Where the first string behind the front begins, or the end; and what is between each string and the next.
        gaps = [0]
        for octets in behind:
            if octets:
                gaps[-1] += octets
            else:
                gaps.append(0)
        self._first, self._gaps = self.size + gaps[0], gaps[1:]
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
        position = self._first
        try:
            for gap in self._gaps:
                position += 1 + raw[position] + gap
        except IndexError:
            return False
        return position == len(raw)
