"""BSON elements: the pieces that documents are put together from.

A document is its length, its elements one after the other, and a NUL (https://bsonspec.org, version 1.1). An element
does not know where it stands, so elements that were encoded once fit into any number of documents.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

from bson import encode
from bson.errors import BSONError

from amqprouter.errors import Unstorable

MAX_BYTES = 16 * 1024 * 1024
"""Of one document: MongoDB's own bound (manual, "MongoDB Limits and Thresholds": BSON document size)."""

ENCODING_ERRORS = (BSONError, OverflowError, UnicodeEncodeError, RecursionError, TypeError)
"""What `bson.encode` raises for what it cannot hold."""

_INT32 = struct.Struct("<i")
_BINARY = struct.Struct("<iB")  # the length, and the subtype


def elements(fields: Mapping[str, object]) -> bytes:
    """These fields, encoded, in their order. None of them may be named ``_id``, which would be put first.

    :raises Unstorable: BSON cannot hold one of the values.
    """
    try:
        return encode(fields)[4:-1]
    except OverflowError:
        raise Unstorable("integer-too-large", "an integer needs more than 64 bits") from None
    except UnicodeEncodeError:
        raise Unstorable("bad-text", "half a surrogate pair") from None
    except ENCODING_ERRORS as error:
        raise Unstorable("unencodable", type(error).__name__) from None


def binary(name: bytes, value: bytes) -> bytes:
    """A field that holds bytes, of the generic subtype; the name has no NUL."""
    return b"\x05%b\0%b%b" % (name, _BINARY.pack(len(value), 0), value)


def joined(parts: Sequence[bytes]) -> bytes:
    """The document with these elements; each part is one, or several, or a piece of one.

    :raises Unstorable: it is larger than `MAX_BYTES`.
    """
    inside = b"".join(parts)
    size = len(inside) + 5
    if size > MAX_BYTES:
        raise Unstorable("document-too-large", f"{size} bytes as BSON; {MAX_BYTES} is the most")
    return b"%b%b\0" % (_INT32.pack(size), inside)
