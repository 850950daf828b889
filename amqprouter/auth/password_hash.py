"""Hashing secrets with argon2id, and verifying them. Slow by design: never call these in the reactor's thread.

One library, argon2-cffi: argon2id is what OWASP and RFC 9106 recommend for new systems, the library does its work
without the interpreter lock, and a hash carries its own costs, so they can be raised without a change of format.
Hashes that were made elsewhere by bcrypt can be verified, with its library installed (``amqprouter[bcrypt]``), but none
are made: it is an older scheme, and knows no more than 72 bytes of a secret.
"""

from __future__ import annotations

from enum import Enum
from importlib.util import find_spec

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError, VerifyMismatchError

from amqprouter.errors import CheckerUnavailable


class Cost(Enum):
    """How expensive a hash is: KiB of memory and passes over it, always in one lane (one thread a hash)."""

    PASSWORD = (19_456, 2)
    """For what a person chose: OWASP's minimum for argon2id (Password Storage Cheat Sheet: m=19 MiB, t=2, p=1), some
    20 ms on a server and 100 ms on a small gateway, where the 64 MiB of RFC 9106 for each thread would be too much."""
    RANDOM = (64, 1)
    """For at least 112 random bits, which nobody guesses however cheap a guess is (NIST SP 800-63B, 5.1.2.2, asks no
    more than a hash for those): some 50 µs, so that a fleet of 100,000 that comes back at once takes seconds, not the
    better part of an hour."""


_HASHERS = {
    cost: PasswordHasher(memory_cost=cost.value[0], time_cost=cost.value[1], parallelism=1, hash_len=32, salt_len=16)
    for cost in Cost
}
BCRYPT_BYTES = 72
"""Of a secret; bcrypt takes no notice of more."""
_NO_DIGEST = "A" * 43  # 32 zero bytes
UNMATCHED = f"$argon2id$v=19$m={Cost.PASSWORD.value[0]},t={Cost.PASSWORD.value[1]},p=1${'A' * 22}${_NO_DIGEST}"
"""A hash at the cost of a password that no secret matches."""


def hash_secret(secret: bytes, cost: Cost = Cost.PASSWORD) -> str:
    """A new hash of this secret, with a salt of its own."""
    return _HASHERS[cost].hash(secret)


def matches(hashed: str, secret: bytes) -> bool:
    """Whether this is the secret that was hashed.

    :raises CheckerUnavailable: it could not be computed, for want of memory for instance.
    """
    if is_bcrypt(hashed):
        return _bcrypt_matches(hashed, secret)
    try:
        return _HASHERS[Cost.PASSWORD].verify(hashed, secret)  # at the costs that the hash names
    except VerifyMismatchError:
        return False
    except (VerificationError, InvalidHashError) as error:
        raise CheckerUnavailable(f"argon2 cannot verify: {error}") from error


def unmatched(hashed: str) -> str:
    """A hash that takes as long to verify as this one, and that no secret matches."""
    if is_bcrypt(hashed):
        return hashed[:-31] + "." * 31
    return f"{hashed.rpartition('$')[0]}${_NO_DIGEST}"


def is_bcrypt(hashed: str) -> bool:
    """Whether a hash was made by bcrypt."""
    return hashed.startswith("$2")


def bcrypt_is_installed() -> bool:
    """Whether such hashes can be verified."""
    return find_spec("bcrypt") is not None


def _bcrypt_matches(hashed: str, secret: bytes) -> bool:
    """Whether this is the secret; one that bcrypt would not see the whole of is none."""
    try:
        import bcrypt  # noqa: PLC0415 (an extra)

        matched = bcrypt.checkpw(secret[:BCRYPT_BYTES], hashed.encode())
    except (ImportError, ValueError) as error:
        raise CheckerUnavailable(f"bcrypt cannot verify: {error}") from error
    return matched and len(secret) <= BCRYPT_BYTES
