"""Threads for hashing: a stalled reactor misses heartbeats, so nothing slow runs in its thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from twisted.application.service import Service
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.threads import deferToThread, deferToThreadPool
from twisted.python.threadpool import ThreadPool

from amqprouter.errors import CheckerUnavailable

T = TypeVar("T")

THREADS = 2
"""Each hash takes 19 MiB (`password_hash.Cost`) and a core for its time; more threads would leave a small gateway none
for the messages that need no hashing."""


def in_reactor_threads(work: Callable[[], T], /) -> Deferred[T]:
    """A `RunInThread` in the pool of the reactor: for programs without a composition root of ours."""
    return deferToThread(work)


class HashingThreads(Service):
    """A pool of its own for hashing, so that a flood of log-ins cannot hold up the name look-ups in the reactor's.

    Its queue has no bound here: who asks has one (`answers.MAX_WAITING`). At the stop, work still queued fails with
    `CheckerUnavailable`; only the hashes being computed are waited for.
    """

    def __init__(self, reactor: IReactorFromThreads, threads: int = THREADS) -> None:
        self._reactor = reactor
        self._pool = ThreadPool(0, threads, name="hashing")
        self._stopped = False

    def startService(self) -> None:
        super().startService()  # type: ignore[no-untyped-call]
        self._pool.start()

    def stopService(self) -> None:
        super().stopService()  # type: ignore[no-untyped-call]
        self._stopped = True
        self._pool.stop()

    def run(self, work: Callable[[], T], /) -> Deferred[T]:
        """A `RunInThread`. Before the start the work waits for it.

        :raises CheckerUnavailable: (by the Deferred) the threads have been stopped.
        """
        if self._stopped:  # the pool would drop it without a word
            return fail(_stopping())
        return deferToThreadPool(self._reactor, self._pool, self._unless_stopped, work)

    def _unless_stopped(self, work: Callable[[], T]) -> T:
        if self._stopped:
            raise _stopping()
        return work()


def _stopping() -> CheckerUnavailable:
    return CheckerUnavailable("the daemon is stopping")
