"""The headers that the daemon adds to messages, and what they tell of a message in quarantine.

They are believed only where the daemon's own account wrote them: it strips all of this prefix from what devices send,
also names that mean nothing yet, or something to other programs of this package only.
"""

from __future__ import annotations

import json
from typing import Any

from amqprouter.identity import Identity

PREFIX = "x-amqprouter-"
ENCODED_PREFIX = PREFIX.encode()

DEVICE, REASON, AT, EXCHANGE, ROUTING_KEY, CHECKER, PROVEN, IDENTITY, PUBLISHER, LAYOUT, KEY = (
    "x-amqprouter-device",
    "x-amqprouter-reason",
    "x-amqprouter-at",
    "x-amqprouter-exchange",
    "x-amqprouter-routing-key",
    "x-amqprouter-checker",
    "x-amqprouter-proven",
    "x-amqprouter-identity",
    "x-amqprouter-publisher",
    "x-amqprouter-layout",
    "x-amqprouter-key",
)
"""The device, proven on what is passed on; and on quarantined messages: what happened, when, where the message had been
published, which proof of identity decided, whether it had said yes, and what a checker had said of the device. On both,
who was proven to have published it, where that is somebody else than the device; and where a layout found the device in
the routing key, its name with the words left out (`amqprouter.layouts.layout.Placement`), and ``<device>.<topic>``."""

PARKED = "x-amqprouter-parked"
"""On parked messages: what `amqprouter.broker.parked_message` needs to make the message again."""

REPARTITIONED = "x-amqprouter-repartitioned"
"""On messages on their way to the gateway that has their device (`amqprouter.broker.repartition_envelope`)."""

NAMES = (
    *(DEVICE, REASON, AT, EXCHANGE, ROUTING_KEY, CHECKER, PROVEN, IDENTITY, PUBLISHER, LAYOUT, KEY),
    *(PARKED, REPARTITIONED),
)
_MOST_IDENTITY = 4096
"""Bytes. Headers have to fit in a frame, with the device's own; a checker that says more of a device is not quoted."""


_TOLD = ("limits", "device_class", "tenant", "groups", "acl")
"""Fields of an `Identity` that access lists and limits ask for: what a checker told when the device was proven."""


def in_our_name(header: str) -> bool:
    """Whether only the daemon may write a header of this name; some programs take upper and lower case for the same."""
    return header[: len(PREFIX)].lower() == PREFIX


def identity_text(identity: Any) -> str:
    """What a checker said, for the header; empty when that is nothing, or too much.

    Where too much was said of one who has an access list of its own, that one may do nothing: the list must not be
    forgotten.
    """
    said = {name: getattr(identity, name) for name in _TOLD}
    acl = said.pop("acl")
    said = {name: value for name, value in said.items() if value} | ({} if acl is None else {"acl": acl})
    text = json.dumps(said, separators=(",", ":"))
    if len(text) <= _MOST_IDENTITY:
        return text if said else ""
    return "" if acl is None else '{"acl":[]}'


def recalled(text: str) -> Identity | None:
    """The header's content, without a name; None when there is nothing in it, or what is in it is not ours."""
    try:
        said = json.loads(text)
        groups, acl = tuple(said.pop("groups", ())), said.pop("acl", None)
        acl = None if acl is None else tuple(acl)
        if all(isinstance(word, str) for word in (*said.values(), *groups, *(acl or ()))):
            return Identity("", groups=groups, acl=acl, **said) if said.keys() <= set(_TOLD) else None
    except (ValueError, TypeError, AttributeError, RecursionError):
        pass
    return None
