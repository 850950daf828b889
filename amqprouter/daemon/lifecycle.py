"""Starting in order, and stopping so that nothing is lost and nobody waits for ever.

The order of a stop: consumers are cancelled, so that nothing new comes; what is under way reaches its targets; its acks
are written; the consuming connection is closed, which gives back to the broker what was not started; then publishing,
the subscribers and the web endpoint, and last the store. The first part has a deadline, for a target that is down would
hold it up for ever: when it is over, whatever is unfinished stays unacknowledged and comes again at the next start. The
closing has one as well (`CLOSING`), whatever of it hangs. And should the process itself not end, since a thread hangs
or the reactor does not turn, there is a last resort that does not depend on either.

`MultiService.stopService` stops all its children at once; hence one service that awaits each step.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import ILogObserver, Logger
from twisted.python.components import Componentized
from twisted.python.failure import Failure

from amqprouter.amqp.link import BrokerLink
from amqprouter.amqp.publisher import Publisher
from amqprouter.auth.checkers.chain import CheckerChain
from amqprouter.broker.shards import SharedIngress
from amqprouter.control.reloader import Reloader
from amqprouter.daemon import hangup
from amqprouter.daemon.service_manager import ServiceManager
from amqprouter.errors import AmqprouterError
from amqprouter.events.hub import Hub
from amqprouter.interfaces import IStore
from amqprouter.pipeline.pipeline import Pipeline

STEP_LIMIT = 2.0
"""Seconds that each closing step may take once the work is done; closing a socket in order takes milliseconds."""
CLOSING = 5.0
"""Seconds for all these steps together; each has a moment, `STEP_LEAST`, whatever the others took."""
STEP_LEAST = 0.1
GRACE = 3.0
"""Seconds after which the process is ended that should have ended by then. With the default deadline all of that is
less than ``TimeoutStopSec=`` in the systemd unit, 30 s."""


class Stops(Protocol):
    """Keeps messages in the broker for later, and can be told that there is none."""

    def stop(self) -> None:
        """Take out no more, and try no more: what is not under way stays with the broker."""


class Daemon(Service):
    """The whole daemon as one service."""

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        *,
        ingress: SharedIngress,
        pipeline: Pipeline,
        publisher: Publisher,
        parking: Sequence[Stops],
        consume: BrokerLink,
        publish: BrokerLink,
        events: BrokerLink,
        hub: Hub,
        store: IStore | None,
        hashing: Service,
        checkers: Sequence[CheckerChain],
        web: Service | None,
        control: Service | None = None,
        reloader: Reloader,
        shutdown_deadline: float,
        manager: ServiceManager,
        last_resort: Callable[[float], None] | None = None,
        observer: Callable[[], ILogObserver] | None = None,
    ) -> None:
        self._reactor = reactor
        self._ingress = ingress
        self._pipeline = pipeline
        self._publisher = publisher
        self._parking = parking
        self._consume, self._publish, self._events = consume, publish, events
        self._hub = hub
        self._store = store
        self._hashing = hashing
        self._checkers = checkers
        self._web = web
        self._control = control
        self._reloader = reloader
        self._deadline = shutdown_deadline
        self._closing_ends = 0.0
        self._manager = manager
        self._last_resort = last_resort
        self._observer = observer

    def setServiceParent(self, parent: Any) -> None:
        """Called by twistd with the application, whose log observer is ours to choose before logging starts."""
        if self._observer is not None and isinstance(parent, Componentized):
            parent.setComponent(ILogObserver, self._observer())
        super().setServiceParent(parent)  # type: ignore[no-untyped-call]

    def privilegedStartService(self) -> None:
        """Listen; a port that is taken, or that needs root, fails the start here."""
        super().privilegedStartService()  # type: ignore[no-untyped-call]
        if self._web is not None:
            self._web.privilegedStartService()

    def startService(self) -> None:
        super().startService()  # type: ignore[no-untyped-call]
        if self._web is not None:
            self._web.startService()
        if self._control is not None:
            self._control.startService()
        self._hashing.startService()
        for link in (self._publish, self._events, self._consume):
            link.startService()
        # A store that is down now is not the end: writes are retried, and /readyz says so.
        if self._store is not None:
            Deferred.fromCoroutine(self._connect_store(self._store))
        hangup.handle(lambda: self._reactor.callFromThread(self._reloader.reload))
        self._manager.start()

    async def _connect_store(self, store: IStore) -> None:
        try:
            await store.connect()
        except AmqprouterError as error:
            self.log.error("The document store is not usable: {error}; messages wait until it is", error=str(error))

    def stopService(self) -> Deferred[None]:
        super().stopService()  # type: ignore[no-untyped-call]
        # Whoever sends a second SIGTERM does not want to wait: unacknowledged messages are safe with the broker.
        signal.signal(signal.SIGTERM, lambda *_: os._exit(1))
        hangup.ignore()
        longest = self._deadline + CLOSING + GRACE
        if self._last_resort is not None:
            self._last_resort(longest)
        self._manager.stopping(longest)
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        self.log.info("Stopping: finishing what is under way, for {limit} s at most", limit=self._deadline)
        if not await self._within(self._deadline, Deferred.fromCoroutine(self._finish())):
            self.log.warn(
                "{count} messages were not finished in time; they stay with the broker and come again",
                count=self._pipeline.under_way,
            )
        self._closing_ends = self._reactor.seconds() + CLOSING
        await self._step("the consuming connection", self._consume.stopService)
        # Their ends are published, where somebody wants to know of them.
        await self._step("the subscriptions", self._hub.close)
        await self._step("the publishing connection", self._publish.stopService)
        self._publisher.stop()
        await self._step("the event connection", self._events.stopService)
        if self._web is not None:
            await self._step("the web endpoint", self._web.stopService)
        if self._control is not None:
            await self._step("the control socket", self._control.stopService)
        if self._store is not None:
            await self._step("the document store", self._store.close)
        for chain in self._checkers:
            await self._step("the checkers", chain.close)
        await self._step("the hashing threads", self._hashing.stopService)
        self.log.info("Stopped")

    async def _finish(self) -> None:
        await self._ingress.stop()
        for parking in self._parking:
            parking.stop()
        await self._pipeline.drain()

    async def _step(self, what: str, close: Callable[[], Any]) -> None:
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
