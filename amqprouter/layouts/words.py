"""What is written in a routing key, as ids and topics: escaped, so that nothing is lost, and normalised.

MQTT lets a name have what no device id may: spaces above all, and the slashes that RabbitMQ makes dots of. Such a
character is written as in a URL (RFC 3986, section 2.1): ``%`` and the two hexadecimal digits of each of its bytes in
UTF-8, upper case. ``%`` itself is written ``%25``, so that two names never become one, and the way back is exact: what
is unescaped is what stood in the key, byte for byte. A dot within a device's name, which is where MQTT has a slash or a
dot, is ``%2E``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from urllib.parse import unquote_to_bytes

from amqprouter.identity import NOT_IN_WORDS

_UNSAFE = re.compile(f"[%{NOT_IN_WORDS}]")
"""What no device id may hold, and the percent sign."""


def words_of(key: bytes) -> list[str]:
    """The words of a routing key; a byte that is not UTF-8 is a lone surrogate, which `escaped` makes one byte of."""
    return key.decode("utf-8", "surrogateescape").split(".")


def escaped(word: str) -> str:
    """A word of a key, or several with dots, as it can stand in a device id."""
    return _UNSAFE.sub(_octets, word)


def _octets(found: re.Match[str]) -> str:
    return "".join(f"%{octet:02X}" for octet in found[0].encode("utf-8", "surrogateescape"))


def unescaped(text: str) -> str:
    """What `escaped` made this of; text that it never makes, such as a lone ``%``, stays as it is."""
    return unquote_to_bytes(text).decode("utf-8", "surrogateescape")


def escaped_topic(words: str) -> str:
    """Words with dots between, each escaped; empty ones stay empty."""
    return ".".join(map(escaped, words.split(".")))


_EUI64 = re.compile(r"[0-9A-Fa-f]{2}(?:([-:]?)[0-9A-Fa-f]{2})(?:\1[0-9A-Fa-f]{2}){6}")
_MAC = re.compile(r"[0-9A-Fa-f]{2}(?:([-:]?)[0-9A-Fa-f]{2})(?:\1[0-9A-Fa-f]{2}){4}")


def _plain(pattern: re.Pattern[str], separator: str) -> Callable[[str], str]:
    """Hexadecimal digits in lower case, pairs apart by `separator`; what does not match stays as it is."""

    def normalised(text: str) -> str:
        if pattern.fullmatch(text) is None:
            return text
        digits = text.replace("-", "").replace(":", "").lower()
        return separator.join(digits[at : at + 2] for at in range(0, len(digits), 2)) if separator else digits

    return normalised


NORMALISERS: Mapping[str, Callable[[str], str]] = {
    "lower": str.lower,
    "upper": str.upper,
    "eui64": _plain(_EUI64, ""),
    "eui64-dashes": _plain(_EUI64, "-"),
    "mac": _plain(_MAC, ""),
    "mac-colons": _plain(_MAC, ":"),
}
"""By name, what can make one id of several ways to write it. Hexadecimal digits come out in lower case, and what is no
EUI-64 or MAC address stays as it is."""
