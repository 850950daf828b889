"""CBOR (RFC 8949), by cbor2, held to what a document and an event can have.

cbor2 turns tags into Python's own types, so a stranger would choose among them. Here each tag has a rule: moments,
dates, decimal numbers, UUIDs and addresses are taken; what makes work out of proportion, or what nobody could store, is
refused (patterns, e-mails, sets, fractions, complex numbers, shared references); of any other the value inside is
taken. A tag in front that only says "this is CBOR" is taken off, for cbor2 makes immutable types of what it is around.

Work is bounded before anything is read. Each byte may be a value, and each collection or tag weighs three times as
much, as in JSON. And keys that are not text or bytes are read from small bodies only: Python's hashes of small
integers, and so of tuples of them, are no secret, and a map of 8,192 keys with one hash takes 7 s to fill [measured].
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

try:
    import cbor2
except ImportError:
    raise ImportError("CBOR needs the package cbor2: pip install 'amqprouter[cbor]'") from None
from zope.interface import implementer

from amqprouter.decoding.json_text import COLLECTION, MAX_DEPTH
from amqprouter.decoding.judgement import Made
from amqprouter.decoding.values import key_text, plain
from amqprouter.errors import Undecodable
from amqprouter.interfaces import BodyInfo, IDecoder

MAX_ANY_KEYS = 16_384
"""What a body with keys other than text and bytes may weigh: filling its maps takes 0.15 s at the very worst
[measured], and it is room for 600 records of SenML."""
MAX_BIGNUM = 16
"""Bytes of an integer beyond 64 bits: 34 digits need 15. A decimal fraction of a longer one takes time by its square,
10 s for 196,608 bytes [measured]."""
_SELF_DESCRIBED = b"\xd9\xd9\xf7"
"""The tag 55799 (RFC 8949, section 3.4.6)."""
_PLAIN_HEADS = bytes(head for head in range(256) if not 0x80 <= head < 0xE0)
"""All but what may begin an array, a map or a tag."""

VOIDS = (cbor2.undefined,)
"""What is null to everybody else."""

Mapping.register(cbor2.frozendict)


def make(name: str, max_values: int) -> IDecoder:
    """The decoder."""
    decoder: IDecoder = CborDecoder(max_values)
    return decoder


@implementer(IDecoder)
class CborDecoder:
    """One CBOR data item. Keys that are no text become it: ``1``, ``-1``, ``true``, ``null``."""

    def __init__(self, max_values: int) -> None:
        self._max_values = max_values

    def decode(self, body: bytes, info: BodyInfo) -> object:
        """See `IDecoder`."""
        return Made(plain(read(body, self._max_values), self._max_values, key_text, VOIDS))


def read(body: bytes, max_values: int) -> Any:
    """What cbor2 makes of a body, of which nothing is left over.

    :raises Undecodable: it is not CBOR, or has in it what is refused here.
    """
    if body.startswith(_SELF_DESCRIBED):
        body = body[len(_SELF_DESCRIBED) :]
    weight = len(body) + COLLECTION * len(body.translate(None, _PLAIN_HEADS)) if len(body) * 4 > MAX_ANY_KEYS else 0
    if weight > max_values:
        raise Undecodable("too-many-values", f"the CBOR may weigh {weight} values, see [limits] max_body_values")
    source = io.BytesIO(body)
    decoder = cbor2.CBORDecoder(
        source,
        max_depth=MAX_DEPTH,
        allow_duplicate_keys=False,
        strict_hashable_types=weight > MAX_ANY_KEYS,
        semantic_decoders=_TAGS,
        tag_hook=lambda tag, immutable: tag.value,
    )
    try:
        value = decoder.decode()
    except cbor2.CBORDecodeError as error:
        cause = error.__cause__
        if isinstance(cause, Undecodable):
            raise cause from None
        raise Undecodable("bad-cbor", str(error)[:120]) from None
    except (ValueError, ArithmeticError, TypeError, RecursionError, AttributeError) as error:
        raise Undecodable("bad-cbor", type(error).__name__) from None
    if source.tell() != len(body):
        raise Undecodable("bad-cbor", f"{len(body) - source.tell()} bytes behind the data item")
    return value


def _refused(what: str) -> Callable[[Any, bool], NoReturn]:
    def refuse(value: Any, immutable: bool) -> NoReturn:
        raise Undecodable("no-such-value", what)

    return refuse


def _bignum(sign: Callable[[int], int]) -> Callable[[Any, bool], int]:
    def integer(value: Any, immutable: bool) -> int:
        if not isinstance(value, bytes):
            raise Undecodable("bad-cbor", "an integer of something else than bytes")
        digits = value.lstrip(b"\0")
        if len(digits) > MAX_BIGNUM:
            raise Undecodable("integer-too-large", f"{len(digits)} bytes")
        return sign(int.from_bytes(digits, "big"))

    return integer


_TAGS: dict[int, Callable[[Any, bool], Any]] = {
    2: _bignum(lambda value: value),
    3: _bignum(lambda value: -1 - value),
    30: _refused("a fraction"),
    35: _refused("a regular expression"),
    36: _refused("an e-mail"),
    258: _refused("a set"),
    43000: _refused("a complex number"),
    **dict.fromkeys((28, 29, 25, 256), _refused("a shared reference")),
}
"""Rules of our own: by tag, what is made of the item inside."""
