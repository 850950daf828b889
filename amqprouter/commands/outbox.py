"""Commands on their way into the devices' queues, and the events that tell of them.

A command is published with a publisher of its own, which gives up at once where the daemon's other one would try again:
whoever waits for an answer is told that the device has no queue, or a full one. The queue is declared first, if the
daemon is to; it is bound to the exchange with ``<device>.#``, or as the layout of the device says
(`amqprouter.layouts.command_keys`). Who had it declared is the sender: nobody's commands to devices that nobody has
keep others from having theirs declared (`amqprouter.broker.chosen_names`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from amqprouter.amqp.connection import Connection
from amqprouter.amqp.declare import Declarer
from amqprouter.amqp.publisher import NACKED, Publisher
from amqprouter.broker.work_queues import BAD_QUEUE, TOO_MANY, DeclaredQueues
from amqprouter.clock import Clock
from amqprouter.commands.command import QUEUE_PLACEHOLDER, Command, Fate, Outcome, event
from amqprouter.errors import Unencodable
from amqprouter.identity import MAX_BYTES
from amqprouter.layouts.command_keys import CommandKey, CommandKeys
from amqprouter.layouts.layout_set import LayoutSet
from amqprouter.layouts.pattern import NotFilled

NO_QUEUE = "no-queue"
"""The reason of commands that the broker has no queue for."""
PATIENCE = 20.0
"""Seconds that a sender waits for an answer: longer than the publisher takes to miss a confirm."""
RETRY_AFTER = 5.0
"""Seconds after which a sender may try again when the broker cannot be asked, or a queue is full."""


class CommandOutbox:
    """Publishes commands to `exchange`.

    :param queue: the name of a device's queue, with ``{device}`` in it; empty when there are none to declare.
    :param publisher: one that gives up at the first trouble. :param events: the daemon's, for the event stream.
    :param keys: what routing key a command has. Where a layout has an exchange of its own for them, what is bound there
        gets them, and no queue is declared.
    :param ttl: seconds that a command may wait in its queue. :param wall_clock: seconds since 1970.
    """

    log = Logger()

    def __init__(
        self,
        clock: Clock,
        wall_clock: Callable[[], float],
        *,
        exchange: str,
        own_exchange: bool,
        queue: str,
        queues: DeclaredQueues,
        publisher: Publisher,
        events: Publisher,
        stream: str,
        ttl: float,
        keys: CommandKeys | None = None,
    ) -> None:
        self._clock = clock
        self._wall_clock = wall_clock
        self._exchange = exchange
        self._own_exchange = own_exchange
        self._queue = queue
        self._queues = queues
        self._publisher = publisher
        self._events = events
        self._stream = stream.encode()
        self._ttl = ttl
        self._keys = keys or CommandKeys(LayoutSet(()))
        self._connection: Connection | None = None
        self._sending = 0
        self._telling = 0

    @property
    def under_way(self) -> int:
        """Commands, and events about them, that are not yet with the broker."""
        return self._sending + self._telling

    async def attach(self, connection: Connection) -> None:
        """Publish over this connection from now on.

        :raises BrokerRefused: the broker refuses. :raises BrokerUnavailable: the connection is lost.
        """
        if self._own_exchange:
            declarer = Declarer(connection, "delete it on the broker, or name another in [commands] exchange")
            await declarer.exchange(self._exchange, "topic")
            await declarer.shut()
        await self._publisher.attach(connection)
        if self._queue:  # else there is none to declare, not even one of the section's name
            await self._queues.attach(connection)
        self._connection = connection

    def send(self, command: Command) -> Deferred[Outcome]:
        """Put the command into its device's queue, and tell of it by an event; fires with what became of it."""
        connection = self._connection
        if connection is None or connection.closed:
            return succeed(Outcome(Fate.UNAVAILABLE, "there is no connection to the broker", RETRY_AFTER))
        try:
            way = self._keys.of(command.device, command.topic)
        except NotFilled as error:
            fate = Fate.BAD if str(error).startswith("bad-") else Fate.UNDELIVERABLE
            return succeed(Outcome(fate, str(error)))
        if len(way.key) > MAX_BYTES:
            return succeed(Outcome(Fate.BAD, "topic-too-long"))
        sending = _Sending(self, command, way)
        queue, binding = self._queue_of(sending)
        if queue and len(queue.encode()) > 255:
            return succeed(Outcome(Fate.BAD, "bad-queue-name"))
        is_there = not queue or self._queues.ready(queue, binding)
        refusal = "" if is_there else self._queues.refusal(queue, binding, command.sender)
        if refusal == TOO_MANY:
            return succeed(Outcome(Fate.FULL, TOO_MANY, RETRY_AFTER))
        self._sending += 1
        sending.start(self._clock)
        if refusal:
            sending.refused(refusal)
        elif is_there:
            self._publish(sending)
        else:
            self._queues.when_ready(
                queue, binding, lambda: self._publish(sending), sending.refused_queue, command.sender
            )
        return sending.done

    def _publish(self, sending: _Sending) -> None:
        if sending.done.called:
            return  # it waited for its queue for so long that its sender was told to try again
        command, way = sending.command, sending.way
        properties = command.properties(self._ttl, with_key=way.key != command.key.encode())
        self._publisher.publish((way.exchange or self._exchange).encode(), way.key, properties, command.body, sending)
        self._publisher.flush()

    def _queue_of(self, sending: _Sending) -> tuple[str, str]:
        """The name of the device's queue, empty where none is declared, and what binds it."""
        queue = "" if sending.way.exchange else self._queue.replace(QUEUE_PLACEHOLDER, sending.command.device)
        return queue, sending.way.binding

    def settled(self, sending: _Sending, outcome: Outcome) -> None:
        """The broker has said what became of a command."""
        command = sending.command
        if outcome.reason == NO_QUEUE:
            self._queues.forget(*self._queue_of(sending))  # the next command finds one
        if outcome.fate in (Fate.SENT, Fate.UNDELIVERABLE):
            told = {"from": command.sender} | ({"reason": outcome.reason} if outcome.reason else {})
            self.tell(command.device, f"{command.topic}.{outcome.fate.value}", command.id, told)

    def ended(self) -> None:
        """A command is no longer on its way."""
        self._sending -= 1

    def tell(self, device: str, topic: str, about: str, told: dict[str, str]) -> Deferred[None]:
        """Publish an event about a command; fires once the stream has it, which may take as long as the broker does."""
        done: Deferred[None] = Deferred()
        try:
            properties, body = event(device, topic, about, told, self._wall_clock())
        except (ValueError, Unencodable) as error:
            self.log.warn("Cannot tell of a command to {device}: {error}", device=device, error=str(error))
            return succeed(None)
        self._telling += 1

        def ended() -> None:
            self._telling -= 1
            done.callback(None)

        self._events.publish(b"", self._stream, properties, body, _Told(ended), must_arrive=True)
        self._events.flush()
        return done


class _Sending:
    """One command's receipt. The first answer counts; a late confirm still makes an event."""

    def __init__(self, outbox: CommandOutbox, command: Command, way: CommandKey) -> None:
        self.command = command
        self.way = way
        self.done: Deferred[Outcome] = Deferred()
        self._outbox = outbox
        self._patience: Any = None

    def start(self, clock: Clock) -> None:
        """Wait no longer than `PATIENCE` from now."""
        late = Outcome(Fate.UNAVAILABLE, "the broker has not answered in time; the command may still be sent", 5.0)
        self._patience = clock.callLater(PATIENCE, self._answer, late)

    def delivered(self) -> None:
        """See `Receipt`."""
        self._settle(Outcome(Fate.SENT))

    def refused(self, reason: str) -> None:
        """See `Receipt`."""
        if reason.startswith("unroutable"):
            self._settle(Outcome(Fate.UNDELIVERABLE, NO_QUEUE))
        elif reason.startswith(BAD_QUEUE):
            self._settle(Outcome(Fate.UNDELIVERABLE, BAD_QUEUE))
        elif reason == NACKED:
            self._settle(Outcome(Fate.FULL, "queue-full", RETRY_AFTER))
        elif reason.startswith("unencodable"):
            self._settle(Outcome(Fate.BAD, "bad-properties"))
        else:
            self._settle(Outcome(Fate.UNAVAILABLE, reason, RETRY_AFTER))

    def refused_queue(self, reason: str) -> None:
        """There is no queue; but whoever was told to try again has been answered."""
        if not self.done.called:
            self.refused(reason)

    def _settle(self, outcome: Outcome) -> None:
        self._outbox.settled(self, outcome)
        self._answer(outcome)

    def _answer(self, outcome: Outcome) -> None:
        if self.done.called:
            return
        if self._patience.active():
            self._patience.cancel()
        self._outbox.ended()
        self.done.callback(outcome)


class _Told:
    """An event's receipt; it must arrive, so that it is refused only when it cannot be written at all."""

    def __init__(self, ended: Callable[[], None]) -> None:
        self._ended = ended

    def delivered(self) -> None:
        self._ended()

    def refused(self, reason: str) -> None:
        CommandOutbox.log.warn("An event about a command was not taken: {reason}", reason=reason)
        self._ended()
