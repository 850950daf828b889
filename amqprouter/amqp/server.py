"""What the broker says of itself at the start of a connection, by which the daemon uses what newer versions can do.

A version is looked at only for behaviour that RabbitMQ announces in no other way (docs/compatibility.rst has the list,
with what was seen on which version); where it names a capability, that counts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_NUMBERS = re.compile(r"\d+(?:\.\d+)*")
_RABBITMQ = "RabbitMQ"


@dataclass(frozen=True)
class ServerProperties:
    """The ``server-properties`` of connection.start (AMQP 0-9-1, 1.4.2.1), as far as they matter here."""

    product: str = ""
    text: str = ""
    """The version as the broker writes it, such as ``4.3.6`` or ``4.3.0-rc.1``."""
    version: tuple[int, ...] = ()
    """Its numbers; empty when it names none, or is no RabbitMQ: then it has nothing that is looked for by version."""
    capabilities: frozenset[str] = field(default=frozenset())

    @classmethod
    def of(cls, properties: Mapping[str, Any]) -> ServerProperties:
        """From the table that the broker sent, whatever is in it."""
        product, text = (_text(properties.get(name)) for name in ("product", "version"))
        found = _NUMBERS.match(text) if product == _RABBITMQ else None
        version = tuple(map(int, found[0].split("."))) if found else ()
        offered = properties.get("capabilities")
        named = frozenset(str(name) for name, yes in offered.items() if yes) if isinstance(offered, Mapping) else ()
        return cls(product, text, version, frozenset(named))

    def at_least(self, *version: int) -> bool:
        """Whether it is a RabbitMQ of this version or a later one."""
        return self.version >= version

    def __str__(self) -> str:
        return f"{self.product or 'a broker without a name'} {self.text or 'of an unknown version'}"


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return value if isinstance(value, str) else ""
