"""What a message must be like before anybody asks who sent it."""

from __future__ import annotations

from functools import lru_cache

from amqprouter.amqp.travel import own_header_count
from amqprouter.identity import valid_device_id
from amqprouter.layouts.layout import Placement
from amqprouter.pipeline.message import Message

MAX_ROUTING_KEY = 255
"""Bytes: a routing key is a short string (AMQP 0-9-1, section 4.2.5.3). A topic from the `type` property can exceed it
together with the device id."""

_valid_device_id = lru_cache(maxsize=65_536)(valid_device_id)


class Admission:
    """The bounds in force.

    :param max_body_bytes: of a message.
    :param max_headers: of a message.
    :param clock_tolerance: seconds that a message's timestamp may differ from our clock; 0 for any.
    :param max_header_bytes: of a message's properties with all headers, those of the broker too: to read a header takes
        time by its values, and a single byte may be one.
    """

    __slots__ = ("_clock_tolerance", "_max_body_bytes", "_max_header_bytes", "_max_headers")

    def __init__(
        self, max_body_bytes: int, max_headers: int, clock_tolerance: float, max_header_bytes: int = 32_768
    ) -> None:
        self._max_body_bytes = max_body_bytes
        self._max_headers = max_headers
        self._max_header_bytes = max_header_bytes
        self._clock_tolerance = clock_tolerance

    def refusal_by_layout(self, message: Message, layout: Placement) -> str:
        """Likewise, where a layout applies to the message; its device and topic may be longer than the key was."""
        if layout.refusal:
            return layout.refusal
        if len(message.key.encode("utf-8", "surrogatepass")) > MAX_ROUTING_KEY:
            return "topic-too-long"
        return self.refusal(message)

    def refusal(self, message: Message) -> str:
        """Why a message is not even looked at further; empty when nothing speaks against it. On the hot path.

        :raises ValueError: the message's properties are malformed.
        """
        if not _valid_device_id(message.device):
            return "bad-device-id"
        if not message.topic:
            return "no-topic"
        if len(message.routing_key) > MAX_ROUTING_KEY:
            return "topic-too-long"
        if len(message.body) > self._max_body_bytes:
            return "body-too-large"
        properties = message.properties
        if len(properties.raw) > self._max_header_bytes:
            return "headers-too-large"
        most, front = self._max_headers, properties.front  # a redelivery brings some of the broker's besides
        count = properties.header_count() if front is None else front.header_count
        if count > most and own_header_count(properties) > most:
            return "too-many-headers"
        tolerance = self._clock_tolerance
        if tolerance and message.verdict is None:  # what was proven once is late because it was kept, not by its clock
            timestamp = message.properties.timestamp
            if timestamp is not None and abs(timestamp - message.received_at) > tolerance:
                return "bad-timestamp"
        return ""
