"""What is known of whoever sends under one routing key, so that it is worked out once and not for every message.

House rules. Nothing here decides anything about a message: whoever does asks its own memory each time. No secret is
kept, so that no memory dump shows one: what the headers were is known by a digest, under a key made at the start of the
process.

Theory of operation. A routing key names a device and its topic. And most devices send every message with the same
property flags, content type and headers, which stand in one piece at the front of the properties: up to the end of the
header table, where what differs begins (delivery mode, message id, timestamp…). A `Sender` knows the `Front` of the
latest message; when the next one begins with the same bytes, then whatever follows from these need not be worked out
again: how many headers there are, which credential is among them, what the front looks like when it is passed on, or
in a document.
Senders whose headers differ from message to message are found out and no longer looked at in this way.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

from amqprouter.amqp.properties import Front, Properties
from amqprouter.amqp.wire import Delivery
from amqprouter.layouts.layout import Placement
from amqprouter.pipeline.message import Message

MAX_SENDERS = 65_536
"""Senders kept, each some 800 bytes, and 1,200 where its messages are stored: 50 or 80 MB. Topics come from devices, so
without a bound one of them could fill the memory with made-up ones. When it is reached all are forgotten: that costs
one long look at a message of each sender."""
PATIENCE = 8
"""Fronts in a row, each unlike the one before, after which a sender's are not remembered any more."""


class Sender:
    """Who sends under a routing key. `topic` is empty where the key is the device id alone; `placement` is what a
    layout made of it."""

    __slots__ = ("_digest", "_front", "_key", "_patience", "device", "placement", "topic")

    def __init__(self, device: str, topic: str, digest: Any, placement: Placement | None = None) -> None:
        self.device = device
        self.topic = topic
        self.placement = placement
        self._key = f"{device}.{topic}"
        self._digest = digest
        self._front: Front | None = None
        self._patience = PATIENCE

    def message(self, delivery: Delivery, received_at: float) -> Message:
        """A message of this sender's, whose properties know their front."""
        raw = delivery.properties
        properties = Properties(raw)
        front = self._front
        if front is not None and front.is_of(raw):
            properties.front = front
            self._patience = PATIENCE
        else:
            self._remember(properties)
        return Message(
            self.device,
            self.topic,
            delivery.body,
            properties,
            delivery.exchange,
            delivery.routing_key,
            delivery.redelivered,
            received_at,
            self._key,
        )

    def recognise(self, properties: Properties) -> None:
        """Have these properties know their front, if it is the one that came before. Malformed ones stay unknown."""
        front = self._front
        if front is not None and front.is_of(properties.raw):
            properties.front = front
            self._patience = PATIENCE
        else:
            self._remember(properties)

    def _remember(self, properties: Properties) -> None:
        """Know the front of these properties from now on, unless it changes from message to message."""
        if self._patience:
            self._patience -= 1
            try:
                self._front = properties.front = Front(properties, self._digest)
            except ValueError:
                self._front = None
        else:
            self._front = None


class Senders:
    """The senders by routing key. What comes through `by_id_exchange` has the device id for its whole key.

    `key`, of 1 to 32 bytes, is the digests'; nobody must be able to guess it.
    """

    def __init__(self, by_id_exchange: bytes, key: bytes) -> None:
        self._by_id_exchange = by_id_exchange
        self._by_id: dict[bytes, Sender] = {}
        self._by_key: dict[bytes, Sender] = {}
        self.digest = blake2b(key=key, digest_size=16)  # of the two, the quicker one on 64 bits

    def of(self, exchange: bytes, routing_key: bytes) -> Sender:
        """Who published to this exchange with this routing key."""
        senders = self._by_id if exchange == self._by_id_exchange else self._by_key
        return senders.get(routing_key) or self._add(senders, routing_key)

    def _add(self, senders: dict[bytes, Sender], routing_key: bytes) -> Sender:
        if len(senders) >= MAX_SENDERS:
            senders.clear()
        device, topic = routing_key.decode("utf-8", "backslashreplace"), ""
        if senders is self._by_key:
            device, _, topic = device.partition(".")
        sender = senders[routing_key] = Sender(device, topic, self.digest)
        return sender
