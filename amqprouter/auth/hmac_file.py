"""Changing a file of HMAC keys, for ``amqprouter hmac-key``; `line_file` says how safely."""

from __future__ import annotations

import base64
import secrets

from amqprouter.auth.hmac_keys import parse_hmac_keys
from amqprouter.auth.line_file import remove_line, set_line

RANDOM_KEY_BYTES = 32
"""The length of the digest, as RFC 2104 advises (section 3)."""


def set_random_key(path: str, name: str) -> str:
    """Give a name a new random key, and return it in Base64.

    :raises ValueError: the name cannot be used; says why.
    :raises AuthFileError: the file cannot be read, parsed or written; it is as it was.
    """
    key = base64.b64encode(secrets.token_bytes(RANDOM_KEY_BYTES)).decode()
    set_line(path, name, key, parse_hmac_keys)
    return key


def remove_key(path: str, name: str) -> bool:
    """Remove a name; False when the file has no such name, and then it is left alone.

    :raises AuthFileError: the file cannot be read, parsed or written; it is as it was.
    """
    return remove_line(path, name, parse_hmac_keys)
