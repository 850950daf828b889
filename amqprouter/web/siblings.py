"""The other processes of the same service, for what whichever process is asked must know of all.

A protocol: `amqprouter.processes` has the one that asks. Where there is a single process, there are no siblings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True)
class AllAnswers:
    """What all processes say, this one among them."""

    by_process: Mapping[str, Any] = field(default_factory=dict)
    """By number, of those that have answered."""
    problems: Mapping[str, str] = field(default_factory=dict)
    """By number, why another one has not."""
    processes: tuple[Mapping[str, Any], ...] = ()
    """What the supervisor knows of each: ``process``, ``pid``, ``version``, ``state``, ``starts``, ``problem``."""
    supervisor: Mapping[str, Any] = field(default_factory=dict)
    """Its own figures."""


class Siblings(Protocol):
    """How to reach them."""

    number: int
    """Of this process, from 1."""

    def provide(self, command: str, answer: Callable[..., Any]) -> None:
        """Answer this command of siblings, and of the supervisor, with what this function returns."""

    async def all(self, command: str, arguments: Mapping[str, Any] | None = None, within: float = 5.0) -> AllAnswers:
        """What all answer, this process too. Those that have not within so many seconds are among the problems.

        :raises ControlUnavailable: the supervisor does not answer.
        """

    def tell(self, command: str) -> None:
        """Have the supervisor do this; what becomes of it is in the log."""

    def tell_others(self, command: str, arguments: Mapping[str, Any]) -> None:
        """Have the others know, as soon as may be; that they do is not told."""
