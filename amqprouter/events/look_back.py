"""Finding out whether a subscriber that resumes has missed anything at all, by the topics that had events since.

It is a `amqprouter.events.subscriber.CatchingUp` while that lasts. Patterns are tried in slices of the reactor's time,
also before the subscriber's response has begun, which may be waiting for the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from twisted.logger import Logger

from amqprouter.events.interest import Steps
from amqprouter.events.slices import Slices, Work
from amqprouter.events.subscriber import Subscriber


class LookBack:
    """One subscriber's; `found` is called with whether something of these topics was asked for, unless it is stopped
    before."""

    _log = Logger()
    place: int | None = None
    """See `CatchingUp`: nothing has been written yet."""

    def __init__(self, subscriber: Subscriber, topics: Iterable[str], found: Callable[[bool], None]) -> None:
        self._subscriber = subscriber
        self._topics = topics
        self._found = found
        self._over = False

    def begin(self, slices: Slices) -> None:
        """Look, at once as far as that may be."""
        slices.submit(self._subscriber.account, self._work()).addErrback(
            lambda failure: self._log.failure("what a subscriber has missed cannot be found out", failure=failure)
        )

    def _work(self) -> Work:
        missed = yield from self._subscriber.interest.tries(self._topics)
        if not self._over:
            self._found(missed)

    def steps(self) -> Steps:
        """There is nothing to be done but to wait."""
        yield from ()
        return False

    def stop(self) -> None:
        """The subscriber is gone, or is beyond this. Doing so twice does no harm."""
        if not self._over:
            self._over = True
            self._topics = ()
            self._subscriber.catch_up = None
