"""Which consumers have stalled: messages wait in their queues, and the broker delivers none.

House rules: no I/O and no clock; who looks at the queues says what it saw, and when.

Theory of operation. A consumer whose latest delivery is acknowledged has room in its prefetch window, for the broker
sends the next message the moment there is room. If messages wait nevertheless, and nothing came between two looks,
something is wrong, and once that has lasted for the patience, the consumer has stalled. While the latest delivery is
unacknowledged (it waits for its device's rate, or for a slow target) nobody is blamed.

A consumer that was never given anything may be standing by for another gateway, which the queue's single active
consumer is: RabbitMQ then counts one consumer, whosesoever. So it is suspected only while the messages grow no fewer;
and starting it again is harmless, for it holds none. A queue without any consumer is always suspect.

When starting again does not help, the patience doubles each time: rebuilding a channel gives all that is under way on
it back to the queues, which count that (`amqprouter.broker.topology.DELIVERY_LIMIT`).
"""

from __future__ import annotations

from dataclasses import dataclass

MOST_PATIENCE = 600.0
"""Seconds; ceiling of the doubling, unless the configured patience is longer."""


@dataclass(slots=True)
class _Watched:
    """What is known of one queue."""

    latest: int | None = None
    ready: int = 0
    suspect_since: float | None = None
    restarts: int = 0
    problem: str = ""


class Watchdog:
    """Looks after any number of queues, by name. `patience` is in seconds."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._watched: dict[str, _Watched] = {}

    def worth_asking(self, queue: str, latest: int | None, acknowledged: bool) -> bool:
        """Whether nothing came from a queue since the last call, though there was room: `stalled` wants to be told what
        waits there. `latest` is the tag of its latest delivery, and `acknowledged` whether that is.
        """
        watched = self._watched.setdefault(queue, _Watched())
        came = latest is not None and latest != watched.latest
        watched.latest = latest
        if came:
            watched.restarts, watched.problem = 0, ""
        if came or not acknowledged:
            watched.suspect_since = None
            return False
        return True

    def stalled(self, queue: str, ready: int, consumers: int, now: float) -> bool:
        """Whether the consumer must be started again, with this many messages and consumers at the queue."""
        watched = self._watched[queue]
        fewer = ready < watched.ready
        watched.ready = ready
        if consumers and (not ready or (fewer and watched.latest is None)):
            watched.suspect_since, watched.restarts, watched.problem = None, 0, ""
            return False
        if watched.suspect_since is None:
            watched.suspect_since = now
        waited = now - watched.suspect_since
        if waited < min(self._patience * 2 ** max(watched.restarts - 1, 0), max(self._patience, MOST_PATIENCE)):
            return False
        if watched.restarts:
            what = f"{ready} messages wait and none is delivered" if consumers else "the broker knows of no consumer"
            watched.problem = f"queue {queue}: {what}, though its consumer was started again ({watched.restarts} times)"
        watched.restarts += 1
        watched.suspect_since = now
        return True

    def forget(self, queue: str) -> None:
        """This queue is consumed from no more."""
        self._watched.pop(queue, None)

    def problem(self) -> str:
        """The queues for which starting again has not helped, for the operator; empty when there is none."""
        problems = [watched.problem for watched in self._watched.values() if watched.problem]
        return "; ".join(problems) + ": look at rabbitmqctl list_consumers and list_queues" if problems else ""
