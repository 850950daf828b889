"""Answers of workers, on their way to users and devices.

An answer names in its correlation id what it is about (`amqprouter.broker.reply`). It becomes a message of that device,
under its topic with the word ``reply`` behind it, and goes to the targets that the section's ``reply`` names: events,
a collection, an exchange that devices listen to. Its source delivery is acknowledged when all of them have it. One that
cannot be understood, or that a target refuses, is dead-lettered.

Whoever may write to the queue of answers can speak for any device: only workers should.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from amqprouter.amqp.ack_ledger import AckLedger
from amqprouter.amqp.connection import Connection
from amqprouter.amqp.consumer import Consumer
from amqprouter.amqp.consumer_timeout import ConsumerTimeout
from amqprouter.amqp.declare import Declarer, OlderQueues, dead_lettering
from amqprouter.amqp.properties import Properties
from amqprouter.amqp.wire import Delivery
from amqprouter.broker.reply import ReplyAddress
from amqprouter.interfaces import ITarget
from amqprouter.pipeline.message import Message
from amqprouter.pipeline.ports import Quarantine
from amqprouter.pipeline.settlement import Settlement

PREFETCH = 200
"""Answers under way to their targets: some batches of the store."""
WORD = "reply"


class Replies:
    """Consumes the queue of answers.

    :param dead_letter: the exchange for an answer that came back too often, because it ended whoever took it.
    :param targets: by section (``queue images``), where its answers go.
    """

    def __init__(
        self,
        queue: str,
        queue_type: str,
        dead_letter: str,
        targets: Mapping[str, Sequence[ITarget]],
        quarantine: Quarantine,
        wall_clock: Callable[[], float],
    ) -> None:
        self._queue = queue
        self._queue_type = queue_type
        self._limit = dead_lettering(dead_letter) if queue_type == "quorum" else {}
        self._older = OlderQueues()
        self._timeout = ConsumerTimeout(0, queue_type)  # targets may be down for as long as it takes
        self._targets = dict(targets)
        self._quarantine = quarantine
        self._wall_clock = wall_clock

    async def attach(self, connection: Connection) -> None:
        """Declare the queue and consume from it over this connection from now on.

        :raises TopologyClash: the queue exists with other properties.
        :raises BrokerRefused: the broker refuses. :raises BrokerUnavailable: the connection is lost.
        """
        declarer = Declarer(connection, "delete it on the broker, or choose another [topology] prefix")
        found = await declarer.queue(self._queue, {"x-queue-type": self._queue_type} | self._limit, new=self._limit)
        await declarer.shut()
        if found.is_older:
            self._older.found(connection, [self._queue], self._queue, self._limit)
        consumer = Consumer(connection, await connection.open_channel(), PREFETCH, self._received)
        await consumer.start(self._queue, timeout=self._timeout)

    def _received(self, consumer: Consumer, deliveries: list[Delivery]) -> None:
        ledger = consumer.ledger
        ledger.received(len(deliveries))
        used: dict[int, ITarget] = {}
        for delivery in deliveries:
            self._pass_on(delivery, ledger, used)
        for target in used.values():
            target.flush()
        self._quarantine.flush()
        ledger.flush()

    def _pass_on(self, delivery: Delivery, ledger: AckLedger, used: dict[int, ITarget]) -> None:
        properties = Properties(delivery.properties)
        try:
            address = ReplyAddress.parse(properties.text("correlation_id") or "")
        except ValueError:
            self._give_up(_message("", "", delivery, properties, self._wall_clock()), "unknown-reply", delivery, ledger)
            return
        device, _, topic = address.key.partition(".")
        message = _message(device, f"{topic}.{WORD}", delivery, properties, self._wall_clock())
        targets = self._targets.get(address.section, ())
        if not targets:
            self._give_up(message, "unknown-reply", delivery, ledger)
            return

        def finish(settlement: Settlement) -> None:
            if settlement.refusals:
                self._give_up(message, "; ".join(settlement.refusals), delivery, ledger)
                self._quarantine.flush()
            else:
                _settle(settlement)

        settlement = Settlement(message, delivery.delivery_tag, ledger, finish)
        settlement.expect(len(targets))
        for target in targets:
            used[id(target)] = target
            target.deliver(message, settlement)

    def _give_up(self, message: Message, reason: str, delivery: Delivery, ledger: AckLedger) -> None:
        self._quarantine.dead_letter(message, reason, Settlement(message, delivery.delivery_tag, ledger, _settle))


def _settle(settlement: Settlement) -> None:
    if settlement.ledger.settle(settlement.tag):
        settlement.ledger.flush()


def _message(device: str, topic: str, delivery: Delivery, properties: Properties, now: float) -> Message:
    key = f"{device}.{topic}".encode() if topic else delivery.routing_key
    return Message(
        device,
        topic,
        delivery.body,
        properties,
        exchange=delivery.exchange,
        routing_key=key[:255],
        redelivered=delivery.redelivered,
        received_at=now,
    )
