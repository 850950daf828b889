"""A fleet of make-believe devices, good and bad: who they are, when each sends, and what.

Pure: the time is an argument and the randomness is given, so a seed gives the same fleet and the same messages again.
"""

from __future__ import annotations

import heapq
import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from hashlib import sha256

from amqprouter.amqp.field_table import FieldValue
from amqprouter.amqp.properties import encode_properties

WRONG_SECRET = "not-the-secret"
MOST_OVERDUE = 1.0
"""Seconds that a device which was held up may be behind its plan; it skips what is older than that."""


class DeviceKind(Enum):
    """How a device behaves."""

    GOOD = "good"
    NOISY = "noisy"
    """Well-meaning, and far over its rate."""
    UNAUTHENTICATED = "unauthenticated"
    """Without its secret: every other one sends a wrong one, the others send none."""
    UNAUTHORISED = "unauthorised"
    """Uses a topic that the access list does not give it."""
    MALFORMED = "malformed"
    """Promises JSON and sends something else."""


_NAMES = {
    DeviceKind.GOOD: "meter",
    DeviceKind.NOISY: "noisy",
    DeviceKind.UNAUTHENTICATED: "stranger",
    DeviceKind.UNAUTHORISED: "trespasser",
    DeviceKind.MALFORMED: "garbler",
}
TOPIC, FORBIDDEN_TOPIC = "sensor.climate", "admin.firmware"
ACL = "* -> %d.sensor.#"
"""The line of the devices' access list that allows the one and not the other."""


@dataclass(frozen=True)
class FleetDevice:
    """One device; `secret` is what it sends, None for nothing, and `rate` is in messages a second."""

    id: str
    kind: DeviceKind
    rate: float
    secret: str | None = None

    @property
    def topic(self) -> str:
        return FORBIDDEN_TOPIC if self.kind is DeviceKind.UNAUTHORISED else TOPIC


def device_ids(counts: Mapping[DeviceKind, int]) -> dict[str, DeviceKind]:
    """The ids of a fleet with so many of each kind."""
    return {f"{_NAMES[kind]}-{number:04d}": kind for kind in DeviceKind for number in range(1, counts.get(kind, 0) + 1)}


def make_fleet(
    counts: Mapping[DeviceKind, int], rate: float, noisy_rate: float, secrets: Mapping[str, str] | None
) -> list[FleetDevice]:
    """The devices. With `secrets` None nobody sends one.

    :raises ValueError: a device has no secret among `secrets`.
    """
    fleet = []
    for number, (name, kind) in enumerate(device_ids(counts).items()):
        secret = None
        if secrets is not None:
            if kind is DeviceKind.UNAUTHENTICATED:
                secret = WRONG_SECRET if number % 2 else None
            elif name in secrets:
                secret = secrets[name]
            else:
                raise ValueError(f"no secret for {name}; `amqprouter simulate --prepare` with the same counts makes it")
        fleet.append(FleetDevice(name, kind, noisy_rate if kind is DeviceKind.NOISY else rate, secret))
    return fleet


class Plan:
    """Who sends when: each device at its rate, the pauses between half and one and a half of what is even."""

    def __init__(self, fleet: list[FleetDevice], randomness: random.Random, now: float) -> None:
        self._random = randomness.random
        # The number keeps the heap from comparing devices.
        self._next = [(now + self._random() / device.rate, n, device) for n, device in enumerate(fleet)]
        heapq.heapify(self._next)

    def due(self, now: float, most: int) -> list[FleetDevice]:
        """Whose turn has come by `now`, in order, at most `most` of them."""
        turns: list[FleetDevice] = []
        queue = self._next
        while queue and len(turns) < most and queue[0][0] <= now:
            at, number, device = queue[0]
            pause = (0.5 + self._random()) / device.rate
            heapq.heapreplace(queue, (max(at, now - MOST_OVERDUE) + pause, number, device))
            turns.append(device)
        return turns


@dataclass(frozen=True)
class DeviceReading:
    """One message of a device."""

    message_id: str
    routing_key: str
    properties: bytes
    body: bytes

    def digest(self) -> str:
        """The body's SHA-256, in hexadecimal."""
        return sha256(self.body).hexdigest()


class Readings:
    """Makes the messages; `run` keeps the message ids of one run apart from another's."""

    def __init__(self, run: str, secret_header: str, randomness: random.Random) -> None:
        self._run = run
        self._secret_header = secret_header
        self._random = randomness
        self._count = 0

    def next(self, device: FleetDevice, at: float) -> DeviceReading:
        """The device's next message; `at` is seconds since 1970."""
        self._count += 1
        uniform = self._random.uniform
        values = {
            "n": self._count,
            "temperature": round(uniform(15, 30), 2),
            "humidity": round(uniform(20, 90), 1),
            "battery": round(uniform(3.0, 4.2), 3),
        }
        body = json.dumps(values, separators=(",", ":")).encode()
        if device.kind is DeviceKind.MALFORMED:
            body = body[:-1] + b',"battery":'
        headers: dict[str, FieldValue] = {} if device.secret is None else {self._secret_header: device.secret}
        message_id = f"{self._run}-{self._count}"
        properties = encode_properties(
            content_type="application/json", headers=headers, message_id=message_id, timestamp=int(at)
        )
        return DeviceReading(message_id, f"{device.id}.{device.topic}", properties, body)
