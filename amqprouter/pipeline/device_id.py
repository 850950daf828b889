"""What a device may be called.

A device id is one word of a routing key, a name in files, a part of web paths and of log lines, and it is compared with
what the broker and the checkers say. So it is refused when it could mean more than itself in any of these:

- ``.`` (separates the words of a key; this covers ``..``), ``*`` and ``#`` (stand for words in patterns), ``/``;
- a backslash: bytes that are not UTF-8 are shown with one, so such a key and one spelled with a backslash look alike;
- white space, control characters, lone surrogates, and characters that show nothing or turn the direction of text: two
  ids must never look the same to the person who compares them.
"""

from __future__ import annotations

import re

MAX_BYTES = 255
"""A routing key is a short string, at most 255 bytes (AMQP 0-9-1, section 4.2.5.3)."""

_WORD = re.compile(
    r"[^.*#/\\\s"
    r"\x00-\x1f\x7f-\x9f"  # control characters (C0, DEL, C1)
    r"\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"  # invisible, or turning the direction
    r"\ud800-\udfff"
    r"]{1,255}"
).fullmatch


def valid_device_id(text: str) -> bool:
    """Whether a device may have this id."""
    return _WORD(text) is not None and (text.isascii() or len(text.encode()) <= MAX_BYTES)
