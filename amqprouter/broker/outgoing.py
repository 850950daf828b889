"""What a device's properties look like once the daemon passes its message on.

A device must not steer the broker through us (CC and BCC headers, a delay, expiration, priority, reply-to), claim a
history that it does not have (x-death, the hops of federation), or speak in our name (``x-amqprouter-…``); its secret
or signature ends here. ``user_id`` has to go since the broker compares it with the connection's user, which is now
ours, and would close the channel; what goes into quarantine has ours in its place, so that nobody else's word about
a message is believed there. The rest, headers and properties alike, is passed on byte for byte.
"""

from __future__ import annotations

from datetime import datetime, timezone
from functools import lru_cache

from amqprouter.amqp import field_table
from amqprouter.amqp.field_table import FieldValue
from amqprouter.amqp.properties import encode_properties, flag_mask, with_user_id
from amqprouter.amqp.travel import TRAVEL_HEADERS
from amqprouter.events.event import KEY_HEADER
from amqprouter.pipeline.headers import (
    AT,
    CHECKER,
    DEVICE,
    ENCODED_PREFIX,
    EXCHANGE,
    IDENTITY,
    LAYOUT,
    PROVEN,
    PUBLISHER,
    REASON,
    ROUTING_KEY,
    identity_text,
)
from amqprouter.pipeline.message import Message

_DROPPED_PROPERTIES = flag_mask("priority", "reply_to", "expiration", "user_id", "cluster_id")
_BROKER_HEADERS = (*TRAVEL_HEADERS, "x-received-from", "x-shovelled", "x-delay")
"""What copies a message, tells how it travelled, or how often; where it was federated or shovelled from (a message that
says it went far enough goes no further); and what holds it back in an exchange of the plugin for delayed messages."""
_MAX_REASON = 1024
"""Bytes of a reason: a target's error text may quote anything, and the headers have to fit in a frame."""

_device_entry = lru_cache(maxsize=16_384)(field_table.encode_entry)
"""The same for all messages of a device; a remembered one is some 200 bytes, so 3 MB of them at most."""


class Outgoing:
    """Makes outgoing properties.

    :param proof_headers: the names of the headers with the device's secret or signature.
    :param account: the daemon's on the broker, which stands under what it tells of a message in quarantine; empty when
        it is not known.
    """

    def __init__(self, *proof_headers: str, account: str = "") -> None:
        self._account = account
        names = (*_BROKER_HEADERS, *proof_headers)
        self._dropped_headers = frozenset(name.encode() for name in names)

    def passed_on(self, message: Message) -> bytes:
        """For a target: the device's properties, and who it is; and who published, where that is somebody else.

        :raises ValueError: the properties are malformed.
        """
        properties = message.properties
        front = properties.front
        if front is None or message.is_spoken_for:  # by whom, the front does not say
            return self._spliced(message)
        changed: bytes | None = front.known.get(self)
        if changed is None:  # what stands behind the front is passed on as it is, unless something there is dropped
            spliced = self._spliced(message)
            if front.flags & _DROPPED_PROPERTIES:
                return spliced
            changed = front.known[self] = spliced[: len(spliced) - len(properties.raw) + front.size]
        return changed + properties.raw[front.size :]

    def with_key(self, message: Message) -> bytes:
        """As `passed_on`, and with the message's key: for targets whose routing key says something else.

        :raises ValueError: the properties are malformed.
        """
        entries = _who(message) + field_table.encode_entry(KEY_HEADER.decode(), message.key)
        if message.layout is not None:
            entries += field_table.encode_entry(LAYOUT, message.layout.text)
        return message.properties.spliced(_DROPPED_PROPERTIES, self._dropped_headers, entries, ENCODED_PREFIX)

    def _spliced(self, message: Message) -> bytes:
        if message.layout is not None:
            return self.with_key(message)
        return message.properties.spliced(_DROPPED_PROPERTIES, self._dropped_headers, _who(message), ENCODED_PREFIX)

    def quarantined(self, message: Message, reason: str, at: float) -> bytes:
        """For the rejected and dead-letter queues: what can be read of the device's properties, and our headers."""
        headers: dict[str, FieldValue] = {
            REASON: _short(reason),
            AT: datetime.fromtimestamp(int(at), timezone.utc),
            EXCHANGE: message.exchange.decode(errors="replace"),
            ROUTING_KEY: message.routing_key.decode(errors="backslashreplace"),
            DEVICE: message.device,
        }
        if message.is_spoken_for:
            headers[PUBLISHER] = message.publisher
        if message.layout is not None:
            headers |= {LAYOUT: message.layout.text, KEY_HEADER.decode(): message.key}
        if message.verdict is not None:  # else it came to no proof of identity
            headers[CHECKER] = message.verdict.checker
            headers[PROVEN] = message.verdict.allowed
            identity = message.verdict.identity
            if identity is not None and message.verdict.allowed and (text := identity_text(identity)):
                headers[IDENTITY] = text
        try:
            entries = b"".join(field_table.encode_entry(name, value) for name, value in headers.items())
            told = message.properties.spliced(_DROPPED_PROPERTIES, self._dropped_headers, entries, ENCODED_PREFIX)
            return with_user_id(told, self._account.encode())
        except ValueError:
            return encode_properties(headers=headers, user_id=self._account)

    def headers_only(self, message: Message, reason: str, at: float) -> bytes:
        """For a message whose own properties cannot be sent again: the reason and the claimed device."""
        headers: dict[str, FieldValue] = {
            REASON: _short(reason),
            AT: datetime.fromtimestamp(int(at), timezone.utc),
            DEVICE: message.device,
        }
        if message.is_spoken_for:
            headers[PUBLISHER] = message.publisher
        return encode_properties(headers=headers, user_id=self._account)


def _who(message: Message) -> bytes:
    """The encoded headers that say whose a message is."""
    device = _device_entry(DEVICE, message.device)
    return device + _device_entry(PUBLISHER, message.publisher) if message.is_spoken_for else device


def _short(reason: str) -> str:
    """A reason that can be sent: cut, and what is no text (lone surrogates) escaped."""
    return reason.encode("utf-8", "backslashreplace")[:_MAX_REASON].decode("utf-8", "ignore")
