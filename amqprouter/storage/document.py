"""A device's message as a document: pure, one message in, one document out.

The ``_id`` decides what counts as the same message. It is a hash over the device, the topic, the message id and the
body, so equal ids mean equal content, and a write that finds its id taken is a repeat of one that succeeded, by
construction. A message without a message id gets a random one: nothing in AMQP tells its redelivery from another
message that happens to be equal, so a crash between the write and the acknowledgement may store it twice; nothing
is lost. A device never chooses the ``_id``: its fields are all one level down, under ``body`` and ``headers``.

A document is encoded once, here, whatever becomes of it: that finds what BSON cannot hold while it is still one
message's matter, and the store sends the bytes as they are, batch after batch.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection
from datetime import datetime, timezone
from decimal import Decimal
from functools import lru_cache
from hashlib import sha256

from bson import encode
from bson.decimal128 import Decimal128
from bson.errors import BSONError
from bson.raw_bson import RawBSONDocument

from amqprouter.amqp.field_table import FieldValue
from amqprouter.amqp.properties import Properties
from amqprouter.amqp.travel import TRAVEL_HEADERS
from amqprouter.errors import Unstorable
from amqprouter.pipeline.headers import in_our_name
from amqprouter.pipeline.json_text import MAX_VALUES
from amqprouter.pipeline.message import Message
from amqprouter.storage import json_body
from amqprouter.storage.keys import escaped

MAX_BYTES = 16 * 1024 * 1024
"""Of one document: MongoDB's own bound (manual, "MongoDB Limits and Thresholds": BSON document size)."""

ENCODING_ERRORS = (BSONError, OverflowError, UnicodeEncodeError, RecursionError, TypeError)
"""What `bson.encode` raises for what it cannot hold."""

_PLAIN_ENCODINGS = frozenset({b"utf-8", b"utf8", b"us-ascii", b"ascii", b"identity"})
"""Content encodings that leave the body as it is. Kombu, and so Celery, names the character set there."""
_UTC = timezone.utc
_INT64 = 1 << 63


@lru_cache(maxsize=256)  # few types are in use; the bound only guards against a hostile sender
def promises_json(content_type: str) -> bool:
    """Whether a media type says that the body is JSON (RFC 8259, and RFC 6839 for ``+json``)."""
    kind = content_type.partition(";")[0].strip().lower()
    return kind == "application/json" or kind.endswith("+json")


class DocumentMaker:
    """Makes documents out of messages.

    `hidden_headers` are left out of the documents besides `TRAVEL_HEADERS` and those that only the daemon may write:
    above all the one that carries a device's secret. `randomness` gives ids to messages that have none. JSON that
    weighs over `max_values` is not read.
    """

    def __init__(
        self, randomness: random.Random, hidden_headers: Collection[str] = (), max_values: int = MAX_VALUES
    ) -> None:
        self._random_bits: Callable[[int], int] = randomness.getrandbits
        self._max_values = max_values
        self._hidden = TRAVEL_HEADERS | set(hidden_headers)

    def document(self, message: Message) -> RawBSONDocument:
        """The document that stands for the message; a fresh ``_id`` at each call when it has no message id.

        :raises Unstorable: it can never be stored as it is.
        """
        properties, body = message.properties, message.body
        try:
            fields = self._envelope(message, properties)
            content_type = properties.content_type
            encoding = properties.raw_text("content_encoding")
        except ValueError as error:
            raise Unstorable("malformed-properties", str(error)) from None
        if content_type is not None:
            fields["content_type"] = content_type
        if encoding:
            fields["content_encoding"] = encoding.decode("utf-8", "backslashreplace")
        if encoding and encoding.lower() not in _PLAIN_ENCODINGS:
            promised = may_be_json = False
        elif content_type is None:
            promised, may_be_json = False, body[:1] in (b"{", b"[")
        else:
            promised = may_be_json = promises_json(content_type)
        if may_be_json:
            try:
                fields["body"] = json_body.decode(body, self._max_values)
                message.is_json = True
                return _encoded(fields)
            except Unstorable:
                if promised:
                    raise
        fields["body"] = body
        return _encoded(fields)

    def _envelope(self, message: Message, properties: Properties) -> dict[str, object]:
        """Everything but the body and what says how to read it."""
        device, topic = message.device, message.topic
        message_id = properties.raw_text("message_id")
        if message_id:
            names = device.encode("utf-8", "surrogatepass"), topic.encode("utf-8", "surrogatepass"), message_id
            lengths = b"%d %d %d " % (len(names[0]), len(names[1]), len(names[2]))
            identity = sha256(b"%b%b%b%b%b" % (lengths, *names, message.body)).hexdigest()[:32]
        else:
            identity = f"{self._random_bits(128):032x}"
        fields: dict[str, object] = {"_id": identity, "device": device, "topic": topic}
        if message_id:
            fields["message_id"] = message_id.decode("utf-8", "backslashreplace")
        fields["received_at"] = datetime.fromtimestamp(message.received_at, _UTC)
        timestamp = properties.timestamp
        if timestamp is not None:
            try:
                fields["sent_at"] = datetime.fromtimestamp(timestamp, _UTC)
            except (ValueError, OverflowError, OSError):  # beyond the year 9999: milliseconds, more often than not
                fields["sent_at_raw"] = _storable(timestamp)
        headers = {
            escaped(name): _storable(value)
            for name, value in properties.headers.items()
            if not (name in self._hidden or in_our_name(name))
        }
        if headers:
            fields["headers"] = headers
        return fields


def _encoded(fields: dict[str, object]) -> RawBSONDocument:
    try:
        raw = encode(fields)
    except OverflowError:
        raise Unstorable("integer-too-large", "an integer needs more than 64 bits") from None
    except UnicodeEncodeError:
        raise Unstorable("bad-text", "half a surrogate pair") from None
    except ENCODING_ERRORS as error:
        raise Unstorable("unencodable", type(error).__name__) from None
    if len(raw) > MAX_BYTES:
        raise Unstorable("document-too-large", f"{len(raw)} bytes as BSON; {MAX_BYTES} is the most")
    return RawBSONDocument(raw)


def _storable(value: FieldValue) -> object:
    """A header's value as BSON can hold it, exactly."""
    if isinstance(value, int):
        return value if -_INT64 <= value < _INT64 else Decimal128(str(value))
    if isinstance(value, Decimal):
        return Decimal128(value)
    if isinstance(value, dict):
        return {escaped(name): _storable(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_storable(inner) for inner in value]
    return value
