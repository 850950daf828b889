"""Where a route sends messages, as written in ``targets =``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from amqprouter.commands.command import bad_topic

LEGAL = (
    "exchange:NAME, exchange:NAME/ROUTING KEY, queue:NAME, celery:NAME, store:COLLECTION or events:; in reply also "
    "command:TOPIC"
)

CONTROL = re.compile(r"[\x00-\x1f\x7f]")
"""What no name of an exchange or a queue may have in it."""
_LONGEST_NAME = 255
"""Bytes of an exchange name or routing key: both are short strings (AMQP 0-9-1, section 4.2.5.3)."""
_LONGEST_COLLECTION = 120
"""Bytes: the strictest limit that MongoDB servers have had on a whole ``database.collection`` name, before 4.4."""


@dataclass(frozen=True)
class Target:
    """One target.

    An ``exchange`` target without a `routing_key` is sent to with the message's own. An ``events`` target has no name.
    Those of a ``queue`` and a ``celery`` target are of sections of the configuration. That of a ``command`` target is
    the topic of commands, without the device id.
    """

    kind: Literal["exchange", "queue", "celery", "store", "events", "command"]
    name: str = ""
    routing_key: str = ""

    @classmethod
    def parse(cls, text: str) -> Target:
        """Read a target as the configuration writes it.

        :raises ValueError: it is not one; the text names the legal forms.
        """
        kind, colon, rest = text.partition(":")
        if CONTROL.search(text):
            raise ValueError(f"target {text!r} has a control character in it")
        if kind == "exchange" and rest:
            name, slash, routing_key = rest.partition("/")
            if not name or (slash and not routing_key):
                raise ValueError(f"target {text!r} lacks a name on one side of its '/'; legal: {LEGAL}")
            if max(len(name.encode()), len(routing_key.encode())) > _LONGEST_NAME:
                raise ValueError(f"target {text[:40]!r}… has a name or routing key over {_LONGEST_NAME} bytes")
            return cls("exchange", name, routing_key)
        if kind in ("queue", "celery") and rest:
            return cls(kind, " ".join(rest.split()))  # type: ignore[arg-type]
        if kind == "store" and rest:
            if "$" in rest or rest.startswith("system.") or rest[0] == "." or rest[-1] == ".":
                raise ValueError(f"target {text!r}: a collection has no '$', no 'system.' in front, no '.' at its ends")
            if len(rest.encode()) > _LONGEST_COLLECTION:
                raise ValueError(f"target {text[:40]!r}…: a collection's name is at most {_LONGEST_COLLECTION} bytes")
            return cls("store", rest)
        if kind == "command" and rest:
            if bad_topic(rest):
                raise ValueError(f"target {text!r}: the topic of a command has words without white space, /, +, * or #")
            return cls("command", rest)
        if kind == "events" and colon and not rest:
            return cls("events")
        raise ValueError(f"{text!r} is not a target; legal: {LEGAL}")

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}" + (f"/{self.routing_key}" if self.routing_key else "")
