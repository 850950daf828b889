"""What a route says about its messages' bodies: ``decode`` and ``undecodable``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from amqprouter.decoding.unpack import PACKINGS

BUILT_IN = (*("auto", "json", "json-lenient", "text", "number", "cbor", "msgpack", "senml", "sparkplug-b", "binary"),)
"""Decoders that need no plugin."""
LEGAL = (
    f"{', '.join(BUILT_IN)}, or NAME or NAME:ARGUMENT of an installed decoder; "
    f"in front, where the body is packed and no content_encoding says so, {', '.join(f'{name}+' for name in PACKINGS)}"
)
UNDECODABLE = ("dead-letter", "keep")

_NAME = re.compile(r"[a-z][a-z0-9-]*")


@dataclass(frozen=True)
class Decoding:
    """How bodies are decoded.

    `packing` is around them, besides what their content encoding says. Where `keeps`, what cannot be decoded is kept as
    text or bytes, with the reason beside it.
    """

    decoder: str = "auto"
    argument: str = ""
    packing: str = ""
    keeps: bool = False

    @classmethod
    def parse(cls, decode: str, undecodable: str = "dead-letter") -> Decoding:
        """Read it as the configuration writes it. Empty texts are the defaults.

        :raises ValueError: it is not legal; whether there is a decoder of this name is not known here.
        """
        packing, plus, rest = decode.partition("+")
        if not plus or packing not in PACKINGS:
            packing, rest = "", decode
        name, colon, argument = rest.partition(":")
        if rest and not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no decoder's name")
        if colon and name in BUILT_IN:
            raise ValueError(f"{name!r} takes no argument")
        return cls(name or "auto", argument, packing, undecodable == "keep")

    @property
    def is_default(self) -> bool:
        return self == AUTO


AUTO = Decoding()
"""Where no route says anything: what the content type says, and what `amqprouter.decoding.judge` makes of none."""
