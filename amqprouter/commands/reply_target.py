"""Answers of workers that go to the device that they are about, as commands.

They pass the same service as other commands. The sender is the section that handed the work out, ``queue:images``, so
the access list decides which section may send what. What is over the device's limit, or finds its queue full, is tried
again for as long as a command is worth something, then refused, and so dead-lettered; nobody is there to be told to
come back.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from zope.interface import implementer

from amqprouter.broker.reply import ReplyAddress
from amqprouter.clock import Clock
from amqprouter.commands.command import Command, Fate, Outcome
from amqprouter.identity import Identity
from amqprouter.interfaces import ITarget
from amqprouter.pipeline.message import Message
from amqprouter.pipeline.settlement import Settlement

RETRY = 1.0
"""Seconds at least before another try: a queue that is full has its device's whole round to go."""

Submit = Callable[[Identity, Command], "Deferred[Outcome]"]


@implementer(ITarget)
class CommandReplies:
    """The target ``command:TOPIC``.

    :param ttl: seconds that a command is worth something.
    """

    def __init__(self, clock: Clock, topic: str, submit: Submit, ttl: float) -> None:
        self._clock = clock
        self._topic = topic
        self._submit = submit
        self._ttl = ttl

    def deliver(self, message: Message, settlement: Settlement) -> None:
        """See `ITarget`."""
        try:
            address = ReplyAddress.parse(message.properties.text("correlation_id") or "")
            command = Command(
                message.device,
                self._topic,
                id=address.unique,
                sender=address.section.replace(" ", ":", 1),
                body=message.body,
                content_type=message.properties.content_type or "",
                at=message.received_at,
            )
        except ValueError:
            settlement.refused("malformed-properties")
            return
        self._try(command, settlement, self._clock.seconds() + self._ttl)

    def flush(self) -> None:
        """See `ITarget`."""

    def _try(self, command: Command, settlement: Settlement, until: float) -> None:
        def answered(outcome: Outcome) -> None:
            if outcome.fate is Fate.SENT:
                settlement.delivered()
                return
            wait = max(RETRY, outcome.retry_after)
            worth_it = outcome.fate in (Fate.LIMITED, Fate.FULL) and self._clock.seconds() + wait <= until
            if worth_it or outcome.fate is Fate.UNAVAILABLE:
                self._clock.callLater(wait, self._try_again, command, settlement, until)
            else:
                settlement.refused(outcome.reason)

        self._submit(Identity(command.sender), command).addCallback(answered)

    def _try_again(self, command: Command, settlement: Settlement, until: float) -> None:
        if not settlement.ledger.closed:
            self._try(command, settlement, until)
