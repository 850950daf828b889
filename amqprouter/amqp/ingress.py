"""Consuming: long-lived consumers on every ingress queue, with prefetch and late acks.

House rules. One channel carries all consumers, so that one ack with `multiple` serves them all. Tags live and die with
their channel: each incarnation of the channel has an `AckLedger` of its own, closed with it.

Theory of operation. `attach` opens a channel, sets the prefetch (per consumer) and consumes from every queue. A
consumer that the broker cancels (its queue was deleted, or moved to another node) is started again, after the topology
has been declared anew in case it is one of ours; a channel that the broker closes is replaced on the same connection. A
queue named in ``queues =`` that does not exist is the operator's: it is reported and tried again, and the others go on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from zope.interface import implementer

from amqprouter.amqp.channel import Channel
from amqprouter.amqp.connection import Connection
from amqprouter.amqp.topology import Topology
from amqprouter.core.settlement import AckLedger
from amqprouter.core.wire import Delivery, encode_ack
from amqprouter.errors import AmqprouterError, BrokerRefused, BrokerUnavailable
from amqprouter.interfaces import IReadiness

RECONSUME_DELAY = 0.5
"""Seconds before a cancelled consumer is started again: time enough for a queue that is being recreated."""
MISSING_QUEUE_DELAY = 5.0
"""Seconds before a queue that does not exist is looked for again."""

Receive = Callable[[list[Delivery], AckLedger], None]


@implementer(IReadiness)
class Ingress:
    """The consumers of all ingress queues, handing batches of deliveries to `receive`."""

    log = Logger()
    name = "ingress"

    def __init__(
        self, clock: Any, topology: Topology, explicit_queues: Sequence[str], prefetch: int, receive: Receive
    ) -> None:
        self._clock = clock
        self._topology = topology
        self._own_queues = (topology.names.ingress, *topology.names.shards)
        self._explicit_queues = tuple(explicit_queues)
        self._prefetch = prefetch
        self._receive = receive
        self._connection: Connection | None = None
        self._channel: Channel | None = None
        self._ledger = AckLedger()
        self._consumers: dict[str, str] = {}  # consumer tag → queue
        self._missing: set[str] = set()
        self._timers: dict[object, Any] = {}  # by what is to be done: nothing is planned twice
        self._stopping = False

    @property
    def unacked(self) -> int:
        """Deliveries received and not yet acknowledged."""
        return self._ledger.unacked

    def problem(self) -> str:
        if self._missing:
            return f"no queue {', '.join(sorted(self._missing))}: declare it, or take it out of [ingress] queues"
        return "" if self._channel is not None else "not consuming"

    async def attach(self, connection: Connection) -> None:
        """Consume over this connection from now on.

        :raises BrokerRefused: the broker refuses a consumer. :raises BrokerUnavailable: the connection is lost.
        """
        if self._stopping:
            return
        self._connection = connection
        await self._open(connection)

    async def _open(self, connection: Connection) -> None:
        self._forget_timers()  # a new channel consumes from everything anyway
        # Explicit queues are looked at on channels of their own first: asking for one that is missing ends a channel.
        missing = {queue for queue in self._explicit_queues if not await self._exists(connection, queue)}
        channel = await connection.open_channel()
        ledger = AckLedger(lambda acks: channel.write(b"".join(encode_ack(channel.id, *ack) for ack in acks)))
        self._ledger, self._consumers, self._missing = ledger, {}, missing
        channel.on_deliveries = lambda deliveries: self._deliver(deliveries, ledger)
        channel.on_cancelled = self._cancelled
        channel.on_closed = lambda error: self._closed(connection, ledger, error)
        await channel.basic_qos(prefetch_count=self._prefetch)
        self._channel = channel
        for queue in (*self._own_queues, *self._explicit_queues):
            if queue not in missing:
                await self._consume(channel, queue)
        if missing:
            self.log.error("{problem}; looking again in {delay} s", problem=self.problem(), delay=MISSING_QUEUE_DELAY)
            self._later(MISSING_QUEUE_DELAY, self._consume_missing)

    async def _exists(self, connection: Connection, queue: str) -> bool:
        channel = await connection.open_channel()
        try:
            await channel.queue_declare(queue=queue, passive=True)
        except BrokerRefused as error:
            if error.code == 404:
                return False
            raise
        await channel.shut()
        return True

    async def _consume(self, channel: Channel, queue: str) -> None:
        # The tag is known before the first delivery can come, and tells an operator's listing what it is.
        tag = _tag(queue)
        if tag not in self._consumers:  # a tag used twice would end the connection (530)
            self._consumers[tag] = queue
            await channel.basic_consume(queue=queue, consumer_tag=tag)

    def _deliver(self, deliveries: list[Delivery], ledger: AckLedger) -> None:
        ledger.received(len(deliveries))
        self._receive(deliveries, ledger)

    # Coming back.

    def _cancelled(self, tag: str) -> None:
        queue = self._consumers.pop(tag, None)
        if queue is None or self._stopping:
            return
        self.log.warn("The broker cancelled the consumer of {queue}: consuming again", queue=queue)
        self._later(RECONSUME_DELAY, self._consume_again, queue)

    async def _consume_again(self, queue: str) -> None:
        connection, channel = self._connection, self._channel
        if connection is None or channel is None or channel.closed:
            return  # a new channel consumes from everything anyway
        if queue in self._own_queues:
            await self._topology.declare(connection)
        elif not await self._exists(connection, queue):
            self._missing.add(queue)
            self._later(MISSING_QUEUE_DELAY, self._consume_missing)
            return
        await self._consume(channel, queue)

    async def _consume_missing(self) -> None:
        connection, channel = self._connection, self._channel
        if connection is None or channel is None or channel.closed:
            return
        for queue in sorted(self._missing):
            if await self._exists(connection, queue):
                self._missing.discard(queue)
                await self._consume(channel, queue)
        if self._missing:
            self._later(MISSING_QUEUE_DELAY, self._consume_missing)

    def _closed(self, connection: Connection, ledger: AckLedger, error: Exception) -> None:
        ledger.close()
        self._channel = None
        if connection.closed or self._stopping:
            return
        self.log.warn("The broker closed the consuming channel ({reason}): opening another", reason=str(error))
        self._later(RECONSUME_DELAY, self._reopen, connection)

    async def _reopen(self, connection: Connection) -> None:
        if self._channel is None and not connection.closed:
            await self._topology.declare(connection)
            await self._open(connection)

    def _later(self, delay: float, action: Callable[..., Any], *arguments: Any) -> None:
        """Run a coroutine function after a delay; what it cannot mend, a new connection will."""

        plan = action, arguments

        def run() -> None:
            del self._timers[plan]
            Deferred.fromCoroutine(self._guarded(action, arguments))

        if plan not in self._timers:
            self._timers[plan] = self._clock.callLater(delay, run)

    def _forget_timers(self) -> None:
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    async def _guarded(self, action: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        connection = self._connection
        try:
            await action(*arguments)
        except AmqprouterError as error:
            if connection is not None and not connection.closed:
                self.log.error("Cannot consume again: {reason}; connecting anew", reason=str(error))
                connection.fail(error)

    async def stop(self) -> None:
        """Take no more deliveries; what was delivered can still be acknowledged."""
        self._stopping = True
        self._forget_timers()
        channel = self._channel
        if channel is not None:
            try:
                for tag in list(self._consumers):
                    await channel.basic_cancel(consumer_tag=tag)
            except (BrokerRefused, BrokerUnavailable):
                pass  # with the channel, the consumers are gone as well


def _tag(queue: str) -> str:
    """The consumer tag for a queue; names that would make it over 255 bytes are known by their hash."""
    tag = f"amqprouter:{queue}"
    return tag if len(tag.encode()) <= 255 else f"amqprouter:{sha256(queue.encode()).hexdigest()}"
