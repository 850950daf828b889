"""The place of one process: it has one, or waits until it is given one again.

Theory of operation. A state machine. A slot is *absent* while nobody wants a process there, *starting* once one has
been forked, and *running* when that says that its services are started. A process that ends by itself leaves its slot
*pausing*, for longer each time unless it ran for a while, and then there is another one. One that is to end is
*leaving* until it has.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from automat import TypeMachineBuilder
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from amqprouter.clock import Backoff, Clock

FIRST_PAUSE = 0.5
"""Seconds before a process that ended is started again, for the first time: what made it end may be over by then."""
LONGEST_PAUSE = 30.0
"""Seconds. It takes a second or two of CPU time to start one, which others need."""
STABLE = 60.0
"""Seconds that a process must run before its end is a first one again."""


class _Inputs(Protocol):
    """What the machine is told."""

    def wanted(self) -> None:
        """There is to be a process."""

    def unwanted(self) -> None:
        """There is to be none."""

    def started(self) -> None:
        """The process has started."""

    def ended(self, how: str) -> None:
        """It has ended."""

    def due(self) -> None:
        """The pause is over."""


class _Core:
    def __init__(self, slot: Slot) -> None:
        self.slot = slot


class Slot:
    """The place of the process of one number, from 1.

    :param launch: has a process forked for this slot.
    :param end: asks the process to end in good order.
    """

    log = Logger()

    def __init__(
        self,
        number: int,
        clock: Clock,
        *,
        launch: Callable[[Slot], None],
        end: Callable[[Slot], None],
        random: Callable[[], float],
    ) -> None:
        self.number = number
        self.pid = 0
        """Of the process; 0 while there is none."""
        self.state = "absent"
        self.starts = 0
        """Processes that there have been."""
        self.how = ""
        """How the latest one ended."""
        self.version = ""
        """Of the code that it runs."""
        self.is_first = True
        """Whether none has started yet."""
        self._clock = clock
        self._launch = launch
        self._end = end
        self._backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE, random)
        self._failures = 0
        self._started_at = 0.0
        self._timer: Any = None
        self._due_at = 0.0
        self._waiting: list[Deferred[None]] = []
        self._ready: list[Deferred[bool]] = []
        self._machine = _MACHINE(_Core(self))

    # What it is told.

    def start(self) -> Deferred[bool]:
        """There is to be a process. Fires once it has started, with False where it ended before."""
        started: Deferred[bool] = Deferred()
        self._ready.append(started)
        self._machine.wanted()
        return started

    def stop(self) -> Deferred[None]:
        """There is to be none. Fires once there is none."""
        gone: Deferred[None] = Deferred()
        self._waiting.append(gone)
        self._machine.unwanted()
        if self.state == "absent":
            self._gone()
        return gone

    def started(self, version: str) -> None:
        """The process tells that it has started."""
        self.version = version
        self._machine.started()

    def ended(self, how: str) -> None:
        """It has ended: `how` says by what."""
        self.pid = 0
        self._machine.ended(how)

    # What it tells.

    def problem(self) -> str:
        """Why nobody works here; empty while somebody does."""
        if self.state == "running":
            return ""
        if self.state == "starting":
            return f"is starting; the one before {self.how}" if self.how else "is starting"
        if self.state == "pausing":
            return f"{self.how}; is started again in {max(0.0, self._due_at - self._clock.seconds()):.1f} s"
        return "is being stopped" if self.state == "leaving" else "is not started"

    # What the machine does.

    def launch(self) -> None:
        self.starts += 1
        self._started_at = self._clock.seconds()
        self._launch(self)

    def end(self) -> None:
        self._end(self)

    def has_started(self) -> None:
        self.is_first = False
        self._tell_ready(True)

    def pause(self, how: str) -> None:
        if self._clock.seconds() - self._started_at >= STABLE:
            self._failures = 0
        self.how = how
        pause = self._backoff.pause(self._failures)
        self._failures += 1
        self._due_at = self._clock.seconds() + pause
        self._timer = self._clock.callLater(pause, self._machine.due)
        self.log.error(
            "Process {process} {how}: starting another one in {pause:.1f} s",
            process=self.number,
            how=how,
            pause=pause,
        )
        self._tell_ready(False)

    def forget(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def has_left(self, how: str) -> None:
        self.how, self._failures = "", 0
        self.log.info("Process {process} {how}, as it was told to end", process=self.number, how=how)
        self._tell_ready(False)
        self._gone()

    def _tell_ready(self, is_ready: bool) -> None:
        ready, self._ready = self._ready, []
        for one in ready:
            one.callback(is_ready)

    def _gone(self) -> None:
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            one.callback(None)


def _make_machine() -> Callable[[_Core], _Inputs]:
    builder = TypeMachineBuilder(_Inputs, _Core)
    absent, starting = builder.state("absent"), builder.state("starting")
    running, pausing, leaving = builder.state("running"), builder.state("pausing"), builder.state("leaving")

    def launch(inputs: _Inputs, core: _Core) -> None:
        core.slot.state = "starting"
        core.slot.forget()
        core.slot.launch()

    absent.upon(_Inputs.wanted).to(starting)(launch)
    pausing.upon(_Inputs.wanted).to(starting)(launch)
    pausing.upon(_Inputs.due).to(starting)(launch)

    @starting.upon(_Inputs.started).to(running)
    def run(inputs: _Inputs, core: _Core) -> None:
        core.slot.state = "running"
        core.slot.has_started()

    def pause(inputs: _Inputs, core: _Core, how: str) -> None:
        core.slot.state = "pausing"
        core.slot.pause(how)

    starting.upon(_Inputs.ended).to(pausing)(pause)
    running.upon(_Inputs.ended).to(pausing)(pause)

    def leave(inputs: _Inputs, core: _Core) -> None:
        core.slot.state = "leaving"
        core.slot.end()

    starting.upon(_Inputs.unwanted).to(leaving)(leave)
    running.upon(_Inputs.unwanted).to(leaving)(leave)

    @pausing.upon(_Inputs.unwanted).to(absent)
    def give_up(inputs: _Inputs, core: _Core) -> None:
        core.slot.state = "absent"
        core.slot.forget()

    @leaving.upon(_Inputs.ended).to(absent)
    def left(inputs: _Inputs, core: _Core, how: str) -> None:
        core.slot.state = "absent"
        core.slot.has_left(how)

    for state in (starting, running, leaving):
        state.upon(_Inputs.wanted).loop().returns(None)
        state.upon(_Inputs.due).loop().returns(None)
    for state in (absent, leaving):
        state.upon(_Inputs.unwanted).loop().returns(None)
    for state in (absent, running, pausing, leaving):
        state.upon(_Inputs.started).loop().returns(None)
    for state in (absent, pausing):
        state.upon(_Inputs.ended).loop().returns(None)
    absent.upon(_Inputs.due).loop().returns(None)
    return builder.build()


_MACHINE = _make_machine()
