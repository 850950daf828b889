"""Who is told what became of a publish: a receipt for one message, or a lane for all messages of one target."""

from __future__ import annotations

from typing import Any, Protocol


class Receipt(Protocol):
    """Who wants to know what became of a publish."""

    def delivered(self) -> None:
        """The broker has it."""

    def refused(self, reason: str) -> None:
        """The broker never will."""


class Lane(Protocol):
    """Answers for all publishes of one target, each known by its receipt."""

    def delivered(self, receipt: Any) -> None:
        """The broker has it."""

    def refused(self, receipt: Any, reason: str) -> None:
        """The broker never will."""

    def troubled(self, receipt: Any, reason: str) -> None:
        """Not now, and the message is not to blame: it is the lane's again."""
