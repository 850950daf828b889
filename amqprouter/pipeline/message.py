"""One device message on its way through the daemon."""

from __future__ import annotations

from typing import Any

from amqprouter.amqp.properties import Properties
from amqprouter.decoding.judgement import Decoded
from amqprouter.layouts.layout import Placement

TURN_WORK = 128 * 1024
"""`Message.work` of what is handed to targets in one turn of the reactor, which the last message may exceed. It is some
30 ms for each reader at the very worst [measured, Python 3.11, one busy core], and a thousand of the usual messages."""


class Message:
    """A device's message: who, about what, and the bytes as they came.

    `device` is the id that the routing key claims until authentication has passed, and a proven one from then on.
    `topic` is the dotted topic without the device id; `key`, ``<device>.<topic>``, is what events are filtered by.
    `layout` says how they were read off the routing key, which is as it came; None where the key is ``key``.
    `received_at` is seconds since 1970, by the gateway's clock. `verdict` is what authentication said, once it has.
    `publisher` is who was proved to have sent it, once somebody was: the device itself, unless that is told.
    `is_replayed` says that an operator has it tried again: it was safe in quarantine before.
    """

    __slots__ = (
        "_publisher",
        "body",
        "device",
        "exchange",
        "is_json",
        "is_replayed",
        "is_spoken_for",
        "judged",
        "key",
        "layout",
        "properties",
        "received_at",
        "redelivered",
        "routing_key",
        "signed",
        "topic",
        "unpacked",
        "verdict",
        "work",
    )

    def __init__(
        self,
        device: str,
        topic: str,
        body: bytes,
        properties: Properties,
        exchange: bytes = b"",
        routing_key: bytes = b"",
        redelivered: bool = False,
        received_at: float = 0.0,
        key: str = "",
    ) -> None:
        self.device = device
        self.topic = topic
        self.key = key or f"{device}.{topic}"
        self.body = body
        self.properties = properties
        self.exchange = exchange
        self.routing_key = routing_key
        self.redelivered = redelivered
        self.received_at = received_at
        self.is_json = False
        """Whether a target has read the body as JSON, strictly, and found that it is: the others need not."""
        self.judged: Decoded | None = None
        """What the body was found to be, once somebody has asked (`amqprouter.pipeline.bodies`)."""
        self.unpacked = 0
        """Bytes that the body has more when it is unpacked, once it was."""
        self.verdict: Any = None  # an Verdict, which the core does not know
        self.signed: Any = None
        """What was found out about its signature. That must not be done twice, for it uses the message id up."""
        self.is_replayed = False
        self.layout: Placement | None = None
        octets = len(properties.raw)
        self.work = len(body) + (4 * octets if octets > 1024 else 0)
        """What it takes the reactor, at worst, in bytes of a body that is read. A byte of a header can take four times
        as much; the first kilobyte is no matter, as most messages have so much."""
        self._publisher = ""
        self.is_spoken_for = False
        """Whether somebody else than the device published it."""

    @property
    def publisher(self) -> str:
        """The name of who published it."""
        return self._publisher or self.device

    @publisher.setter
    def publisher(self, name: str) -> None:
        self._publisher = name
        self.is_spoken_for = bool(name) and name != self.device

    @property
    def other_publisher(self) -> str:
        """The publisher, where it is somebody else than the device; empty where it is not."""
        return self._publisher if self.is_spoken_for else ""

    def use_topic(self, topic: str) -> None:
        """Take this topic, which the message itself tells; its key and routing key follow from it."""
        self.topic = topic
        self.key = f"{self.device}.{topic}"
        self.routing_key = self.key.encode()

    def __repr__(self) -> str:
        return f"<Message {self.key} {len(self.body)} B>"
