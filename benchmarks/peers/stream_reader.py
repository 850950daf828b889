"""Read the event stream as the daemon does, and do nothing with it. Arguments: URI, seconds.

Prints the median and the 99th percentile of the latencies, in ms, but for the first second.
"""

from __future__ import annotations

import sys
import time

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater, react

from amqprouter.amqp.link import connect_once
from amqprouter.broker.event_stream import LOOK_BACK, EventReader
from amqprouter.events.event import Event
from amqprouter.settings import BrokerSettings

_MARK = b"~T"
SKIPPED = 1_000_000
"""Microseconds in which it begins to read."""


async def main(reactor: object, uri: str, seconds: float) -> None:
    connection = await connect_once(reactor, BrokerSettings(uri=uri), "benchmark stream reader")
    began = time.monotonic_ns() // 1000 + SKIPPED
    waits: list[int] = []

    def received(event: Event, live: bool) -> None:
        now = time.monotonic_ns() // 1000
        mark = int(event.data.partition(_MARK)[2][:16])
        if mark > began:
            waits.append(now - mark)

    # So that it begins now, and not with what was there before.
    reader = EventReader("amqprouter.events", received, lambda: time.time() + LOOK_BACK)
    await reader.attach(connection)
    await deferLater(reactor, seconds)  # type: ignore[arg-type]  # `react` has no type for it
    waits.sort()
    print(*(waits[int(len(waits) * share)] / 1000 for share in (0.5, 0.99)))
    await connection.shut()


if __name__ == "__main__":
    react(lambda reactor: Deferred.fromCoroutine(main(reactor, sys.argv[1], float(sys.argv[2]))))
