"""Where commands to devices come in, by whatever way: authorised, limited, and handed on.

House rules. A command's outcome is known exactly once. Whether a sender may send it is asked before anything else is
told of the device; what is over the limit is refused, never kept, since commands are worth something now or not at all.
Bounds: no more than `MOST_UNDER_WAY` commands are on their way to the broker.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from twisted.internet.defer import Deferred, succeed

from amqprouter.clock import Clock
from amqprouter.commands.command import Command, Fate, Outcome
from amqprouter.counters import Counters
from amqprouter.identity import Identity
from amqprouter.patterns import TopicPattern
from amqprouter.scheduling.limit import DeviceRates

MOST_UNDER_WAY = 1000
"""Commands, and events about them, that the broker has not confirmed. With bodies of 64 kB that is 64 MB."""


class Outbox(Protocol):
    """The way to the devices."""

    @property
    def under_way(self) -> int:
        """Commands, and events about them, that are not yet with the broker."""

    def send(self, command: Command) -> Deferred[Outcome]:
        """Put the command into its device's queue, and have it told."""


class CommandService:
    """Decides about each command.

    :param topics: what the topics of commands must match, without the device id.
    :param may_command: whether a sender may command ``<device>.<topic>``.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        topics: TopicPattern,
        may_command: Callable[[Identity, str], bool],
        rates: DeviceRates,
        max_bytes: int,
        outbox: Outbox,
        counters: Counters,
    ) -> None:
        self._clock = clock
        self._topics = topics
        self._may_command = may_command
        self._rates = rates
        self._max_bytes = max_bytes
        self._outbox = outbox
        self._counters = counters

    def submit(self, sender: Identity, command: Command) -> Deferred[Outcome]:
        """Send the command on behalf of `sender`, whose name it has; fires with what became of it, never fails."""
        outcome = self._refusal(sender, command)
        if outcome is None:
            return self._outbox.send(command).addCallback(self._count)
        return succeed(self._count(outcome))

    def _refusal(self, sender: Identity, command: Command) -> Outcome | None:
        problem = command.problem()
        if problem:
            return Outcome(Fate.BAD, problem)
        if len(command.body) > self._max_bytes:
            return Outcome(Fate.BAD, "body-too-large")
        if not self._topics.matches(command.topic) or not self._may_command(sender, command.key):
            return Outcome(Fate.FORBIDDEN, "not-authorised")
        if self._outbox.under_way >= MOST_UNDER_WAY:
            return Outcome(Fate.UNAVAILABLE, "too many commands are waiting for the broker", 1.0)
        wait = self._rates.take(command.device, len(command.body), self._clock.seconds())
        return Outcome(Fate.LIMITED, "rate-limited", wait) if wait else None

    def _count(self, outcome: Outcome) -> Outcome:
        self._counters.commands[outcome.fate.value] += 1
        return outcome
