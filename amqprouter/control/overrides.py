"""Limits that somebody set by hand for single devices: in force at once, and kept for the next start.

Theory of operation. What is kept where all gateways share it is read every `REFRESH_EVERY` seconds, and what another
gateway changed is in force by then. So a limit must be kept before it counts: one that is not would be gone at the next
reading. In a file of one's own nobody else changes anything, so a limit counts even if it cannot be kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from amqprouter.clock import Clock
from amqprouter.control.kept_limits import IKeepsLimits, KeptLimits
from amqprouter.errors import ConfigError, LimitsNotKept
from amqprouter.interfaces import IReloadable
from amqprouter.scheduling.limit import Limit
from amqprouter.scheduling.scheduler import MAX_OVERRIDES, Scheduler

REFRESH_EVERY = 5.0
"""Seconds between two readings of what other gateways changed. One is one question, whose answer has a hundred bytes
for each device with a limit of its own."""


@implementer(IReloadable)
class Overrides(Service):
    """The scheduler's overrides, and where they are kept; None for nowhere. As a service, it looks every now and then.

    :param clock: provides ``seconds`` and ``callLater``; the scheduler's.
    :param release: is given the messages that would wait too long under a new limit; see `Scheduler.set_limit`.
    :param changed: is called when a limit has changed: something may run by now.
    """

    log = Logger()

    def __init__(
        self,
        kept: IKeepsLimits | None,
        scheduler: Scheduler[Any],
        clock: Clock,
        release: Callable[[Sequence[Any]], None],
        changed: Callable[[], None],
    ) -> None:
        self.kept = kept
        self._scheduler = scheduler
        self._clock = clock
        self._release = release
        self._changed = changed
        self._changes = 0  # made here: what was read before one says nothing about it
        self._trouble = ""
        self._refreshing = LoopingCall(lambda: Deferred.fromCoroutine(self.refresh()))
        self._refreshing.clock = cast(IReactorTime, clock)  # it asks for no more than a `Clock` has

    @property
    def limits(self) -> Mapping[str, str]:
        """What is in force, by device."""
        return {name: limit.text for name, limit in self._scheduler.overrides.items()}

    def of(self, device: str) -> str:
        """What was set for one device; empty when nothing was."""
        limit = self._scheduler.overrides.get(device)
        return "" if limit is None else limit.text

    @property
    def is_shared(self) -> bool:
        """Whether what is set here counts on all gateways."""
        return self.kept is not None and self.kept.is_shared

    # What is kept.

    def startService(self) -> None:
        super().startService()
        if self.is_shared:
            self._refreshing.start(REFRESH_EVERY)

    def stopService(self) -> None:
        super().stopService()
        if self._refreshing.running:
            self._refreshing.stop()

    def reload(self) -> None:
        """Have what is kept in force, and nothing else; what all gateways share, as soon as it was read.

        :raises ConfigError: the file makes no sense; what was in force stays in force.
        """
        if self.is_shared:
            Deferred.fromCoroutine(self.refresh())
            return
        problems: list[Failure] = []
        Deferred.fromCoroutine(self._read()).addErrback(problems.append)
        for problem in problems:
            problem.raiseException()

    async def refresh(self) -> None:
        """See what other gateways have changed."""
        try:
            await self._read()
        except (ConfigError, LimitsNotKept) as error:
            self._tell(f"{error}; the limits set by hand stay as they are here")

    async def _read(self) -> None:
        if self.kept is None:
            return
        before = self._changes
        kept = await self.kept.read()
        if self._changes == before:
            self._use(kept)
            self._tell("; ".join(kept.problems.values()))

    def _use(self, kept: KeptLimits) -> None:
        limits = kept.limits
        changed = 0
        for name in [name for name in self._scheduler.overrides if name not in limits and name not in kept.problems]:
            self._put(name, None)
            changed += 1
        for name, limit in limits.items():
            if self.of(name) != limit.text:
                self._put(name, limit)
                changed += 1
        if changed and self.kept is not None:
            self.log.info(
                "{count} devices have limits that were set by hand, by {where}",
                count=len(self._scheduler.overrides),
                where=self.kept.where,
            )
            self._changed()

    def _tell(self, trouble: str) -> None:
        """Say in the log what is wrong, once."""
        if trouble and trouble != self._trouble:
            self.log.error("Limits set by hand: {trouble}", trouble=trouble)
        elif self._trouble and not trouble:
            self.log.info("Limits set by hand can be read again")
        self._trouble = trouble

    # What is changed.

    async def set(self, device: str, limit: Limit | None) -> str:
        """Put a limit in force, or take it away with None. Returns why it lasts only until the next start; empty when
        it is kept.

        :raises LimitsNotKept: it is not in force, for it cannot be kept where all gateways share it.
        :raises ValueError: too many devices have one.
        """
        overrides = self._scheduler.overrides
        if limit is not None and device not in overrides and len(overrides) >= MAX_OVERRIDES:
            raise ValueError(f"{MAX_OVERRIDES} devices have limits of their own already; make a class for them")
        problem = "[scheduler] overrides is empty"
        if self.kept is not None:
            problem = ""
            try:
                await self.kept.keep(device, limit)
            except LimitsNotKept as error:
                if self.kept.is_shared:
                    raise
                problem = str(error)
                self.log.error("Limits set by hand are not kept: {problem}", problem=problem)
        self._changes += 1
        self._put(device, limit)
        self._changed()
        return problem

    def _put(self, device: str, limit: Limit | None) -> None:
        over = self._scheduler.set_limit(device, limit, self._clock.seconds())
        if over:
            self._release(over)
