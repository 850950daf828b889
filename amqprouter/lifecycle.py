"""Starting in order, and stopping so that nothing is lost and nobody waits for ever.

The order of a stop: consumers are cancelled, so that nothing new comes; what is under way reaches its targets; its acks
are written; the consuming connection is closed, which gives back to the broker what was not started; then publishing,
the subscribers and the web endpoint, and last the store. The first part has a deadline, for a target that is down would
hold it up for ever: when it is over, whatever is unfinished stays unacknowledged and comes again at the next start.

`MultiService.stopService` stops all its children at once; hence one service that awaits each step.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.logger import ILogObserver, Logger
from twisted.python.components import Componentized

from amqprouter.amqp.link import BrokerLink
from amqprouter.amqp.parking import Parking
from amqprouter.amqp.publisher import Publisher
from amqprouter.amqp.shared_ingress import SharedIngress
from amqprouter.auth.checker_chain import CheckerChain
from amqprouter.errors import AmqprouterError
from amqprouter.interfaces import IStore
from amqprouter.pipeline import Pipeline
from amqprouter.reloader import Reloader
from amqprouter.web.hub import Hub

STEP_LIMIT = 5.0
"""Seconds that each closing step may take once the work is done; closing a socket in order takes milliseconds."""


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
        parking: Sequence[Parking],
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
        if hasattr(signal, "SIGHUP"):
            signal.signal(signal.SIGHUP, self._hung_up)

    async def _connect_store(self, store: IStore) -> None:
        try:
            await store.connect()
        except AmqprouterError as error:
            self.log.error("The document store is not usable: {error}; messages wait until it is", error=str(error))

    def _hung_up(self, *_: object) -> None:
        self._reactor.callFromThread(self._reloader.reload)

    def stopService(self) -> Deferred[None]:
        super().stopService()  # type: ignore[no-untyped-call]
        # Whoever sends a second SIGTERM does not want to wait: unacknowledged messages are safe with the broker.
        signal.signal(signal.SIGTERM, lambda *_: os._exit(1))
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        self.log.info("Stopping: finishing what is under way, for {limit} s at most", limit=self._deadline)
        finishing = Deferred.fromCoroutine(self._finish())
        try:
            await finishing.addTimeout(self._deadline, self._reactor)
        except (DeferredTimeout, CancelledError):
            self.log.warn(
                "{count} messages were not finished in time; they stay with the broker and come again",
                count=self._pipeline.under_way,
            )
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
        try:
            await maybeDeferred(close).addTimeout(STEP_LIMIT, self._reactor)
        except (DeferredTimeout, CancelledError):
            self.log.warn("Closing {what} took over {limit} s: leaving it", what=what, limit=STEP_LIMIT)
        except Exception:
            self.log.failure("Cannot close {what} in good order", what=what)
