"""What became of a proof of identity."""

from __future__ import annotations

from dataclasses import dataclass, field

from zope.interface import implementer

from amqprouter.interfaces import Identity, IVerdict


@implementer(IVerdict)
@dataclass(frozen=True)
class Verdict:
    """Whether somebody is who they claim to be.

    `reason` is empty when allowed and one of the words below when not: it becomes the reason of a rejected message and
    a label of a metric, so it never holds anything that a device sent. `checker` names the proof that decided.
    `identity` is what the checker said of who was proved, None where it said the name alone. Where that says how long
    it is good for (`Identity.valid_for`), `good_until` is when that is over, by the clock of who asked. `retry_after`
    is seconds, for those who were not asked about now.
    """

    allowed: bool
    reason: str = ""
    checker: str = ""
    identity: Identity | None = None
    retry_after: float = 0.0
    good_until: float | None = field(default=None, compare=False)


NO_CREDENTIAL = "no-credential"
"""Nothing in the message was a proof of an accepted kind."""
NO_CHECKER = "no-checker"
"""There was a secret, but no checker is configured that could judge it."""
IDENTITY_MISMATCH = "identity-mismatch"
"""Somebody else was proved than the one claimed."""
BAD_SECRET = "bad-secret"
"""The secret is wrong, empty or overlong."""
LOCKED_OUT = "locked-out"
"""There were too many wrong secrets for this name, from where this came from."""
UNKNOWN_NAME = "unknown-name"
"""No checker knows the name. For the operator's eyes only: who asks over HTTP is told no more than that it was a no."""
RESERVED_NAME = "reserved-name"
"""It is a name of something else than a user: see `amqprouter.commands.command.reserved_sender`."""
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
