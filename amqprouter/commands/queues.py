"""The two queues about commands that the daemon consumes: those that services send, and those that no device took.

::

    <prefix>.commands (topic) ──#──────────► <prefix>.commands           commands with the key <device>.<topic>
    <prefix>.commands-expired (fanout) ────► <prefix>.commands-expired   dead-lettered from the devices' queues

The sender of a command is the account that the broker vouches for (``user_id``), named ``amqp:ACCOUNT``. One without it
is rejected, and so is one that was dead-lettered on its way: then its key is not the sender's any more. A command is
acknowledged when it is with its device's queue, or in quarantine; one that the broker cannot be asked about is tried
again.
"""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

from twisted.internet.defer import Deferred

from amqprouter.amqp.ack_ledger import AckLedger
from amqprouter.amqp.connection import Connection
from amqprouter.amqp.consumer import Consumer
from amqprouter.amqp.consumer_timeout import ConsumerTimeout
from amqprouter.amqp.declare import Declarer, OlderQueues, dead_lettering
from amqprouter.amqp.properties import Properties
from amqprouter.amqp.wire import Delivery
from amqprouter.clock import Clock
from amqprouter.commands.command import SENDER, Command, Fate, Outcome
from amqprouter.commands.outbox import CommandOutbox
from amqprouter.events.event import KEY_HEADER
from amqprouter.identity import AMQP_SENDER, Identity
from amqprouter.pipeline.message import Message
from amqprouter.pipeline.ports import Quarantine
from amqprouter.pipeline.settlement import Settlement

PREFETCH = 100
"""Commands under way at once, of the 1000 that all ways in share."""
RETRY = 5.0
"""Seconds before a command that could not be sent for the broker's reasons is tried again."""

Submit = Callable[[Identity, Command], "Deferred[Outcome]"]


class CommandQueues:
    """Consumes both queues.

    :param name: of the exchange and the queue that services publish to; ``-expired`` behind it is the other's.
    :param dead_letter: the exchange for a message that came back too often, because it ended whoever took it.
    :param random_id: makes the id of a command whose message has none.
    """

    def __init__(
        self,
        clock: Clock,
        wall_clock: Callable[[], float],
        name: str,
        queue_type: str,
        dead_letter: str,
        *,
        submit: Submit,
        outbox: CommandOutbox,
        quarantine: Quarantine,
        random_id: Callable[[], UUID],
    ) -> None:
        self._clock = clock
        self._wall_clock = wall_clock
        self._name = name
        self._queue_type = queue_type
        self._limit = dead_lettering(dead_letter) if queue_type == "quorum" else {}
        self._older = OlderQueues()
        self._timeout = ConsumerTimeout(0, queue_type)  # what cannot be sent is tried for as long as it takes
        self._submit = submit
        self._outbox = outbox
        self._quarantine = quarantine
        self._random_id = random_id
        self._connection: Connection | None = None
        self._consumed: set[str] = set()  # over this connection

    async def declare(self, connection: Connection) -> None:
        """Declare the exchange that the devices' queues dead-letter to, before any of them is declared.

        :raises TopologyClash: one exists with other properties.
        :raises BrokerRefused: the broker refuses. :raises BrokerUnavailable: the connection is lost.
        """
        declarer, older = Declarer(connection, "delete it on the broker, or choose another [topology] prefix"), []
        for name, kind in ((self._name, "topic"), (f"{self._name}-expired", "fanout")):
            await declarer.exchange(name, kind)
            found = await declarer.queue(name, {"x-queue-type": self._queue_type} | self._limit, new=self._limit)
            older += [name] if found.is_older else []
            await declarer.bind(name, name, "#")
        await declarer.shut()
        self._older.found(connection, older, self._name, self._limit)

    async def attach(self, connection: Connection) -> None:
        """Consume over this connection from now on; after a refusal, from what is not consumed from yet.

        :raises BrokerRefused: the broker refuses. :raises BrokerUnavailable: the connection is lost.
        """
        await self.declare(connection)
        if connection is not self._connection:
            self._connection = connection
            self._consumed.clear()
        for queue, take in ((self._name, self._command), (f"{self._name}-expired", self._expired)):
            if queue not in self._consumed:
                await self._consume(connection, queue, take)
                self._consumed.add(queue)

    async def _consume(
        self, connection: Connection, queue: str, take: Callable[[Delivery, AckLedger], Deferred[None]]
    ) -> None:
        def received(consumer: Consumer, deliveries: list[Delivery]) -> None:
            consumer.ledger.received(len(deliveries))
            for delivery in deliveries:
                take(delivery, consumer.ledger)

        consumer = Consumer(connection, await connection.open_channel(), PREFETCH, received)
        await consumer.start(queue, timeout=self._timeout)

    # Commands of services.

    def _command(self, delivery: Delivery, ledger: AckLedger) -> Deferred[None]:
        device, _, topic = delivery.routing_key.decode("utf-8", "backslashreplace").partition(".")
        properties = Properties(delivery.properties)
        message = Message(
            device,
            topic,
            delivery.body,
            properties,
            exchange=delivery.exchange,
            routing_key=delivery.routing_key,
            redelivered=delivery.redelivered,
            received_at=self._wall_clock(),
        )
        settlement = Settlement(message, delivery.delivery_tag, ledger, _settle)
        try:
            sender = (properties.raw_text("user_id") or b"").decode()
            if not sender or properties.header(b"x-death") is not None:
                self._give_up(settlement, "no-identity")
                return _nothing()
            command = Command(
                device,
                topic,
                id=properties.message_id or str(self._random_id()),
                sender=AMQP_SENDER + sender,
                body=delivery.body,
                content_type=properties.content_type or "",
                at=message.received_at,
            )
        except ValueError:
            self._give_up(settlement, "malformed-properties")
            return _nothing()
        return self._try(command, settlement)

    def _try(self, command: Command, settlement: Settlement) -> Deferred[None]:
        def answered(outcome: Outcome) -> None:
            if outcome.fate is Fate.SENT:
                settlement.delivered()
            elif outcome.fate is Fate.UNAVAILABLE:
                if not settlement.ledger.closed:
                    self._clock.callLater(RETRY, self._try_again, command, settlement)
            else:
                self._give_up(settlement, outcome.reason, undeliverable=outcome.fate is Fate.UNDELIVERABLE)

        return self._submit(Identity(command.sender), command).addCallback(answered)

    def _try_again(self, command: Command, settlement: Settlement) -> None:
        if not settlement.ledger.closed:
            self._try(command, settlement)

    def _give_up(self, settlement: Settlement, reason: str, *, undeliverable: bool = False) -> None:
        quarantine = self._quarantine
        (quarantine.dead_letter if undeliverable else quarantine.reject)(settlement.message, reason, settlement)
        quarantine.flush()

    # Commands that no device took.

    def _expired(self, delivery: Delivery, ledger: AckLedger) -> Deferred[None]:
        properties = Properties(delivery.properties)
        device, _, topic = _key(delivery, properties).partition(".")
        message = Message(device, topic, delivery.body, properties, routing_key=delivery.routing_key)
        settlement = Settlement(message, delivery.delivery_tag, ledger, _settle)
        try:
            about = properties.message_id or ""
            told = {"from": (properties.raw_header(SENDER.encode()) or b"").decode("utf-8", "backslashreplace")}
            reason = (properties.raw_header(b"x-first-death-reason") or b"").decode("utf-8", "backslashreplace")
        except ValueError:
            about = reason = ""
        if not about or not topic:
            self._give_up(settlement, "unknown-command", undeliverable=True)
            return _nothing()
        word = "expired" if reason == "expired" else "undeliverable"
        telling = self._outbox.tell(device, f"{topic}.{word}", about, told | {"reason": reason})
        return telling.addCallback(lambda _: settlement.delivered())


def _key(delivery: Delivery, properties: Properties) -> str:
    """Which device a command was for, and its topic, with a dot between: a layout may have made another routing key."""
    try:
        key = properties.raw_header(KEY_HEADER)
    except ValueError:
        key = None
    return (key or delivery.routing_key).decode("utf-8", "backslashreplace")


def _settle(settlement: Settlement) -> None:
    if settlement.ledger.settle(settlement.tag):
        settlement.ledger.flush()


def _nothing() -> Deferred[None]:
    done: Deferred[None] = Deferred()
    done.callback(None)
    return done
