"""The one judge of bodies: bytes, what their message says of them and what the route wants in, a value out.

Theory of operation. Whoever reads bodies (the store, events, Celery tasks, placeholders, conditions of routes) asks
here, so that all of them are told the same. A body is unpacked where its content encoding, or the route, says that it
is packed; then the route's decoder reads it. ``auto`` goes by the content type: JSON where a type promises it, read
strictly, and text where it says so. Where nothing is promised, what reads as strict JSON is taken for that, what is
UTF-8 for text, and all else is bytes. That is a guess, but for objects and arrays without any type, and told as one: a
store, which is for good, keeps the bytes then, so that the types in a collection do not depend on what a body happens
to look like. What cannot be unpacked or read is a `Decoded` with the problem, and the body as it came.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from amqprouter.decoding.choice import Decoding
from amqprouter.decoding.json_text import MAX_VALUES
from amqprouter.decoding.judgement import Decoded, Made, text_or_bytes
from amqprouter.decoding.strict_json import parse, parse_guessing
from amqprouter.decoding.unpack import packing_of, unpacked, zstd
from amqprouter.decoding.values import plain
from amqprouter.errors import Undecodable
from amqprouter.interfaces import BodyInfo, IDecoder

_MAY_BEGIN_JSON = b'{["-0123456789tfn \t\r\n'
MAX_BYTES = 1_048_576
"""Of an unpacked body, unless told; the default of ``[limits] max_body_bytes``."""


@lru_cache(maxsize=256)  # few types are in use; the bound only guards against a hostile sender
def promises_json(content_type: str) -> bool:
    """Whether a media type says that the body is JSON (RFC 8259, and RFC 6839 for ``+json``)."""
    kind = content_type.partition(";")[0].strip().lower()
    return kind == "application/json" or kind.endswith("+json")


class Judge:
    """Decodes bodies.

    :param decoder_of: the decoder that a choice names, where that is neither ``auto`` nor one for JSON.
    :param max_bytes: of a body, unpacked.
    :param max_values: what JSON may weigh (see `amqprouter.decoding.json_text`), and how many values there may be.
    """

    def __init__(
        self,
        decoder_of: Callable[[Decoding], IDecoder] | None = None,
        max_bytes: int = MAX_BYTES,
        max_values: int = MAX_VALUES,
    ) -> None:
        self._decoder_of = decoder_of
        self._max_bytes = max_bytes
        self._max_values = max_values
        self._has_zstd: bool | None = None

    def decode(
        self,
        body: bytes,
        content_type: str | None,
        content_encoding: str | None,
        choice: Decoding,
        info: Callable[[], BodyInfo],
    ) -> Decoded:
        """Judge a body; what strangers wrote never raises.

        :param info: called where a decoder needs to know more of the message.
        """
        seen = body
        try:
            packing = self._packing(content_encoding, choice)
            if packing is None:
                return Decoded("binary", body, body)
            for one in packing:
                seen = unpacked(seen, one, self._max_bytes)
            return self._read(seen, content_type, choice, info)
        except Undecodable as problem:
            return Decoded("binary", text_or_bytes(seen), seen, problem=problem, is_kept=choice.keeps)

    def decode_usual(self, body: bytes, content_type: str | None) -> Decoded:
        """`decode` without a word from a route or a content encoding, as nearly all are."""
        try:
            return self._by_content_type(body, content_type)
        except Undecodable as problem:
            return Decoded("binary", text_or_bytes(body), body, problem=problem)

    def _packing(self, content_encoding: str | None, choice: Decoding) -> tuple[str, ...] | None:
        """What is around the body, from the outside; None where that is not known and nobody says what is inside.

        :raises Undecodable: it is not known, and the route says what is inside.
        """
        own = (choice.packing,) if choice.packing else ()
        if not content_encoding:
            return own
        outer = packing_of(content_encoding)
        if outer == "zstd" and not self._knows_zstd():
            outer = None
        if outer is None:
            if choice.decoder == "auto":
                return None
            raise Undecodable("unknown-packing", f"content encoding {content_encoding[:40]!r}")
        return (outer, *own) if outer else own

    def _knows_zstd(self) -> bool:
        if self._has_zstd is None:
            try:
                zstd()
                self._has_zstd = True
            except ImportError:
                self._has_zstd = False
        return self._has_zstd

    def _read(self, body: bytes, content_type: str | None, choice: Decoding, info: Callable[[], BodyInfo]) -> Decoded:
        name = choice.decoder
        if name == "auto":
            return self._by_content_type(body, content_type)
        if name == "json":
            return Decoded("json", parse(body, self._max_values), body)
        if name == "json-lenient":
            return self._leniently(body, content_type)
        if self._decoder_of is None:
            raise Undecodable("no-decoder", f"there is no decoder {name!r}")
        value: Any = self._decoder_of(choice).decode(body, info())
        if isinstance(value, Made):
            return Decoded(name, value.value, body, notes=value.notes)
        return Decoded(name, plain(value, self._max_values), body)

    def _by_content_type(self, body: bytes, content_type: str | None) -> Decoded:
        if content_type is None or not content_type.startswith("text/"):
            if content_type is not None and promises_json(content_type):
                return Decoded("json", parse(body, self._max_values), body)
            first = body[:1]
            if first and first in _MAY_BEGIN_JSON:
                try:
                    value = parse_guessing(body, self._max_values)
                    return Decoded("json", value, body, content_type is not None or first not in b"{[")
                except Undecodable:
                    pass
        value = text_or_bytes(body)
        return Decoded("binary" if value is body else "text", value, body, True)

    def _leniently(self, body: bytes, content_type: str | None) -> Decoded:
        """JSON whatever its type says, also with a byte order mark or with NULs at its end; else text, or bytes.

        That a body is no JSON is a problem where it should be: by its type, or because it begins so.
        """
        text = body[3:] if body.startswith(b"\xef\xbb\xbf") else body
        text = text.rstrip(b"\0")
        try:
            return Decoded("json", parse(text, self._max_values), text)
        except Undecodable as problem:
            kept = text_or_bytes(body)
            kind = "binary" if isinstance(kept, bytes) else "text"
            if text[:1] in (b"{", b"[") or (content_type is not None and promises_json(content_type)):
                return Decoded(kind, kept, body, problem=problem, is_kept=True)
            return Decoded(kind, kept, body)
