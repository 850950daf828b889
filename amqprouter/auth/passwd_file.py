"""Changing a password file, for ``amqprouter passwd``; `line_file` says how safely."""

from __future__ import annotations

import secrets

from amqprouter.auth.auth_file import read_auth_file
from amqprouter.auth.credentials import MAX_SECRET_BYTES
from amqprouter.auth.line_file import remove_line, set_line
from amqprouter.auth.password_hash import Cost, hash_secret
from amqprouter.auth.passwords import parse_passwords

RANDOM_SECRET_BYTES = 24
"""192 random bits, well over the 112 that `Cost.RANDOM` asks for; 32 characters in URL-safe Base64."""


def set_password(path: str, name: str, secret: bytes) -> None:
    """Add a name with its secret, or change its secret. A missing file is made, with mode 0600.

    Takes the time of a password hash: not for the reactor's thread.

    :raises ValueError: the name or the secret cannot be used; says why.
    :raises AuthFileError: the file cannot be read, parsed or written; it is as it was.
    """
    if not secret:
        raise ValueError("the secret is empty")
    if len(secret) > MAX_SECRET_BYTES:
        raise ValueError(f"the secret has {len(secret)} bytes; {MAX_SECRET_BYTES} is the most")
    set_line(path, name, hash_secret(secret), parse_passwords)


def set_random_secret(path: str, name: str) -> str:
    """Give a name a new random secret, and return it: it is not kept anywhere in the clear.

    For devices, which need not remember anything: verifying such a secret is some 400 times cheaper than a password
    (`Cost.RANDOM` says why that is safe).

    :raises ValueError: the name cannot be used; says why.
    :raises AuthFileError: the file cannot be read, parsed or written; it is as it was.
    """
    secret = secrets.token_urlsafe(RANDOM_SECRET_BYTES)
    set_line(path, name, hash_secret(secret.encode(), Cost.RANDOM), parse_passwords)
    return secret


def remove(path: str, name: str) -> bool:
    """Remove a name; False when the file has no such name, and then it is left alone.

    :raises AuthFileError: the file cannot be read, parsed or written; it is as it was.
    """
    return remove_line(path, name, parse_passwords)


def names(path: str) -> list[str]:
    """The names in the file, in its order.

    :raises AuthFileError: the file cannot be read or parsed.
    """
    return list(parse_passwords(read_auth_file(path, secret=True), path))
