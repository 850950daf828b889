"""Locking out who fails too often: no more questions for a while, so that secrets cannot be tried one after the other.

Theory of operation. What is counted are the no-s of checkers, under two keys:

- the question itself, a name with one wrong secret: a device that sends it again and again is not asked about each time
  its remembered no has grown old;
- where the question comes from, together with the name: for a message the ``user_id`` that the broker has validated,
  for a log-in the address of the peer. Another source is another key, so nobody locks out a device or user from
  elsewhere. A message without a ``user_id`` has no source, for anybody may leave it out; only its question is counted.

Devices may share a broker user, and users a proxy. Hence the secret that a name last proved itself with is asked about
all the same: who knows it is not the one who guesses. And a remembered yes counts in any case, before it comes to this.

While a key is locked its failures are not counted, for nobody is asked. After that each failure locks it again, until
it has been quiet for a time, or there is a yes.
"""

from __future__ import annotations

from dataclasses import dataclass

from twisted.logger import Logger

from amqprouter.auth.answers import Question
from amqprouter.core.aged_cache import AgedCache
from amqprouter.core.counters import Counters

MEMORY = 10
"""How many times as long as a lock-out its key is remembered after the last failure."""
GOOD_SECONDS = 7 * 86_400.0
"""How long the digest of a good secret is known: longer than a device should be silent."""

Key = tuple[str, str, object]
"""A `Question`; or ``from``, a name, and where it is claimed from."""


@dataclass(slots=True)
class _Failures:
    count: int = 0
    locked_until: float = 0.0


class LockOut:
    """Counts for one kind of names.

    :param after: failures that lock a key; 0 turns everything off.
    :param seconds: how long it is locked.
    :param size: keys remembered, and good secrets.
    """

    log = Logger()

    def __init__(self, after: int, seconds: float, size: int, counters: Counters) -> None:
        self._after = after
        self._seconds = seconds
        self._counters = counters
        self._failures: AgedCache[Key, _Failures] = AgedCache(size, seconds * MEMORY)
        self._good: AgedCache[tuple[str, str], bytes] = AgedCache(size, GOOD_SECONDS)

    def refuses(self, question: Question, source: str, now: float) -> bool:
        """Whether this is not to be asked. `source` is empty where there is none; `now` is in seconds."""
        if not self._after:
            return False
        proof, name, digest = question
        locked = self._locked(question, now) or (
            bool(source) and self._locked(("from", name, source), now) and self._good.get((proof, name), now) != digest
        )
        self._counters.locked_out += locked
        return locked

    def note(self, question: Question, source: str, allowed: bool, now: float) -> None:
        """The checker's answer."""
        if not self._after:
            return
        proof, name, digest = question
        if allowed:
            self._good.put((proof, name), digest, now)
            self._failures.drop(question)
            self._failures.drop(("from", name, source))
            return
        self._count(question, now)
        if source and self._count(("from", name, source), now):
            self.log.warn("{name} is locked out from {source} for {t} s", name=name, source=source, t=self._seconds)

    def forget(self, name: str) -> None:
        """Unlock one name. Looks at every key: for an operator's command."""
        self._failures.forget(lambda key: key[1] == name)

    def flush(self) -> None:
        """Unlock everything."""
        self._failures.clear()

    def _locked(self, key: Key, now: float) -> bool:
        failures = self._failures.get(key, now)
        return failures is not None and now < failures.locked_until

    def _count(self, key: Key, now: float) -> bool:
        """One more failure; whether that locks the key."""
        failures = self._failures.get(key, now) or _Failures()
        failures.count += 1
        self._failures.put(key, failures, now)
        if failures.count < self._after:
            return False
        failures.locked_until = now + self._seconds
        return True
