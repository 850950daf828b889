"""A gate that is always open: answers go straight to the settlements, and a target's trouble is noted."""

from __future__ import annotations

from collections.abc import Sequence

from zope.interface import implementer

from amqprouter.pipeline.ports import IGate
from amqprouter.pipeline.settlement import Settlement, deliver_all


@implementer(IGate)
class OpenGate:
    """Passes answers on. What a target gives back is in `requeued`, and is delivered nowhere."""

    def __init__(self) -> None:
        self.requeued: list[tuple[Settlement, str]] = []
        self.stumbles: list[str] = []

    def delivered(self, settlement: Settlement) -> None:
        settlement.delivered()

    def delivered_all(self, settlements: Sequence[Settlement]) -> None:
        deliver_all(settlements)

    def refused(self, settlement: Settlement, reason: str) -> None:
        settlement.refused(reason)

    def troubled(self, settlement: Settlement, reason: str) -> None:
        self.requeued.append((settlement, reason))

    def stumbled(self, reason: str) -> None:
        self.stumbles.append(reason)
