"""An event: what subscribers are told about one device message, or about anything else that somebody published.

Events travel through a RabbitMQ stream. The body of each message there is the event's data; for a device message, the
JSON object that `encode_event_body` makes. Its headers say the rest: ``x-amqprouter-key`` the first topic, which alone
makes a message an event, and the others what is not as usual. Its offset in the stream is the event's place in the
order of all, and its id at every gateway unless the publisher gave another.

Of the headers only plain texts, numbers and truth values reach every reader: the streams of RabbitMQ 3 drop those that
are arrays or tables. So further topics go as a text. Earlier releases know them as an array alone, and get that too.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import datetime, timezone

from amqprouter.amqp.field_table import FieldValue
from amqprouter.amqp.properties import Properties
from amqprouter.decoding.judgement import whole_json_form
from amqprouter.pipeline.bodies import BodyOf, default_bodies
from amqprouter.pipeline.message import Message

KEY_HEADER = b"x-amqprouter-key"
"""Header of a stream message that holds the event's first topic: of a device's, ``<device>.<topic>``."""
_ALTERNATES = b"x-amqprouter-alternates"  # an array, of earlier releases and for them
_OTHER_TOPICS = b"x-amqprouter-other-topics"  # the same as a text: a JSON array
_PUBLIC = b"x-amqprouter-public"
_TYPE = b"x-amqprouter-type"
_RETRY = b"x-amqprouter-retry"
_ID = b"x-amqprouter-id"

LARGEST_OFFSET = 2**63 - 1
"""The largest that the broker can be asked for; a million events a second take 292,000 years to get there."""

EARLIEST = "earliest"
"""The id that stands before all others (Mercure)."""
GAP = "gap"
"""The type of the event that tells a subscriber of what it will not get."""
PLACE = "place"
"""The type of the event that tells a subscriber how far it has come, where there was nothing for it."""
OWN_TYPES = frozenset((GAP, PLACE))
"""Types of events that only the hub makes, for a single subscriber: nobody else's event may have one."""
ARRAY_BYTES = 32_768
"""Bytes of further topics, as a text, up to which they are written as an array as well: all headers must fit into a
frame, of 131,072 bytes by default."""

_RECEIVED_AT, _MOMENT = b',"received_at":"', len("2026-01-01T00:00:00.000")
_FRONT = 4096
"""Bytes of an event within which its time stands: before it are two ids and a topic, of 255 bytes together in a routing
key, six for each in JSON at worst, or what a layout made of them."""

_LINE_ENDS = re.compile("[\r\n\0]")
_NUMBER = re.compile("-?[0-9]+")


@dataclass(slots=True)
class Event:
    """One entry of the event stream: its offset, its topics (the canonical one first) and its data.

    A `private` event is only for those who may see one of its topics; all events of devices are. `type` is what
    listeners ask for, ``message`` when empty; `retry` is in milliseconds; `id` is the publisher's own, if it gave one.
    """

    offset: int
    topics: tuple[str, ...]
    data: bytes
    private: bool = True
    type: str = ""
    retry: int | None = None
    id: str = ""

    def headers(self) -> dict[str, FieldValue]:
        """The headers of the stream message that `read_event` makes this event of."""
        headers: dict[str, FieldValue] = {KEY_HEADER.decode(): self.topics[0]}
        if len(self.topics) > 1:
            others: list[FieldValue] = list(self.topics[1:])
            text = _encode_texts(others)
            headers[_OTHER_TOPICS.decode()] = text
            if len(text.encode()) <= ARRAY_BYTES:
                headers[_ALTERNATES.decode()] = others
        if not self.private:
            headers[_PUBLIC.decode()] = True
        if self.type:
            headers[_TYPE.decode()] = self.type
        if self.retry is not None:
            headers[_RETRY.decode()] = self.retry
        if self.id:
            headers[_ID.decode()] = self.id
        return headers


def read_event(offset: int, properties: Properties, body: bytes) -> Event | None:
    """The event that a stream message is; None for a message without the header that makes it one.

    :raises ValueError: its properties are malformed, or a header says what no event can have.
    """
    key = properties.header(KEY_HEADER)
    if key is None:
        return None
    if properties.header_count() <= 2:  # the key and the offset: a device's, as nearly all are
        return Event(offset, (_text(key, KEY_HEADER),), body)
    retry = properties.header(_RETRY)
    if retry is not None and (isinstance(retry, bool) or not isinstance(retry, int) or retry < 0):
        raise ValueError(f"the header {_RETRY.decode()} is no number of milliseconds")
    kind, own_id = (_text(properties.header(name) or "", name) for name in (_TYPE, _ID))
    for text in (kind, own_id):
        if _LINE_ENDS.search(text):
            raise ValueError(f"a type or an id with CR, LF or NUL: {text[:40]!r}")
    if not may_be_own_id(own_id):
        own_id = ""  # of an earlier release's publisher, who could take the name of another event
    topics = (_text(key, KEY_HEADER), *_other_topics(properties))
    return Event(offset, topics, body, properties.header(_PUBLIC) is not True, kind, retry, own_id)


def may_be_own_id(id: str) -> bool:
    """Whether a publisher may give its event this id: the names of other events are numbers, and `EARLIEST`."""
    return id != EARLIEST and not _NUMBER.fullmatch(id)


def _other_topics(properties: Properties) -> list[str]:
    text, name = properties.header(_OTHER_TOPICS), _OTHER_TOPICS
    if text is None:
        topics, name = properties.header(_ALTERNATES) or [], _ALTERNATES
    else:
        try:
            topics = json.loads(_text(text, name))
        except RecursionError:
            topics = None
    if not isinstance(topics, list):
        raise ValueError(f"the header {name.decode()} is no array")
    return [_text(topic, name) for topic in topics]


def _text(value: FieldValue, name: bytes) -> str:
    if not isinstance(value, str):
        raise ValueError(f"the header {name.decode()} is no text")
    return value


def encode_event_body(message: Message, body_of: BodyOf = default_bodies.of) -> bytes:
    """The event that tells of `message`: one JSON object, without raw line ends.

    A body that is JSON goes in as it was written, so numbers keep their digits. What another decoder made of it goes in
    as JSON can say it (`amqprouter.decoding.values.json_form`), and bytes as a string where they are UTF-8. A body that
    is not what it should be is told with the reason, in ``body_problem``. What a body holds never raises.

    :raises ValueError: the message's properties are malformed.
    """
    properties = message.properties
    envelope: dict[str, object] = {
        "device": message.device,
        **({"publisher": message.publisher} if message.is_spoken_for else {}),
        "topic": message.topic,
        "received_at": _iso(message.received_at),
    }
    sent_at = properties.timestamp
    if sent_at is not None:
        text = _iso(sent_at)
        envelope["sent_at_raw" if text is None else "sent_at"] = sent_at if text is None else text
    envelope["message_id"] = properties.message_id
    envelope["content_type"] = properties.content_type
    encoding = properties.raw_text("content_encoding")
    if encoding:
        envelope["content_encoding"] = encoding.decode("utf-8", "backslashreplace")
    if properties.raw_text("correlation_id") is not None:
        envelope["correlation_id"] = properties.text("correlation_id")
    if message.is_json and message.judged is None:
        body = message.body  # the store has read it, by the same rules
    else:
        judged = body_of(message)
        if judged.problem is not None:
            envelope["body_problem"] = str(judged.problem)
        if judged.notes:
            envelope["body_notes"] = judged.notes
        body = judged.raw if judged.kind == "json" else _encode(whole_json_form(judged)).encode()
    # JSON has raw line ends only between its tokens, where a space means the same.
    body = body.replace(b"\r", b" ").replace(b"\n", b" ")
    if message.layout is not None:
        envelope["layout"] = message.layout.fields
    return _encode(envelope)[:-1].encode() + b',"body":' + body + b"}"


def received_at(event: Event) -> float:
    """When the message was received that an event tells of, in seconds since 1970, by the clock of its gateway; 0 for
    other events. Looks at the beginning of the event only.
    """
    data = event.data
    # Within a JSON string each quote has a backslash before it, so this is no part of a device's id or topic.
    start = -1 if event.id else data.find(_RECEIVED_AT, 0, _FRONT)
    if start < 0:
        return 0.0
    start += len(_RECEIVED_AT)
    try:
        text = data[start : start + _MOMENT].decode("ascii")
        return datetime.fromisoformat(text).replace(tzinfo=timezone.utc).timestamp()
    except (ValueError, OverflowError):
        return 0.0


def _iso(seconds: float) -> str | None:
    """ISO 8601 in UTC with milliseconds; None beyond the year 9999, which a device's clock may well claim."""
    try:
        moment = datetime.fromtimestamp(seconds, timezone.utc)
    except (OverflowError, OSError, ValueError):
        return None
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


# Made once: `json.dumps` makes one anew for every call that has options.
_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
_encode_texts = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode
