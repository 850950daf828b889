"""Documents as BSON, where one that cannot be written is refused without harm to the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bson import encode

from amqprouter.interfaces import WriteOutcome, WriteResult
from amqprouter.storage.document import ENCODING_ERRORS

UNENCODABLE = WriteResult(WriteOutcome.REFUSED, "unencodable")
TOO_LARGE = WriteResult(WriteOutcome.REFUSED, "document-too-large")


def encoded(documents: Sequence[Mapping[str, object]], max_bytes: int) -> list[bytes | WriteResult]:
    """Each document's BSON, or why it is refused, in order. Documents encoded before are taken as they are."""
    try:
        sizes_unknown: list[bytes] = [encode(document) for document in documents]
    except ENCODING_ERRORS:
        return [_one(document, max_bytes) for document in documents]
    return [raw if len(raw) <= max_bytes else TOO_LARGE for raw in sizes_unknown]


def _one(document: Mapping[str, object], max_bytes: int) -> bytes | WriteResult:
    try:
        raw: bytes = encode(document)
    except ENCODING_ERRORS:
        return UNENCODABLE
    return raw if len(raw) <= max_bytes else TOO_LARGE
