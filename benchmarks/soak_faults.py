"""How the faults of a soak are made, and lifted again.

Each is a method of `Faults`, an asynchronous context manager: entered it is there, left it is over, also when the soak
is cut short. None makes a loss that nobody could prevent. Left out are therefore: policies with a ``message-ttl`` or a
``max-length`` that drops on a queue that messages are confirmed into, queues deleted with what is in them, a store that
forgets what it has acknowledged, and a node that is killed within a second of declaring a queue (RabbitMQ may then have
forgotten the queue, with what was confirmed in it).
"""

from __future__ import annotations

import json
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from twisted.internet.defer import DeferredLock
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from amqprouter.amqp.link import connect_once
from amqprouter.errors import AmqprouterError
from amqprouter.settings import BrokerSettings
from benchmarks.soak_bed import ACCOUNT, TARGET, Bed, declare_target
from tests.support.fault_proxy import FaultProxy
from tests.support.process import reactor

ROOM, PLENTY = 5, 1_000_000
"""Messages that a queue takes which is to be full, and which is not to be so yet."""
STOP = 25.0
"""Seconds that the daemon has for a stop: its own deadline and some for a busy machine."""
ATTEMPTS = 5
"""Times that the target is seen to: another fault may close the connection."""


@asynccontextmanager
async def held(lock: DeferredLock) -> AsyncIterator[None]:
    """Have the lock to oneself."""
    await lock.acquire()
    try:
        yield
    finally:
        lock.release()


class Faults:
    """All faults, by the names in the schedule."""

    def __init__(self, bed: Bed) -> None:
        self.bed = bed
        self._restart_lock = DeferredLock()
        """Held while a classic queue has a limit below what is in it, or the broker is away: it drops what is beyond
        the limit when it comes up again, however its queues are to overflow (``findings/``)."""
        self.quarantine_was_full = False
        self.slowest_stop = 0.0
        """Seconds."""
        self.killed_stops = 0
        """Stops that took longer than they may."""

    def named(self, name: str, chance: float) -> AbstractAsyncContextManager[None]:
        """A fault, by its name in the schedule; `chance` decides between variants."""
        method: Callable[[float], AbstractAsyncContextManager[None]] = getattr(self, name.replace("-", "_"))
        return method(chance)

    # The daemon.

    @asynccontextmanager
    async def daemon_killed(self, chance: float) -> AsyncIterator[None]:
        self.bed.process.meant_to_run = False
        await self.bed.gateway.running.kill()
        try:
            yield
        finally:
            await self.bed.start_daemon()

    @asynccontextmanager
    async def daemon_restarted(self, chance: float) -> AsyncIterator[None]:
        await self.stop_daemon()
        try:
            yield
        finally:
            await self.bed.start_daemon()

    async def stop_daemon(self) -> None:
        """SIGTERM, and SIGKILL where that is not enough."""
        self.bed.process.meant_to_run = False
        began = reactor.seconds()
        status = await self.bed.gateway.running.stop(STOP)
        self.slowest_stop = max(self.slowest_stop, reactor.seconds() - began)
        self.killed_stops += status == -signal.SIGKILL

    @asynccontextmanager
    async def daemon_reloaded(self, chance: float) -> AsyncIterator[None]:
        gateway = self.bed.gateway
        sections = {name: dict(values) for name, values in gateway.sections.items()}
        if chance < 0.3:
            gateway.sections["scheduler"]["rate"] = "as you like"
        else:
            gateway.sections["class noisy"]["limits"] = "8/s burst 4"
            gateway.sections["class probes"] = {"devices": "probe", "limits": "none", "priority": "high"}
        try:
            self._reload()
            yield
        finally:
            gateway.sections = sections
            self._reload()

    def _reload(self) -> None:
        self.bed.gateway.write_config()
        self.bed.gateway.running.signal("HUP")

    @asynccontextmanager
    async def daemon_stands_still(self, chance: float) -> AsyncIterator[None]:
        child = self.bed.gateway.running
        child.signal("STOP")
        try:
            yield
        finally:
            child.signal("CONT")

    # The broker.

    @asynccontextmanager
    async def broker_killed(self, chance: float) -> AsyncIterator[None]:
        async with held(self._restart_lock), held(self.bed.broker_lock):
            await self.bed.broker.remember()
            await self.bed.broker.kill()
            try:
                yield
            finally:
                await self.bed.broker.start()

    @asynccontextmanager
    async def broker_restarted(self, chance: float) -> AsyncIterator[None]:
        async with held(self._restart_lock), held(self.bed.broker_lock):
            await self.bed.broker.stop()
            try:
                yield
            finally:
                await self.bed.broker.start()

    @asynccontextmanager
    async def broker_stands_still(self, chance: float) -> AsyncIterator[None]:
        async with held(self.bed.broker_lock):
            self.bed.broker.signal("STOP")
            try:
                yield
            finally:
                self.bed.broker.signal("CONT")

    @asynccontextmanager
    async def connections_closed(self, chance: float) -> AsyncIterator[None]:
        await self.bed.ctl("close_all_connections", "maintenance")
        yield

    @asynccontextmanager
    async def memory_alarm(self, chance: float) -> AsyncIterator[None]:
        try:
            await self.bed.ctl("set_vm_memory_high_watermark", "absolute", "1MB")
            yield
        finally:
            await self.bed.ctl("set_vm_memory_high_watermark", "0.4")

    @asynccontextmanager
    async def disk_alarm(self, chance: float) -> AsyncIterator[None]:
        try:
            await self.bed.ctl("set_disk_free_limit", "900000000000000")
            yield
        finally:
            await self.bed.ctl("set_disk_free_limit", "50000000")

    # The store.

    @asynccontextmanager
    async def store_killed(self, chance: float) -> AsyncIterator[None]:
        self.bed.store.kill()
        try:
            yield
        finally:
            await deferToThread(self.bed.store.start)

    @asynccontextmanager
    async def store_stands_still(self, chance: float) -> AsyncIterator[None]:
        self.bed.store.signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.bed.store.signal(signal.SIGCONT)

    @asynccontextmanager
    async def store_refuses(self, chance: float) -> AsyncIterator[None]:
        self.bed.store.refuse(True)
        try:
            yield
        finally:
            self.bed.store.refuse(False)

    # The network, between the daemon and what it talks to.

    @asynccontextmanager
    async def broker_cut(self, chance: float) -> AsyncIterator[None]:
        async with _cut(self.bed.to_broker):
            yield

    @asynccontextmanager
    async def store_cut(self, chance: float) -> AsyncIterator[None]:
        async with _cut(self.bed.to_store):
            yield

    @asynccontextmanager
    async def broker_silent(self, chance: float) -> AsyncIterator[None]:
        async with _silent(self.bed.to_broker):
            yield

    @asynccontextmanager
    async def store_silent(self, chance: float) -> AsyncIterator[None]:
        async with _silent(self.bed.to_store):
            yield

    @asynccontextmanager
    async def broker_slow(self, chance: float) -> AsyncIterator[None]:
        async with _slow(self.bed.to_broker, chance):
            yield

    @asynccontextmanager
    async def store_slow(self, chance: float) -> AsyncIterator[None]:
        async with _slow(self.bed.to_store, chance):
            yield

    # What an operator does on the broker.

    @asynccontextmanager
    async def queues_limited(self, chance: float) -> AsyncIterator[None]:
        async with held(self.bed.broker_lock):
            count = len(await self.bed.broker.list_queues())
        async with self._limited("max-queues", count):
            yield

    @asynccontextmanager
    async def connections_limited(self, chance: float) -> AsyncIterator[None]:
        async with self._limited("max-connections", 2):
            self.bed.to_broker.reset()
            yield

    @asynccontextmanager
    async def _limited(self, limit: str, value: int) -> AsyncIterator[None]:
        try:
            await self.bed.ctl("set_vhost_limits", "-p", "/", json.dumps({limit: value}))
            yield
        finally:
            await self.bed.ctl("clear_vhost_limits", "-p", "/")

    @asynccontextmanager
    async def quarantine_full(self, chance: float) -> AsyncIterator[None]:
        self.quarantine_was_full = True
        async with self._full(r"^amqprouter\.(rejected|dead-letters)$"):
            yield

    @asynccontextmanager
    async def parking_full(self, chance: float) -> AsyncIterator[None]:
        async with self._full(r"^amqprouter\.parked\."):
            yield

    @asynccontextmanager
    async def target_full(self, chance: float) -> AsyncIterator[None]:
        self.bed.reader.pause()
        try:
            async with self._full(f"^{TARGET}$"):
                yield
        finally:
            self.bed.reader.resume()

    @asynccontextmanager
    async def _full(self, pattern: str) -> AsyncIterator[None]:
        if self.bed.has_classic or TARGET in pattern:
            async with held(self._restart_lock), self._limited_length(pattern):
                yield
        else:
            async with self._limited_length(pattern):
                yield

    @asynccontextmanager
    async def _limited_length(self, pattern: str) -> AsyncIterator[None]:
        # In two steps: a classic queue that already holds more than it may drops its oldest messages when it learns of
        # max-length and overflow at once. One that is busy may all the same, so those of which each message counts have
        # the overflow as an argument.
        for room in (PLENTY, ROOM):
            await self._set_room(pattern, room)
        try:
            yield
        finally:
            await self.bed.ctl("clear_policy", "full")

    async def _set_room(self, pattern: str, room: int) -> None:
        definition = json.dumps({"max-length": room, "overflow": "reject-publish"})
        await self.bed.ctl("set_policy", "--apply-to", "queues", "full", pattern, definition)

    @asynccontextmanager
    async def permissions_taken(self, chance: float) -> AsyncIterator[None]:
        allowed = (".*", "^$", ".*") if chance < 0.6 else ("^$", "^$", "^$")
        try:
            await self.bed.ctl("set_permissions", ACCOUNT, *allowed)
            # The broker asks once for a channel and remembers the answer.
            await self.bed.ctl("close_all_user_connections", ACCOUNT, "maintenance")
            yield
        finally:
            await self.bed.ctl("set_permissions", ACCOUNT, ".*", ".*", ".*")

    @asynccontextmanager
    async def target_unbound(self, chance: float) -> AsyncIterator[None]:
        try:
            await self._operate(lambda: self._take_away(exchange=False))
            yield
        finally:
            await self._operate(lambda: declare_target(self.bed.broker.uri))

    @asynccontextmanager
    async def target_deleted(self, chance: float) -> AsyncIterator[None]:
        try:
            await self._operate(lambda: self._take_away(exchange=True))
            yield
        finally:
            await self._operate(lambda: declare_target(self.bed.broker.uri))

    async def _operate(self, action: Callable[[], Awaitable[None]]) -> None:
        """Do something over AMQP while the broker is there."""
        for left in range(ATTEMPTS - 1, -1, -1):
            async with held(self.bed.broker_lock):
                try:
                    await action()
                    return
                except AmqprouterError:
                    if not left:
                        raise
            await deferLater(reactor, 1.0)

    async def _take_away(self, exchange: bool) -> None:
        """The target's exchange, or else its binding."""
        connection = await connect_once(reactor, BrokerSettings(uri=self.bed.broker.uri), "soak operator")
        try:
            channel = await connection.open_channel()
            if exchange:
                await channel.exchange_delete(exchange=TARGET)
            else:
                await channel.queue_unbind(queue=TARGET, exchange=TARGET, routing_key="#")
        finally:
            await connection.shut()


@asynccontextmanager
async def _cut(proxy: FaultProxy) -> AsyncIterator[None]:
    await proxy.refuse()
    proxy.reset()
    try:
        yield
    finally:
        proxy.accept()


@asynccontextmanager
async def _silent(proxy: FaultProxy) -> AsyncIterator[None]:
    proxy.black_hole()
    try:
        yield
    finally:
        proxy.normal()


@asynccontextmanager
async def _slow(proxy: FaultProxy, chance: float) -> AsyncIterator[None]:
    proxy.delay(0.05 + 0.45 * chance)
    proxy.slice(1460)
    try:
        yield
    finally:
        proxy.normal()
