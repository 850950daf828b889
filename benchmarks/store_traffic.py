"""What devices send in ``benchmarks.store``: JSON with objects in objects, every message with a number of its own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from itertools import islice

from amqprouter.amqp.properties import encode_properties
from amqprouter.amqp.wire import encode_publish
from benchmarks.layout import DEVICES
from benchmarks.sink import message_id

SIZES = (100, 256, 4096)
"""Bytes of a body."""
BLOCK = 500
"""Messages in one write."""
_SEQUENCE = 10**9
"""Added to a message's number in its body: so all numbers have as many digits, and all bodies of a size are alike."""


def reading(size: int, number: int) -> bytes:
    """The JSON text that a device sends as its message of this number: exactly `size` bytes, 100 at least."""
    sensors: list[dict[str, object]] = []
    text = _text(number, sensors, 0)
    while True:
        place = len(sensors)
        value = {"min": round(19.5 + place / 7, 3), "max": round(23.25 + place / 3, 3), "ok": place % 5 != 4}
        more = _text(number, [*sensors, {"id": f"s{place:02d}", "value": value}], 0)
        if len(more) > size:
            return _text(number, sensors, size - len(text)).encode()
        sensors.append({"id": f"s{place:02d}", "value": value})
        text = more


def _text(number: int, sensors: list[dict[str, object]], pad: int) -> str:
    fields: dict[str, object] = {"seq": _SEQUENCE + number, "air": {"celsius": 21.53, "percent": 40}}
    if sensors:
        fields["sensors"] = sensors
    return json.dumps(fields | {"pad": "x" * pad})


class Readings:
    """Makes messages of one size, cheaply: bodies differ only in their number.

    `exchange` is where they are published; `secrets` has a secret for each device.
    """

    def __init__(self, size: int, exchange: str, secrets: dict[str, str]) -> None:
        self._before, _, self._after = reading(size, 0).partition(b"%d" % _SEQUENCE)
        self._exchange = exchange.encode()
        self._secrets = secrets

    def one(self, channel: int, frame_max: int, number: int) -> bytes:
        """The publish of the message of this number; devices take turns."""
        device = DEVICES[number % len(DEVICES)]
        properties = encode_properties(
            content_type="application/json",
            headers={"x-device-secret": self._secrets[device], "unit": "C"},
            delivery_mode=2,
            message_id=message_id(device, number),
            timestamp=1_700_000_000 + number,
        )
        body = b"%b%d%b" % (self._before, _SEQUENCE + number, self._after)
        return encode_publish(channel, self._exchange, f"{device}.up.reading".encode(), properties, body, frame_max)

    def encoder(self, first: int, count: int) -> Callable[[int, int], Iterable[bytes]]:
        """For `Workbench.send`: the messages from `first` on, in blocks."""

        def encode(channel: int, frame_max: int) -> Iterable[bytes]:
            numbers = iter(range(first, first + count))
            while block := list(islice(numbers, BLOCK)):
                yield b"".join([self.one(channel, frame_max, number) for number in block])

        return encode
