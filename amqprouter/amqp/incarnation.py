"""One incarnation of the consuming channel: its consumers, their prefetch, and the ledger of its delivery tags."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256

from amqprouter.amqp.channel import Channel
from amqprouter.amqp.return_watch import ReturnWatch
from amqprouter.core.settlement import AckLedger
from amqprouter.core.wire import Delivery, encode_ack

BATCH = 8
"""Deliveries in one read that are a flow: below, none waits for others."""


class Incarnation:
    """A channel that consumes, from its opening to its end. `acknowledged` is called whenever acks were written, and
    `returns` told of what comes again."""

    def __init__(
        self, channel: Channel, prefetch: int, acknowledged: Callable[[Incarnation], None], returns: ReturnWatch
    ) -> None:
        self.channel = channel
        self.prefetch = prefetch
        """Unacknowledged deliveries for each of its consumers."""
        self.ledger = AckLedger(self._write)
        self.consumers: dict[str, str] = {}
        """Queues by consumer tag."""
        self.redelivered = False
        """Whether a delivery had been made before."""
        self.goal = 0
        """The delivery tag up to which all must be acknowledged before the prefetch grows; 0 when it need not grow."""
        self._latest: dict[bytes, int] = {}  # by consumer tag: the latest delivery tag
        self._acknowledged = acknowledged
        self._returns = returns

    async def consume(self, queue: str) -> None:
        """Consume from this queue, if this is not done already.

        :raises BrokerRefused: :raises BrokerUnavailable: as `Channel.invoke`.
        """
        tag = consumer_tag(queue)
        if tag not in self.consumers:  # a tag used twice would end the connection (530)
            # It is known before the first delivery can come.
            self.consumers[tag] = queue
            await self.channel.basic_consume(queue=queue, consumer_tag=tag)

    async def cancel(self, queue: str) -> None:
        """Take no more from this queue; once this returns, none will come.

        :raises BrokerRefused: :raises BrokerUnavailable: as `Channel.invoke`.
        """
        tag = consumer_tag(queue)
        await self.channel.basic_cancel(consumer_tag=tag)
        self.consumers.pop(tag, None)
        self._latest.pop(tag.encode(), None)

    def received(self, deliveries: list[Delivery]) -> None:
        """Take note of a batch."""
        self.ledger.received(len(deliveries))
        latest = self._latest
        for delivery in deliveries:
            latest[delivery.consumer_tag] = delivery.delivery_tag
            if delivery.redelivered:
                self.redelivered = self.redelivered or self.goal > 0
                queue = self.consumers.get(delivery.consumer_tag.decode(), "")
                self._returns.returned(queue, delivery, self.channel.client)

    def rest(self, came: int) -> None:
        """Have a steady flow come in larger batches, while that keeps no consumer's window from being refilled."""
        if came >= BATCH and 2 * self.ledger.unacked <= self.prefetch * len(self.consumers):
            self.channel.client.rest()

    def latest(self, queue: str) -> int | None:
        """The tag of the latest delivery from this queue; None when nothing came from it."""
        return self._latest.get(consumer_tag(queue).encode())

    def _write(self, acks: list[tuple[int, bool]]) -> None:
        channel = self.channel
        channel.write(b"".join(encode_ack(channel.id, *ack) for ack in acks))
        self._acknowledged(self)


def consumer_tag(queue: str) -> str:
    """The consumer tag for a queue, which tells an operator's listing what it is; names that would make it over 255
    bytes are known by their hash."""
    tag = f"amqprouter:{queue}"
    return tag if len(tag.encode()) <= 255 else f"amqprouter:{sha256(queue.encode()).hexdigest()}"
