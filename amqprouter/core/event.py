"""An event: what subscribers are told about one device message.

Events travel through a RabbitMQ stream. Each message of the stream has the header ``x-amqprouter-key`` (the
``<device>.<topic>`` key that filters and permissions look at) and, as its body, the JSON object that
`encode_event_body` makes. Its offset in the stream is the event's id at every gateway.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import NoReturn

from amqprouter.core.message import Message

KEY_HEADER = b"x-amqprouter-key"
"""Header of a stream message that holds the event's key."""


@dataclass(slots=True)
class Event:
    """One entry of the event stream: its offset, its ``<device>.<topic>`` key and its JSON, as bytes."""

    offset: int
    key: str
    data: bytes


def encode_event_body(message: Message) -> bytes:
    """The event that tells of `message`: one JSON object, without raw line ends.

    A body that is JSON goes in as it was written, so numbers keep their digits; one labelled ``text/…``, or that
    merely is UTF-8, goes in as a string; any other as ``{"base64": …}``. What a body holds never raises.

    :raises ValueError: the message's properties are malformed.
    """
    properties = message.properties
    content_type = properties.content_type
    envelope: dict[str, str | None] = {
        "device": message.device,
        "topic": message.topic,
        "received_at": _iso(message.received_at),
    }
    sent_at = properties.timestamp
    if sent_at is not None and (text := _iso(sent_at)) is not None:
        envelope["sent_at"] = text
    envelope["message_id"] = properties.message_id
    envelope["content_type"] = content_type
    return _encode(envelope)[:-1].encode() + b',"body":' + _json_body(message.body, content_type) + b"}"


def _iso(seconds: float) -> str | None:
    """ISO 8601 in UTC with milliseconds; None beyond the year 9999, which a device's clock may well claim."""
    try:
        moment = datetime.fromtimestamp(seconds, timezone.utc)
    except (OverflowError, OSError, ValueError):
        return None
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")  # Python's parser takes NaN and Infinity; browsers' do not


# Made once: `json.dumps` and `json.loads` make theirs anew for every call that has options.
_encode = json.JSONEncoder(separators=(",", ":")).encode
_decode = json.JSONDecoder(parse_constant=_refuse_constant).decode


def _json_body(body: bytes, content_type: str | None) -> bytes:
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return b'{"base64":"' + base64.b64encode(body) + b'"}'
    if content_type is None or not content_type.startswith("text/"):
        try:
            _decode(text)
        except (ValueError, RecursionError):
            pass
        else:
            # JSON has raw line ends only between its tokens, where a space means the same.
            return body.replace(b"\r", b" ").replace(b"\n", b" ")
    return _encode(text).encode()
