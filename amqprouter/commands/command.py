"""A command to a device: what somebody wants it to do, and what became of that.

Nothing is remembered about commands under way. A command's id is its message id and its correlation id; whatever is
told of it later, by the daemon or by the device, carries that as its correlation id.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum

from amqprouter.amqp.field_table import FieldValue
from amqprouter.amqp.properties import Properties, encode_properties, text_value, with_values
from amqprouter.events.event import KEY_HEADER, encode_event_body
from amqprouter.identity import valid_device_id
from amqprouter.patterns import bad_topic
from amqprouter.pipeline.message import Message

SENDER = "x-amqprouter-from"
"""Header of a command that says who sent it."""
QUEUE_PLACEHOLDER = "{device}"

_LONGEST_KEY = 255
"""Bytes of a routing key (AMQP 0-9-1, section 4.2.5.3)."""


@dataclass(frozen=True)
class Command:
    """One command. `at` is seconds since 1970."""

    device: str
    topic: str
    id: str
    sender: str
    body: bytes
    content_type: str
    at: float

    @property
    def key(self) -> str:
        """``<device>.<topic>``."""
        return f"{self.device}.{self.topic}"

    def problem(self) -> str:
        """Why this can be no command, as a word for headers and metrics; empty when it can."""
        if not valid_device_id(self.device):
            return "bad-device-id"
        if not self.topic:
            return "no-topic"
        if bad_topic(self.topic):
            return "bad-topic"
        if len(self.key.encode()) > _LONGEST_KEY:
            return "topic-too-long"
        if not self.id or any(len(text.encode()) > _LONGEST_KEY for text in (self.id, self.content_type)):
            return "bad-properties"
        return ""

    def properties(self, ttl: float, *, with_key: bool = False) -> bytes:
        """The message's properties; after `ttl` seconds in a queue the broker lets go of it.

        :param with_key: the routing key is another than the command's.
        """
        headers: dict[str, FieldValue] = {SENDER: self.sender}
        if with_key:
            headers[KEY_HEADER.decode()] = self.key
        raw = encode_properties(
            content_type=self.content_type,
            headers=headers,
            message_id=self.id,
            correlation_id=self.id,
            timestamp=int(self.at),
        )
        return with_values(raw, {"expiration": text_value(str(max(1, round(ttl * 1000))))})


class Fate(Enum):
    """What became of a command."""

    SENT = "sent"
    """It is in the device's queue."""
    BAD = "bad"
    FORBIDDEN = "forbidden"
    LIMITED = "limited"
    """The device gets no more at present."""
    FULL = "full"
    """The device's queue holds no more at present."""
    UNDELIVERABLE = "undeliverable"
    """There is no queue for the device."""
    UNAVAILABLE = "unavailable"
    """The broker cannot be asked now, or has not answered; in that case it may still be sent."""


@dataclass(frozen=True)
class Outcome:
    """A command's fate, why, and the seconds after which another try makes sense."""

    fate: Fate
    reason: str = ""
    retry_after: float = 0.0


def event(device: str, topic: str, about: str, told: dict[str, str], at: float) -> tuple[bytes, bytes]:
    """The event that tells something of a command: its properties and its body, for the stream. `about` is the
    command's id, `at` seconds since 1970.

    :raises ValueError: the id is over 255 bytes. :raises Unencodable: the topic cannot be written.
    """
    raw = encode_properties(content_type="application/json", correlation_id=about)
    message = Message(device, topic, json.dumps(told).encode(), Properties(raw), received_at=at)
    headers = {KEY_HEADER.decode(): message.key}
    properties = encode_properties(content_type="application/json", headers=dict(headers), timestamp=int(at))
    return properties, encode_event_body(message)
