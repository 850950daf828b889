"""AMQP 0-9-1 frames as bytes: the path that every message takes, without I/O.

House rules: no reactor, no sockets; what comes in is `bytes` in any chunking, what goes out is `bytes` to write.
Content headers are not decoded (see `amqprouter.amqp.properties`), bodies are never text. Whatever this module does not
read itself — every method but deliver, return, ack and nack — comes out whole as a `MethodFrame` for txAMQP.

Theory of operation. `FrameReader.feed` slices as many whole frames as the data holds. A delivery mostly arrives in one
piece (method, header and body frame side by side, RabbitMQ writes them so), and is then cut out in one step, with no
state kept but the exchanges and routing keys, which repeat from message to message: they are read once, and shared.
Otherwise the method opens an `_Assembly` for its channel, which header and body frames fill: frames of several channels
may interleave, frames of one channel may not (section 4.2.6). Bytes of an unfinished frame wait in a list, joined once
the frame is complete, so that a slow trickle costs no quadratic copying.

Frame layout (section 4.2.3): type 8 bits, channel 16, size 32, payload, frame-end 0xCE.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache

from amqprouter.errors import ProtocolError, Unencodable

FRAME_END = 0xCE
FRAME_OVERHEAD = 8
"""Bytes of a frame around its payload; ``frame_max`` includes them (section 4.2.3)."""
HEADER_ALLOWANCE = 65_536
"""Bytes that a content header may have beyond ``frame_max``. RabbitMQ adds headers (a count of deliveries, a history of
dead-lettering, what its interceptors write) to a message that filled its frame, and sends it all the same."""
MIN_FRAME_MAX = 4096
"""The least frame-max that peers may negotiate (frame-min-size, section 1.2)."""

_METHOD, _HEADER, _BODY, _HEARTBEAT = 1, 2, 3, 8
_DELIVER, _RETURN, _ACK, _NACK = b"\x00\x3c\x00\x3c", b"\x00\x3c\x00\x32", b"\x00\x3c\x00\x50", b"\x00\x3c\x00\x78"
_FRAME_HEAD = struct.Struct(">BHI")
_CONTENT_HEAD = struct.Struct(">HHQ")  # class, weight, body size; property flags follow
_CONTENT_HEAD_SIZE = _CONTENT_HEAD.size
_HEADER_FRAME = struct.Struct(">3sIIQ")  # type and channel, size; class and weight, body size
_BODY_FRAME = struct.Struct(">4sI")  # the end of the header frame, type and channel; size
_MIN_HEADER_SIZE = _CONTENT_HEAD_SIZE + 2  # with the property flags
_MIN_HEADER_FRAME = FRAME_OVERHEAD + _MIN_HEADER_SIZE
_MIN_DELIVERY = FRAME_OVERHEAD + 16 + _MIN_HEADER_FRAME  # with names of no bytes
_DELIVERY_TAG = struct.Struct(">Q")
_CONFIRM = struct.Struct(">QB")  # delivery tag, bits
_ACK_FRAME = struct.Struct(">BHIHHQBB")
_REPLY_CODE = struct.Struct(">H")
_CONFIRM_SIZE = 13  # payload of basic.ack and basic.nack: class, method, delivery tag, bits

MAX_ORIGINS = 65_536
"""Exchanges and routing keys remembered, at some 300 bytes each. Topics come from devices, so without a bound one of
them could fill the memory with made-up ones; when it is reached all are forgotten, and read again as they come."""
Origin = tuple[bool, bytes, bytes]
"""Of a delivery: whether it was made before, the exchange, and the routing key."""
MAX_STARTS = 16_384
"""Beginnings of deliveries remembered, at some 350 bytes each, which are as many as consumers times the lengths of
exchanges and keys together; when it is reached all are forgotten likewise."""
Start = tuple[int, int, bytes, bytes, bytes]
"""What the bytes of a basic.deliver up to its delivery tag say, and what has to follow: the frame's size, the channel,
the consumer tag; type and channel of the header frame; the end of that one, type and channel of the body frame."""

HEARTBEAT_FRAME = _FRAME_HEAD.pack(_HEARTBEAT, 0, 0) + bytes((FRAME_END,))


class Delivery:
    """One basic.deliver with its content. `properties` holds the content header from the property flags on."""

    __slots__ = (
        "body",
        "channel",
        "consumer_tag",
        "delivery_tag",
        "exchange",
        "properties",
        "redelivered",
        "routing_key",
    )

    def __init__(
        self,
        channel: int,
        consumer_tag: bytes,
        delivery_tag: int,
        redelivered: bool,
        exchange: bytes,
        routing_key: bytes,
        properties: bytes = b"\x00\x00",
        body: bytes = b"",
    ) -> None:
        self.channel = channel
        self.consumer_tag = consumer_tag
        self.delivery_tag = delivery_tag
        self.redelivered = redelivered
        self.exchange = exchange
        self.routing_key = routing_key
        self.properties = properties
        self.body = body

    def __repr__(self) -> str:
        return f"<Delivery {self.delivery_tag} on channel {self.channel}, {self.routing_key!r}, {len(self.body)} B>"


@dataclass(slots=True)
class Returned:
    """One basic.return: a mandatory publish that no queue took."""

    channel: int
    reply_code: int
    reply_text: bytes
    exchange: bytes
    routing_key: bytes
    properties: bytes = b"\x00\x00"
    body: bytes = b""


@dataclass(slots=True)
class Confirm:
    """The broker's answer to publishes: basic.ack (`acked`) or basic.nack on a channel in confirm mode."""

    channel: int
    delivery_tag: int
    multiple: bool
    acked: bool


@dataclass(slots=True)
class MethodFrame:
    """A whole frame, head and end included, of a method that is not on the hot path."""

    channel: int
    frame: bytes


class _Assembly:
    """A method with content whose header and body frames are still to come."""

    __slots__ = ("chunks", "event", "missing")

    def __init__(self, event: Delivery | Returned) -> None:
        self.event = event
        self.missing = -1  # no header yet
        self.chunks: list[bytes] = []


class FrameReader:
    """Turns received bytes into events. After a `ProtocolError` the connection is of no more use."""

    def __init__(self, frame_max: int = MIN_FRAME_MAX) -> None:
        self.frame_max = frame_max
        self._waiting: list[bytes] = []  # of one unfinished frame
        self._missing = FRAME_OVERHEAD  # bytes wanted before looking again
        self._assemblies: dict[int, _Assembly] = {}
        self._origins: dict[bytes, Origin] = {}  # by the bytes that they were read from
        self._starts: dict[bytes, Start] = {}

    def feed(self, data: bytes) -> list[Delivery | Returned | Confirm | MethodFrame]:
        """Take received bytes; returns what they complete, in order of arrival.

        :raises ProtocolError: the bytes are not AMQP, or a frame is larger than agreed.
        """
        if self._waiting:
            data = self._joined(data)
            if not data:
                return []
        events: list[Delivery | Returned | Confirm | MethodFrame] = []
        append = events.append
        position, end = 0, len(data)
        origins, assemblies = self._origins, self._assemblies
        frame_head, header_head, body_head = _FRAME_HEAD.unpack_from, _HEADER_FRAME.unpack_from, _BODY_FRAME.unpack_from
        starts, tag_of = self._starts, _DELIVERY_TAG.unpack_from
        last = end - _MIN_DELIVERY
        limit = self.frame_max - FRAME_OVERHEAD
        self._missing = FRAME_OVERHEAD
        while end - position >= FRAME_OVERHEAD:
            # The usual case: a delivery that begins as another did, with its content behind it in two frames.
            if position <= last and not assemblies:
                tag_at = position + 12 + data[position + 11]
                start = starts.get(data[position:tag_at])
                if start is not None:
                    size, channel, consumer, header_start, body_start = start
                    header = position + size
                    origin = origins.get(data[tag_at + 8 : header])
                    if origin is not None and header + _MIN_HEADER_FRAME <= end:
                        head, size, _, body_size = header_head(data, header)
                        body = header + FRAME_OVERHEAD + size
                        behind = body + FRAME_OVERHEAD + body_size if body_size else body
                        if (
                            behind <= end
                            and head == header_start
                            and size >= _MIN_HEADER_SIZE
                            and size + body_size <= limit
                            and data[behind - 1] == FRAME_END  # of the header when there is no body
                            and (not body_size or body_head(data, body - 1) == (body_start, body_size))
                        ):
                            raw, content = data[header + 19 : body - 1], data[body + 7 : behind - 1]
                            tag = tag_of(data, tag_at)[0]
                            append(Delivery(channel, consumer, tag, origin[0], origin[1], origin[2], raw, content))
                            position = behind
                            continue
            kind, channel, size = frame_head(data, position)
            if size > limit and (kind != _HEADER or size > limit + HEADER_ALLOWANCE):
                size += FRAME_OVERHEAD
                raise ProtocolError(f"frame of {size} bytes on channel {channel}; {self.frame_max} agreed")
            behind = position + FRAME_OVERHEAD + size
            if behind > end:
                self._missing = behind - end
                break
            if data[behind - 1] != FRAME_END:
                raise ProtocolError(f"frame on channel {channel} ends with {data[behind - 1]:#x}, not 0xce")
            if kind == _METHOD:
                method = data[position + 7 : position + 11]
                if method == _DELIVER:
                    self._open(channel, self._delivery(data[position:behind], channel))
                    position = behind
                    continue
                if method in (_ACK, _NACK):
                    if size != _CONFIRM_SIZE:
                        raise ProtocolError(f"a confirm of {size} bytes on channel {channel}")
                    number, bits = _CONFIRM.unpack_from(data, position + 11)
                    append(Confirm(channel, number, bool(bits & 1), method == _ACK))
                elif method == _RETURN:
                    self._open(channel, _read_return(data, position + 11, behind - 1, channel))
                else:
                    append(MethodFrame(channel, data[position:behind]))
            elif kind != _HEARTBEAT:
                event = self._fill(kind, channel, data, position + 7, behind - 1)
                if event is not None:
                    append(event)
            position = behind
        else:
            self._missing = FRAME_OVERHEAD - (end - position)
        if position < end:
            self._waiting.append(data[position:] if position else data)
        return events

    def _joined(self, data: bytes) -> bytes:
        """What waited, with `data` behind it, once that makes a frame; else it waits on, and this is empty."""
        self._waiting.append(data)
        self._missing -= len(data)
        if self._missing > 0:
            return b""
        data = b"".join(self._waiting)
        self._waiting = []
        return data

    def _delivery(self, frame: bytes, channel: int) -> Delivery:
        """Read the whole frame of a basic.deliver, and remember what will be the same in others."""
        tag_at = 12 + frame[11] if len(frame) > 11 else 0
        raw = frame[tag_at + 8 :]
        try:
            exchange_end = 2 + raw[1]
            if exchange_end + 2 + raw[exchange_end] != len(raw):
                raise IndexError
        except IndexError:
            raise ProtocolError(f"a malformed basic.deliver on channel {channel}") from None
        if len(self._origins) >= MAX_ORIGINS:
            self._origins.clear()
        if len(self._starts) >= MAX_STARTS:
            self._starts.clear()
        origin = self._origins[raw] = raw[0] != 0, raw[2:exchange_end], raw[exchange_end + 1 : -1]
        consumer, number = frame[12:tag_at], channel.to_bytes(2, "big")
        start = len(frame), channel, consumer, b"\x02" + number, b"\xce\x03" + number
        self._starts[frame[:tag_at]] = start
        return Delivery(channel, consumer, _DELIVERY_TAG.unpack_from(frame, tag_at)[0], *origin)

    def _open(self, channel: int, event: Delivery | Returned) -> None:
        if channel in self._assemblies:
            raise ProtocolError(f"a method with content on channel {channel} inside the content of another")
        self._assemblies[channel] = _Assembly(event)

    def _fill(self, kind: int, channel: int, data: bytes, start: int, end: int) -> Delivery | Returned | None:
        """Take the payload ``data[start:end]`` of a header or body frame; returns the event that it completes."""
        if kind not in (_BODY, _HEADER):
            raise ProtocolError(f"frame of unknown type {kind} on channel {channel}")
        assembly = self._assemblies.get(channel)
        if assembly is None or (kind == _HEADER) != (assembly.missing < 0):
            raise ProtocolError(f"a content frame out of place on channel {channel}")
        event = assembly.event
        if kind == _HEADER:
            if end - start < _MIN_HEADER_SIZE:
                raise ProtocolError(f"a truncated content header on channel {channel}")
            assembly.missing = _CONTENT_HEAD.unpack_from(data, start)[2]
            event.properties = data[start + _CONTENT_HEAD_SIZE : end]
        else:
            assembly.missing -= end - start
            if assembly.missing < 0:
                raise ProtocolError(f"a body on channel {channel} is longer than its header announced")
            assembly.chunks.append(data[start:end])
        if assembly.missing:
            return None
        del self._assemblies[channel]
        event.body = b"".join(assembly.chunks)
        return event

    def forget_channel(self, channel: int) -> None:
        """The channel was closed: content that was under way on it will not come."""
        self._assemblies.pop(channel, None)


def _read_return(data: bytes, position: int, end: int, channel: int) -> Returned:
    try:
        code = _REPLY_CODE.unpack_from(data, position)[0]
        position += 2
        texts = []
        for _ in range(3):
            behind = position + 1 + data[position]
            texts.append(data[position + 1 : behind])
            position = behind
        if position != end:
            raise IndexError
    except (IndexError, struct.error):
        raise ProtocolError(f"a malformed basic.return on channel {channel}") from None
    return Returned(channel, code, *texts)


def encode_ack(channel: int, delivery_tag: int, multiple: bool) -> bytes:
    """A basic.ack frame."""
    return _ACK_FRAME.pack(_METHOD, channel, 13, 60, 80, delivery_tag, multiple, FRAME_END)


def encode_nack(channel: int, delivery_tag: int, multiple: bool, requeue: bool) -> bytes:
    """A basic.nack frame (a RabbitMQ extension, https://www.rabbitmq.com/nack)."""
    return _ACK_FRAME.pack(_METHOD, channel, 13, 60, 120, delivery_tag, multiple | requeue << 1, FRAME_END)


def encode_reject(channel: int, delivery_tag: int, requeue: bool) -> bytes:
    """A basic.reject frame."""
    return _ACK_FRAME.pack(_METHOD, channel, 13, 60, 90, delivery_tag, requeue, FRAME_END)


# The frames of a publish, cut where properties and body go in: a piece begins with the end of the frame before.
_PUBLISH_HEAD = struct.Struct(">BHIHHHB")  # frame head, class 60, method 40, reserved, length of the exchange's name
_PUBLISH_TAIL = struct.Struct(">BBBH")  # `mandatory`, frame end; type and channel of the header frame
_HEADER_HEAD = struct.Struct(">IHHQ")  # the rest of its head: size; class 60, weight, body size
_BODY_HEAD = struct.Struct(">BBHI")  # frame end; frame head


@lru_cache(maxsize=16_384)  # they repeat as senders and topics do; at some 400 bytes, 6 MB at most
def _publish_front(channel: int, exchange: bytes, routing_key: bytes, mandatory: bool) -> bytes:
    """A basic.publish up to the size of its header frame, which is the first that depends on the message.

    :raises Unencodable: a name is over 255 bytes.
    """
    exchange_size, key_size = len(exchange), len(routing_key)
    if exchange_size > 255 or key_size > 255:
        raise Unencodable(f"exchange or routing key over 255 bytes: {exchange!r}, {routing_key!r}")
    head = _PUBLISH_HEAD.pack(_METHOD, channel, 9 + exchange_size + key_size, 60, 40, 0, exchange_size)
    tail = _PUBLISH_TAIL.pack(mandatory, FRAME_END, _HEADER, channel)
    return b"".join((head, exchange, bytes((key_size,)), routing_key, tail))


def encode_publish(
    channel: int,
    exchange: bytes,
    routing_key: bytes,
    properties: bytes,
    body: bytes,
    frame_max: int,
    mandatory: bool = True,
) -> bytes:
    """The frames of one basic.publish with its content, as `publish_pieces` has them, in one piece.

    :raises Unencodable: as there.
    """
    return b"".join(publish_pieces(channel, exchange, routing_key, properties, body, frame_max, mandatory))


def publish_pieces(
    channel: int,
    exchange: bytes,
    routing_key: bytes,
    properties: bytes,
    body: bytes,
    frame_max: int,
    mandatory: bool = True,
) -> tuple[bytes, ...]:
    """The frames of one basic.publish with its content, in pieces: who writes many joins them once. The body is cut so
    that no frame is over `frame_max` bytes.

    `properties` is a content header from the property flags on.

    :raises Unencodable: a name is over 255 bytes, or the properties do not fit in a frame.
    """
    front = _publish_front(channel, exchange, routing_key, mandatory)
    header_size, body_size = _CONTENT_HEAD_SIZE + len(properties), len(body)
    limit = frame_max - FRAME_OVERHEAD
    if header_size > limit:
        raise Unencodable(f"message properties of {len(properties)} bytes do not fit in a frame of {frame_max}")
    head = _HEADER_HEAD.pack(header_size, 60, 0, body_size)
    if 0 < body_size <= limit:
        return front, head, properties, _BODY_HEAD.pack(FRAME_END, _BODY, channel, body_size), body, b"\xce"
    pieces = [front, head, properties]
    for start in range(0, body_size, limit):
        chunk = body[start : start + limit]
        pieces += (_BODY_HEAD.pack(FRAME_END, _BODY, channel, len(chunk)), chunk)
    return (*pieces, b"\xce")
