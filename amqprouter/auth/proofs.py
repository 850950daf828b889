"""The proofs of identity that a device's message may carry, each a small object that knows one kind.

A proof examines a message and says one of four things:

- *allow* or *deny*: a `Verdict`, and no later proof is heard;
- *don't know*: a `Doubt`, and the next one is; when nobody knows, the device is denied;
- *ask*: the credential as bytes. The answer for this device and credential may be remembered; when it is not,
  `ask` puts the question to whoever can answer it.

A further kind is a class, a name in ``[auth] accept``, and an instance that `amqprouter.daemon.auth` gives the
`Authenticator`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from twisted.cred.checkers import ICredentialsChecker

from amqprouter.amqp.properties import flag_mask
from amqprouter.auth.credentials import MAX_SECRET_BYTES, DeviceSecret
from amqprouter.errors import ConfigError
from amqprouter.identity import BAD_SECRET, IDENTITY_MISMATCH, NO_CHECKER, NO_CREDENTIAL, Verdict
from amqprouter.pipeline.message import Message


@dataclass(frozen=True)
class Doubt:
    """Don't know, and the reason to give when no other proof knows either."""

    reason: str


ABSENT = Doubt(NO_CREDENTIAL)


class Proof(Protocol):
    """One kind of proof."""

    name: str
    """As ``[auth] accept`` and `Verdict.checker` have it."""
    by_headers: bool
    """Whether `examine` says the same of all messages of one device with the same headers."""
    needs: int
    """The flag bits of properties without which `examine` says `ABSENT`, whatever else the message has; 0 for none."""

    def examine(self, message: Message) -> Verdict | Doubt | bytes:
        """Allow, deny, don't know, or the credential to ask about. On the hot path.

        :raises ValueError: the message's properties are malformed.
        """

    def ask(self, device: str, credential: bytes) -> object:
        """Ask about a credential: as `ICredentialsChecker.requestAvatarId`, with the proved device id or a Deferred."""


class UserIdProof:
    """The ``user_id`` property, which RabbitMQ lets a connection set to its own user name only
    (https://www.rabbitmq.com/docs/validated-user-id): the broker vouches for it.

    Another name than the claimed one is no proof, and no attempt at fraud either: a backend that publishes for its
    devices sends its own. (The broker lets users tagged ``impersonator`` set any, so those must be trusted.)
    """

    name = "user-id"
    by_headers = False
    needs = flag_mask("user_id")
    _allowed = Verdict(True, checker=name)
    _somebody_else = Doubt(IDENTITY_MISMATCH)

    def examine(self, message: Message) -> Verdict | Doubt | bytes:
        user_id = message.properties.raw_text("user_id")
        if not user_id:
            return ABSENT
        # As bytes: decoding could make two names out of different bytes equal.
        return self._allowed if user_id == message.device.encode("utf-8", "surrogatepass") else self._somebody_else

    def ask(self, device: str, credential: bytes) -> object:
        raise AssertionError("this proof never asks")


class SecretProof:
    """A secret in a message header, which a checker knows the device by."""

    name = "secret"
    by_headers = True
    needs = 0
    _no_checker = Doubt(NO_CHECKER)
    _bad = Verdict(False, BAD_SECRET, name)

    def __init__(self, checker: ICredentialsChecker | None, header: str) -> None:
        self._checker = checker
        self._header = header.encode()

    def examine(self, message: Message) -> Verdict | Doubt | bytes:
        secret = message.properties.raw_header(self._header)
        return ABSENT if secret is None else self.judge(secret)

    def judge(self, secret: bytes) -> Verdict | Doubt | bytes:
        """As `examine`, for a secret wherever it came from."""
        if self._checker is None:
            return self._no_checker
        return secret if 0 < len(secret) <= MAX_SECRET_BYTES else self._bad

    def ask(self, device: str, credential: bytes) -> object:
        assert self._checker is not None  # or `examine` would not have said so
        return self._checker.requestAvatarId(DeviceSecret(device, credential))


def make_proofs(accept: Sequence[str], proofs: Iterable[Proof]) -> tuple[Proof, ...]:
    """Those of the proofs that have these names, in this order.

    :raises ConfigError: none of them has one of the names.
    """
    known = {proof.name: proof for proof in proofs}
    unknown = [name for name in accept if name not in known]
    if unknown:
        raise ConfigError([f"no proof is called {name!r}; legal: {', '.join(known)}" for name in unknown])
    return tuple(known[name] for name in accept)
