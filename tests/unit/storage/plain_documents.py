"""Documents made the plain way, with Python's JSON and one call of `bson.encode`: what the fast way is held to.

The ``_id`` of a message without a message id is random; here it is left to the caller.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timezone
from decimal import Decimal
from hashlib import sha256

from bson import Decimal128, encode

from amqprouter.amqp.field_table import FieldValue
from amqprouter.amqp.travel import TRAVEL_HEADERS
from amqprouter.decoding.judge import promises_json
from amqprouter.errors import Unstorable
from amqprouter.pipeline.headers import in_our_name
from amqprouter.pipeline.message import Message
from amqprouter.storage import json_body
from amqprouter.storage.elements import MAX_BYTES
from amqprouter.storage.keys import escaped

PLAIN_ENCODINGS = {b"utf-8", b"utf8", b"us-ascii", b"ascii", b"identity"}


def plain_document(message: Message, hidden: Collection[str], random_id: str, max_values: int) -> bytes:
    """The document of a message, as BSON.

    :raises Unstorable: it can never be stored as it is.
    """
    properties, body = message.properties, message.body
    try:
        fields = _envelope(message, hidden, random_id)
        content_type, encoding = properties.content_type, properties.raw_text("content_encoding")
    except ValueError as error:
        raise Unstorable("malformed-properties", str(error)) from None
    if content_type is not None:
        fields["content_type"] = content_type
    if encoding:
        fields["content_encoding"] = encoding.decode("utf-8", "backslashreplace")
    if encoding and encoding.lower() not in PLAIN_ENCODINGS:
        promised = may_be_json = False
    elif content_type is None:
        promised, may_be_json = False, body[:1] in (b"{", b"[")
    else:
        promised = may_be_json = promises_json(content_type)
    if may_be_json:
        try:
            return _encoded(fields | {"body": json_body.decode(body, max_values)})
        except Unstorable:
            if promised:
                raise
    return _encoded(fields | {"body": body})


def _envelope(message: Message, hidden: Collection[str], random_id: str) -> dict[str, object]:
    properties = message.properties
    message_id, timestamp = properties.raw_text("message_id"), properties.timestamp
    identity = random_id
    if message_id:
        names = message.device.encode(), message.topic.encode(), message_id
        lengths = b"%d %d %d " % (len(names[0]), len(names[1]), len(names[2]))
        identity = sha256(b"".join((lengths, *names, message.body))).hexdigest()[:32]
    fields: dict[str, object] = {"_id": identity, "device": message.device, "topic": message.topic}
    if message_id:
        fields["message_id"] = message_id.decode("utf-8", "backslashreplace")
    if message.other_publisher:
        fields["publisher"] = message.other_publisher
    if message.layout is not None:
        fields["layout"] = message.layout.fields
    fields["received_at"] = datetime.fromtimestamp(message.received_at, timezone.utc)
    if timestamp is not None:
        try:
            fields["sent_at"] = datetime.fromtimestamp(timestamp, timezone.utc)
        except (ValueError, OverflowError, OSError):
            fields["sent_at_raw"] = _storable(timestamp)
    headers = {
        escaped(name): _storable(value)
        for name, value in properties.headers.items()
        if name not in TRAVEL_HEADERS and name not in hidden and not in_our_name(name)
    }
    return fields | ({"headers": headers} if headers else {})


def _encoded(fields: dict[str, object]) -> bytes:
    try:
        raw = encode(fields)
    except OverflowError:
        raise Unstorable("integer-too-large", "an integer needs more than 64 bits") from None
    except UnicodeEncodeError:
        raise Unstorable("bad-text", "half a surrogate pair") from None
    if len(raw) > MAX_BYTES:
        raise Unstorable("document-too-large", f"{len(raw)} bytes as BSON; {MAX_BYTES} is the most")
    return raw


def _storable(value: FieldValue) -> object:
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**63 else Decimal128(str(value))
    if isinstance(value, Decimal):
        return Decimal128(value)
    if isinstance(value, dict):
        return {escaped(name): _storable(inner) for name, inner in value.items()}
    return [_storable(inner) for inner in value] if isinstance(value, list) else value
