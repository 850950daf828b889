"""A circuit breaker: whether a target takes messages, and when to try again with one that did not.

House rules: no I/O. Whoever owns a breaker tells it what happened and is told what to do, through `Owner`.

Theory of operation. ::

    closed ──trouble──► open ──due──► half-open ──success──► closed
                          ▲               │
                          └────trouble────┘

Closed, everything goes. At the first trouble the owner sends nothing for a pause, then one message; when that fails too
the pause doubles, with jitter, up to `LONGEST_PAUSE`. A short stumble is over before anybody is told; with the
`DOWN_AFTER`-th failure in a row the target counts as down, and the owner is told, until a message has passed. What
else comes in while it is open belongs to messages sent before, and says nothing new; only a target that tries again by
itself has its success count at any time (`recovered`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from automat import TypeMachineBuilder

from amqprouter.clock import Backoff, Clock

FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0
"""Seconds before a target is tried again, doubling up to the longest: one message in 5 s burdens nobody, and work goes
on within seconds of the target's return."""
DOWN_AFTER = 3
"""Failures in a row: some half a second's worth. A queue that is moved to another node is back by then."""


class Owner(Protocol):
    """Who has a breaker."""

    def probe(self) -> None:
        """Send one message, when there is one."""

    def opened(self, reason: str) -> None:
        """The target is down."""

    def closed(self, was_open: bool) -> None:
        """The target works again, or for the first time: send everything."""


class Machine(Protocol):
    """The inputs."""

    def trouble(self, reason: str) -> None:
        """The target did not take a message, and the message is not to blame."""

    def success(self) -> None:
        """The target took a message."""

    def recovered(self) -> None:
        """The target says by itself that it works again."""

    def due(self) -> None:
        """The pause is over."""

    def stop(self) -> None:
        """No more trying."""


@dataclass
class _Core:
    owner: Owner
    clock: Clock
    backoff: Backoff
    failures: int = 0
    state: str = "closed"
    reason: str = ""
    timer: Any = None


def _make_machine() -> Callable[[_Core], Machine]:
    builder = TypeMachineBuilder(Machine, _Core)
    closed, opened, half_open, stopped = (builder.state(name) for name in ("closed", "open", "half-open", "stopped"))

    # What changes nothing.
    closed.upon(Machine.success).loop().returns(None)
    closed.upon(Machine.recovered).loop().returns(None)
    opened.upon(Machine.success).loop().returns(None)
    opened.upon(Machine.trouble).loop().returns(None)
    for name in ("trouble", "success", "recovered", "due", "stop"):
        stopped.upon(getattr(Machine, name)).loop().returns(None)

    @closed.upon(Machine.trouble).to(opened)
    @half_open.upon(Machine.trouble).to(opened)
    def failed(machine: Machine, core: _Core, reason: str) -> None:
        core.timer = core.clock.callLater(core.backoff.pause(core.failures), machine.due)
        core.failures += 1
        core.reason, core.state = reason, "open"
        if core.failures == DOWN_AFTER:
            core.owner.opened(reason)

    @opened.upon(Machine.due).to(half_open)
    def again(machine: Machine, core: _Core) -> None:
        core.state = "half-open"
        core.owner.probe()

    @half_open.upon(Machine.success).to(closed)
    @half_open.upon(Machine.recovered).to(closed)
    @opened.upon(Machine.recovered).to(closed)
    def mended(machine: Machine, core: _Core) -> None:
        if core.timer.active():
            core.timer.cancel()
        was_open = core.failures >= DOWN_AFTER
        core.failures, core.reason, core.state = 0, "", "closed"
        core.owner.closed(was_open)

    @closed.upon(Machine.stop).to(stopped)
    @opened.upon(Machine.stop).to(stopped)
    @half_open.upon(Machine.stop).to(stopped)
    def stop(machine: Machine, core: _Core) -> None:
        core.state = "stopped"
        if core.timer is not None and core.timer.active():
            core.timer.cancel()

    return builder.build()


_machine = _make_machine()


class Breaker:
    """One target's breaker. `clock` provides ``callLater``; `random` is between 0 and 1."""

    def __init__(self, owner: Owner, clock: Clock, random: Callable[[], float]) -> None:
        self._core = _Core(owner, clock, Backoff(FIRST_PAUSE, LONGEST_PAUSE, random))
        self._machine = _machine(self._core)
        self.trouble, self.success = self._machine.trouble, self._machine.success
        self.recovered, self.stop = self._machine.recovered, self._machine.stop

    @property
    def state(self) -> str:
        """``closed``, ``open``, ``half-open`` or ``stopped``."""
        return self._core.state

    @property
    def is_down(self) -> bool:
        """Whether the target counts as down."""
        return self._core.failures >= DOWN_AFTER

    @property
    def reason(self) -> str:
        """The latest failure; empty when closed."""
        return self._core.reason
