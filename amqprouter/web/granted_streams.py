"""Streams that are open by a right that ends: ended when a token expires, or is good no longer, and when the time is
over for which a checker said that a password is good.

A stream is ended a little before its token expires, each at another time, so that clients whose tokens expire together
do not all come back together; the client may come back with the old token for the rest of its time. What is left is
then shorter, and so is the part of it that chance decides on.

Where it can be told that a user's password is another now, or that the user was taken away, a reload ends that one's
streams as well (`recheck`); else whoever comes back is asked for it.

Every reload of keys, and whatever else may have made tokens bad, has all tokens verified again (`reload`): a few at a
time, for that takes about 0.1 ms each.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from zope.interface import implementer

from amqprouter.clock import Clock
from amqprouter.errors import BadToken
from amqprouter.events.subscriber import Subscriber
from amqprouter.interfaces import IReloadable
from amqprouter.web.bearer import Verify
from amqprouter.web.login import Version
from amqprouter.web.request import Grant

SPREAD, MAX_LEAD = 0.2, 30.0
"""The part of a token's rest of life in which its stream may end (as the reference hub has it), and the most of that in
seconds: a token of a day need not cost its bearer hours."""

LONGEST = 10 * 365 * 86_400.0
"""Seconds beyond which no end is waited for: no timer can be infinitely late, and the daemon is started again first."""

AT_ONCE = 20
"""Tokens verified again in one turn of the reactor: about 2 ms."""


class _Stream:
    __slots__ = ("subscriber", "timer", "token", "version")

    def __init__(self, subscriber: Subscriber, token: bytes, version: str | None) -> None:
        self.subscriber = subscriber
        self.token = token
        self.version = version
        self.timer: Any = None


@implementer(IReloadable)
class GrantedStreams:
    """All such streams. `clock` is an `IReactorTime`, `wall_clock` seconds since 1970, `random` in [0, 1)."""

    log = Logger()

    def __init__(
        self, verify: Verify | None, clock: Clock, wall_clock: Callable[[], float], random: Callable[[], float]
    ) -> None:
        """`verify` is None where there are no keys, and so no good tokens."""
        self._verify = verify
        self._clock = clock
        self._wall_clock = wall_clock
        self._random = random
        self._streams: dict[int, _Stream] = {}  # by the subscriber's number
        self._unchecked: list[int] = []
        self._checking = False

    def __len__(self) -> int:
        return len(self._streams)

    def add(self, subscriber: Subscriber, grant: Grant) -> None:
        """End this subscription when what it was granted for is over."""
        token, good_until, ends, version = grant
        stream = self._streams[subscriber.number] = _Stream(subscriber, token, version)
        subscriber.on_gone = (*subscriber.on_gone, lambda: self._forget(subscriber.number))
        if good_until is not None:
            left = good_until - self._wall_clock()
        elif ends is not None:
            left = ends - self._clock.seconds()
        else:
            return
        left = max(0.0, left)
        if left <= LONGEST:
            lead = min(MAX_LEAD, SPREAD * left) * self._random()
            stream.timer = self._clock.callLater(left - lead, self._end, subscriber.number)

    def reload(self) -> None:
        """Verify all tokens again, soon."""
        self._unchecked = list(self._streams)
        if not self._checking:
            self._checking = True
            Deferred.fromCoroutine(self._check()).addErrback(
                lambda failure: self.log.failure("tokens of open streams could not be verified", failure=failure)
            )

    def recheck(self, version: Version) -> None:
        """End the streams of users whose password is another now, or who were taken away."""
        for number, stream in list(self._streams.items()):
            if stream.version is not None and version(stream.subscriber.user) != stream.version:
                self._end(number)

    async def _check(self) -> None:
        try:
            while self._unchecked:
                numbers, self._unchecked = self._unchecked[-AT_ONCE:], self._unchecked[:-AT_ONCE]
                for number in numbers:
                    stream = self._streams.get(number)
                    if stream is not None and not await self._is_good(stream.token):
                        self._end(number)
                turn: Deferred[None] = Deferred()
                self._clock.callLater(0, turn.callback, None)
                await turn
        finally:
            self._checking = False

    async def _is_good(self, token: bytes) -> bool:
        if not token:  # a password is asked about when its user comes back
            return True
        try:
            if self._verify is None:
                return False
            await self._verify(token)
        except BadToken:
            return False
        return True

    def _end(self, number: int) -> None:
        stream = self._streams.get(number)
        if stream is not None:
            stream.subscriber.feed.end(stream.subscriber)  # which calls `_forget`

    def _forget(self, number: int) -> None:
        stream = self._streams.pop(number, None)
        if stream is not None and stream.timer is not None and stream.timer.active():
            stream.timer.cancel()
