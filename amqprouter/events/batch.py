"""Bytes that wait to be written together, shared by all subscribers who wait for the same."""

from __future__ import annotations


class Batch:
    """One frame behind those of the batch `before`. Immutable.

    Theory of operation. Subscribers who get the same events between two writes hold the same batch, so what is written
    is put together once for all of them: once as it is, and once as a chunk of HTTP/1.1 (RFC 9112, section 7.1). A
    batch knows the one before it and never the one behind it, so it is gone as soon as nobody waits for it.
    """

    __slots__ = ("_before", "_chunk", "_frame", "_joined", "count", "offset", "since", "size")

    def __init__(self, before: Batch | None, frame: bytes, offset: int = -1, since: float = 0.0) -> None:
        self._before = before
        self._frame = frame
        self._joined: bytes | None = frame if before is None else None
        self._chunk: bytes | None = None
        self.offset = offset
        """Of the last frame's event in the stream; -1 where it has none."""
        self.since: float = since if before is None else before.since
        """When the message of the first frame's event was received, in seconds since 1970; 0 where nobody asks."""
        self.count: int = 1 if before is None else before.count + 1
        """Frames in it."""
        self.size: int = len(frame) if before is None else before.size + len(frame)
        """Bytes in it."""

    @property
    def joined(self) -> bytes:
        """All frames, as they are written without chunks."""
        if self._joined is None:
            frames = []
            batch: Batch | None = self
            while batch is not None:
                frames.append(batch._frame)
                batch = batch._before
            frames.reverse()
            self._joined = b"".join(frames)
        return self._joined

    @property
    def chunk(self) -> bytes:
        """All frames as one chunk."""
        if self._chunk is None:
            self._chunk = b"%x\r\n%b\r\n" % (self.size, self.joined)
        return self._chunk
