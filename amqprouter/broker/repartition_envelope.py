"""A message on its way to the gateway that has its device: how it is wrapped, and unwrapped.

What arrives there must be what the device sent, byte for byte, and look as if it had come straight from where it was
published. But its properties cannot be the copy's own: the broker acts on some (``expiration`` drops a message, ``CC``
copies it, ``user_id`` must be the publisher's, ``priority`` turns the order round). So they travel as bytes in one
header, `REPARTITIONED`, with the exchange, the routing key and the consumer tag, from which the queue is known. As with
parked messages (`amqprouter.broker.parked_message`), the header is believed when the broker vouches for the daemon's
own account as its writer; where that account's name is not known, because of where it lies: in a queue that only the
daemon writes to.

::

    version 1 | redelivered | tag length | tag | exchange length | exchange | key length | key | properties
"""

from __future__ import annotations

import struct

from amqprouter.amqp.properties import Properties, flag_mask
from amqprouter.amqp.wire import Delivery
from amqprouter.pipeline.headers import REPARTITIONED

_NAME = REPARTITIONED.encode()
_ENTRY = bytes((len(_NAME),)) + _NAME + b"x"
"""Of a field table: a byte array under our name (RabbitMQ's ``x``)."""
_VERSION = 1
_LONG = struct.Struct(">L")
_TRANSIENT, _PERSISTENT = b"\x01", b"\x02"
_CONTENT_TYPE, _ENCODING, _HEADERS, _MODE = (
    flag_mask(name) for name in ("content_type", "content_encoding", "headers", "delivery_mode")
)


class Envelope:
    """Wraps and unwraps deliveries. `account` is the daemon's on the broker; empty when it is not known."""

    def __init__(self, account: str) -> None:
        user = account.encode()
        if len(user) > 255:
            raise ValueError("the account's name is over 255 bytes")
        self._user = user
        flags = flag_mask("headers", "delivery_mode") | (flag_mask("user_id") if user else 0)
        self._flags = flags.to_bytes(2, "big")
        self._tails = {mode: mode + (bytes((len(user),)) + user if user else b"") for mode in (_TRANSIENT, _PERSISTENT)}
        self._origins: dict[tuple[bytes, bytes], bytes] = {}

    def wrapped(self, delivery: Delivery) -> bytes:
        """The properties of the copy; its body is the message's, and it is as persistent as that."""
        place = delivery.consumer_tag, delivery.exchange
        origin = self._origins.get(place)
        if origin is None:
            if len(self._origins) > 1024:  # operators make exchanges and queues: so many are not to be expected
                self._origins.clear()
            tag, exchange = place
            origin = self._origins[place] = b"".join((bytes((len(tag),)), tag, bytes((len(exchange),)), exchange))
        key, raw = delivery.routing_key, delivery.properties
        size = 3 + len(origin) + len(key) + len(raw)
        return b"".join(
            (
                self._flags,
                _LONG.pack(len(_ENTRY) + 4 + size),
                _ENTRY,
                _LONG.pack(size),
                b"\x01\x01" if delivery.redelivered else b"\x01\x00",
                origin,
                bytes((len(key),)),
                key,
                raw,
                self._tails[_mode(raw)],
            )
        )

    def unwrapped(self, delivery: Delivery) -> Delivery | None:
        """The delivery that was wrapped, under this one's tag; None when none of ours was."""
        content = self._content(delivery.properties)
        if content is None:
            return None
        try:
            if content[0] != _VERSION:
                return None
            position = 3 + content[2]
            tag = content[3:position]
            start = position + 1
            position = start + content[position]
            exchange = content[start:position]
            start = position + 1
            position = start + content[position]
            key = content[start:position]
        except IndexError:
            return None
        if position > len(content):
            return None
        return Delivery(
            delivery.channel,
            tag,
            delivery.delivery_tag,
            delivery.redelivered or content[1] == 1,
            exchange,
            key,
            content[position:],
            delivery.body,
        )

    def _content(self, raw: bytes) -> bytes | None:
        """What was wrapped. As we write it, it is found at once; a broker may have added a header of its own."""
        start = 6 + len(_ENTRY) + 4
        if len(raw) >= start and raw[:2] == self._flags and raw[6 : 6 + len(_ENTRY)] == _ENTRY:
            table, size = _LONG.unpack_from(raw, 2)[0], _LONG.unpack_from(raw, start - 4)[0]
            end = start + size
            if table == len(_ENTRY) + 4 + size and raw[end:] in self._tails.values():
                return raw[start:end]
        try:
            properties = Properties(raw)
            if self._user and properties.raw_text("user_id") != self._user:
                return None
            content = properties.header(_NAME)
        except ValueError:
            return None
        return content if isinstance(content, bytes) else None


def _mode(raw: bytes) -> bytes:
    """The delivery mode in these properties; transient where there is none, persistent where it cannot be told."""
    try:
        flags = raw[0] << 8 | raw[1]
        if not flags & _MODE:
            return _TRANSIENT
        position = 2
        if flags & _CONTENT_TYPE:
            position += 1 + raw[position]
        if flags & _ENCODING:
            position += 1 + raw[position]
        if flags & _HEADERS:
            position += 4 + _LONG.unpack_from(raw, position)[0]
        return _TRANSIENT if raw[position] == 1 else _PERSISTENT
    except (IndexError, struct.error):
        return _PERSISTENT
