"""Streams that do not last for ever: ended when the token that opened them expires, or is good no longer, when the time
is over for which a checker said that a password is good, and when they are as old as streams may be.

A stream is ended a little before its token expires, each at another time, so that clients whose tokens expire together
do not all come back together; the client may come back with the old token for the rest of its time. What is left is
then shorter, and so is the part of it that chance decides on.

The same goes for the longest life of a stream (``[events] max_lifetime``), by which whoever follows events is asked
again who it is: of streams that began together, as after a restart, each ends at another time. Their clients come back
at once, for nothing is wrong, and miss no more than a moment.

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

COME_BACK_SECONDS = 0.5
"""Least wait, of up to twice as much, before the client of a stream that has become too old connects again. Not less:
if its gateway ends in this very moment, it goes on trying at this pace until there is one again."""

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
    """All such streams. `clock` is an `IReactorTime`, `wall_clock` seconds since 1970, `random` in [0, 1).

    :param max_lifetime: seconds after which, or up to `SPREAD` of that before, any stream is ended; 0 for never.
    """

    log = Logger()

    def __init__(
        self,
        verify: Verify | None,
        clock: Clock,
        wall_clock: Callable[[], float],
        random: Callable[[], float],
        max_lifetime: float = 0.0,
    ) -> None:
        """`verify` is None where there are no keys, and so no good tokens."""
        self._verify = verify
        self._clock = clock
        self._wall_clock = wall_clock
        self._random = random
        self._max_lifetime = max_lifetime
        self._streams: dict[int, _Stream] = {}  # by the subscriber's number
        self._unchecked: list[int] = []
        self._checking = False

    def __len__(self) -> int:
        return len(self._streams)

    def add(self, subscriber: Subscriber, grant: Grant | None) -> None:
        """End this subscription when what it was granted for is over, if that can end, or its life."""
        if grant is None:
            if not self._max_lifetime:
                return
            grant = Grant(b"")
        stream = self._streams[subscriber.number] = _Stream(subscriber, grant.token, grant.version)
        subscriber.on_gone = (*subscriber.on_gone, lambda: self._forget(subscriber.number))
        left, retry = self._left(grant), 0.0
        if self._max_lifetime:
            life = self._max_lifetime * (1 - SPREAD * self._random())
            if left is None or life < left:
                left, retry = life, COME_BACK_SECONDS
        if left is not None and left <= LONGEST:
            stream.timer = self._clock.callLater(left, self._end, subscriber.number, retry)

    def _left(self, grant: Grant) -> float | None:
        """Seconds until a stream by this is to end; None where nobody said when."""
        if grant.good_until is not None:
            left = max(0.0, grant.good_until - self._wall_clock())
        elif grant.ends is not None:
            left = max(0.0, grant.ends - self._clock.seconds())
        else:
            return None
        return left - min(MAX_LEAD, SPREAD * left) * self._random()

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

    def _end(self, number: int, retry_seconds: float = 0.0) -> None:
        stream = self._streams.get(number)
        if stream is not None:
            stream.subscriber.feed.end(stream.subscriber, retry_seconds)  # which calls `_forget`

    def _forget(self, number: int) -> None:
        stream = self._streams.pop(number, None)
        if stream is not None and stream.timer is not None and stream.timer.active():
            stream.timer.cancel()
