"""The proofs of identity that a device's message may carry, each a small object that knows one kind.

A proof examines a message and says one of four things:

- *allow* or *deny*: a `Verdict`, and no later proof is heard;
- *don't know*: a `Doubt`, and the next one is; when nobody knows, the device is denied;
- *ask*: a `Claim`, of a name and the credential for it. The answer may be remembered; when it is not, `ask` puts the
  question to whoever can answer it.

Whom a proof is about is the publisher: the device itself, or with a list of publishers (``[acl] publishers``) also
somebody else, whom `Verdict.publisher` names. Whether that one may speak for the device is not the proof's matter, but
that of `amqprouter.auth.speakers`. Without such a list a proof of somebody else is none.

A further kind is a class, a name in ``[auth] accept``, and an instance that `amqprouter.daemon.auth` gives the
`Authenticator`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, Protocol

from twisted.cred.checkers import ICredentialsChecker

from amqprouter.amqp.properties import flag_mask
from amqprouter.auth.credentials import MAX_SECRET_BYTES, DeviceSecret
from amqprouter.errors import ConfigError
from amqprouter.identity import (
    BAD_SECRET,
    IDENTITY_MISMATCH,
    NO_CHECKER,
    NO_CREDENTIAL,
    Verdict,
    valid_publisher,
)
from amqprouter.pipeline.message import Message

REMEMBERED_PUBLISHERS = 16_384
"""Verdicts on publishers that are kept made, some 500 bytes each."""


@dataclass(frozen=True)
class Doubt:
    """Don't know, and the reason to give when no other proof knows either; `publisher` as in `Verdict`."""

    reason: str
    publisher: str = ""


class Claim(NamedTuple):
    """A name and the credential that came for it."""

    name: str
    credential: bytes


ABSENT = Doubt(NO_CREDENTIAL)


class Proof(Protocol):
    """One kind of proof."""

    name: str
    """As ``[auth] accept`` and `Verdict.checker` have it."""
    by_headers: bool
    """Whether `examine` says the same of all messages of one device with the same headers."""
    needs: int
    """The flag bits of properties without which `examine` says `ABSENT`, whatever else the message has; 0 for none."""

    def examine(self, message: Message) -> Verdict | Doubt | Claim:
        """Allow, deny, don't know, or what to ask about. On the hot path.

        :raises ValueError: the message's properties are malformed.
        """

    def ask(self, name: str, credential: bytes) -> object:
        """Ask about a claim: as `ICredentialsChecker.requestAvatarId`, with the proved name or a Deferred."""


class PublisherHeader:
    """The header in which a publisher that speaks for devices names itself. A name without a proof proves nothing."""

    def __init__(self, header: str) -> None:
        self._header = header.encode()

    def name_in(self, message: Message) -> str:
        """The publisher's name, or the device's where none is told that somebody can have.

        :raises ValueError: the message's properties are malformed.
        """
        raw = message.properties.raw_header(self._header)
        return message.device if raw is None else publisher_name(raw) or message.device


@lru_cache(maxsize=REMEMBERED_PUBLISHERS)
def publisher_name(raw: bytes) -> str:
    """These bytes as a publisher's name; empty when they are none."""
    try:
        name = raw.decode()
    except UnicodeDecodeError:  # what is decoded otherwise could be another's name
        return ""
    return name if valid_publisher(name) else ""


@lru_cache(maxsize=REMEMBERED_PUBLISHERS)
def proved(checker: str, publisher: bytes) -> Verdict | None:
    """That the publisher of this name is proved, who is not the device; None where nobody can have it.

    The same object each time, so that it can be known by that.
    """
    name = publisher_name(publisher)
    return Verdict(True, checker=checker, publisher=name) if name else None


class UserIdProof:
    """The ``user_id`` property, which RabbitMQ lets a connection set to its own user name only
    (https://www.rabbitmq.com/docs/validated-user-id): the broker vouches for it.

    Another name than the claimed one is a publisher's, if `publishers` count; else it is no proof, and no attempt at
    fraud either: a backend that publishes for its devices sends its own. (The broker lets users tagged ``impersonator``
    set any, so those must be trusted.)
    """

    name = "user-id"
    by_headers = False
    needs = flag_mask("user_id")
    _allowed = Verdict(True, checker=name)
    _somebody_else = Doubt(IDENTITY_MISMATCH)

    def __init__(self, publishers: bool = False) -> None:
        self._publishers = publishers

    def examine(self, message: Message) -> Verdict | Doubt | Claim:
        user_id = message.properties.raw_text("user_id")
        if not user_id:
            return ABSENT
        # As bytes: decoding could make two names out of different bytes equal.
        if user_id == message.device.encode("utf-8", "surrogatepass"):
            return self._allowed
        return (proved(self.name, user_id) if self._publishers else None) or self._somebody_else

    def ask(self, name: str, credential: bytes) -> object:
        raise AssertionError("this proof never asks")


class SecretProof:
    """A secret in a message header, which a checker knows the device by, or the publisher.

    :param publisher: where the message says whose secret it is, if it need not be the device's.
    """

    name = "secret"
    by_headers = True
    needs = 0
    _no_checker = Doubt(NO_CHECKER)
    _bad = Verdict(False, BAD_SECRET, name)

    def __init__(
        self, checker: ICredentialsChecker | None, header: str, publisher: PublisherHeader | None = None
    ) -> None:
        self._checker = checker
        self._header = header.encode()
        self._publisher = publisher

    def examine(self, message: Message) -> Verdict | Doubt | Claim:
        secret = message.properties.raw_header(self._header)
        if secret is None:
            return ABSENT
        return self.judge(message.device if self._publisher is None else self._publisher.name_in(message), secret)

    def judge(self, name: str, secret: bytes) -> Verdict | Doubt | Claim:
        """As `examine`, for a name and a secret wherever they came from."""
        if self._checker is None:
            return self._no_checker
        return Claim(name, secret) if 0 < len(secret) <= MAX_SECRET_BYTES else self._bad

    def ask(self, name: str, credential: bytes) -> object:
        assert self._checker is not None  # or `examine` would not have said so
        return self._checker.requestAvatarId(DeviceSecret(name, credential))


def make_proofs(accept: Sequence[str], proofs: Iterable[Proof]) -> tuple[Proof, ...]:
    """Those of the proofs that have these names, in this order.

    :raises ConfigError: none of them has one of the names.
    """
    known = {proof.name: proof for proof in proofs}
    unknown = [name for name in accept if name not in known]
    if unknown:
        raise ConfigError([f"no proof is called {name!r}; legal: {', '.join(known)}" for name in unknown])
    return tuple(known[name] for name in accept)
