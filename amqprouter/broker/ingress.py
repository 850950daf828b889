"""Consuming: long-lived consumers on every ingress queue, with prefetch and late acks.

House rules. One channel carries all consumers, so that one ack with `multiple` serves them all. Tags live and die with
their channel: each `ConsumerChannel` of the channel has a ledger of its own, closed with it. Whatever changes who
consumes what takes its turn (`_turn`).

Theory of operation. `attach` opens a channel, sets the prefetch (per consumer) and consumes from every queue. A
consumer that the broker cancels (its queue was deleted, or moved to another node) is started again, after the topology
has been declared anew in case it is one of ours; a channel that the broker closes is replaced on the same connection. A
queue named in ``queues =`` that does not exist is the operator's: it is reported and tried again, and the others go on.

Growing. Whatever is under way when the daemon or its connection dies counts one more return to its quorum queue, and
too many end a message. So a message that crashes the daemon over and over must not take its neighbours along: every
connection begins with a prefetch of 1, when only the first message of each queue is at risk. Once the first deliveries
are acknowledged, or wait for quarantine, or the daemon has survived them for a while, the consumers move to a new
channel with a larger prefetch: the configured one at once, unless messages came that had been delivered before, that
is, after some unclean end; then it grows by steps. RabbitMQ knows no other way: basic.qos counts for later consumers
only, and quorum queues refuse a prefetch for the whole channel. Each queue's consumer is cancelled before the next one
starts, so order holds, and what is under way on the old channel is acknowledged there before it is closed. Where a
consumer timeout ends a consumer and not its channel, the consumers stay on theirs: what is under way would end the old
channel, for want of a consumer. And where other gateways stand by, a cancelled consumer's queue is another's at once:
there it is as in a hand-over, and what is under way is finished before anybody gets more (`REGROWN_WITHIN`).

Taken back. There, what a consumer timeout gives back to its queue comes again on the same channel while it is still
being worked on, and is not worked on twice: see `amqprouter.amqp.orphans`.

Watching. A `Watchdog` is told what waits in the queues from which nothing comes. A stalled consumer is started again,
with the whole channel unless it never got anything and others did; if that does not help, `problem` says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.internet.defer import DeferredLock
from twisted.logger import Logger
from zope.interface import implementer

from amqprouter.amqp.ack_ledger import AckLedger
from amqprouter.amqp.connection import Connection
from amqprouter.amqp.consumer import ConsumerChannel
from amqprouter.amqp.consumer_timeout import ConsumerTimeout
from amqprouter.amqp.declare import passive_declare
from amqprouter.amqp.delayed_calls import DelayedCalls
from amqprouter.amqp.quorum_check import ReturnWatch
from amqprouter.amqp.wire import Delivery
from amqprouter.broker.priority_watch import PriorityWatch
from amqprouter.broker.topology import Topology
from amqprouter.broker.watchdog import Watchdog
from amqprouter.clock import Clock
from amqprouter.counters import Counters
from amqprouter.errors import AmqprouterError, BrokerRefused, BrokerUnavailable
from amqprouter.interfaces import IReadiness

RECONSUME_DELAY = 0.5
"""Seconds before a cancelled consumer is started again: time enough for a queue that is being recreated."""
MISSING_QUEUE_DELAY = 5.0
"""Seconds before a queue that does not exist is looked for again."""
GROWTH = 4
"""How many times larger the prefetch is at each step: 1, 4, 16, 64, 256, 512."""
SURVIVED = 10.0
"""Seconds after which deliveries that are still under way count as harmless: they wait for a rate or a target."""
LEAVING = 20.0
"""Seconds that a hand-over waits for what is under way. What still waits then, for a rate or a target that is down, is
given back and comes again at the other gateway; longer would hold up all other devices of the shard."""
REGROWN_WITHIN = 5.0
"""Seconds that what is under way may take before a larger prefetch, where other gateways stand by: no more than a few
messages are."""
MIN_WATCH_INTERVAL = 0.5
"""Seconds between two looks at the queues, however little patience is configured: each is a question for each queue."""

Receive = Callable[[list[Delivery], AckLedger], None]


@implementer(IReadiness)
class Ingress:
    """The consumers of all ingress queues, handing batches of deliveries to `receive`.

    `own_queues` are those that the topology declares, all of them unless given. `timeout` is the consumer timeout that
    the broker is told, in seconds, and `watchdog` the seconds after which a consumer has stalled; 0 for never.
    """

    log = Logger()
    name = "ingress"

    def __init__(
        self,
        clock: Clock,
        topology: Topology,
        explicit_queues: Sequence[str],
        prefetch: int,
        receive: Receive,
        *,
        own_queues: Sequence[str] | None = None,
        timeout: float = 0.0,
        watchdog: float = 0.0,
        counters: Counters | None = None,
    ) -> None:
        self._clock = clock
        self._topology = topology
        self._own_queues = tuple(own_queues or (topology.names.ingress, *topology.names.shards))
        self._explicit_queues = tuple(explicit_queues)
        self._prefetch = prefetch
        self._receive = receive
        self._timeout = ConsumerTimeout(timeout, topology.ingress_type)
        self._patience, self._watchdog = watchdog, Watchdog(watchdog)
        self._counters = counters or Counters()
        self._priorities, self._by_priority = PriorityWatch(topology.ingress_type, self._counters), False
        self._connection: Connection | None = None
        self._current: ConsumerChannel | None = None
        self._returns = ReturnWatch(self._explicit_queues)
        self._retiring: set[ConsumerChannel] = set()  # without consumers, until all that came is acknowledged
        self._turn = DeferredLock()
        self._missing: set[str] = set()
        self._delayed = DelayedCalls(clock, lambda: self._connection, self._failed)
        self._asking_since: float | None = None
        self._leaving = False
        self._stopping = False
        self.on_released: Callable[[], None] | None = None
        """Called once what was handed over is let go."""
        self.has_rivals: Callable[[], bool] = lambda: False
        """Whether other gateways stand by at these queues: theirs is the turn as soon as a consumer is cancelled."""
        self._grown = 1  # the prefetch that the next channel over this connection begins with
        self._grown_on: Connection | None = None

    @property
    def attached(self) -> bool:
        """Whether there is a connection to consume over, even if it is about to be handed over."""
        return self._connection is not None

    @property
    def _paused(self) -> bool:
        return self._stopping or self._leaving

    @property
    def unacked(self) -> int:
        """Deliveries received and not yet acknowledged."""
        return sum(ledger.unacked for ledger in self.ledgers)

    @property
    def ledgers(self) -> list[AckLedger]:
        """Of the deliveries that are out."""
        return [one.ledger for one in self._channels()]

    def _channels(self) -> list[ConsumerChannel]:
        return [*self._retiring, *([] if self._current is None else [self._current])]

    def problem(self) -> str:
        if self._missing:
            return f"no queue {', '.join(sorted(self._missing))}: declare it, or take it out of [ingress] queues"
        return self._watchdog.problem() if self._current is not None else "not consuming"

    async def attach(self, connection: Connection) -> None:
        """Consume over this connection from now on.

        :raises BrokerRefused: the broker refuses a consumer. :raises BrokerUnavailable: the connection is lost.
        """
        if self._stopping:
            return
        self._connection = connection
        self._by_priority = self._priorities.matters(connection.server)
        async with self._turn:
            await self._open(connection)

    def detach(self) -> None:
        """The connection is gone."""
        self._connection, self._leaving = None, False

    def hand_over(self, within: float = LEAVING) -> None:
        """Let another gateway have the queues: take nothing more, and let go once all that was taken is acknowledged,
        or after so many seconds.

        What comes meanwhile is put back in its place by the broker before another consumer gets anything.
        """
        connection = self._connection
        if connection is None or self._paused:
            return
        self._leaving = True
        self._delayed.forget()
        self._delayed.later(within, self._release, connection, within)  # not the call that is for at once
        if not self.unacked:
            self._delayed.later(0, self._release, connection)

    async def _release(self, connection: Connection, after: float = 0) -> None:
        async with self._turn:
            if connection is not self._connection or not self._leaving or self._stopping:
                return
            for queue in self._own_queues:
                self._watchdog.forget(queue)
            channels, self._current, self._retiring = self._channels(), None, set()
            for consuming in channels:
                consuming.ledger.close()
                await consuming.channel.shut()
            if connection is self._connection:
                self.detach()
                self._delayed.forget()
                if self.on_released is not None:
                    self.on_released()

    async def _open(self, connection: Connection) -> None:
        self._delayed.forget()  # a new channel consumes from everything anyway
        self._asking_since = None
        # Explicit queues are looked at on channels of their own first: asking for one that is missing ends a channel.
        self._missing = missing = {q for q in self._explicit_queues if not await self._timeout.ask(connection, q)}
        prefetch = self._grown if connection is self._grown_on else 1
        self._current = current = await self._open_channel(connection, prefetch)
        for queue in (*self._own_queues, *self._explicit_queues):
            if queue not in missing:
                await current.consume(queue)
        self._set_goal(current)
        if missing:
            self.log.error("{problem}; looking again in {delay} s", problem=self.problem(), delay=MISSING_QUEUE_DELAY)
            self._delayed.later(MISSING_QUEUE_DELAY, self._consume_missing)
        if self._patience:
            self._delayed.later(max(self._patience / 2, MIN_WATCH_INTERVAL), self._watch)

    async def _open_channel(self, connection: Connection, prefetch: int) -> ConsumerChannel:
        channel = await connection.open_channel()
        consuming = ConsumerChannel(
            connection, channel, prefetch, self._acknowledged, self._returns, self._timeout, self._delayed
        )
        consuming.ledger.put_back = consuming.requeue
        if prefetch < self._prefetch:
            consuming.ledger.widen = lambda: self._widen(consuming)
        channel.on_deliveries = lambda deliveries: self._deliver(deliveries, consuming)
        channel.on_cancelled = lambda tag: self._cancelled(consuming, tag)
        channel.on_closed = lambda error: self._closed(connection, consuming, error)
        await channel.basic_qos(prefetch_count=prefetch)
        return consuming

    def _deliver(self, deliveries: list[Delivery], consuming: ConsumerChannel) -> None:
        if self._leaving:
            return
        new, _ = consuming.received(deliveries)
        if self._by_priority:
            self._priorities.inspect(deliveries, consuming.server)
        if consuming.goal:
            self._delayed.later(SURVIVED, self._survived, consuming)
        if new:
            self._receive(new, consuming.ledger)
        consuming.pause_briefly(len(deliveries))

    # Growing.

    def _set_goal(self, consuming: ConsumerChannel) -> None:
        """The prefetch grows once as many deliveries as can be under way at once are acknowledged without a gap."""
        if consuming.prefetch < self._prefetch:
            consuming.goal = consuming.ledger.floor + consuming.prefetch * len(consuming.consumers)

    def _acknowledged(self, consuming: ConsumerChannel) -> None:
        if self._leaving:
            if not self.unacked and self._connection is not None:
                self._delayed.later(0, self._release, self._connection)
        elif consuming.goal and consuming.ledger.floor >= consuming.goal:
            consuming.goal = 0
            self._delayed.later(0, self._grow, consuming)
        elif consuming in self._retiring and not consuming.ledger.unacked:
            self._delayed.later(0, self._retire, consuming)

    def _widen(self, consuming: ConsumerChannel) -> None:
        """What came is worked on, and only waits to be acknowledged."""
        if consuming.goal:
            consuming.goal = 0
            self._delayed.later(0, self._grow, consuming)

    async def _survived(self, consuming: ConsumerChannel) -> None:
        if consuming.goal:  # else it has grown meanwhile, on the same channel
            await self._grow(consuming)

    async def _grow(self, old: ConsumerChannel) -> None:
        async with self._turn:
            connection = self._connection
            if connection is None or old is not self._current or self._paused:
                return
            old.goal = 0
            step = old.prefetch * GROWTH if old.redelivered else self._prefetch
            prefetch = min(step, self._prefetch)
            if self.has_rivals():
                # Whoever gets the queue meanwhile must not overtake what is under way here.
                self._grown, self._grown_on = prefetch, connection
                self.hand_over(REGROWN_WITHIN)
                return
            if old.must_stay:
                new = old
                new.prefetch, new.redelivered = prefetch, False
                await new.channel.basic_qos(prefetch_count=prefetch)
            else:
                new = await self._open_channel(connection, prefetch)
                if self._stopping or old is not self._current:
                    await new.channel.shut()
                    return
                self._current = new
                self._retiring.add(old)
                old.prefetch = 0  # it has no consumers whom that would bound
            if old is not new or prefetch == self._prefetch:
                old.ledger.widen = None
            for queue in list(old.consumers.values()):
                if queue in old.consumers.values():  # else the broker has cancelled it meanwhile
                    await old.cancel(queue)
                    if self._stopping:
                        return
                    await new.consume(queue)
            self._set_goal(new)
            self.log.debug("Prefetch is {prefetch} for each queue", prefetch=new.prefetch)
            if old is not new and not old.ledger.unacked:
                await self._retire(old)

    async def _retire(self, old: ConsumerChannel) -> None:
        if not old.consumers and not old.ledger.unacked and old in self._retiring:
            self._retiring.discard(old)
            await old.channel.shut()

    # Coming back.

    def _cancelled(self, consuming: ConsumerChannel, tag: str) -> None:
        queue = consuming.ended(tag)
        if queue is None or self._stopping:
            return
        self.log.warn("The broker cancelled the consumer of {queue}: consuming again", queue=queue)
        self._delayed.later(RECONSUME_DELAY, self._consume_again, queue)

    async def _consume_again(self, queue: str) -> None:
        async with self._turn:
            connection, current = self._connection, self._current
            if connection is None or current is None:
                return  # a new channel consumes from everything anyway
            if queue in self._own_queues:
                await self._topology.declare(connection)
            elif not await self._timeout.ask(connection, queue):
                self._missing.add(queue)
                self._watchdog.forget(queue)
                self._delayed.later(MISSING_QUEUE_DELAY, self._consume_missing)
                return
            await current.consume(queue)

    async def _consume_missing(self) -> None:
        async with self._turn:
            connection, current = self._connection, self._current
            if connection is None or current is None:
                return
            for queue in sorted(self._missing):
                if await self._timeout.ask(connection, queue):
                    self._missing.discard(queue)
                    await current.consume(queue)
            if self._missing:
                self._delayed.later(MISSING_QUEUE_DELAY, self._consume_missing)

    def _closed(self, connection: Connection, consuming: ConsumerChannel, error: Exception) -> None:
        consuming.ledger.close()
        self._retiring.discard(consuming)
        if consuming is not self._current:
            return
        self._current = self._grown_on = None
        if connection.closed or self._stopping:
            self._delayed.forget()
            return
        self.log.warn("The broker closed the consuming channel ({reason}): opening another", reason=str(error))
        self._delayed.later(RECONSUME_DELAY, self._reopen, connection)  # if it is still ours

    async def _reopen(self, connection: Connection) -> None:
        async with self._turn:
            if self._current is None and connection is self._connection and not (self._leaving or connection.closed):
                await self._topology.declare(connection)
                await self._open(connection)

    # Watching.

    async def _watch(self) -> None:
        """Look at the queues from which nothing comes; one by one, on a channel of its own."""
        connection, current, now = self._connection, self._current, self._clock.seconds()
        self._delayed.later(max(self._patience / 2, MIN_WATCH_INTERVAL), self._watch)
        if connection is None or current is None:
            return
        if self._asking_since is not None:
            if now - self._asking_since >= self._patience:
                raise BrokerUnavailable(f"no answer about the queues for {now - self._asking_since:.0f} s")
            return
        quiet = [queue for queue in current.consumers.values() if self._worth_asking(current, queue)]
        if not quiet:
            return
        self._asking_since = now
        channel = await connection.open_channel()
        for queue in quiet:
            try:
                found = await passive_declare(channel, queue)
            except BrokerRefused as error:
                self.log.info("Cannot look at {queue}: {reason}", queue=queue, reason=str(error))
                break
            if found is None:
                break  # a queue that is gone is for `_cancelled`
            if self._watchdog.stalled(queue, found.messages, found.consumers, self._clock.seconds()):
                await self._restart(connection, current, queue, found.messages)
            if current is not self._current:
                break
        await channel.shut()
        self._asking_since = None

    def _worth_asking(self, current: ConsumerChannel, queue: str) -> bool:
        latest = current.latest(queue)
        return self._watchdog.worth_asking(queue, latest, latest is None or current.ledger.acknowledged(latest))

    async def _restart(self, connection: Connection, current: ConsumerChannel, queue: str, ready: int) -> None:
        async with self._turn:
            if current is not self._current or self._paused or queue not in current.consumers.values():
                return
            self._counters.stalled_consumers += 1
            self.log.error(
                "Nothing comes from {queue}, where {ready} messages wait: starting its consumer again",
                queue=queue,
                ready=ready,
            )
            if current.latest(queue) is None and current.ledger.unacked:
                # It may be standing by for another gateway's: no reason to give back what is under way.
                await current.cancel(queue)
                await current.consume(queue)
            else:
                self._current = None
                current.ledger.close()
                await current.channel.shut()
                await self._open(connection)

    # The rest.

    def _failed(self, error: AmqprouterError) -> None:
        self.log.error("Cannot consume again: {reason}; connecting anew", reason=str(error))

    async def stop(self) -> None:
        """Take no more deliveries; what was delivered can still be acknowledged."""
        self._stopping = True
        self._delayed.stop()
        if self.has_rivals():
            self._leaving = True  # whoever is next has its turn when our channel ends, behind what is under way here
            return
        for consuming in self._channels():
            try:
                for queue in list(consuming.consumers.values()):
                    await consuming.cancel(queue)
            except (BrokerRefused, BrokerUnavailable):
                pass  # with the channel, the consumers are gone as well
