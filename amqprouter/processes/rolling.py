"""One process after the other is exchanged for one of the code, and with the configuration, that are on disk now.

Before anything is stopped, the new code checks the configuration. Each process finishes what is under way, as at any
stop, while the others have its share; the next one follows when the new one is ready for work. One that does not start,
or is not ready in time, ends the exchange: what is left goes on as it was, and the one that failed is tried again as
after any end. The supervisor itself stays what it was until the service is restarted.
"""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from amqprouter.clock import Clock
from amqprouter.errors import AmqprouterError, ControlRefused
from amqprouter.processes.slot import Slot
from amqprouter.processes.supervisor import Supervisor

READY_WITHIN = 60.0
"""Seconds that a new process has until it is ready for work: connecting and declaring take a second or two."""
LOOK_EVERY = 0.25
"""Seconds between two questions whether it is."""
_CONFLICT = 409


class Rolling:
    """The exchange, of which there is one at a time."""

    log = Logger()

    def __init__(self, supervisor: Supervisor, clock: Clock) -> None:
        self._supervisor = supervisor
        self._clock = clock
        self._under_way = False
        self._done: list[int] = []
        self._problem = ""

    def begin(self) -> dict[str, object]:
        """Begin; `told` says how it goes.

        :raises ControlRefused: there is one under way, or the service is not all there yet.
        """
        if self._under_way:
            raise ControlRefused(_CONFLICT, "the processes are being exchanged already")
        absent = [slot.number for slot in self._supervisor.slots if slot.state != "running"]
        if absent:
            numbers = ", ".join(map(str, absent))
            raise ControlRefused(_CONFLICT, f"not all processes work, so none is stopped now: {numbers}")
        self._under_way, self._done, self._problem = True, [], ""
        Deferred.fromCoroutine(self._run()).addErrback(self._failed)
        return self.told()

    def told(self) -> dict[str, object]:
        """How it goes: whether it is under way, which processes are exchanged, and what ended it before its end."""
        return {"under_way": self._under_way, "done": list(self._done), "problem": self._problem}

    def try_begin(self) -> None:
        """For a signal, which has nobody to answer."""
        try:
            self.begin()
        except ControlRefused as error:
            self.log.error("Not exchanging the processes: {error}", error=str(error))

    async def _run(self) -> None:
        self.log.info("Loading the code that is on disk, to exchange all processes, one after the other")
        self._problem = await self._supervisor.renew_template()
        if not self._problem:
            for slot in self._supervisor.slots:
                self._problem = await self._exchange(slot)
                if self._problem:
                    break
                self._done.append(slot.number)
        if self._problem:
            self.log.error("The processes are not exchanged, or not all: {problem}", problem=self._problem)
        else:
            self.log.info("All processes are exchanged")
        self._under_way = False

    def _failed(self, failure: Any) -> None:
        self._under_way, self._problem = False, "an error, see the log"
        self.log.failure("Cannot exchange the processes", failure=failure)

    async def _exchange(self, slot: Slot) -> str:
        """One process; what went wrong."""
        before = await self._problems(slot)
        await slot.stop()
        if self._supervisor.is_stopping:
            return "the service is being stopped"
        if not await slot.start():
            return f"process {slot.number} {slot.problem() or 'has not started'}; the others go on as they were"
        deadline = self._clock.seconds() + READY_WITHIN
        while True:
            problems = await self._problems(slot)
            new = {part: problem for part, problem in problems.items() if part not in before}
            if not new:
                return ""
            if self._clock.seconds() >= deadline or self._supervisor.is_stopping:
                told = "; ".join(f"{part}: {problem}" for part, problem in new.items())
                return f"process {slot.number} is not ready after {READY_WITHIN:g} s: {told}"
            await deferLater(cast(IReactorTime, self._clock), LOOK_EVERY)  # it asks for no more than a `Clock` has

    async def _problems(self, slot: Slot) -> dict[str, str]:
        """What keeps a process from being ready, by part."""
        try:
            parts: dict[str, str] = await self._supervisor.ask(slot, "ready", None, LOOK_EVERY * 20)
        except AmqprouterError as error:
            return {"process": str(error)}
        return {part: problem for part, problem in parts.items() if problem}
