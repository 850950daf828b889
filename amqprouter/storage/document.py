"""A device's message as a document: pure, one message in, one document out.

The ``_id`` decides what counts as the same message. It is a hash over the device, the topic, the message id and the
body, so equal ids mean equal content, and a write that finds its id taken is a repeat of one that succeeded, by
construction. A message without a message id gets a random one: nothing in AMQP tells its redelivery from another
message that happens to be equal, so a crash between the write and the acknowledgement may store it twice; nothing
is lost. A device never chooses the ``_id``: its fields are all one level down, under ``body`` and ``headers``.

A document is encoded once, here, whatever becomes of it: that finds what BSON cannot hold while it is still one
message's matter, and the store sends the bytes as they are, batch after batch.

Theory of operation. Most devices send message after message with the same content type and headers, the front of their
properties, which is recognised on arrival (`amqprouter.amqp.properties.Front`). What a document gets from there is
remembered with the front, as BSON elements (`_Envelope`), so that only the id, the times and the body are encoded for
each message. Without a front, the same is worked out for the one message.
"""

from __future__ import annotations

import random
import struct
from binascii import hexlify
from collections.abc import Callable, Collection
from decimal import Decimal
from hashlib import sha256
from typing import Any

from bson.decimal128 import Decimal128

from amqprouter.amqp.field_table import FieldValue
from amqprouter.amqp.properties import Properties
from amqprouter.amqp.travel import TRAVEL_HEADERS
from amqprouter.decoding.json_text import MAX_VALUES
from amqprouter.decoding.judge import promises_json
from amqprouter.decoding.unpack import packing_of
from amqprouter.errors import Unstorable
from amqprouter.pipeline.bodies import Bodies, default_bodies
from amqprouter.pipeline.headers import in_our_name
from amqprouter.pipeline.message import Message
from amqprouter.storage.elements import binary, elements, joined
from amqprouter.storage.encoding import EncodedDocument
from amqprouter.storage.json_body import JsonBodies
from amqprouter.storage.keys import escaped

MAX_REMEMBERED = 1024
"""Bytes of the elements that are remembered with a front. The usual ones take a tenth; larger ones, which may come from
as many made-up senders as are kept (`amqprouter.pipeline.sender.MAX_SENDERS`), are encoded for each message."""

_NO_JSON, _PERHAPS_JSON, _PROMISED_JSON, _PACKED = range(4)

_LAST_SECOND = 253_402_300_799
"""The end of the year 9999, where `datetime` ends. Times beyond it are milliseconds, more often than not."""
_INT64 = 1 << 63

_ID = struct.Struct("<9s32sx")
_ID_START = b"\x02_id\0" + struct.pack("<i", 33)
_TEXT = struct.Struct("<12si")
_TEXT_START = b"\x02message_id\0"
_TIME = struct.Struct("<13sq")
_SENT = struct.Struct("<9sq")
_RECEIVED_START, _SENT_START = b"\x09received_at\0", b"\x09sent_at\0"


class _Envelope:
    """What the documents have in common that are made of messages with one front, as elements.

    `tail` has the headers and what says how to read the body; `reading` is one of the four above. Whose the message is
    comes from `use_names`, which is to be called first.
    """

    __slots__ = (
        "_id_length",
        "_id_start",
        "device",
        "layout",
        "names",
        "publisher",
        "reading",
        "speakers",
        "tail",
        "topic",
    )

    def __init__(self, tail: bytes, reading: int) -> None:
        self.tail = tail
        self.reading = reading
        self.device = self.topic = self.publisher = ""
        self.layout: object = None
        self.names = b""
        """The elements of device and topic; empty before they are known."""
        self.speakers = b""
        """Those of the publisher, where it is another than the device, and of the layout, where there is one."""
        self._id_length = -1
        self._id_start = b""

    def is_of(self, message: Message) -> bool:
        """Whether the names are this message's."""
        return (
            self.device == message.device
            and self.topic == message.topic
            and self.layout is message.layout
            and self.publisher == message.other_publisher
            and bool(self.names)
        )

    def use_names(self, message: Message) -> None:
        """From here on, the documents are about this message's device and topic, by this publisher.

        :raises Unstorable: one of them has half of a surrogate pair.
        """
        device, topic, publisher, layout = message.device, message.topic, message.other_publisher, message.layout
        speakers: dict[str, object] = {"publisher": publisher} if publisher else {}
        if layout is not None:
            speakers["layout"] = layout.fields
        names = elements({"device": device, "topic": topic})
        self.speakers = elements(speakers) if speakers else b""
        self.names = names
        self.device, self.topic, self.publisher, self.layout = device, topic, publisher, layout
        self._id_length = -1

    def identity(self, message_id: bytes, body: bytes) -> bytes:
        """The ``_id``, in ASCII. This rule never changes: by it a message is recognised that was stored before."""
        length = len(message_id)
        if length != self._id_length:
            device, topic = self.device.encode(), self.topic.encode()
            self._id_start = b"%d %d %d %b%b" % (len(device), len(topic), length, device, topic)
            self._id_length = length
        return hexlify(sha256(b"%b%b%b" % (self._id_start, message_id, body)).digest()[:16])


class DocumentMaker:
    """Makes documents out of messages.

    `hidden_headers` are left out of the documents besides `TRAVEL_HEADERS` and those that only the daemon may write:
    above all the one that carries a device's secret. `randomness` gives ids to messages that have none. JSON that
    weighs over `max_values` is not read. `bodies` judge what is packed, or has a route that says how to decode it.
    """

    def __init__(
        self,
        randomness: random.Random,
        hidden_headers: Collection[str] = (),
        max_values: int = MAX_VALUES,
        bodies: Bodies = default_bodies,
    ) -> None:
        self._random_bits: Callable[[int], int] = randomness.getrandbits
        self._json_body = JsonBodies(max_values).encoded
        self._bodies = bodies
        self._hidden = TRAVEL_HEADERS | set(hidden_headers)
        self._received_at = 0.0  # messages that came together have the same
        self._received = _TIME.pack(_RECEIVED_START, 0)

    def document(self, message: Message) -> EncodedDocument:
        """The document that stands for the message; a fresh ``_id`` at each call when it has no message id.

        :raises Unstorable: it can never be stored as it is.
        """
        properties, body = message.properties, message.body
        front = properties.front
        try:
            if front is None:
                envelope = self._envelope(properties)
                message_id, timestamp = properties.raw_text("message_id") or b"", properties.timestamp
            else:
                known: Any = front.known.get(self)
                envelope = self._envelope(properties) if known is None else known
                if known is None and len(envelope.tail) <= MAX_REMEMBERED:
                    front.known[self] = envelope
                message_id, timestamp = front.id_and_time(properties.raw)
        except ValueError as error:
            raise Unstorable("malformed-properties", str(error)) from None
        if not envelope.is_of(message):
            envelope.use_names(message)
        start = self._start(envelope, message_id, timestamp, message)
        reading, bodies = envelope.reading, self._bodies
        if (
            reading == _PACKED
            or message.judged is not None
            or (bodies.has_choices and not bodies.reads_as_sent(message))
        ):
            return EncodedDocument(joined((start, envelope.tail, self._judged(message))))
        if reading == _PROMISED_JSON or (reading == _PERHAPS_JSON and body[:1] in (b"{", b"[")):
            try:
                element = self._json_body(body)
                message.is_json = True
                return EncodedDocument(joined((start, envelope.tail, element)))
            except Unstorable:
                if reading == _PROMISED_JSON:
                    raise
        return EncodedDocument(joined((start, envelope.tail, binary(b"body", body))))

    def _judged(self, message: Message) -> bytes:
        """The elements of the body, as it was judged.

        :raises Unstorable: it was not to be decoded, and the route does not keep such.
        """
        try:
            judged = self._bodies.of(message)
        except ValueError as error:
            raise Unstorable("malformed-properties", str(error)) from None
        refusal = judged.refusal
        if refusal is not None:
            raise Unstorable(refusal.reason, refusal.detail)
        fields: dict[str, object] = {}
        if judged.problem is not None:
            fields["body_problem"] = str(judged.problem)
        if judged.notes:
            fields["body_notes"] = judged.notes
        value = judged.raw if judged.is_guess else judged.value
        if isinstance(value, bytes):
            return elements(fields) + binary(b"body", value)
        return elements({**fields, "body": _stored(value)})

    def _start(self, envelope: _Envelope, message_id: bytes, timestamp: int | None, message: Message) -> bytes:
        """The elements in front of the envelope's tail."""
        if message_id:
            identity = envelope.identity(message_id, message.body)
            text = message_id
            if not text.isascii():
                text = text.decode("utf-8", "backslashreplace").encode()
            named = b"%b%b\0" % (_TEXT.pack(_TEXT_START, len(text) + 1), text)
        else:
            identity = b"%032x" % self._random_bits(128)
            named = b""
        if message.received_at != self._received_at:
            self._received_at = message.received_at
            self._received = _TIME.pack(_RECEIVED_START, _milliseconds(message.received_at))
        if timestamp is None:
            sent = b""
        elif timestamp <= _LAST_SECOND:
            sent = _SENT.pack(_SENT_START, timestamp * 1000)
        else:
            sent = elements({"sent_at_raw": _storable(timestamp)})
        start = _ID.pack(_ID_START, identity)
        return b"".join((start, envelope.names, named, envelope.speakers, self._received, sent))

    def _envelope(self, properties: Properties) -> _Envelope:
        """Without the names.

        :raises ValueError: the properties are malformed.
        :raises Unstorable: BSON cannot hold them.
        """
        headers = {
            escaped(name): _storable(value)
            for name, value in properties.headers.items()
            if not (name in self._hidden or in_our_name(name))
        }
        fields: dict[str, object] = {"headers": headers} if headers else {}
        content_type = properties.content_type
        encoding = properties.raw_text("content_encoding")
        if content_type is not None:
            fields["content_type"] = content_type
        if encoding:
            fields["content_encoding"] = encoding.decode("utf-8", "backslashreplace")
        if encoding and packing_of(encoding.decode("utf-8", "backslashreplace")) != "":
            reading = _PACKED
        elif content_type is None:
            reading = _PERHAPS_JSON
        else:
            reading = _PROMISED_JSON if promises_json(content_type) else _NO_JSON
        return _Envelope(elements(fields), reading)


def _milliseconds(moment: float) -> int:
    """A time as BSON has it, of seconds since 1970: rounded to microseconds, as `datetime` does, and then down."""
    seconds = int(moment)
    return seconds * 1000 + round((moment - seconds) * 1_000_000) // 1000


def _storable(value: FieldValue) -> object:
    """A header's value as BSON can hold it, exactly."""
    if isinstance(value, bool):
        return value  # before integers: where this is compiled, it would become one
    if isinstance(value, int):
        return value if -_INT64 <= value < _INT64 else Decimal128(str(value))
    if isinstance(value, Decimal):
        return Decimal128(value)
    if isinstance(value, dict):
        return {escaped(name): _storable(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_storable(inner) for inner in value]
    return value


def _stored(value: Any) -> Any:
    """A judged value as BSON can hold it: keys escaped, and decimal numbers BSON's own."""
    kind = type(value)
    if kind is dict:
        return {escaped(name): _stored(inner) for name, inner in value.items()}
    if kind is list:
        return [_stored(inner) for inner in value]
    return Decimal128(value) if kind is Decimal else value
