"""Cayenne LPP (https://github.com/myDevicesIoT/CayenneLPP): a channel, a type and a value, again and again."""

from __future__ import annotations

import base64
import json
from typing import Any

from zope.interface import implementer

from amqprouter.errors import Undecodable
from amqprouter.interfaces import BodyInfo, IDecoder

_TYPES: dict[int, tuple[str, tuple[tuple[str, int, float], ...], bool]] = {
    0: ("digital_input", (("", 1, 1),), False),
    1: ("digital_output", (("", 1, 1),), False),
    2: ("analog_input", (("", 2, 100),), True),
    3: ("analog_output", (("", 2, 100),), True),
    101: ("illuminance", (("", 2, 1),), False),
    102: ("presence", (("", 1, 1),), False),
    103: ("temperature", (("", 2, 10),), True),
    104: ("humidity", (("", 1, 2),), False),
    113: ("acceleration", (("x", 2, 1000), ("y", 2, 1000), ("z", 2, 1000)), True),
    115: ("pressure", (("", 2, 10),), False),
    136: ("location", (("latitude", 3, 10_000), ("longitude", 3, 10_000), ("altitude", 3, 100)), True),
}
"""By number: what it is called; its parts, each with bytes and what they are divided by; and whether it has a sign."""


@implementer(IDecoder)
class LppDecoder:
    """Puts what is in ``data`` of a ChirpStack event into its ``object``, as ``temperature_3`` for channel 3.

    :param port: LPP comes on this LoRaWAN port, and events of others are left as they are; on any when None.
    """

    def __init__(self, port: int | None) -> None:
        self._port = port

    def decode(self, body: bytes, info: BodyInfo) -> object:
        """An event that is no uplink (``join``, ``ack``…) has no ``data``, and is left as it is."""
        try:
            event: Any = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise Undecodable("bad-json", type(error).__name__) from None
        if not isinstance(event, dict) or "data" not in event or self._port not in (None, event.get("fPort")):
            return event
        try:
            data = base64.b64decode(event["data"], validate=True)
        except (TypeError, ValueError):
            raise Undecodable("bad-lpp", "data is no base64") from None
        return {**event, "object": _measurements(data)}


def _measurements(data: bytes) -> dict[str, object]:
    """All of them; the work is bounded by the bytes."""
    found: dict[str, object] = {}
    place = 0
    while place < len(data):
        channel, kind = data[place], data[place + 1 : place + 2]
        if not kind or kind[0] not in _TYPES:
            raise Undecodable("bad-lpp", f"no type at byte {place + 1}" if not kind else f"type {kind[0]}")
        name, parts, signed = _TYPES[kind[0]]
        place += 2
        values: dict[str, object] = {}
        for part, size, divisor in parts:
            octets = data[place : place + size]
            if len(octets) < size:
                raise Undecodable("bad-lpp", f"it ends within {name}_{channel}")
            number = int.from_bytes(octets, "big", signed=signed)
            values[part] = number if divisor == 1 else number / divisor
            place += size
        found[f"{name}_{channel}"] = values.get("", values)
    return found
