"""What devices send in the benchmarks, as publishes to the broker and as deliveries from it."""

from __future__ import annotations

import json
import secrets as randomness
import struct

from amqprouter.amqp.properties import encode_properties
from amqprouter.amqp.wire import FRAME_END, encode_publish
from benchmarks.layout import BODY_BYTES, DEVICES, SOURCE_EXCHANGE

_HEAD = struct.Struct(">BHI")


def device_secrets() -> dict[str, str]:
    """A random secret for every device."""
    return {device: randomness.token_urlsafe(24) for device in DEVICES}


def message(device: str, secret: str, number: int, persistent: bool = True) -> tuple[bytes, bytes, bytes]:
    """Routing key, properties and body as a device's own library would send them."""
    reading = {"seq": number, "celsius": 21.5, "pad": ""}
    reading["pad"] = "x" * (BODY_BYTES - len(json.dumps(reading)))
    properties = encode_properties(
        content_type="application/json",
        headers={"x-device-secret": secret, "unit": "C"},
        delivery_mode=2 if persistent else 1,
        message_id=f"{device}-{number:08d}",
        timestamp=1_700_000_000 + number,
    )
    return f"{device}.up.reading".encode(), properties, json.dumps(reading).encode()


def publishes(channel: int, frame_max: int, secrets: dict[str, str], each: int, persistent: bool) -> list[bytes]:
    """Encoded publishes of `each` messages of every device, devices taking turns."""
    exchange = SOURCE_EXCHANGE.encode()
    return [
        encode_publish(channel, exchange, *message(device, secrets[device], number, persistent), frame_max)
        for number in range(each)
        for device in DEVICES
    ]


def deliveries_as_bytes(count: int) -> bytes:
    """What a broker sends on channel 1 for this many messages, devices taking turns."""
    return b"".join(
        _delivery(tag, *message(DEVICES[tag % len(DEVICES)], f"secret of {DEVICES[tag % len(DEVICES)]}", tag))
        for tag in range(1, count + 1)
    )


def _delivery(tag: int, key: bytes, properties: bytes, body: bytes) -> bytes:
    consumer, exchange = f"amqprouter:device.{key.partition(b'.')[0].decode()}".encode(), SOURCE_EXCHANGE.encode()
    deliver = b"".join(
        (
            struct.pack(">HHB", 60, 60, len(consumer)) + consumer,
            struct.pack(">QBB", tag, 0, len(exchange)) + exchange,
            bytes((len(key),)) + key,
        )
    )
    header = struct.pack(">HHQ", 60, 0, len(body)) + properties
    return b"".join(_frame(kind, payload) for kind, payload in ((1, deliver), (2, header), (3, body)))


def _frame(kind: int, payload: bytes) -> bytes:
    return _HEAD.pack(kind, 1, len(payload)) + payload + bytes((FRAME_END,))
