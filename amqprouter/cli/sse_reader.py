"""Reading server-sent events: bytes in, events out. Sans I/O.

The rules are the WHATWG HTML standard's (server-sent events, 9.2.5 and 9.2.6), of which a few are easily missed: CR, LF
and CRLF each end a line, also when a chunk ends between CR and LF; only one space behind a colon is dropped; an event
without data is none; an id stays in force until another comes, and one that holds NUL does not count.
"""

from __future__ import annotations

from dataclasses import dataclass

MAX_LINE = 64 * 1024 * 1024
"""Bytes that a line, or an event, may have: a device message is a megabyte by default, and JSON may triple it. Past
that it is no event stream, and would fill the memory."""


@dataclass(frozen=True)
class ServerSentEvent:
    """One event; `id` is the last one that the stream named, empty when it named none yet."""

    type: str
    data: str
    id: str


class SseReader:
    """Takes a stream's bytes chunk by chunk."""

    def __init__(self, last_id: str = "") -> None:
        self.last_id = last_id
        """Of the last complete event: where to resume."""
        self.retry: float | None = None
        """Seconds that the server wants its clients to wait before they connect again; None when it did not say."""
        self._id = last_id
        self._rest = b""
        self._after_cr = False
        self._type = ""
        self._data: list[str] = []
        self._size = 0

    def feed(self, chunk: bytes) -> list[ServerSentEvent]:
        """The events that this chunk completes.

        :raises ValueError: a line or an event is over `MAX_LINE` bytes.
        """
        if self._after_cr and chunk.startswith(b"\n"):
            chunk = chunk[1:]
        if chunk:
            self._after_cr = chunk.endswith(b"\r")
        # Not splitlines on the text: it knows more line ends than the standard does.
        lines = (self._rest + chunk).splitlines(keepends=True)
        self._rest = b""
        if lines and not lines[-1].endswith((b"\r", b"\n")):
            self._rest = lines.pop()
        if len(self._rest) + self._size > MAX_LINE:
            raise ValueError(f"a line or an event of over {MAX_LINE} bytes")
        events = (self._line(line.rstrip(b"\r\n").decode("utf-8", "replace")) for line in lines)
        return [event for event in events if event is not None]

    def _line(self, line: str) -> ServerSentEvent | None:
        if not line:
            return self._dispatch()
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            self._data.append(value)
            self._size += len(value)
        elif field == "event":
            self._type = value
        elif field == "id" and "\0" not in value:
            self._id = value
        elif field == "retry" and value.isascii() and value.isdigit():
            self.retry = int(value) / 1000
        return None

    def _dispatch(self) -> ServerSentEvent | None:
        self.last_id = self._id
        kind, data = self._type, self._data
        self._type, self._data, self._size = "", [], 0
        return ServerSentEvent(kind or "message", "\n".join(data), self._id) if data else None
