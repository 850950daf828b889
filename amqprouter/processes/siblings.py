"""What a process asks of the others: through the supervisor, which knows who they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from amqprouter.errors import ControlUnavailable
from amqprouter.processes.channel import Answering, ProcessChannel
from amqprouter.web.siblings import AllAnswers

MARGIN = 1.0
"""Seconds that the supervisor has on top of what the others have."""


class ThroughSupervisor:
    """The `Siblings` of the process of this number; `use` is called once there is a connection."""

    def __init__(self, number: int) -> None:
        self.number = number
        self._provided: dict[str, Answering] = {"alive": lambda: None}
        self._channel: ProcessChannel | None = None

    def use(self, channel: ProcessChannel) -> None:
        """Ask over this channel."""
        self._channel = channel

    def commands(self, stop: Callable[[], None]) -> Mapping[str, Answering]:
        """What this process answers; what is provided later is in it too."""
        self._provided["stop"] = stop
        return self._provided

    def provide(self, command: str, answer: Callable[..., Any]) -> None:
        """See `amqprouter.web.siblings.Siblings`."""
        self._provided[command] = answer

    async def all(self, command: str, arguments: Mapping[str, Any] | None = None, within: float = 5.0) -> AllAnswers:
        """See `amqprouter.web.siblings.Siblings`."""
        question = {"command": command, "arguments": dict(arguments or {}), "within": within}
        return AllAnswers(**await self._asked.ask("all", question, within + MARGIN))

    def tell_others(self, command: str, arguments: Mapping[str, Any]) -> None:
        """See `amqprouter.web.siblings.Siblings`."""
        if self._channel is not None:
            self._channel.tell("others", {"command": command, "arguments": dict(arguments)})

    def tell(self, command: str) -> None:
        """See `amqprouter.web.siblings.Siblings`."""
        if self._channel is not None:
            self._channel.tell(command)

    @property
    def _asked(self) -> ProcessChannel:
        if self._channel is None:
            raise ControlUnavailable("there is no connection to the supervisor yet")
        return self._channel
