"""Threads for hashing: a stalled reactor misses heartbeats, so nothing slow runs in its thread."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, TypeVar

from twisted.application.service import Service
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.threads import deferToThread, deferToThreadPool
from twisted.python.threadpool import ThreadPool

from amqprouter.core.shares import Shares
from amqprouter.errors import CheckerUnavailable
from amqprouter.interfaces import RunInThread

T = TypeVar("T")

THREADS = 2
"""Each hash takes 19 MiB (`password_hash.Cost`) and a core for its time; more threads would leave a small gateway none
for the messages that need no hashing."""


def in_reactor_threads(work: Callable[[], T], /) -> Deferred[T]:
    """A `RunInThread` in the pool of the reactor: for programs without a composition root of ours."""
    return deferToThread(work)


_ASKER: ContextVar[tuple[str, str]] = ContextVar("asker", default=("", ""))
"""From where something is asked that needs the threads, and about whom."""


def asking_for(source: str, name: str, ask: Callable[[], T]) -> T:
    """Call `ask`: what it runs in threads, now or when its coroutines go on, is for this name and this source."""
    token = _ASKER.set((source, name))
    try:
        return ask()
    finally:
        _ASKER.reset(token)


class HashingThreads(Service):
    """A pool of its own for hashing, so that a flood of log-ins cannot hold up the name look-ups in the reactor's.

    Nor does it hold up anybody else's log-in: devices, users and tokens take turns, within each of these the sources
    that ask, and within a source the names. So a device that is new waits for one hash of the users at most, and a user
    for one of each other address, however many guesses come from there.

    The queue has no bound here: who asks has one (`answers.MAX_WAITING`). At the stop, work still queued fails with
    `CheckerUnavailable`; only the hashes being computed are waited for.
    """

    def __init__(self, reactor: IReactorFromThreads, threads: int = THREADS) -> None:
        self._reactor = reactor
        self._threads = threads
        self._pool = ThreadPool(0, threads, name="hashing")
        self._stopped = False
        self._waiting: Shares[tuple[Callable[[], Any], Deferred[Any]]] = Shares()
        self._busy = 0

    def startService(self) -> None:
        super().startService()  # type: ignore[no-untyped-call]
        self._pool.start()
        self._run_next()

    def stopService(self) -> None:
        super().stopService()  # type: ignore[no-untyped-call]
        self._stopped = True
        while self._waiting:
            _, answer = self._waiting.pop()
            if not answer.called:
                answer.errback(_stopping())
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
        answer: Deferred[T] = Deferred()
        self._waiting.push((audience, *_ASKER.get()), (work, answer))
        self._run_next()
        return answer

    def _run_next(self) -> None:
        while self.running and self._waiting and self._busy < self._threads:
            work, answer = self._waiting.pop()
            if not answer.called:  # else nobody waits for it any more
                self._busy += 1
                deferToThreadPool(self._reactor, self._pool, work).addBoth(self._ran, answer)

    def _ran(self, result: object, answer: Deferred[Any]) -> None:
        self._busy -= 1
        self._run_next()
        answer.callback(result)  # a failure fails it


def _stopping() -> CheckerUnavailable:
    return CheckerUnavailable("the daemon is stopping")
