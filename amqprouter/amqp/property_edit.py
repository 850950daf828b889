"""Setting properties of a message in their encoded form; the rest stays byte for byte."""

from __future__ import annotations

import struct
from collections.abc import Mapping

from amqprouter.amqp.properties import NAMES, Properties, flag_mask


def text_value(text: str) -> bytes:
    """A text as a property's value.

    :raises ValueError: it is over 255 bytes, more than a short string takes (AMQP 0-9-1, section 4.2.5.3).
    """
    raw = text.encode()
    if len(raw) > 255:
        raise ValueError(f"{len(raw)} bytes; 255 are the most")
    return bytes((len(raw),)) + raw


def with_values(raw: bytes, values: Mapping[str, bytes]) -> bytes:
    """Encoded properties with these, by name, set to encoded values.

    :raises ValueError: `raw` is malformed.
    """
    flags = int.from_bytes(raw[:2], "big") | flag_mask(*values)
    spans = Properties(raw).spans()
    pieces = [struct.pack(">H", flags)]
    for index, name in enumerate(NAMES):
        if name in values:
            pieces.append(values[name])
        elif index in spans:
            start, end = spans[index]
            pieces.append(raw[start:end])
    return b"".join(pieces)
