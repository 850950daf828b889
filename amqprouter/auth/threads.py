"""Threads for hashing: a stalled reactor misses heartbeats, so nothing slow runs in its thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from twisted.application.service import Service
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.threads import deferToThread, deferToThreadPool
from twisted.python.threadpool import ThreadPool

from amqprouter.auth.asking import FairSemaphore
from amqprouter.errors import CheckerUnavailable
from amqprouter.interfaces import RunInThread

T = TypeVar("T")

THREADS = 2
"""Each hash takes 19 MiB (`password_hash.Cost`) and a core for its time; more threads would leave a small gateway none
for the messages that need no hashing."""


def in_reactor_threads(work: Callable[[], T], /) -> Deferred[T]:
    """A `RunInThread` in the pool of the reactor: for programs without a composition root of ours."""
    return deferToThread(work)


class HashingThreads(Service):
    """A pool of its own for hashing, so that a flood of log-ins cannot hold up the name look-ups in the reactor's.

    Nor does it hold up anybody else's log-in: devices, users and tokens take turns, within each of these the sources
    that ask, and within a source the names. So a device that is new waits for one hash of the users at most, and a user
    for one of each other address, however many guesses come from there.

    Its queue has no bound here: who asks has one (`answers.MAX_WAITING`). At the stop, work still queued fails with
    `CheckerUnavailable`; only the hashes being computed are waited for.
    """

    def __init__(self, reactor: IReactorFromThreads, threads: int = THREADS) -> None:
        self._reactor = reactor
        self._pool = ThreadPool(0, threads, name="hashing")
        self._stopped = False
        self._turns = FairSemaphore(threads)
        self._turns.hold()

    def startService(self) -> None:
        super().startService()  # type: ignore[no-untyped-call]
        self._pool.start()
        self._turns.go_on()

    def stopService(self) -> None:
        super().stopService()  # type: ignore[no-untyped-call]
        self._stopped = True
        self._turns.fail_waiting(_stopping)
        self._pool.stop()

    def run(self, work: Callable[[], T], /) -> Deferred[T]:
        """A `RunInThread`, of a share of its own. Before the start the work waits for it.

        :raises CheckerUnavailable: (by the Deferred) the threads have been stopped.
        """
        return self._file("", work)

    def share(self, audience: str) -> RunInThread:
        """As `run`, of the share of this audience."""

        def run(work: Callable[[], T], /) -> Deferred[T]:
            return self._file(audience, work)

        return run

    def _file(self, audience: str, work: Callable[[], T]) -> Deferred[T]:
        if self._stopped:  # the pool would drop it without a word
            return fail(_stopping())
        return self._turns.run(lambda: deferToThreadPool(self._reactor, self._pool, work), audience)


def _stopping() -> CheckerUnavailable:
    return CheckerUnavailable("the daemon is stopping")
