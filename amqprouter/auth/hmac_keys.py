"""Files of HMAC keys: lines ``name:key``, the key in Base64 (RFC 4648, section 4).

Blank lines, and lines whose first character is ``#``, are comments. The last colon of a line ends the name. What an
error says never quotes a line: it holds a key.
"""

from __future__ import annotations

import base64
import binascii

from amqprouter.auth.passwords import parse_lines

MIN_KEY_BYTES = 16
"""128 bits, the least that nobody guesses. RFC 2104 advises the length of the digest, 32 bytes; many devices come with
the 128-bit keys of their radio."""
MAX_KEY_BYTES = 1024


def key_of(text: str) -> bytes:
    """The key that Base64 text stands for.

    :raises ValueError: it stands for none that may be used. Never quotes it.
    """
    try:
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):  # a ValueError for what is not ASCII
        raise ValueError("the key is not Base64 (A-Z a-z 0-9 + /, with = at the end)") from None
    if not MIN_KEY_BYTES <= len(key) <= MAX_KEY_BYTES:
        raise ValueError(f"the key has {len(key)} bytes; legal: {MIN_KEY_BYTES} to {MAX_KEY_BYTES}")
    return key


def parse_hmac_keys(text: str, filename: str) -> dict[str, bytes]:
    """The keys in the text of a file, by name; as `parse_lines`."""
    return parse_lines(text, filename, "key", key_of)
