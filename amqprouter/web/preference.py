"""``Prefer: wait=SECONDS`` (RFC 7240, section 4.3): a publisher that waits to be told how many were written to.

Answers come when the broker has the update, as ever, unless the request says this; then they also have the header
``Amqprouter-Subscriptions``, if that many seconds are enough.
"""

from __future__ import annotations

import re
from typing import Any

from twisted.internet.defer import Deferred

from amqprouter.web.request import RouterRequest

SUBSCRIPTIONS = b"Amqprouter-Subscriptions"
"""Subscriptions of this gateway that the update was written to at once: not those that are catching up, nor other
gateways'."""
MOST_SECONDS = 5
"""As long as the broker's confirm is waited for; it takes milliseconds."""

_WAIT = re.compile(rb'\s*wait\s*=\s*"?([0-9]{1,9})"?\s*(?:;.*)?', re.IGNORECASE | re.DOTALL)


def preferred_wait(request: RouterRequest) -> int:
    """Seconds that the client is ready to wait, `MOST_SECONDS` at most; 0 when it says nothing, or nothing legible. The
    first one counts."""
    for line in request.requestHeaders.getRawHeaders(b"Prefer", []):
        for part in line.split(b","):
            found = _WAIT.fullmatch(part)
            if found:
                return min(int(found[1]), MOST_SECONDS)
    return 0


async def tell_subscriptions(
    request: RouterRequest, written: Deferred[int | None], seconds: float, reactor: Any
) -> None:
    """Put into the response's head to how many the update was written, if that is known in time."""
    timer = reactor.callLater(seconds, written.cancel)
    count = await written
    if timer.active():
        timer.cancel()
    if count is not None and not request.gone:
        request.setHeader(SUBSCRIPTIONS, b"%d" % count)
        request.setHeader(b"Preference-Applied", b"wait")
