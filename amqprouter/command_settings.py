"""What an operator may set about commands to devices; a part of `amqprouter.settings`, which passes it on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CommandsSettings:
    """Section ``[commands]``: what users and services may send to devices."""

    enabled: bool = False
    exchange: str = ""
    """Topic exchange that commands go to, with keys ``<device id>.<topic>``; one of the daemon's own when empty."""
    queue: str = "commands.{device}"
    """A device's queue, declared and bound when it is needed; when empty, whatever is bound to the exchange."""
    topics: str = "#"
    """Topic pattern, without the device id, that commands must match."""
    limits: str = "10/s burst 20"
    """Of each device."""
    max_bytes: int = 65_536
    """Bytes of a command's body."""
    ttl: float = 60.0
    """Seconds after which a command that its device has not fetched is worthless."""
    max_length: int = 100
    """Commands that a device's queue holds; one more is refused."""
    idle: float = 604_800.0
    """Seconds after which a device's queue that nobody uses goes away; 0 for never."""
    max_queues: int = 10_000
    """Devices' queues that there may be."""
    max_queues_per_sender: int = 0
    """Of these, those that one sender's commands may have made; 0 for all but a tenth, which is for others."""
