"""Consuming: a channel from its opening to its end, what it consumes from, and the ledger of its delivery tags.

A `Consumer` has one queue and a channel to itself, and ends with it. A `ConsumerChannel` has many queues, which come
and go, and outlives consumer timeouts.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from hashlib import sha256
from operator import attrgetter
from typing import Any

from amqprouter.amqp.ack_ledger import AckLedger
from amqprouter.amqp.channel import Channel
from amqprouter.amqp.connection import Connection
from amqprouter.amqp.consumer_timeout import ConsumerTimeout, keeps_channels
from amqprouter.amqp.delayed_calls import DelayedCalls, at_once
from amqprouter.amqp.orphans import WITHIN, Orphans
from amqprouter.amqp.quorum_check import ReturnWatch
from amqprouter.amqp.wire import Delivery, encode_ack, encode_nack
from amqprouter.errors import BrokerUnavailable

_tags, _redelivered = attrgetter("consumer_tag", "delivery_tag"), attrgetter("redelivered")
BATCH = 8
"""Deliveries in one read that are a flow: below, none waits for others."""


class Consumer:
    """One consumer on a channel of its own.

    :param received: takes what comes, in runs, and this consumer.
    :param ended: is told why nothing comes any more, once the consumer was there: its channel or the connection ended,
        or the broker cancelled it. When None the connection is given up, and a new one takes it from there.
    """

    def __init__(
        self,
        connection: Connection,
        channel: Channel,
        prefetch: int,
        received: Callable[[Consumer, list[Delivery]], None],
        ended: Callable[[Exception], None] | None = None,
    ) -> None:
        self.channel = channel
        self.ledger = AckLedger(lambda acks: channel.write(b"".join(encode_ack(channel.id, *ack) for ack in acks)))
        """For those who do not acknowledge by themselves. It is closed once the consumer was refused or has ended."""
        self.ledger.window = prefetch
        self._connection = connection
        self._ended = ended or connection.fail
        self._tag = ""
        channel.on_deliveries = lambda deliveries: received(self, deliveries)

    async def start(
        self,
        queue: str,
        *,
        tag: str = "",
        timeout: ConsumerTimeout | None = None,
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        """Consume from this queue.

        :param tag: another consumer tag than `consumer_tag` gives.
        :param timeout: what the broker is told of its consumer timeout, in the place of `arguments`.
        :raises BrokerRefused: :raises BrokerUnavailable: as `Channel.invoke`.
        """
        channel, tag = self.channel, tag or consumer_tag(queue)
        try:
            await channel.basic_qos(prefetch_count=self.ledger.window)
            if timeout is not None:
                await timeout.consume(self._connection, channel, queue, tag)
            else:
                await channel.basic_consume(queue=queue, consumer_tag=tag, arguments=dict(arguments or {}))
        except BaseException:
            self.ledger.close()
            raise
        self._tag = tag
        channel.on_closed = self._end
        channel.on_cancelled = lambda tag: self._end(BrokerUnavailable(f"the broker cancelled {tag}: is {queue} gone?"))

    async def shut(self) -> None:
        """Cancel, and close the channel; deliveries that are under way still come until the broker has cancelled.

        RabbitMQ 3.10 goes on counting a stream's consumer whose channel is closed without a word to it.

        :raises BrokerRefused: :raises BrokerUnavailable: the channel or the connection is over already.
        """
        if self._tag and not self.channel.closed:
            await self.channel.basic_cancel(consumer_tag=self._tag)
        await self.channel.shut()

    def acknowledge(self, tag: int) -> None:
        """Acknowledge all deliveries up to this one."""
        self.channel.write(encode_ack(self.channel.id, tag, True))

    def _end(self, error: Exception) -> None:
        self.ledger.close()
        self._ended(error)


class ConsumerChannel:
    """A channel that consumes, from its opening to its end. `acknowledged` is called whenever acks were written, and
    `returns` told of what comes again."""

    def __init__(
        self,
        connection: Connection,
        channel: Channel,
        prefetch: int,
        acknowledged: Callable[[ConsumerChannel], None],
        returns: ReturnWatch,
        timeout: ConsumerTimeout,
        delayed: DelayedCalls,
    ) -> None:
        self.channel = channel
        self.server = connection.server
        """What the broker is that it consumes from."""
        self.ledger = AckLedger(self._write)
        self.prefetch = prefetch
        self.consumers: dict[str, str] = {}
        """Queues by consumer tag."""
        self.redelivered = False
        """Whether a delivery had been made before."""
        self.goal = 0
        """The delivery tag up to which all must be acknowledged before the prefetch grows; 0 when it need not grow."""
        self._latest: dict[bytes, int] = {}  # by consumer tag: the latest delivery tag
        self._connection = connection
        self._acknowledged = acknowledged
        self._returns = returns
        self._timeout = timeout
        self._delayed = delayed
        self._ended: set[str] = set()  # tags that the broker keeps taken
        self._orphans = Orphans(self.ledger)
        self.outlives_timeouts = keeps_channels(connection)
        """Whether a consumer timeout ends a consumer, and not this channel."""

    @property
    def prefetch(self) -> int:
        """Unacknowledged deliveries for each of its consumers."""
        return self.ledger.window

    @prefetch.setter
    def prefetch(self, prefetch: int) -> None:
        self.ledger.window = prefetch

    @property
    def must_stay(self) -> bool:
        """Whether its consumers may not move to another channel: what is under way without them would end this one."""
        return any(self._timeout.arguments(self._connection, queue) for queue in self.consumers.values())

    async def consume(self, queue: str) -> None:
        """Consume from this queue, if this is not done already.

        :raises BrokerRefused: :raises BrokerUnavailable: as `Channel.invoke`.
        """
        tag = consumer_tag(queue)
        if tag not in self.consumers:  # a tag used twice would end the connection (530)
            # It is known before the first delivery can come.
            self.consumers[tag] = queue
            if tag in self._ended:
                self._ended.discard(tag)
                await self.channel.basic_cancel(consumer_tag=tag)
            await self._timeout.consume(self._connection, self.channel, queue, tag)

    async def consume_all(self, queues: Collection[str]) -> None:
        """Consume from these queues, with the channel's present prefetch. Nothing else may be asked on the channel
        meanwhile: RabbitMQ has the queues answer for their consumers, in any order, and is itself quicker.

        :raises BrokerRefused: :raises BrokerUnavailable: as `Channel.invoke`.
        """
        for queue in queues:
            if consumer_tag(queue) in self._ended:
                await self.consume(queue)
        await at_once(self.consume(queue) for queue in queues)

    async def cancel(self, queue: str) -> None:
        """Take no more from this queue; once this returns, none will come.

        :raises BrokerRefused: :raises BrokerUnavailable: as `Channel.invoke`.
        """
        tag = consumer_tag(queue)
        await self.channel.basic_cancel(consumer_tag=tag)
        self.consumers.pop(tag, None)
        self._latest.pop(tag.encode(), None)

    def ended(self, tag: str) -> str | None:
        """The broker has ended a consumer; returns its queue, None when that is known.

        The queue is gone or moves to another node, or the consumer timeout is over, of which more in
        `amqprouter.amqp.consumer_timeout`: then what is under way comes again.
        """
        queue = self.consumers.pop(tag, None)
        if queue is not None and self.outlives_timeouts:
            self._ended.add(tag)
            self._nack(self._orphans.orphan(tag.encode(), self._now))
            self._delayed.later(WITHIN, self._abandon)
        return queue

    async def _abandon(self) -> None:
        left = self._orphans.abandon(self._now)
        if left:
            self._delayed.later(left, self._abandon)

    def requeue(self, tag: int) -> None:
        """Have the broker put a delivery back into its queue."""
        present = self.ledger.requeued(tag)
        if present:
            self._nack([present])

    def _nack(self, tags: list[int]) -> None:
        channel = self.channel
        channel.write(b"".join(encode_nack(channel.id, tag, False, True) for tag in tags))

    @property
    def _now(self) -> float:
        now: float = self._connection.clock.seconds()
        return now

    def received(self, deliveries: list[Delivery]) -> tuple[list[Delivery], list[Delivery]]:
        """Take note of a batch. Returns those that are to be worked on, and those that are already."""
        self.ledger.received(len(deliveries))
        again: list[Delivery] = []
        if self.outlives_timeouts:
            self._orphans.remember(deliveries)
            deliveries, again = self._orphans.adopt(deliveries)
            if again:
                self._latest.update((one.consumer_tag, one.delivery_tag) for one in again)
                self.ledger.flush()
        self._latest.update(map(_tags, deliveries))
        if any(map(_redelivered, deliveries)):
            self.redelivered = self.redelivered or self.goal > 0
            for delivery in filter(_redelivered, deliveries):
                queue = self.consumers.get(delivery.consumer_tag.decode(), "")
                self._returns.returned(queue, delivery, self._connection)
        return deliveries, again

    def pause_briefly(self, came: int) -> None:
        """Have a steady flow come in larger batches, while that keeps no consumer's window from being refilled."""
        if came >= BATCH and 2 * self.ledger.unacked <= self.prefetch * len(self.consumers):
            self._connection.pause_briefly()

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
