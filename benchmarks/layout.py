"""Names on the private broker that measured programs and the programs that measure agree on."""

from __future__ import annotations

DEVICES = [f"meter-{number:03d}" for number in range(100)]
SOURCE_EXCHANGE = "feed"
TARGET_EXCHANGE = "out"
TARGET_QUEUE = "out"
BODY_BYTES = 256


def queue_of(device: str) -> str:
    """The queue that holds one device's messages and no other's."""
    return f"device.{device}"


QUEUES = [queue_of(device) for device in DEVICES]
