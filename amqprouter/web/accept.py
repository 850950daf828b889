"""Whether a client takes what it would get (RFC 9110, section 12.5.1)."""

from __future__ import annotations

from twisted.web import http

from amqprouter.web.request import RouterRequest, reply_error


def accepts(request: RouterRequest, content_type: bytes) -> bool:
    """Whether the header ``Accept`` allows this type; it does when it is not there. The closest range in it counts."""
    raw = b",".join(request.requestHeaders.getRawHeaders(b"Accept", []))
    if not raw.strip():
        return True
    quality: dict[bytes, bool] = {}
    for part in raw.lower().split(b","):
        name, *parameters = (piece.strip() for piece in part.split(b";"))
        zero = any(each.startswith(b"q=") and not each[2:].strip(b"0.") for each in parameters)
        quality[name] = not zero
    kind = content_type.partition(b"/")[0] + b"/*"
    return next((quality[each] for each in (content_type, kind, b"*/*") if each in quality), False)


def refuse_unacceptable(request: RouterRequest, *content_types: bytes) -> bool:
    """Answer 406 unless one of these types is accepted; whether it did."""
    if any(accepts(request, each) for each in content_types):
        return False
    reply_error(request, http.NOT_ACCEPTABLE, f"there is only {content_types[0].decode()} here")
    return True
