"""Server-sent events as bytes.

The rules are the WHATWG HTML standard's (https://html.spec.whatwg.org/multipage/server-sent-events.html, 9.2.5 and
9.2.6): CRLF, CR and LF each end a line, so data is split at all three; a line end inside an id or a type would start
another field; and an id that holds NUL is ignored by the receiver, who would resume from the wrong place.

No blank line stands where no event ends. To the standard it means nothing there, but some receivers make an empty event
of each: @microsoft/fetch-event-source 2.0.1, extended-eventsource 2.1.0, httpx-sse 0.4.3.
"""

from __future__ import annotations

import re

from amqprouter.events.event import Event

HEARTBEAT = b":\n"
"""A comment: receivers ignore it, and whatever stands between sees that the connection is alive."""

_LINE_END = re.compile(rb"\r\n|\r|\n")
_FORBIDDEN = re.compile("[\r\n\0]")
_OFFSET = re.compile("[0-9]{1,20}")  # 20 digits write the largest 64-bit offset


def encode(event: Event) -> bytes:
    """`event`, with its offset as the id unless it has one of its own.

    :raises ValueError: the type or the id holds CR, LF or NUL.
    """
    data = event.data
    if not event.id and not event.type and event.retry is None and b"\n" not in data and b"\r" not in data:
        return b"id: %d\ndata: %b\n\n" % (event.offset, data)  # a device's, as nearly all are: a third of the time
    return encode_fields(data, id=event.id or str(event.offset), event_type=event.type, retry_milliseconds=event.retry)


def encode_fields(data: bytes, *, id: str = "", event_type: str = "", retry_milliseconds: int | None = None) -> bytes:
    """An event of these fields; an empty id leaves the receiver's last id as it was.

    :raises ValueError: the id or the type holds CR, LF or NUL.
    """
    lines = []
    for name, value in (("id", id), ("event", event_type)):
        if _FORBIDDEN.search(value):
            raise ValueError(f"the {name} of an event must not hold CR, LF or NUL: {value!r}")
        if value:
            lines.append(f"{name}: {value}\n".encode())
    if retry_milliseconds is not None:
        lines.append(b"retry: %d\n" % retry_milliseconds)
    lines += [b"data: " + line + b"\n" for line in _LINE_END.split(data)]
    lines.append(b"\n")
    return b"".join(lines)


def place(offset: int) -> bytes:
    """Tell the receiver that it has had all that it gets up to this offset, so that it resumes from there.

    It takes an event for that, of a type of its own and with data: others than that make no difference in some
    receivers, or an empty event (docs/events.rst has the table).
    """
    return b'id: %d\nevent: place\ndata: {"resumes_after": %d}\n\n' % (offset, offset)


def comment(text: str) -> bytes:
    """A comment line.

    :raises ValueError: the text holds CR, LF or NUL.
    """
    if _FORBIDDEN.search(text):
        raise ValueError(f"a comment must not hold CR, LF or NUL: {text!r}")
    return f": {text}\n".encode()


def retry(seconds: float) -> bytes:
    """Tell the receiver how long to wait before it connects again."""
    return b"retry: %d\n" % round(seconds * 1000)


def parse_last_event_id(text: str) -> int | None:
    """The offset that a ``Last-Event-ID`` names; None when it is empty, which means that nothing was received yet.

    :raises ValueError: it is not an id that `encode` gives.
    """
    if not text:
        return None
    if not _OFFSET.fullmatch(text):
        raise ValueError(f"not an event id: {text[:40]!r}")
    return int(text)
