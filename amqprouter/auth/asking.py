"""Who is being asked about, and turns for what only a few may do at once: so that a crowd holds up nobody else."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar, copy_context
from functools import partial
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, maybeDeferred

from amqprouter.scheduling.shares import Shares

T = TypeVar("T")

_ASKER: ContextVar[tuple[str, str]] = ContextVar("asker", default=("", ""))
"""From where something is asked, and about whom. A checker that is a plug-in need not pass it on."""


def asking_for(source: str, name: str, ask: Callable[[], T]) -> T:
    """Call `ask`: what it does, now or when its coroutines go on, is for this name and this source."""
    token = _ASKER.set((source, name))
    try:
        return ask()
    finally:
        _ASKER.reset(token)


class FairSemaphore:
    """Lets `most` things be done at once. The audiences that wait take turns, in each the sources that ask, and in each
    of these the names.

    The queue has no bound here: who asks has one (`answers.MAX_WAITING`).
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._waiting: Shares[tuple[Callable[[], Deferred[Any]], Deferred[Any]]] = Shares()
        self._busy = 0
        self._held = self._beginning = False

    def hold(self) -> None:
        """Let nothing begin until `go_on` is called."""
        self._held = True

    def go_on(self) -> None:
        """Let what waits begin."""
        self._held = False
        self._begin_next()

    def fail_waiting(self, why: Callable[[], Exception]) -> None:
        """Nothing of what waits is going to be done."""
        while self._waiting:
            _, answer = self._waiting.pop()
            if not answer.called:
                answer.errback(why())

    def run(self, work: Callable[[], Deferred[T]], audience: str = "") -> Deferred[T]:
        """What `work` fires with, once it had its turn. What nobody waits for any more by then is not done."""
        answer: Deferred[T] = Deferred()
        self._waiting.push((audience, *_ASKER.get()), (partial(copy_context().run, work), answer))
        self._begin_next()
        return answer

    def _begin_next(self) -> None:
        if self._beginning:  # something was done at once, and who began it goes on
            return
        self._beginning = True
        while self._waiting and self._busy < self._most and not self._held:
            work, answer = self._waiting.pop()
            if not answer.called:
                self._busy += 1
                maybeDeferred(work).addBoth(self._ended, answer)
        self._beginning = False

    def _ended(self, result: object, answer: Deferred[Any]) -> None:
        self._busy -= 1
        self._begin_next()
        answer.callback(result)  # a failure fails it
