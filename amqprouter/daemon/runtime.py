"""What every part of the daemon is made with: the settings, and what would be a global elsewhere.

A module of its own, for each part imports it, and `amqprouter.daemon.build` imports the parts.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from twisted.application import strports
from twisted.application.service import Service
from twisted.internet.interfaces import IProtocolFactory

from amqprouter.clock import SteadyClock
from amqprouter.counters import Counters
from amqprouter.pipeline.bodies import Bodies
from amqprouter.pipeline.latency import Latencies
from amqprouter.settings import Settings
from amqprouter.web.siblings import Siblings

Listen = Callable[[str, str, IProtocolFactory], Service | None]
"""(section, endpoint string, what answers) → a service that listens there; None where nobody may."""


def listen_by(reactor: Any) -> Listen:
    """Listening by oneself."""

    def listen(section: str, text: str, factory: IProtocolFactory) -> Service | None:
        service: Service = strports.service(text, factory, reactor=reactor)
        return service

    return listen


@dataclass(frozen=True)
class Runtime:
    """Passed to the functions that wire a part."""

    settings: Settings
    reactor: Any
    clock: SteadyClock
    """Durations are measured by it."""
    wall_clock: Callable[[], float]
    """Seconds since 1970."""
    randomness: random.Random
    """For jitter and ids, no secrets."""
    counters: Counters
    latencies: Latencies
    bodies: Bodies
    """What messages' bodies are."""
    listen: Listen
    siblings: Siblings | None = None
    """The other processes of the service; None where there is one."""

    def random_id(self) -> UUID:
        """An id that nothing else has."""
        return UUID(int=self.randomness.getrandbits(128), version=4)
