"""MessagePack (https://github.com/msgpack/msgpack/blob/master/spec.md), held to what a document and an event can have.

Timestamps are moments; other extension types are refused, for nobody here knows what they mean. Nothing may stand
behind the value, nor the same key twice in a map. As in `amqprouter.decoding.cbor`, work is bounded before anything is
read; keys cost no more for being odd, for maps are filled here.
"""

from __future__ import annotations

from typing import Any, NoReturn

try:
    import msgpack
except ImportError:
    raise ImportError("MessagePack needs the package msgpack: pip install 'amqprouter[msgpack]'") from None
from zope.interface import implementer

from amqprouter.decoding.json_text import COLLECTION, MAX_VALUES
from amqprouter.decoding.judgement import Made
from amqprouter.decoding.values import key_text, plain
from amqprouter.errors import Undecodable
from amqprouter.interfaces import BodyInfo, IDecoder

_COLLECTION_HEADS = (*range(0x80, 0xA0), *range(0xC7, 0xCA), *range(0xD4, 0xD9), *range(0xDC, 0xE0))
"""What may begin a map, an array or an extension."""
_PLAIN_HEADS = bytes(set(range(256)) - set(_COLLECTION_HEADS))
_AS_DATETIME = 3  # msgpack's own number for it


def make(name: str, max_values: int) -> IDecoder:
    """The decoder."""
    decoder: IDecoder = MessagePackDecoder(max_values)
    return decoder


@implementer(IDecoder)
class MessagePackDecoder:
    """One MessagePack value. Keys that are no text become it: ``1``, ``-1``, ``true``, ``null``."""

    def __init__(self, max_values: int = MAX_VALUES) -> None:
        self._max_values = max_values

    def decode(self, body: bytes, info: BodyInfo) -> object:
        """See `IDecoder`."""
        weight = len(body) + COLLECTION * len(body.translate(None, _PLAIN_HEADS))
        if weight > self._max_values:
            raise Undecodable("too-many-values", f"it may weigh {weight} values, see [limits] max_body_values")
        try:
            value = msgpack.unpackb(
                body, timestamp=_AS_DATETIME, strict_map_key=False, object_pairs_hook=_fields, ext_hook=_refuse
            )
        except msgpack.ExtraData as error:
            raise Undecodable("bad-msgpack", f"{len(error.extra)} bytes behind the value") from None
        except msgpack.StackError:
            raise Undecodable("too-deep") from None
        except (msgpack.UnpackException, ValueError, OverflowError, RecursionError) as error:
            raise Undecodable("bad-msgpack", str(error)[:120] or type(error).__name__) from None
        return Made(plain(value, self._max_values))


def _fields(pairs: list[tuple[Any, Any]]) -> dict[str, Any]:
    fields = {key if type(key) is str else key_text(key): value for key, value in pairs}
    if len(fields) != len(pairs):
        raise Undecodable("bad-key", "a map has the same key twice")
    return fields


def _refuse(code: int, data: bytes) -> NoReturn:
    raise Undecodable("no-such-value", f"an extension of type {code}")
