"""Frames are sliced and written as pamqp, an independent codec, reads and writes them, however they are chunked."""

from __future__ import annotations

import struct
import time
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from pamqp import body, commands, frame, header, heartbeat
from twisted.trial.unittest import SynchronousTestCase

from amqprouter.amqp import wire
from amqprouter.amqp.properties import Properties, encode_properties
from amqprouter.amqp.wire import (
    HEADER_ALLOWANCE,
    HEARTBEAT_FRAME,
    MIN_FRAME_MAX,
    Confirm,
    Delivery,
    FrameReader,
    MethodFrame,
    Returned,
    encode_ack,
    encode_nack,
    encode_publish,
    encode_reject,
)
from amqprouter.errors import ProtocolError, Unencodable
from tests.fuzz.fuzz_wire import Event, one_input, plain, read

NAMES = st.text(max_size=63)  # 255 bytes of UTF-8 at most
EXCHANGES = st.text("aZ09-_.:@# ", max_size=255)  # pamqp takes no others, RabbitMQ does
CHANNELS = st.integers(1, 0xFFFF)
TAGS = st.integers(1, 2**63 - 1)  # pamqp packs them signed
BODIES = st.one_of(st.binary(max_size=64), st.integers(0, 3 * MIN_FRAME_MAX).map(bytes))
PROPERTIES = st.builds(
    commands.Basic.Properties,
    content_type=st.sampled_from([None, "application/json"]),
    headers=st.none()
    | st.dictionaries(st.text(max_size=31), st.text(max_size=20) | st.integers(0, 2**31 - 1), max_size=3),
    message_id=st.none() | NAMES,
)


def content_frames(channel: int, properties: Any, content: bytes, size: int = MIN_FRAME_MAX) -> list[bytes]:
    """Header and body frames by pamqp."""
    frames = [frame.marshal(header.ContentHeader(0, len(content), properties), channel)]
    step = size - 8
    return frames + [
        frame.marshal(body.ContentBody(content[start : start + step]), channel)
        for start in range(0, len(content), step)
    ]


def raw(properties: Any) -> bytes:
    """The bytes from the property flags on, by pamqp."""
    return bytes(header.ContentHeader(0, 0, properties).marshal()[12:])


@st.composite
def one_method(draw: st.DrawFn) -> tuple[list[bytes], Event]:
    """The frames of one method with its content, and the event that they are to become."""
    channel, tag, flag = draw(CHANNELS), draw(TAGS), draw(st.booleans())
    exchange, key, name = draw(EXCHANGES), draw(NAMES), draw(NAMES)
    event: Delivery | Returned | Confirm | MethodFrame
    kind = draw(st.sampled_from(["deliver", "return", "ack", "nack", "other"]))
    if kind in ("deliver", "return"):
        properties, content = draw(PROPERTIES), draw(BODIES)
        command: Any
        if kind == "deliver":
            command = commands.Basic.Deliver(name, tag, flag, exchange, key)
            event = Delivery(
                channel, name.encode(), tag, flag, exchange.encode(), key.encode(), raw(properties), content
            )
        else:
            command = commands.Basic.Return(312, name, exchange, key)
            event = Returned(channel, 312, name.encode(), exchange.encode(), key.encode(), raw(properties), content)
        return [frame.marshal(command, channel), *content_frames(channel, properties, content)], plain(event)
    if kind == "ack":
        data = frame.marshal(commands.Basic.Ack(tag, flag), channel)
        event = Confirm(channel, tag, flag, True)
    elif kind == "nack":
        requeue = draw(st.booleans())  # means nothing from the broker
        data = frame.marshal(commands.Basic.Nack(tag, flag, requeue), channel)
        event = Confirm(channel, tag, flag, False)
    else:
        data = frame.marshal(commands.Basic.Cancel(name, flag), channel)
        event = MethodFrame(channel, data)
    return [data], plain(event)


def chunked(data: bytes, sizes: list[int]) -> list[bytes]:
    """`data` cut into pieces of these sizes, over and over."""
    pieces, position, turn = [], 0, 0
    while position < len(data):
        size = sizes[turn % len(sizes)]
        pieces.append(data[position : position + size])
        position, turn = position + size, turn + 1
    return pieces


class ReadingTests(SynchronousTestCase):
    @given(st.lists(one_method(), max_size=6), st.lists(st.integers(1, 5000), min_size=1, max_size=5), st.data())
    @settings(max_examples=150, deadline=None)
    def test_any_methods_in_any_chunks(
        self, methods: list[tuple[list[bytes], Event]], sizes: list[int], data: st.DataObject
    ) -> None:
        """With heartbeats in between, each method's content is found whole."""
        pieces = []
        for frames, _ in methods:
            for piece in frames:
                pieces.append(piece)
                if data.draw(st.booleans()):
                    pieces.append(heartbeat.Heartbeat().marshal())
        stream = b"".join(pieces)
        expected = [event for _, event in methods]
        self.assertEqual(read([stream]), expected)
        self.assertEqual(read(chunked(stream, sizes)), expected)

    @given(st.lists(st.tuples(PROPERTIES, BODIES), min_size=2, max_size=4), st.randoms(use_true_random=False))
    @settings(max_examples=60, deadline=None)
    def test_interleaved_channels(self, contents: list[tuple[Any, bytes]], random: Any) -> None:
        """Frames of one channel keep their order, frames of several may mix (section 4.2.6)."""
        queues = [
            [
                frame.marshal(commands.Basic.Deliver("tag", 1, False, "", "key"), channel),
                *content_frames(channel, properties, content),
            ]
            for channel, (properties, content) in enumerate(contents, 1)
        ]
        pieces = []
        while any(queues):
            pieces.append(random.choice([queue for queue in queues if queue]).pop(0))
        expected = {
            plain(Delivery(channel, b"tag", 1, False, b"", b"key", raw(properties), content))
            for channel, (properties, content) in enumerate(contents, 1)
        }
        for chunks in ([b"".join(pieces)], pieces, chunked(b"".join(pieces), [1])):
            events = read(chunks)
            assert events is not None
            self.assertEqual(set(events), expected)
            self.assertEqual(len(events), len(expected))

    def test_senders_are_read_once(self) -> None:
        """And their names are the same objects in every message; of whom there are too many, all are read again."""
        self.patch(wire, "MAX_ORIGINS", 2)
        reader = FrameReader()

        def came(key: str, redelivered: bool = False) -> Delivery:
            deliver = frame.marshal(commands.Basic.Deliver("tag", 1, redelivered, "ex", key), 1)
            (event,) = reader.feed(b"".join((deliver, *content_frames(1, commands.Basic.Properties(), b""))))
            assert isinstance(event, Delivery)
            self.assertEqual((event.exchange, event.routing_key, event.redelivered), (b"ex", key.encode(), redelivered))
            return event

        first = came("dev1.up")
        self.assertIs(came("dev1.up").routing_key, first.routing_key)
        came("dev1.up", redelivered=True)
        self.assertIs(came("dev1.up").routing_key, first.routing_key)
        came("dev2.up")
        self.assertIsNot(came("dev1.up").routing_key, first.routing_key)

    @given(st.lists(one_method(), min_size=1, max_size=4), st.data())
    @settings(max_examples=200, deadline=None)
    def test_what_began_so_before(self, methods: list[tuple[list[bytes], Event]], data: st.DataObject) -> None:
        """Deliveries whose beginnings are known are read, or refused, as by a reader that knows nothing yet."""
        stream = b"".join(b"".join(frames) for frames, _ in methods)
        expected = [event for _, event in methods]
        self.assertEqual(read([stream, stream]), 2 * expected)
        damaged = bytearray(stream)
        for _ in range(data.draw(st.integers(1, 3))):
            damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
        alone = read([bytes(damaged)])
        self.assertEqual(read([stream, bytes(damaged)]), None if alone is None else expected + alone)

    def test_every_byte_matters_where_the_beginning_is_known(self) -> None:
        stream = b"".join(
            [
                frame.marshal(commands.Basic.Deliver("tag", 1, False, "ex", "key"), 1),
                *content_frames(1, commands.Basic.Properties(message_id="id"), b"body"),
            ]
        )
        for place in range(len(stream)):
            for value in (0, 1, stream[place] ^ 1, 0xCE, 0xFF):
                damaged = stream[:place] + bytes((value,)) + stream[place + 1 :]
                alone, known = read([damaged]), read([stream, damaged])
                self.assertEqual(None if known is None else known[1:], alone, (place, value))

    def test_beginnings_are_not_kept_without_bound(self) -> None:
        """Nor does it matter when they are forgotten."""
        self.patch(wire, "MAX_STARTS", 3)
        reader = FrameReader()
        for turn in range(2):
            for number in range(10):
                deliver = frame.marshal(commands.Basic.Deliver(f"tag{number}", 1, False, "ex", "key"), 1)
                (event,) = reader.feed(b"".join((deliver, *content_frames(1, commands.Basic.Properties(), b"b"))))
                assert isinstance(event, Delivery)
                self.assertEqual((turn, event.consumer_tag), (turn, f"tag{number}".encode()))
                self.assertLessEqual(len(reader._starts), 3)

    def test_a_closed_channel_forgets_its_content(self) -> None:
        """What comes on the recycled number is not taken for the rest of it."""
        deliver = frame.marshal(commands.Basic.Deliver("tag", 1, False, "", "key"), 1)
        reader = FrameReader()
        self.assertEqual(reader.feed(deliver), [])
        reader.forget_channel(1)
        again = [deliver, *content_frames(1, commands.Basic.Properties(), b"new")]
        (event,) = reader.feed(b"".join(again))
        assert isinstance(event, Delivery)
        self.assertEqual(event.body, b"new")

    def test_one_byte_at_a_time_is_not_quadratic(self) -> None:
        """131,072 chunks of one byte take well under a second; quadratic copying would take half a minute."""
        content = bytes(131_072 - 8)
        stream = b"".join(
            [
                frame.marshal(commands.Basic.Deliver("tag", 1, False, "", "key"), 1),
                *content_frames(1, commands.Basic.Properties(), content, 131_072),
            ]
        )
        started = time.process_time()
        events = read(chunked(stream, [1]), 131_072)
        self.assertLess(time.process_time() - started, 3)
        assert events is not None
        self.assertEqual(events[0][-1], content)

    @given(st.binary(max_size=300))
    @settings(max_examples=200, deadline=None)
    def test_noise(self, data: bytes) -> None:
        one_input(data)

    @given(st.lists(one_method(), min_size=1, max_size=3), st.data())
    @settings(max_examples=150, deadline=None)
    def test_damage(self, methods: list[tuple[list[bytes], Event]], data: st.DataObject) -> None:
        """A few bytes changed, or some cut out: refused or read, but the same however it is chunked."""
        stream = bytearray(b"".join(b"".join(frames) for frames, _ in methods))
        for _ in range(data.draw(st.integers(1, 4))):
            stream[data.draw(st.integers(0, len(stream) - 1))] = data.draw(st.integers(0, 255))
        cut = data.draw(st.integers(0, len(stream)))
        del stream[cut : cut + data.draw(st.sampled_from([0, 0, 1, 8]))]
        one_input(bytes((data.draw(st.integers(0, 255)),)) + stream)


def method_frame(payload: bytes, kind: int = 1, channel: int = 1) -> bytes:
    return struct.pack(">BHI", kind, channel, len(payload)) + payload + b"\xce"


DELIVER = frame.marshal(commands.Basic.Deliver("tag", 1, False, "ex", "key"), 1)
CONTENT = content_frames(1, commands.Basic.Properties(message_id="id"), b"body")
RETURN = frame.marshal(commands.Basic.Return(312, "NO_ROUTE", "ex", "key"), 1)
BREACHES = {
    "wrong frame end": DELIVER[:-1] + b"\xcd",
    "oversized method": method_frame(bytes(MIN_FRAME_MAX - 7)),
    "oversized, only announced": struct.pack(">BHI", 1, 1, 2**32 - 1) + b"\x00",
    "oversized header": DELIVER + method_frame(bytes(MIN_FRAME_MAX + HEADER_ALLOWANCE - 7), 2),
    "oversized body": DELIVER + CONTENT[0] + method_frame(bytes(MIN_FRAME_MAX - 7), 3),
    "not AMQP": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "protocol header": b"AMQP\x00\x00\x09\x01",
    "unknown frame type": method_frame(b"", 4),
    "truncated deliver": method_frame(DELIVER[7:-2]),
    "deliver with more behind": method_frame(DELIVER[7:-1] + b"\x00"),
    "deliver without arguments": method_frame(DELIVER[7:11]),
    "truncated return": method_frame(RETURN[7:-2]),
    "return with more behind": method_frame(RETURN[7:-1] + b"\x00"),
    "short confirm": method_frame(struct.pack(">HHQ", 60, 80, 1)),
    "long nack": method_frame(struct.pack(">HHQBB", 60, 120, 1, 0, 0)),
    "header without deliver": CONTENT[0],
    "body without deliver": CONTENT[1],
    "body before header": DELIVER + CONTENT[1],
    "two headers": DELIVER + CONTENT[0] + CONTENT[0],
    "deliver inside content": DELIVER + DELIVER,
    "return inside content": DELIVER + CONTENT[0] + RETURN,
    "body too long": DELIVER + CONTENT[0] + method_frame(b"bodies", 3),
    "body in pieces too long": DELIVER + CONTENT[0] + method_frame(b"bod", 3) + method_frame(b"ies", 3),
    "truncated content header": DELIVER + method_frame(CONTENT[0][7:20], 2),
    "content header on another channel": DELIVER + content_frames(2, commands.Basic.Properties(), b"")[0],
}


class BreachTests(SynchronousTestCase):
    def test_breaches(self) -> None:
        """Whole or in single bytes, from a sender that is known or not, a breach is a ProtocolError that says what."""
        known = b"".join((DELIVER, *CONTENT))
        for name, stream in BREACHES.items():
            for chunks in ([stream], chunked(stream, [1]), [known, stream], [known + stream]):
                reader = FrameReader()
                with self.subTest(name, chunks=len(chunks)):
                    error = self.assertRaises(ProtocolError, lambda c=chunks, r=reader: [r.feed(chunk) for chunk in c])
                    self.assertRegex(str(error), "frame|confirm|basic|content|body|method")

    def test_the_largest_frame(self) -> None:
        """frame_max counts the whole frame (section 4.2.3): one of that size is legal."""
        largest = bytes(MIN_FRAME_MAX - 8)
        frames = [DELIVER, *content_frames(1, commands.Basic.Properties(), largest)]
        self.assertEqual(len(frames[2]), MIN_FRAME_MAX)
        events = read([b"".join(frames)])
        assert events is not None
        self.assertEqual(events[0][-1], largest)

    def test_a_header_that_grew(self) -> None:
        """RabbitMQ adds headers to a message that filled its frame, and sends what is too large."""
        most = MIN_FRAME_MAX + HEADER_ALLOWANCE - 8
        for size in (MIN_FRAME_MAX - 8, MIN_FRAME_MAX - 7, most):
            for method in (DELIVER, RETURN):
                properties = bytes(size - 12)
                stream = method + method_frame(struct.pack(">HHQ", 60, 0, 1) + properties, 2) + method_frame(b"b", 3)
                events = read([stream])
                assert events is not None
                self.assertEqual(events[0][-2:], (properties, b"b"))

    def test_a_huge_announced_body_takes_no_memory(self) -> None:
        reader = FrameReader()
        self.assertEqual(reader.feed(DELIVER + method_frame(struct.pack(">HHQH", 60, 0, 2**64 - 1, 0), 2)), [])


class WritingTests(SynchronousTestCase):
    @given(CHANNELS, NAMES, NAMES, PROPERTIES, BODIES, st.integers(MIN_FRAME_MAX, 3 * MIN_FRAME_MAX), st.booleans())
    @settings(max_examples=100, deadline=None)
    def test_publish(
        self, channel: int, exchange: str, key: str, properties: Any, content: bytes, frame_max: int, mandatory: bool
    ) -> None:
        """pamqp reads what we write, no frame is over frame_max, and the body comes out whole."""
        data = encode_publish(
            channel, exchange.encode(), key.encode(), raw(properties), content, frame_max, mandatory=mandatory
        )
        frames: list[Any] = []
        while data:
            used, on, one = frame.unmarshal(data)
            self.assertEqual(on, channel)
            self.assertLessEqual(used, frame_max)
            frames.append(one)
            data = data[used:]
        publish, head, *bodies = frames
        self.assertEqual((publish.exchange, publish.routing_key), (exchange, key))
        self.assertEqual((publish.mandatory, publish.immediate), (mandatory, False))
        self.assertEqual((head.body_size, head.class_id), (len(content), 60))
        self.assertEqual(raw(head.properties), raw(properties))
        self.assertEqual(b"".join(one.value for one in bodies), content)
        self.assertTrue(all(one.value for one in bodies))

    def test_bodies_around_frame_max(self) -> None:
        for size, frames in ((0, 0), (1, 1), (MIN_FRAME_MAX - 8, 1), (MIN_FRAME_MAX - 7, 2), (MIN_FRAME_MAX, 2)):
            data = encode_publish(1, b"", b"", b"\x00\x00", bytes(size), MIN_FRAME_MAX)
            head = encode_publish(1, b"", b"", b"\x00\x00", b"", MIN_FRAME_MAX)
            self.assertEqual(len(data) - len(head), size + 8 * frames)

    def test_unencodable(self) -> None:
        big = encode_properties(headers={"x": "y" * MIN_FRAME_MAX})
        self.assertEqual(Properties(big).header_count(), 1)
        for exchange, key, properties in (
            (b"e" * 256, b"", b"\x00\x00"),
            (b"", b"k" * 256, b"\x00\x00"),
            (b"", b"", big),
        ):
            self.assertRaises(Unencodable, encode_publish, 1, exchange, key, properties, b"", MIN_FRAME_MAX)

    @given(CHANNELS, TAGS, st.booleans(), st.booleans())
    def test_answers(self, channel: int, tag: int, multiple: bool, requeue: bool) -> None:
        basic = commands.Basic
        for ours, theirs in (
            (encode_ack(channel, tag, multiple), basic.Ack(tag, multiple)),
            (encode_nack(channel, tag, multiple, requeue), basic.Nack(tag, multiple, requeue)),
            (encode_reject(channel, tag, requeue), basic.Reject(tag, requeue)),
        ):
            self.assertEqual(ours, frame.marshal(theirs, channel))

    def test_heartbeat(self) -> None:
        self.assertEqual(HEARTBEAT_FRAME, heartbeat.Heartbeat().marshal())
