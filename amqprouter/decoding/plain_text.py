"""Bodies that are one text, one number, or bytes and nothing else."""

from __future__ import annotations

import re

from zope.interface import implementer

from amqprouter.errors import Undecodable
from amqprouter.interfaces import BodyInfo, IDecoder

_NUMBER = re.compile(rb"[ \t\r\n]*([+-]?)([0-9]+|[0-9]*\.[0-9]+|[0-9]+\.)([eE][+-]?[0-9]+)?[ \t\r\n\0]*")
"""What sensors write, with or without a sign and a fraction. No letters: ``NaN``, ``inf`` and units are no numbers."""
MAX_NUMBER = 400
"""Bytes of a number; a double with all its digits has some 330."""


def make(name: str, max_values: int) -> IDecoder:
    """The decoder of this name."""
    decoder: IDecoder = {"text": TextDecoder, "number": NumberDecoder, "binary": BinaryDecoder}[name]()
    return decoder


@implementer(IDecoder)
class TextDecoder:
    """UTF-8, whole and as it is."""

    def decode(self, body: bytes, info: BodyInfo) -> object:
        """See `IDecoder`."""
        try:
            return body.decode()
        except UnicodeDecodeError as error:
            raise Undecodable("bad-text", f"not UTF-8 at byte {error.start}") from None


@implementer(IDecoder)
class NumberDecoder:
    """A decimal number as text, with white space or NULs around it or not: an integer where it has neither a fraction
    nor an exponent."""

    def decode(self, body: bytes, info: BodyInfo) -> object:
        """See `IDecoder`."""
        match = _NUMBER.fullmatch(body) if len(body) <= MAX_NUMBER else None
        if match is None:
            raise Undecodable("not-a-number")
        sign, digits, exponent = match.groups()
        if exponent is None and b"." not in digits:
            return int(sign + digits)
        value = float(sign + digits + (exponent or b""))
        if value in (float("inf"), float("-inf")):
            raise Undecodable("number-too-large", "beyond what a double holds")
        return value


@implementer(IDecoder)
class BinaryDecoder:
    """The bytes, whatever they look like."""

    def decode(self, body: bytes, info: BodyInfo) -> object:
        """See `IDecoder`."""
        return body
