"""A circuit breaker: a service that does not answer is left alone, and tried with one question now and then.

Theory of operation. Closed is the normal state: everybody may ask. When the questions of several names have failed with
no answer in between, the breaker opens, and nobody may ask for a while. Then it is half open: the next question is the
probe, and nobody else may ask till it ends. An answer closes the breaker, a failure opens it for longer.

Names are counted, not failures: one name that the service always fails on must not keep the others from asking. Pauses
are jittered, so that the gateways of a fleet don't probe together.

::

                     too_many               due                 may_ask
        ┌────────┐ ───────────► ┌──────┐ ─────────► ┌───────────┐ ────► ┌─────────┐
        │ closed │              │ open │            │ half open │       │ probing │
        └────────┘ ◄─────────── └──────┘ ◄───────── └───────────┘       └─────────┘
                     answered       ▲                       failed           │
                  (in any state)    └────────────────────────────────────────┘
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from automat import TypeMachineBuilder

from amqprouter.clock import Backoff

FAILING_NAMES = 5
"""Names whose questions fail, with no answer in between, that open the breaker. With fewer devices than that it stays
closed, and there is nothing to protect the service from."""
PAUSE_FIRST, PAUSE_MAX = 1.0, 30.0
"""Seconds that it is open for, doubling with each probe that fails. The most is how long an outage may seem to last
after it is over."""


class _Inputs(Protocol):
    """What the machine is told."""

    def may_ask(self) -> bool:
        """Somebody wants to ask."""

    def too_many(self, now: float) -> None:
        """Too many names' questions have failed."""

    def failed(self, now: float) -> None:
        """A question failed."""

    def answered(self) -> None:
        """A question was answered."""

    def due(self) -> None:
        """The pause is over."""


@dataclass
class _Core:
    backoff: Backoff
    failing: set[str] = field(default_factory=set)
    pauses: int = 0
    open_until: float = 0.0

    def open(self, now: float) -> None:
        self.open_until = now + self.backoff.pause(self.pauses)
        self.pauses += 1

    def close(self) -> None:
        self.pauses = 0
        self.failing.clear()


def _make_machine() -> Callable[[_Core], _Inputs]:
    builder = TypeMachineBuilder(_Inputs, _Core)
    closed = builder.state("closed")
    opened = builder.state("open")
    half_open = builder.state("half open")
    probing = builder.state("probing")

    closed.upon(_Inputs.may_ask).loop().returns(True)
    closed.upon(_Inputs.failed).loop().returns(None)
    closed.upon(_Inputs.due).loop().returns(None)
    opened.upon(_Inputs.may_ask).loop().returns(False)
    opened.upon(_Inputs.too_many).loop().returns(None)
    opened.upon(_Inputs.failed).loop().returns(None)  # asked before it opened
    opened.upon(_Inputs.due).to(half_open).returns(None)
    half_open.upon(_Inputs.may_ask).to(probing).returns(True)
    half_open.upon(_Inputs.too_many).loop().returns(None)
    half_open.upon(_Inputs.failed).loop().returns(None)
    half_open.upon(_Inputs.due).loop().returns(None)
    probing.upon(_Inputs.may_ask).loop().returns(False)
    probing.upon(_Inputs.too_many).loop().returns(None)
    probing.upon(_Inputs.due).loop().returns(None)

    @closed.upon(_Inputs.too_many).to(opened)
    def give_up(inputs: _Inputs, core: _Core, now: float) -> None:
        core.open(now)

    @probing.upon(_Inputs.failed).to(opened)
    def give_up_again(inputs: _Inputs, core: _Core, now: float) -> None:
        core.open(now)

    for state in (closed, opened, half_open, probing):

        @state.upon(_Inputs.answered).to(closed)
        def close(inputs: _Inputs, core: _Core) -> None:
            core.close()

    return builder.build()


_MACHINE = _make_machine()


class CircuitBreaker:
    """One service's. Every question that `may_ask` lets through must end in `answered` or `failed`.

    :param random: gives numbers from 0 to 1.
    """

    def __init__(self, random: Callable[[], float], failing_names: int = FAILING_NAMES) -> None:
        self._core = _Core(Backoff(PAUSE_FIRST, PAUSE_MAX, random))
        self._machine = _MACHINE(self._core)
        self._failing_names = failing_names

    def may_ask(self, now: float) -> bool:
        """Whether a question may be put. `now` is in seconds."""
        if now >= self._core.open_until:
            self._machine.due()
        return self._machine.may_ask()

    def answered(self) -> None:
        """A question was answered, with whatever answer."""
        self._machine.answered()

    def failed(self, name: str, now: float) -> None:
        """A question about this name was not answered."""
        self._machine.failed(now)
        if len(self._core.failing) < self._failing_names:
            self._core.failing.add(name)
        if len(self._core.failing) >= self._failing_names:
            self._machine.too_many(now)
