"""Starting in order, and stopping so that nothing is lost and nobody waits for ever.

The daemon is a list of steps (`amqprouter.daemon.build` has it), which is gone through from its beginning at the start,
and from its end at the stop: first to drain, then to close. To drain: consumers are cancelled, so that nothing new
comes; what is under way reaches its targets; its acks are written. To close: the consuming connection first, which
gives back to the broker what was not started; then publishing, the subscribers and the web endpoint, and last the
store. Draining has a deadline, for a target that is down would hold it up for ever: when it is over, whatever is
unfinished stays unacknowledged and comes again at the next start. The closing has one as well (`CLOSING`), whatever of
it hangs. And should the process itself not end, since a thread hangs or the reactor does not turn, there is a last
resort that does not depend on either.

`MultiService.stopService` stops all its children at once; hence one service that awaits each step.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import ILogObserver, Logger
from twisted.python.components import Componentized
from twisted.python.failure import Failure

from amqprouter.daemon import hangup
from amqprouter.daemon.service_manager import ServiceManager

STEP_LIMIT = 2.0
"""Seconds that each closing step may take once the work is done; closing a socket in order takes milliseconds."""
CLOSING = 5.0
"""Seconds for all these steps together; each has a moment, `STEP_LEAST`, whatever the others took."""
STEP_LEAST = 0.1
GRACE = 3.0
"""Seconds after which the process is ended that should have ended by then. With the default deadline all of that is
less than ``TimeoutStopSec=`` in the systemd unit, 30 s."""


@dataclass(frozen=True)
class Step:
    """A part of the daemon, as far as starting and stopping go."""

    name: str
    """For the log: ``Closing <name> took over 2.0 s``."""
    start: Callable[[], object] | None = None
    """Waits for nothing; what it raises fails the start."""
    stop: Callable[[], object] | None = None
    """May return a Deferred, which is waited for as long as the time for closing lasts."""
    listen: Callable[[], object] | None = None
    """Called before anything is started, while there still are the rights of root."""
    drain: Callable[[], object] | None = None
    """Lets what is under way end, before anything is closed. May return a Deferred or a coroutine, which is waited for
    until the deadline."""


class Daemon(Service):
    """The whole daemon as one service.

    :param steps: in the order of starting; draining and closing go the opposite way.
    :param under_way: tells how many messages have not ended.
    :param reload: reads the configuration again; it is called in the reactor's thread.
    :param shutdown_deadline: seconds that draining may take.
    :param last_resort: ends the process in so many seconds.
    :param observer: makes the log observer.
    :param is_supervised: whether a supervisor sees to our end: it kills us when somebody is in a hurry.
    """

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        steps: Sequence[Step],
        *,
        under_way: Callable[[], int],
        reload: Callable[[], object],
        shutdown_deadline: float,
        manager: ServiceManager,
        last_resort: Callable[[float], None] | None = None,
        observer: Callable[[], ILogObserver] | None = None,
        is_supervised: bool = False,
    ) -> None:
        self._reactor = reactor
        self._steps = tuple(steps)
        self._under_way = under_way
        self._reload = reload
        self._deadline = shutdown_deadline
        self._closing_ends = 0.0
        self._manager = manager
        self._last_resort = last_resort
        self._observer = observer
        self._is_supervised = is_supervised

    def setServiceParent(self, parent: Any) -> None:
        """Called by twistd with the application, whose log observer is ours to choose before logging starts."""
        if self._observer is not None and isinstance(parent, Componentized):
            parent.setComponent(ILogObserver, self._observer())
        super().setServiceParent(parent)  # type: ignore[no-untyped-call]

    def privilegedStartService(self) -> None:
        """Listen; a port that is taken, or that needs root, fails the start here."""
        super().privilegedStartService()  # type: ignore[no-untyped-call]
        for step in self._steps:
            if step.listen is not None:
                step.listen()

    def startService(self) -> None:
        super().startService()  # type: ignore[no-untyped-call]
        for step in self._steps:
            if step.start is not None:
                step.start()
        hangup.handle(lambda: self._reactor.callFromThread(self._reload))
        self._manager.start()

    def stopService(self) -> Deferred[None]:
        super().stopService()  # type: ignore[no-untyped-call]
        # Whoever sends a second SIGTERM does not want to wait: unacknowledged messages are safe with the broker.
        # With a supervisor, the first one may well come after its word to stop: systemd sends it to all processes.
        signal.signal(signal.SIGTERM, signal.SIG_IGN if self._is_supervised else lambda *_: os._exit(1))
        hangup.ignore()
        longest = self._deadline + CLOSING + GRACE
        if self._last_resort is not None:
            self._last_resort(longest)
        self._manager.stopping(longest)
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        self.log.info("Stopping: finishing what is under way, for {limit} s at most", limit=self._deadline)
        if not await self._within(self._deadline, Deferred.fromCoroutine(self._drain())):
            self.log.warn(
                "{count} messages were not finished in time; they stay with the broker and come again",
                count=self._under_way(),
            )
        self._closing_ends = self._reactor.seconds() + CLOSING
        for step in reversed(self._steps):
            if step.stop is not None:
                await self._close(step.name, step.stop)
        self.log.info("Stopped")

    async def _drain(self) -> None:
        for step in reversed(self._steps):
            if step.drain is not None:
                await maybeDeferred(step.drain)

    async def _close(self, what: str, close: Callable[[], object]) -> None:
        """One closing step; trouble in it does not keep the others from happening."""
        limit = max(min(STEP_LIMIT, self._closing_ends - self._reactor.seconds()), STEP_LEAST)
        try:
            if not await self._within(limit, maybeDeferred(close)):
                self.log.warn("Closing {what} took over {limit:.1f} s: leaving it", what=what, limit=limit)
        except Exception:
            self.log.failure("Cannot close {what} in good order", what=what)

    async def _within(self, seconds: float, work: Deferred[Any]) -> bool:
        """Wait for this, but no longer; whether it is done. What is late is cancelled, and nobody waits for what it
        makes of that.

        :raises Exception: what `work` raises.
        """
        waiting: Deferred[bool] = Deferred()
        late = self._reactor.callLater(seconds, waiting.callback, False)

        def ended(result: object) -> None:
            if not waiting.called:
                late.cancel()
                waiting.callback(result if isinstance(result, Failure) else True)

        work.addBoth(ended)
        if not await waiting:
            work.cancel()
            return False
        return True
