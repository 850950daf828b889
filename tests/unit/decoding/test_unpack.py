"""Compressed bodies: what is read, and what is refused before it takes room."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from amqprouter.decoding import unpack
from amqprouter.decoding.unpack import FREE_BYTES, MAX_RATIO, PACKINGS, packing_of, unpacked, zstd
from amqprouter.errors import Undecodable

MEBIBYTE = 1 << 20
PACK: dict[str, Any] = {"gzip": gzip.compress, "deflate": zlib.compress, "zstd": lambda body: zstd().compress(body)}


class UnpackTests(SynchronousTestCase):
    def refused(self, body: bytes, packing: str, most: int = MEBIBYTE) -> str:
        with self.assertRaises(Undecodable) as caught:
            unpacked(body, packing, most)
        return str(caught.exception)

    @given(st.binary(max_size=300), st.sampled_from(PACKINGS))
    def test_what_was_packed_comes_out(self, body: bytes, packing: str) -> None:
        self.assertEqual(unpacked(PACK[packing](body), packing, MEBIBYTE), body)

    @given(st.binary(max_size=80), st.sampled_from(PACKINGS))
    def test_anything_else_is_refused(self, body: bytes, packing: str) -> None:
        try:
            made = unpacked(body, packing, MEBIBYTE)
        except Undecodable as problem:
            self.assertEqual(problem.reason, "bad-packing")
        else:  # raw deflate has no mark of its own
            self.assertEqual(packing, "deflate", made)

    def test_both_kinds_of_deflate(self) -> None:
        packed = zlib.compress(b"text" * 9)
        for one in (packed, packed[2:-4]):
            self.assertEqual(unpacked(one, "deflate", MEBIBYTE), b"text" * 9)

    def test_cut_off_or_with_more_behind(self) -> None:
        for packing in PACKINGS:
            packed = PACK[packing](b"some text, some more text")
            self.assertIn("cut off", self.refused(packed[:-1], packing))
            self.assertIn("1 bytes behind", self.refused(packed + b"x", packing))
            self.assertIn("bad-packing", self.refused(packed + packed, packing))
            self.assertIn("bad-packing", self.refused(b"", packing))

    def test_bombs_take_no_room(self) -> None:
        """A hundred million bytes are packed into some thousands; no more is made of them than is allowed."""
        for packing in PACKINGS:
            bomb = PACK[packing](bytes(100_000_000))
            tracemalloc.start()
            try:
                self.assertIn("unpacks-to-too-much", self.refused(bomb, packing))
                peak = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
            self.assertLess(peak, 3 * MEBIBYTE, packing)

    def test_bounds(self) -> None:
        for packing in PACKINGS:
            body = bytes(FREE_BYTES)
            self.assertEqual(unpacked(PACK[packing](body), packing, MEBIBYTE), body)
            more = PACK[packing](bytes(FREE_BYTES + 1))
            self.assertLess(MAX_RATIO * len(more), FREE_BYTES)  # else this would be no test
            self.assertIn(f"over {FREE_BYTES} bytes", self.refused(more, packing))
            self.assertIn("over 10 bytes", self.refused(PACK[packing](bytes(11)), packing, 10))
            self.assertEqual(unpacked(PACK[packing](bytes(10)), packing, 10), bytes(10))

    def test_a_window_that_is_too_large(self) -> None:
        """What a frame claims to need is not given."""
        library = zstd()
        options = {
            library.CompressionParameter.window_log: unpack.ZSTD_WINDOW_LOG + 1,
            library.CompressionParameter.content_size_flag: 0,
        }
        packer = library.ZstdCompressor(options=options)
        packed = packer.compress(b"x" * 100) + packer.flush()
        self.assertIn("memory", self.refused(packed, "zstd"))

    def test_names(self) -> None:
        for name, packing in (("GZIP", "gzip"), (" x-gzip ", "gzip"), ("utf-8", ""), ("identity", ""), ("br", None)):
            self.assertEqual(packing_of(name), packing)

    def test_without_a_library_for_zstd(self) -> None:
        def missing(name: str) -> object:
            raise ImportError(name)

        packed = PACK["zstd"](b"x")
        self.patch(unpack, "import_module", missing)
        self.assertIn("pip install 'amqprouter[zstd]'", self.refused(packed, "zstd"))
