"""Locking out who fails too often: no more questions for a while, so that secrets cannot be tried one after the other.

Theory of operation. What is counted are the no-s of checkers, under two keys:

- the question itself, a name with one wrong secret: a device that sends it again and again is not asked about each time
  its remembered no has grown old;
- where the question comes from, together with the name: for a message the ``user_id`` that the broker has validated,
  for a log-in the address of the peer. Another source is another key, so nobody locks out a device or user from
  elsewhere. A message without a ``user_id`` has no source, for anybody may leave it out; only its question is counted.

A guess counts from the moment in which it is asked about: what is under way might be a no. So however many come at
once, no more are asked about than would be one after the other. Who ask the same thing at the same time are one guess.

Devices may share a broker user, and users a proxy. Hence the secret that a name last proved itself with is asked about
all the same: who knows it is not the one who guesses. And a remembered yes counts in any case, before it comes to this.

Who tries one password with many names is counted as well, where sources are addresses: all no-s from one, whatever the
names, and all that is under way. The count goes down with time, so there the guesses go on at a slow pace; whoever was
right from there before is asked about all the same.

While a key is locked its failures are not counted, for nobody is asked. After that each failure locks it again, until
it has been quiet for a time, or there is a yes.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import inf

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from amqprouter.auth.aged_cache import AgedCache
from amqprouter.auth.answers import Question
from amqprouter.counters import Counters
from amqprouter.identity import Verdict

MEMORY = 10
"""How many times as long as a lock-out its key is remembered after the last failure."""
GOOD_SECONDS = 7 * 86_400.0
"""How long the digest of a good secret is known: longer than a device should be silent."""
UNDER_WAY_SECONDS = 1.0
"""When to come back, if those under way might be the last that are allowed: they are answered soon."""

Key = tuple[str, str, object]
"""A `Question`; or ``from``, a name, and where it is claimed from."""


@dataclass(slots=True)
class _Guesses:
    """No-s from one address: `level` at the time `since`, from when on it goes down."""

    level: float = 0.0
    since: float = 0.0
    told: bool = False


@dataclass(slots=True)
class _Failures:
    count: int = 0
    locked_until: float = 0.0


class LockOut:
    """Counts for one kind of names.

    :param after: failures that lock a key; 0 turns everything off.
    :param seconds: how long it is locked.
    :param size: keys remembered, and good secrets.
    :param from_address: no-s from one source, whatever the names, after which others must wait until one is forgotten;
        it takes `MEMORY` times `seconds` until all are. 0 where sources are no addresses.
    """

    log = Logger()

    def __init__(self, after: int, seconds: float, size: int, counters: Counters, from_address: int = 0) -> None:
        self._after = after
        self._seconds = seconds
        self._counters = counters
        self._failures: AgedCache[Key, _Failures] = AgedCache(size, seconds * MEMORY)
        self._good: AgedCache[tuple[str, str], bytes] = AgedCache(size, GOOD_SECONDS)
        self._from_address = from_address
        self._latest = -inf
        self._guesses: AgedCache[str, _Guesses] = AgedCache(size, seconds * MEMORY)
        self._asking_from: Counter[str] = Counter()  # what is under way, by source
        self._under_way: dict[Key, Counter[Question]] = {}
        """By name and source, how many ask what. As many at most as may wait for answers (`answers.MAX_WAITING`)."""

    def wait(self, question: Question, source: str, now: float) -> float:
        """The seconds for which this is not to be asked, 0 when it is to be. `source` is empty where there is none;
        `now` is in seconds."""
        if not self._after:
            return 0.0
        now = self._no_earlier(now)
        wait = self._locked(question, now)
        if not wait and source and not self._is_good(question, now):
            wait = self._wait_from(question, source, now)
        self._counters.locked_out += wait > 0
        return wait

    def watch(self, question: Question, source: str, asked: Deferred[Verdict], now: float) -> Deferred[Verdict]:
        """This is being asked now: count it, and then what comes of it. Fires with that."""
        if not self._after:
            return asked
        if source:
            asking = self._under_way.setdefault(("from", question[1], source), Counter())
            self._asking_from[source] += question not in asking
            asking[question] += 1

        def answered(verdict: Verdict) -> Verdict:
            # Somebody else's good secret says nothing of the name that was claimed with it.
            if self._ended(question, source) and not verdict.publisher:
                self.note(question, source, verdict.allowed, now)
            return verdict

        def not_answered(failure: Failure) -> Failure:
            self._ended(question, source)
            return failure

        return asked.addCallbacks(answered, not_answered)

    def note(self, question: Question, source: str, allowed: bool, now: float) -> None:
        """The checker's answer."""
        if not self._after:
            return
        now = self._no_earlier(now)
        proof, name, digest = question
        if allowed:
            self._good.put((proof, name), digest, now)
            self._failures.drop(question)
            self._failures.drop(("from", name, source))
            return
        self._count(question, now)
        if source and self._from_address:
            self._count_guess(source, now)
        if source and self._count(("from", name, source), now):
            self.log.warn("{name} is locked out from {source} for {t} s", name=name, source=source, t=self._seconds)

    def forget(self, name: str) -> None:
        """Unlock one name. Looks at every key: for an operator's command."""
        self._failures.forget(lambda key: key[1] == name)

    def flush(self) -> None:
        """Unlock everything."""
        self._failures.clear()
        self._guesses.clear()

    def _ended(self, question: Question, source: str) -> bool:
        """Somebody who asked this has been told; whether nobody else is asking it from there."""
        key = "from", question[1], source
        asking = self._under_way.get(key)
        if asking is None:
            return True
        asking[question] -= 1
        if asking[question] > 0:
            return False
        del asking[question]
        self._asking_from[source] -= 1
        if not self._asking_from[source]:
            del self._asking_from[source]
        if not asking:
            del self._under_way[key]
        return True

    def _no_earlier(self, now: float) -> float:
        """`now`, or the latest that there was: answers do not come in the order of the questions, whose time is told
        with them, and to a cache a step back is a reason to forget."""
        self._latest = max(self._latest, now)
        return self._latest

    def _is_good(self, question: Question, now: float) -> bool:
        proof, name, digest = question
        return self._good.get((proof, name), now) == digest

    def _wait_from(self, question: Question, source: str, now: float) -> float:
        key = "from", question[1], source
        wait = self._locked(key, now)
        asking = self._under_way.get(key, ())
        if wait or question in asking:
            return wait
        if asking:
            failures = self._failures.get(key, now)
            left = self._after - (0 if failures is None else failures.count)
            if len(asking) >= max(1, left):
                return UNDER_WAY_SECONDS
        return self._wait_at(source, now)

    def _wait_at(self, source: str, now: float) -> float:
        if not self._from_address:
            return 0.0
        guesses = self._guesses.get(source, now)
        level = 0.0 if guesses is None else self._level(guesses, now)
        too_many = level + self._asking_from.get(source, 0) + 1 - self._from_address
        return 0.0 if too_many <= 0 else min(self._seconds, too_many / self._forgotten_in_a_second)

    @property
    def _forgotten_in_a_second(self) -> float:
        return self._from_address / (MEMORY * self._seconds)

    def _level(self, guesses: _Guesses, now: float) -> float:
        return max(0.0, guesses.level - max(0.0, now - guesses.since) * self._forgotten_in_a_second)

    def _count_guess(self, source: str, now: float) -> None:
        guesses = self._guesses.get(source, now) or _Guesses()
        guesses.level, guesses.since = self._level(guesses, now) + 1, now
        self._guesses.put(source, guesses, now)
        if guesses.level <= self._from_address / 2:
            guesses.told = False
        elif guesses.level + 1 > self._from_address and not guesses.told:
            guesses.told = True  # not again for each of the few
            self.log.warn("Too many wrong passwords come from {source}: few more are asked about", source=source)

    def _locked(self, key: Key, now: float) -> float:
        """The seconds for which this key still is."""
        failures = self._failures.get(key, now)
        return 0.0 if failures is None else max(0.0, failures.locked_until - now)

    def _count(self, key: Key, now: float) -> bool:
        """One more failure; whether that locks the key."""
        failures = self._failures.get(key, now) or _Failures()
        failures.count += 1
        self._failures.put(key, failures, now)
        if failures.count < self._after:
            return False
        failures.locked_until = now + self._seconds
        return True
