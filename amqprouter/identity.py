"""Who somebody is, what became of the proof of it, and what anybody may be called."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Identity:
    """What a checker may answer instead of a bare name, when it knows more.

    `valid_for` is seconds, the longest that the answer may be remembered, and that what it opens may last (a token's
    rest of life); None leaves that to ``[auth] cache_seconds``. `limits` is text such as ``100/s, 2000/min``, empty for
    the configured ones. `acl` has lines ``[allow|deny] TOPIC PATTERN[, …]`` for this one alone; None says nothing of
    topics, an empty one allows none. `speaks_for` has lines ``[allow|deny] DEVICE[, …]: TOPIC PATTERN[, …]``: for whom
    it may publish as well; None and an empty one as for `acl`.
    """

    name: str
    valid_for: float | None = None
    limits: str = ""
    device_class: str = ""
    tenant: str = ""
    groups: tuple[str, ...] = ()
    acl: tuple[str, ...] | None = None
    speaks_for: tuple[str, ...] | None = None


def identity_from(fields: Mapping[str, Any]) -> Identity:
    """An identity out of its fields as JSON has them, with lists for tuples."""
    known: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
    return Identity(**known)


@dataclass(frozen=True)
class Verdict:
    """Whether somebody is who they claim to be.

    `reason` is empty when allowed and one of the words below when not: it becomes the reason of a rejected message and
    a label of a metric, so it never holds anything that a device sent. `checker` names the proof that decided.
    `identity` is what the checker said of who was proved, None where it said the name alone. Where that says how long
    it is good for (`Identity.valid_for`), `good_until` is when that is over, by the clock of who asked. `retry_after`
    is seconds, for those who were not asked about now.

    `publisher` is who was proved, where that is somebody else than the device which a message claims; empty when it is
    the device itself. `publisher_limits` are then what a checker told of the publisher's limits, as `Identity.limits`;
    None where it was not asked. Of a verdict that is in force, `identity` is the device's all the same.
    """

    allowed: bool
    reason: str = ""
    checker: str = ""
    identity: Identity | None = None
    retry_after: float = 0.0
    good_until: float | None = field(default=None, compare=False)
    publisher: str = ""
    publisher_limits: str | None = None


NO_CREDENTIAL = "no-credential"
"""Nothing in the message was a proof of an accepted kind."""


NO_CHECKER = "no-checker"
"""There was a secret, but no checker is configured that could judge it."""


IDENTITY_MISMATCH = "identity-mismatch"
"""Somebody else was proved than the one claimed."""


MAY_NOT_SPEAK_FOR = "may-not-speak-for"
"""The publisher is who it says, and is not on the list of those who may publish this for the device."""


BAD_SECRET = "bad-secret"
"""The secret is wrong, empty or overlong."""


LOCKED_OUT = "locked-out"
"""There were too many wrong secrets for this name, from where this came from."""


UNKNOWN_NAME = "unknown-name"
"""No checker knows the name. For the operator's eyes only: who asks over HTTP is told no more than that it was a no."""


RESERVED_NAME = "reserved-name"
"""It is a name of something else than a user: see `amqprouter.identity.reserved_sender`."""


BAD_SIGNATURE = "bad-signature"
"""The signature is not the one of this message under the device's key, or there is no key for this name."""


NO_MESSAGE_ID = "no-message-id"
"""There was a signature, but no message id to tell a replay by."""


NO_TIMESTAMP = "no-timestamp"
"""There was a signature, but no timestamp to tell its age by."""


STALE_TIMESTAMP = "stale-timestamp"
"""The signature is good, but the message's timestamp is outside of the window around the gateway's clock."""


REPLAYED = "replayed"
"""The signature is good, but the device has sent a message with this id already."""


MAX_BYTES = 255
"""A routing key is a short string, at most 255 bytes (AMQP 0-9-1, section 4.2.5.3)."""


NOT_IN_WORDS = (
    r".*#/\\\s"
    r"\x00-\x1f\x7f-\x9f"  # control characters (C0, DEL, C1)
    r"\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"  # invisible, or turning the direction
    r"\ud800-\udfff"
)
"""What no device id may hold, as it stands within the brackets of a regular expression."""


_WORD = re.compile(f"[^{NOT_IN_WORDS}]{{1,{MAX_BYTES}}}").fullmatch


def valid_device_id(text: str) -> bool:
    """Whether a device may have this id."""
    return _WORD(text) is not None and (text.isascii() or len(text.encode()) <= MAX_BYTES)


def valid_publisher(text: str) -> bool:
    """Whether somebody who publishes for devices may have this name. It need not be a device id: accounts and MQTT
    client ids have dots and slashes in them."""
    return text.isprintable() and 0 < len(text.encode()) <= MAX_BYTES


AMQP_SENDER = "amqp:"
"""What stands in front of a broker account's name: no user is called so (`reserved_sender`)."""


WORK_SENDERS = ("queue:", "celery:")
"""What stands in front of a section's name, where what its workers answer is sent as a command."""


def reserved_sender(name: str) -> bool:
    """Whether this names a sender that is no user: a broker's account, or a section of work. Whoever says what a user
    is called, a token or a checker, must not be able to say this, or it would have that one's rights."""
    return name.startswith((AMQP_SENDER, *WORK_SENDERS))


ANONYMOUS = "anonymous"
"""The user whom requests without a login come from, where these are allowed."""
