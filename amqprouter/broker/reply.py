"""What an answer to a message is about, written into its correlation id.

Whoever works on a message copies the correlation id into the answer: all clients do, Celery's workers too. So nothing
about messages under way has to be remembered, and any gateway can take any answer, also after a restart.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from uuid import UUID

_LONGEST = 255
"""Bytes of a correlation id: a short string (AMQP 0-9-1, section 4.2.5.3)."""


@dataclass(frozen=True)
class ReplyAddress:
    """The section that sent the message (``queue images``), and its key (``<device>.<topic>``). `unique` is what tells
    the answer from others, where one has been read."""

    section: str
    key: str
    unique: str = field(default="", compare=False)

    def correlation_id(self, unique: UUID) -> str:
        """The text for a message.

        :raises ValueError: section and key are too long together.
        """
        text = f"{unique.hex}|{self.section}|{self.key}"
        if len(text.encode()) > _LONGEST:
            raise ValueError(f"section and key are over {_LONGEST - 34} bytes together: no answer would find its way")
        return text

    @classmethod
    def parse(cls, text: str) -> ReplyAddress:
        """Read a correlation id.

        :raises ValueError: it is none of ours.
        """
        unique, first, rest = text.partition("|")
        section, second, key = rest.partition("|")
        if not (first and second and len(unique) == 32 and section and key.partition(".")[2]):
            raise ValueError("not a correlation id of this daemon's")
        return cls(section, key, unique)
