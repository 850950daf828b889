"""Work that may take long, done in slices of the reactor's time, in turns by user.

Theory of operation. A piece of work is a generator that stops at least every millisecond or so. Each user has an
account of the reactor's time that was used on its behalf; it is paid off at a steady rate, by and by. While it is over
`BURST`, this user's work waits. So one user's work, whatever its amount, takes no more than `SHARE` of the reactor's
time and `BURST` at once; that of many users takes its turns, for up to `SLICE` before everything else has its turn. The
works of one user take turns as well.

Work begins at once where its user's account allows it, and mostly ends then: what waits is the exception.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Generator
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from amqprouter.clock import Clock

BURST = 0.001
"""Seconds of the reactor's time that a user's work may take at once: half of what a message is on its way anyhow."""
SHARE = 0.2
"""The part of the reactor's time that a single user's work may have in the long run."""
SLICE = 0.01
"""Seconds of everybody's work before other things have their turn: as long as messages may well wait for confirms."""
MANY_ACCOUNTS = 10_000
"""Accounts beyond which those that are paid off are looked for; each takes some 200 bytes."""

Work = Generator[None, None, Any]


class _Task:
    """One piece of work, and who waits for its end."""

    __slots__ = ("done", "work")

    def __init__(self, work: Work) -> None:
        self.work = work
        self.done: Deferred[Any] = Deferred()


class Slices:
    """Everybody's work. `clock` is an `IReactorTime`.

    Who submits bounds the number of works: there is one at most for each subscriber and for each request.
    """

    log = Logger()

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._accounts: dict[str, tuple[float, float]] = {}  # by user: seconds owed, and since when
        self._waiting: OrderedDict[str, deque[_Task]] = OrderedDict()  # by user; whose turn is next comes first
        self._timer: Any = None
        self._spent = 0.0  # seconds of work in this turn of the reactor, begun at once
        self._turn: Any = None  # the timer that ends the turn

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def waiting(self, user: str) -> int:
        """Works of this user that wait."""
        return len(self._waiting.get(user, ()))

    def may_ask(self, user: str) -> bool:
        """Whether something small may be done for this user at once; `charge` says then what it took."""
        return user not in self._waiting and self._owed(user, self._clock.seconds()) < BURST

    def may_work(self, user: str) -> bool:
        """Whether something that may take long may begin at once."""
        return self._spent < SLICE and self.may_ask(user)

    def charge(self, user: str, seconds: float) -> None:
        """So much of the reactor's time was used for this user."""
        if seconds <= 0.0:
            return
        now = self._clock.seconds()
        if len(self._accounts) > MANY_ACCOUNTS:
            self._accounts = {name: owed for name, owed in self._accounts.items() if self._owed(name, now) > 0.0}
        self._accounts[user] = self._owed(user, now) + seconds, now
        self._spent += seconds
        if self._turn is None:
            self._turn = self._clock.callLater(0, self._turn_over)

    def submit(self, user: str, work: Work) -> Deferred[Any]:
        """Do this: at once as far as that may be, the rest when it has its turn. Fires with what the work returns."""
        task = _Task(work)
        if not self.may_work(user) or not self._advance(user, deque([task]), BURST):
            self._waiting.setdefault(user, deque()).append(task)
            self._run_at(self._clock.seconds())
        return task.done

    def _owed(self, user: str, now: float) -> float:
        account = self._accounts.get(user)
        return 0.0 if account is None else max(0.0, account[0] - (now - account[1]) * SHARE)

    def _turn_over(self) -> None:
        self._spent, self._turn = 0.0, None

    def _advance(self, user: str, tasks: deque[_Task], seconds: float) -> bool:
        """Do this user's works for a while; whether all are done."""
        clock = self._clock
        began = now = clock.seconds()
        while tasks and now - began < seconds:
            task = tasks[0]
            try:
                next(task.work)
            except StopIteration as end:
                tasks.popleft()
                self.charge(user, clock.seconds() - began)
                task.done.callback(end.value)  # it may submit more
                began = now = clock.seconds()
                seconds = min(seconds, BURST - self._owed(user, now))
                continue
            except Exception:
                tasks.popleft()
                task.done.errback()
            now = clock.seconds()
        self.charge(user, now - began)
        if len(tasks) > 1:
            tasks.rotate(-1)
        return not tasks

    def _run_at(self, moment: float) -> None:
        """Go on then, unless that happens earlier."""
        if self._timer is not None:
            if self._timer.getTime() <= moment:
                return
            self._timer.cancel()
        self._timer = self._clock.callLater(max(0.0, moment - self._clock.seconds()), self._run)

    def _run(self) -> None:
        """One slice."""
        self._timer = None
        now = self._clock.seconds()
        end = now + SLICE
        for user in list(self._waiting):
            owed = self._owed(user, now)
            if owed >= BURST:
                continue
            tasks = self._waiting[user]
            self._waiting.move_to_end(user)
            if self._advance(user, tasks, BURST - owed) and not tasks:
                self._waiting.pop(user, None)
            now = self._clock.seconds()
            if now >= end:
                break
        if self._waiting:
            # Half of the burst must be paid off, or the next slice would hardly be one.
            least = min(self._owed(user, now) for user in self._waiting)
            self._run_at(now if least < BURST else now + (least - BURST / 2) / SHARE)
