"""Servers that the tests of one trial process share, each test in a name space of its own.

A node takes seconds to start and a virtual host milliseconds, so there is one node, started when the first test asks
and stopped with the reactor, and a virtual host for each test. The command-line tool costs 0.4 s a call whatever it
does [measured]: virtual hosts are made several at a time, and those of finished tests are deleted along the way.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

from twisted.internet import defer

from tests.support.process import reactor
from tests.support.rabbitmq import PrivateRabbitMQ

_BATCH = 8
"""Virtual hosts made at a time; each takes the node some megabytes."""


@dataclass(frozen=True)
class Vhost:
    """A virtual host of one test's own, where ``guest`` may do everything."""

    name: str
    uri: str
    broker: PrivateRabbitMQ

    async def list_queues(self, column: str = "messages") -> dict[str, int]:
        """Queue names and one of their figures."""
        return await self.broker.list_queues(self.name, column)


class _VhostPool:
    """A shared node and its spare virtual hosts."""

    def __init__(self, broker: PrivateRabbitMQ) -> None:
        self.broker = broker
        self.lock = defer.DeferredLock()
        self.used: list[str] = []
        self._spare: list[str] = []
        self._numbers = itertools.count(1)

    async def take(self) -> str:
        if not self._spare:
            fresh = [f"test-{next(self._numbers)}" for _ in range(_BATCH)]
            used, self.used = self.used, []
            await self.broker.eval(_replace_vhosts(used, fresh))
            self._spare = fresh[::-1]
        return self._spare.pop()


def _replace_vhosts(used: list[str], fresh: list[str]) -> str:
    def binaries(names: list[str]) -> str:
        return "[" + ",".join(f'<<"{name}">>' for name in names) + "]"

    everything = '<<".*">>, <<".*">>, <<".*">>'
    return (
        f'[ok = rabbit_vhost:delete(V, <<"tests">>) || V <- {binaries(used)}],'
        f'[begin ok = rabbit_vhost:add(V, <<"tests">>),'
        f' ok = rabbit_auth_backend_internal:set_permissions(<<"guest">>, V, {everything}, <<"tests">>) end'
        f" || V <- {binaries(fresh)}], ok."
    )


_pool: _VhostPool | None = None
_starting = defer.DeferredLock()


async def shared_rabbitmq() -> PrivateRabbitMQ:
    """The node that this process's tests share; don't stop, kill or alarm it: start a `PrivateRabbitMQ` for that."""
    return (await _shared_pool()).broker


async def _shared_pool() -> _VhostPool:
    global _pool  # noqa: PLW0603 - one for each process is the point
    async with _starting:
        if _pool is None:
            broker = PrivateRabbitMQ(Path(mkdtemp(prefix="rabbitmq-", dir=".")))
            reactor.addSystemEventTrigger("before", "shutdown", lambda: defer.Deferred.fromCoroutine(broker.stop()))
            await broker.start()
            _pool = _VhostPool(broker)
        return _pool


@asynccontextmanager
async def with_vhost() -> AsyncIterator[Vhost]:
    """``async with with_vhost() as vhost``: a virtual host that no other test has seen, on the shared node."""
    pool = await _shared_pool()
    async with pool.lock:
        name = await pool.take()
    try:
        yield Vhost(name, pool.broker.uri_for(name), pool.broker)
    finally:
        pool.used.append(name)
