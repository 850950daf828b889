"""Parking: queues in the broker for messages that cannot go on now, and need not be held unacknowledged for it.

::

    park ──publish, confirmed──► <prefix>.parked.<kind>.<name> ──consume──► back, in order, each acked when settled

House rules. A parked message is settled at its source after the broker's confirm, so it is always in one queue or the
other. Only the daemon writes to these queues, over the default exchange, and what comes out of them with its account
for a sender is believed without being authenticated again: the device was proven before (see
`amqprouter.broker.parked_message`). Anything else that is in them goes to the dead letters, unproven.

Theory of operation. A `ParkingQueue` is one such queue. It is declared when the first message is parked, or found when
the daemon connects: then all parking queues that were asked for with `parking_queue` are looked for, for they may hold
messages of an earlier run or of another gateway, and only after that does the ingress start. A parking queue is
consumed from as long as it is there, by a single active consumer, so that several gateways share it and only one
empties it. All parking queues' consumers are on one channel, so that there can be thousands, each with a prefetch of
its own, and its tags are in one ledger; a channel that the broker closes (messages were held for longer than its
consumer timeout) is opened again, and what was not acknowledged comes again. Every `COUNT_EVERY` seconds the broker is
asked how much is in each parking queue (`ParkingQueue.seen`).

Young queues. A quorum queue does not survive the death of its node in its first second, confirmed messages or not. So
what is to go into one that was just declared waits for `SAFE_AFTER` seconds, unacknowledged at its source.

Bounds. A parking queue takes `max_parked` messages and rejects more (``x-overflow``: ``reject-publish``). What becomes
of those is the user's to say (`IParkingQueue.use`): it is not to be lost, nor to wait in such numbers that it holds up
others. A queue that exists with other properties, say because the bound was changed, is used as it is.

Refused. A queue may be refused for many reasons: a limit of the virtual host, a right, a policy's veto, a node that is
down, somebody who has it to himself. It costs that parking queue alone: its messages are its user's again, `problem`
names it, and it is asked for again (`amqprouter.broker.parking_refusals`).

Kinds. ``target`` parking queues, one a target, are known from the routes. Parking queues whose names no configuration
tells, one a device, are `amqprouter.broker.device_parking`. `expires` makes the broker delete the queues of a kind that
nobody consumes from for that long; it deletes what is in them too, so it must exceed the longest time that all gateways
may be down together.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from typing import Any

from twisted.internet.defer import DeferredLock
from twisted.logger import Logger
from zope.interface import implementer

from amqprouter.amqp.ack_ledger import AckLedger
from amqprouter.amqp.connection import Connection
from amqprouter.amqp.consumer import ConsumerChannel, consumer_tag
from amqprouter.amqp.consumer_timeout import ARGUMENT, ConsumerTimeout
from amqprouter.amqp.declare import MANY_RETURNS, Declarer, explained, is_passing, queue_state
from amqprouter.amqp.delayed_calls import DelayedCalls
from amqprouter.amqp.publisher import Publisher
from amqprouter.amqp.quorum_check import ReturnWatch
from amqprouter.amqp.wire import Delivery
from amqprouter.broker.parking_queue import ParkingQueue
from amqprouter.broker.parking_refusals import ParkingRefusals
from amqprouter.clock import Clock
from amqprouter.counters import Counters
from amqprouter.errors import AmqprouterError, BrokerRefused, TopologyClash
from amqprouter.interfaces import IReadiness
from amqprouter.pipeline.settlement import Settlement

COUNT_EVERY = 5.0
"""Seconds between two questions how much is in the parking queues: for so long another gateway's messages may go
unnoticed."""
REOPEN_DELAY = 0.5
"""Seconds before a channel that the broker closed is opened again."""
SAFE_AFTER = 1.5
"""Seconds after which a quorum queue that was declared survives its node. One that is killed within the first second
forgets the queue: RabbitMQ 4.3 has it empty then, earlier ones without a leader, and what was confirmed is gone
[measured: up to 0.99 s all is lost, from 1.02 s on nothing, whatever else is declared or asked meanwhile]."""
PASSING_FOR = 5.0
"""Seconds that a refusal is waited out which is likely to pass, as while a node comes back."""
_NAMED_BY = 100
"""Characters of a queue's name that the broker's refusal has in any case: its text is cut off, not its beginning."""
_LONGEST_NAME = 255
"""Bytes of a queue's name: a short string (AMQP 0-9-1, section 4.2.5.3)."""


def parking_queue_name(prefix: str, kind: str, name: str) -> str:
    """The queue for a parking queue; a name that would make it too long is known by its hash."""
    queue = f"{prefix}.parked.{kind}.{name}"
    if len(queue.encode()) <= _LONGEST_NAME:
        return queue
    return f"{prefix}.parked.{kind}.sha256-{sha256(name.encode()).hexdigest()}"


@implementer(IReadiness)
class Parking:
    """All parking queues of one daemon.

    :param max_parked: messages in one parking queue.
    :param timeout: the consumer timeout that the broker is told, in seconds; 0 for never.
    :param account: the daemon's on the broker; empty when it is not known.
    :param wake: asks for a flush in the reactor's next turn.
    :param finish: is called with each settlement of a parked message once it is answered for; see
        `Pipeline.finish`.
    """

    log = Logger()
    name = "parking"
    POLICY = (
        "some of what should be parked waits, and while other targets go on the rest is dead-lettered as cannot-park"
    )
    """What becomes of what a parking queue does not take, for the operator."""

    def __init__(
        self,
        clock: Clock,
        publisher: Publisher,
        counters: Counters,
        *,
        prefix: str,
        queue_type: str,
        max_parked: int,
        timeout: float = 0.0,
        account: str,
        random: Callable[[], float],
        wake: Callable[[], None],
        finish: Callable[[Settlement], None],
    ) -> None:
        self.counters = counters
        self.account = account
        self._clock = clock
        self._publisher = publisher
        self._prefix = prefix
        self._queue_type = queue_type
        self._max_parked = max_parked
        self._timeout = ConsumerTimeout(timeout, queue_type)
        self._random = random
        self._wake = wake
        self._finish = finish
        self._parking_queues: dict[bytes, ParkingQueue] = {}  # by consumer tag
        self._connection: Connection | None = None
        self._current: ConsumerChannel | None = None
        self._turn = DeferredLock()
        self._delayed = DelayedCalls(clock, lambda: self._connection, self._failed)
        self._passing: dict[ParkingQueue, float] = {}  # since when they are refused for a reason that may be over soon
        self._refusals = ParkingRefusals(self.POLICY, self._delayed, clock.seconds, self._make)
        self._stopping = False
        self.on_opened: Callable[[ParkingQueue], None] | None = None
        """Is told of each parking queue that is there and in use from now on."""

    def parking_queue(self, kind: str, name: str, *, prefetch: int, expires: float = 0.0) -> ParkingQueue:
        """The parking queue of this kind and name, always the same one; `prefetch` and `expires` count when it is
        new."""
        queue = parking_queue_name(self._prefix, kind, name)
        tag = consumer_tag(queue).encode()
        parking_queue = self._parking_queues.get(tag)
        if parking_queue is None:
            parking_queue = self._parking_queues[tag] = ParkingQueue(
                self,
                self._publisher,
                queue,
                prefetch=prefetch,
                expires=expires,
                clock=self._clock,
                random=self._random,
                wake=lambda: self._wants_flush(tag),
                finish=self._finish,
            )
            if self._current is not None:
                self._delayed.later(0, self._find, parking_queue)
        return parking_queue

    def _wants_flush(self, tag: bytes) -> None:
        """A parking queue has something to write; its user flushes it."""
        self._wake()

    @property
    def parking_queues(self) -> list[ParkingQueue]:
        """All there are."""
        return list(self._parking_queues.values())

    def problem(self) -> str:
        """See `IReadiness`: the parking queues that take no messages."""
        problem = self._refusals.problem(self.parking_queues)
        return problem and f"{problem} ({self.POLICY})"

    def full(self, parking_queue: ParkingQueue, reason: str) -> None:
        """The broker did not take a message."""
        self._refusals.full(parking_queue, reason)

    # Coming and going.

    async def attach(self, connection: Connection) -> None:
        """Consume over this connection from now on; returns when every parking queue was looked for.

        :raises BrokerRefused: :raises BrokerUnavailable: as `Channel.invoke`.
        """
        if self._stopping:
            return
        self._connection = connection
        async with self._turn:
            await self._consume_all(connection)

    async def _consume_all(self, connection: Connection) -> None:
        self._delayed.forget()
        channel = await connection.open_channel()
        current = ConsumerChannel(connection, channel, 0, _ignore, ReturnWatch(()), self._timeout, self._delayed)
        channel.on_deliveries = lambda deliveries: self._delivered(deliveries, current)
        channel.on_cancelled = lambda tag: self._cancelled(current, tag)
        channel.on_closed = lambda error: self._closed(connection, current, error)
        self._current = current
        await self._open_parking_queues(connection, current)
        self._refusals.ask_later()

    async def _open_parking_queues(self, connection: Connection, current: ConsumerChannel) -> None:
        """Consume from all parking queues, on a channel that is new."""
        for parking_queue in self.parking_queues:
            if current is self._current and not parking_queue.refusal:
                await self._consume(connection, current, parking_queue, make=bool(parking_queue.entering))
        self._delayed.later(COUNT_EVERY, self._count_messages)

    async def _consume(
        self, connection: Connection, current: ConsumerChannel, parking_queue: ParkingQueue, *, make: bool
    ) -> None:
        """Consume from a parking queue, if it is there; with `make`, it will be, unless the broker refuses."""
        try:
            if parking_queue.is_unreadable:
                await self._try_to_read(connection, parking_queue.queue)
            await self._consume_from(connection, current, parking_queue, make=make)
        except BrokerRefused as error:
            self._not_consumed(connection, current, parking_queue, error)
        else:
            self._passing.pop(parking_queue, None)

    def _not_consumed(
        self, connection: Connection, current: ConsumerChannel, parking_queue: ParkingQueue, error: BrokerRefused
    ) -> None:
        """The broker refuses a parking queue, or the channel that it is consumed on has ended for another one.

        :raises BrokerRefused: it ended the connection.
        """
        if connection.closed:
            raise error
        is_ours = parking_queue.queue[:_NAMED_BY] in error.text and ARGUMENT not in error.text
        if current.channel.closed and not is_ours:
            return  # it was not for this parking queue; or the next consumer goes without the argument
        if is_passing(error):
            since = self._passing.setdefault(parking_queue, self._clock.seconds())
            if self._clock.seconds() < since + PASSING_FOR:
                self._delayed.later(REOPEN_DELAY, self._make if parking_queue.entering else self._find, parking_queue)
                return
        self._passing.pop(parking_queue, None)
        parking_queue.is_unreadable = parking_queue.is_unreadable or current.channel.closed
        self._refusals.refused(parking_queue, str(explained(error)))

    def _is_absent(self, parking_queue: ParkingQueue) -> bool:
        """Whether there is no queue for it, and no need of one."""
        return not (
            parking_queue.declared or parking_queue.entering or parking_queue.refusal or parking_queue in self._passing
        )

    async def _try_to_read(self, connection: Connection, queue: str) -> None:
        """See whether we may consume at all, at no cost to the channel that has the consumers of all others. This is no
        `Consumer`: it takes nothing, and nobody is to be told of its end."""
        channel = await connection.open_channel()
        await channel.basic_qos(prefetch_count=1)
        await channel.basic_consume(queue=queue, consumer_tag="")
        await channel.shut()

    async def _consume_from(
        self, connection: Connection, current: ConsumerChannel, parking_queue: ParkingQueue, *, make: bool
    ) -> None:
        messages = await self._messages_in(connection, parking_queue.queue)
        if messages is None and make:
            messages = await self._declare(connection, parking_queue)
        if parking_queue.safe_at > self._clock.seconds():
            self._refusals.granted(parking_queue)
            self._delayed.later(parking_queue.safe_at - self._clock.seconds(), self._use, parking_queue)
            return
        if messages is None:
            if parking_queue.declared or parking_queue.is_in_doubt:
                parking_queue.gone()
            return
        await current.channel.basic_qos(prefetch_count=parking_queue.prefetch)
        current.prefetch = min(current.prefetch or parking_queue.prefetch, parking_queue.prefetch)
        parking_queue.opened(messages)  # before anything comes out
        await current.consume(parking_queue.queue)
        self._refusals.granted(parking_queue)
        if self.on_opened is not None:
            self.on_opened(parking_queue)

    async def _messages_in(self, connection: Connection, queue: str) -> int | None:
        """The messages that are ready in a queue; None when it does not exist."""
        found = await queue_state(connection, queue)
        return None if found is None else found.messages

    async def _declare(self, connection: Connection, parking_queue: ParkingQueue) -> int | None:
        arguments: dict[str, Any] = {
            "x-queue-type": self._queue_type,
            "x-single-active-consumer": True,
            "x-max-length": self._max_parked,
            "x-overflow": "reject-publish",
        }
        if self._queue_type == "quorum":
            arguments["x-delivery-limit"] = MANY_RETURNS  # a target may be down over many restarts of the gateway
        if parking_queue.expires:
            arguments["x-expires"] = int(parking_queue.expires * 1000)
        declarer = Declarer(connection, "it is used as it is")
        try:
            found = await declarer.queue(parking_queue.queue, arguments)
        except TopologyClash as clash:
            self.log.warn("Using {queue} as it is: {reason}", queue=parking_queue.queue, reason=str(clash))
            return await self._messages_in(connection, parking_queue.queue)
        if self._queue_type == "quorum":
            parking_queue.safe_at = self._clock.seconds() + SAFE_AFTER
        await declarer.shut()
        return found.messages

    def open(self, parking_queue: ParkingQueue) -> None:
        """Have this parking queue declared; `ParkingQueue.opened` tells when it is, and can be used."""
        if parking_queue.safe_at <= self._clock.seconds():
            self._delayed.later(0, self._make, parking_queue)

    async def _make(self, parking_queue: ParkingQueue) -> None:
        await self._use(parking_queue)

    async def _use(self, parking_queue: ParkingQueue) -> None:
        async with self._turn:
            connection, current = self._connection, self._current
            is_wanted = (
                self._parking_queues.get(consumer_tag(parking_queue.queue).encode()) is parking_queue
                and not parking_queue.declared
            )
            if connection is not None and current is not None and is_wanted:
                await self._consume(connection, current, parking_queue, make=True)

    async def _find(self, parking_queue: ParkingQueue) -> None:
        async with self._turn:
            connection, current = self._connection, self._current
            if connection is not None and current is not None and not parking_queue.declared:
                await self._consume(connection, current, parking_queue, make=False)

    def _closed(self, connection: Connection, consuming: ConsumerChannel, error: Exception) -> None:
        consuming.ledger.close()
        if consuming is not self._current:
            return
        self._current = None
        for parking_queue in self._parking_queues.values():
            parking_queue.lost()
        if connection.closed or self._stopping:
            self._delayed.forget()
            return
        self.log.warn("The broker closed the parking queues' channel ({reason}): opening another", reason=str(error))
        self._delayed.later(REOPEN_DELAY, self._reopen, connection)

    async def _reopen(self, connection: Connection) -> None:
        async with self._turn:
            if self._current is None and not connection.closed:
                await self._consume_all(connection)

    def requeue(self, tag: int) -> None:
        """Have the broker put a delivery of the present channel back into its queue."""
        if self._current is not None:
            self._current.requeue(tag)

    @property
    def ledgers(self) -> list[AckLedger]:
        """Of the deliveries that are out."""
        return [] if self._current is None else [self._current.ledger]

    def _cancelled(self, consuming: ConsumerChannel, tag: str) -> None:
        """The broker ended a consumer: the queue is gone, or moves to another node, or the consumer timeout is over."""
        parking_queue = self._parking_queues.get(tag.encode())
        if consuming.ended(tag) is None or parking_queue is None or self._stopping:
            return
        self.log.warn("The broker cancelled the consumer of {queue}", queue=parking_queue.queue)
        parking_queue.in_doubt()
        self._delayed.later(REOPEN_DELAY, self._make if parking_queue.entering else self._find, parking_queue)

    def _delivered(self, deliveries: list[Delivery], consuming: ConsumerChannel) -> None:
        new, again = consuming.received(deliveries)
        for delivery in again:
            parking_queue = self._parking_queues.get(delivery.consumer_tag)
            if parking_queue is not None:
                parking_queue.again()
        for delivery in new:
            parking_queue = self._parking_queues.get(delivery.consumer_tag)
            if parking_queue is not None:
                parking_queue.take(delivery, consuming.ledger)

    async def _count_messages(self) -> None:
        """See how much is in the parking queues that there are."""
        self._delayed.later(COUNT_EVERY, self._count_messages)
        async with self._turn:
            connection = self._connection
            if connection is None or self._current is None:
                return
            for parking_queue in self.parking_queues:
                if parking_queue.declared:
                    found = await queue_state(connection, parking_queue.queue)
                    if found is not None and found.tells:  # it is being consumed from
                        parking_queue.seen(found.messages)

    # The rest.

    def _failed(self, error: AmqprouterError) -> None:
        self.log.error("Cannot use the parking queues: {reason}; connecting anew", reason=str(error))

    def stop(self) -> None:
        """Take nothing more out; what is out and not settled stays with the broker."""
        self._stopping = True
        self._delayed.stop()
        if self._current is not None:
            self._current.channel.on_deliveries = None


def _ignore(_: ConsumerChannel) -> None:
    """Nobody needs to know that acks were written."""
