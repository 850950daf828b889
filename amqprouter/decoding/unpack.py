"""Compressed bodies, unpacked within bounds.

A few bytes can unpack to thousands of times as many: a kilobyte of zstd to gigabytes. So it is said before how much may
come out, and no more ever does: nothing here looks at lengths that the body itself claims.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from importlib import import_module
from typing import Any

from amqprouter.errors import Undecodable

MAX_RATIO = 100
"""Times its own length that a body may unpack to. JSON with the same keys in each of thousands of readings reaches 30
[measured]; deflate can do 1,032, and zstd anything."""
FREE_BYTES = 65_536
"""What any body may unpack to, however short it is: text that only repeats itself, as in tests."""
ZSTD_WINDOW_LOG = 23
"""8 MiB: what every decoder should take, and not more (RFC 8878, section 3.1.1.1.2)."""

_PLAIN = frozenset({"utf-8", "utf8", "us-ascii", "ascii", "identity", ""})
"""Content encodings that leave the body as it is. Kombu, and so Celery, names the character set there."""
_NAMES = {"x-gzip": "gzip", "gzip": "gzip", "deflate": "deflate", "zstd": "zstd"}
PACKINGS = ("gzip", "deflate", "zstd")


def packing_of(content_encoding: str) -> str | None:
    """How the AMQP property of that name says that the body is packed: one of `PACKINGS`; empty when it is not, and
    None when that is nothing known here, such as ``br``."""
    name = content_encoding.strip().lower()
    return "" if name in _PLAIN else _NAMES.get(name)


def unpacked(body: bytes, packing: str, most: int) -> bytes:
    """The body without its packing.

    :param most: bytes; `MAX_RATIO` bounds it as well.
    :raises Undecodable: it is not such a body, is cut off or has something behind it, or is more than may come out.
    """
    bound = min(most, max(FREE_BYTES, MAX_RATIO * len(body)))
    try:
        return _UNPACK[packing](body, bound)
    except _TooMuch:
        raise Undecodable(
            "unpacks-to-too-much", f"{len(body)} bytes of {packing} are over {bound} bytes unpacked"
        ) from None


def zstd() -> Any:
    """The module that reads zstd.

    :raises ImportError: there is none; the text says what to install.
    """
    for name in ("compression.zstd", "backports.zstd"):  # the standard library has it from 3.14 on
        try:
            return import_module(name)
        except ImportError:
            pass
    raise ImportError("zstd needs the package backports.zstd: pip install 'amqprouter[zstd]'")


class _TooMuch(Exception):
    """More would come out than is allowed."""


def _zlib(body: bytes, bound: int, packing: str, window: int) -> bytes:
    reader = zlib.decompressobj(window)
    try:
        text = reader.decompress(body, bound + 1)
    except zlib.error as error:
        raise Undecodable("bad-packing", f"not {packing}: {error}") from None
    if len(text) > bound:
        raise _TooMuch
    _check_end(reader.eof, reader.unused_data, packing)
    return text


def _gzip(body: bytes, bound: int) -> bytes:
    return _zlib(body, bound, "gzip", 16 + zlib.MAX_WBITS)


def _deflate(body: bytes, bound: int) -> bytes:
    """HTTP's ``deflate`` is zlib's format (RFC 9110, section 8.4.1.2), and many send what is inside of it alone."""
    has_header = len(body) > 1 and body[0] & 15 == zlib.DEFLATED and not (body[0] << 8 | body[1]) % 31
    return _zlib(body, bound, "deflate", zlib.MAX_WBITS if has_header else -zlib.MAX_WBITS)


def _zstd(body: bytes, bound: int) -> bytes:
    try:
        library = zstd()
    except ImportError as error:
        raise Undecodable("no-library", str(error)) from None
    reader = library.ZstdDecompressor(options={library.DecompressionParameter.window_log_max: ZSTD_WINDOW_LOG})
    try:
        text: bytes = reader.decompress(body, max_length=bound + 1)
    except library.ZstdError as error:
        raise Undecodable("bad-packing", str(error)) from None
    if len(text) > bound:
        raise _TooMuch
    _check_end(reader.eof, reader.unused_data, "zstd")
    return text


def _check_end(is_whole: bool, rest: bytes, packing: str) -> None:
    if not is_whole:
        raise Undecodable("bad-packing", f"the {packing} is cut off")
    if rest:
        raise Undecodable("bad-packing", f"{len(rest)} bytes behind the {packing}")


_UNPACK: dict[str, Callable[[bytes, int], bytes]] = {"gzip": _gzip, "deflate": _deflate, "zstd": _zstd}
