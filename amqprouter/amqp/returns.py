"""What the broker returns (basic.return), and what is made of it: publishes that count as returned, not as delivered.

The broker sends the return of a message before its ack. Whatever a return may stand for is marked, so that no ack
passes for delivery: rather is a message sent twice than lost.
"""

from __future__ import annotations

from typing import Any

from twisted.logger import Logger

from amqprouter.amqp.return_match import Publish, ReturnMatch
from amqprouter.amqp.wire import Returned
from amqprouter.clock import Clock
from amqprouter.counters import Counters

UNROUTABLE = "unroutable"
"""How the reason begins for what the broker returns: no queue takes it."""

REPORT_EVERY = 60.0
"""Seconds between two lines in the log about returns that cannot be told: an exchange that lost its bindings makes
thousands a second."""
IN_DOUBT = ", or taken for one that was"
"""The end of the reason where it is not certain that this very message was returned."""


class Returns:
    """Marks what is returned on the publisher's channel."""

    log = Logger()

    def __init__(self, clock: Clock, counters: Counters) -> None:
        self._clock = clock
        self._counters = counters
        self._match: ReturnMatch[Any] = ReturnMatch({})
        self._quiet_until = 0.0
        self._unreported = 0

    def begin(self, under_way: dict[int, Any]) -> None:
        """There is a new channel; `under_way` is the publisher's record of it, by sequence number."""
        self._match = ReturnMatch(under_way)

    def returned(self, returned: Returned) -> None:
        """The broker returned a message."""
        publishes, how = self._match.match(returned)
        self._counters.returned[how] += 1
        reason = f"{UNROUTABLE}: {returned.reply_text.decode(errors='replace')}"
        if how != "one":
            reason += IN_DOUBT
            self._report(returned, how, len(publishes))
        for publish in publishes:
            publish.returned = reason

    def overdue(self, publish: Publish) -> None:
        """The confirm of this publish is waited for no longer."""
        self._match.overdue(publish)

    def forget(self) -> None:
        """Release what is kept to match returns with; called now and then, since it holds on to bodies."""
        self._match.forget()

    def _report(self, returned: Returned, how: str, count: int) -> None:
        if how == "late" or (how == "several" and not count):
            return  # whatever it stands for is sent again already
        now = self._clock.seconds()
        if now < self._quiet_until:
            self._unreported += 1
            return
        self._quiet_until = now + REPORT_EVERY
        unreported, self._unreported = self._unreported, 0
        where = {
            "count": count,
            "exchange": returned.exchange.decode(errors="replace"),
            "key": returned.routing_key.decode(errors="replace"),
            "unreported": unreported,
        }
        if how == "several":
            self.log.warn(
                "The broker returned a message (exchange {exchange!r}, key {key!r}) that is one of {count} with equal "
                "bodies, and something on its way changed it: all of them are sent again, and some may arrive twice "
                "({unreported} more since the last report)",
                **where,
            )
        else:
            self.log.error(
                "The broker returned a message (exchange {exchange!r}, key {key!r}) that is none of those published: "
                "{count} that may have become it are sent again, and may arrive twice; look for what changes bodies, "
                "keys or exchanges in the broker ({unreported} more since the last report)",
                **where,
            )
