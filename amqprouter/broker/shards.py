"""Consuming when several gateways share the shards: each consumes those that are its own.

House rules. One connection, and on it a channel for each shard, so that a shard can be handed over by itself; all other
queues are one `Ingress`'s. Which shards are ours follows from where we sit among the gateways (`Membership`)
and from nothing else, so all gateways come to the same answer without talking.

Theory of operation. Every `INTERVAL` the seats are looked at. A shard that has become ours is consumed from at once:
its single active consumer makes us wait in line until its owner has let go, or died. One that is no longer ours is
handed over (`Ingress.hand_over`): nothing more is taken from it, what is under way is finished and acknowledged, and
then its channel is closed, at which the broker puts back what it had delivered and we had not taken, in its place, and
only then wakes the next consumer. So the order of each device's messages holds, and nothing is done twice.

Gateways that see the seats at different moments may want the same shard, or none of them may; the single active
consumer makes the first harmless and the next look mends the second. When the seats cannot be looked at, every shard is
consumed from: then others stand by, and nothing waits for a gateway that is not there. `problem` tells of a broker that
refuses the seats; it is asked again at each look.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from amqprouter.amqp.ack_ledger import AckLedger
from amqprouter.amqp.connection import Connection
from amqprouter.amqp.declare import NOT_FOUND, Declarer
from amqprouter.broker.ingress import Ingress, Receive
from amqprouter.broker.repartition import Repartition, unwrapping
from amqprouter.broker.repartition_envelope import Envelope
from amqprouter.broker.source_switch import SourceSwitch
from amqprouter.broker.topology import Topology
from amqprouter.broker.unread_partitions import UnreadPartitions
from amqprouter.clock import Clock
from amqprouter.counters import Counters
from amqprouter.errors import AmqprouterError, BrokerRefused, TopologyClash
from amqprouter.interfaces import IReadiness
from amqprouter.settings import IngressSettings

ANSWER_WITHIN = 3.0
"""Seconds in which the broker has said how many consumers a seat has: it does in milliseconds."""


_ACCESS_REFUSED = 403


_SEAT = {"x-queue-type": "classic"}
"""Quorum queues know no exclusive consumers."""


@dataclass(frozen=True)
class Position:
    """Ours among the gateways that are there."""

    rank: int | None
    """How many have a lower seat; None without a seat."""
    gateways: int

    def owns(self, shard: int) -> bool:
        """Whether the shard of this number is ours."""
        return self.rank is not None and shard % self.gateways == self.rank

    @property
    def others(self) -> bool | None:
        """Whether there are other gateways. None where that is not to be told from the seats: whoever got none, with a
        single one taken, may be the one that others do not see."""
        return None if self.rank is None and self.gateways <= 1 else self.gateways > 1


class Membership:
    """The seats of one configuration, over one connection at a time."""

    def __init__(self, prefix: str, count: int) -> None:
        self.queues = tuple(f"{prefix}.seat.{number}" for number in range(count))
        self._connection: Connection | None = None
        self._declarer: Declarer | None = None
        self._mine: int | None = None
        self._unanswered = ""  # the seat about which there is no answer yet

    async def position(self, connection: Connection) -> Position:
        """Where we are; takes a seat if we have none.

        :raises BrokerRefused: the broker does not let us declare or consume, or a seat's node is down.
        :raises TopologyClash: there is another queue in a seat's place.
        :raises BrokerUnavailable: the connection is lost.
        """
        if connection is not self._connection:
            self._connection, self._mine, self._unanswered = connection, None, ""
            self._declarer = Declarer(connection, "delete it on the broker, or choose another [topology] prefix")
        taken = set()
        for number, queue in enumerate(self.queues):
            if await self._consumers(connection, queue):
                taken.add(number)
        if self._mine not in taken:
            self._mine = None
            for number in sorted(set(range(len(self.queues))) - taken):
                taken.add(number)
                if await self._take(connection, self.queues[number]):
                    self._mine = number
                    break
        rank = None if self._mine is None else len([number for number in taken if number < self._mine])
        return Position(rank, max(1, len(taken)))

    async def _consumers(self, connection: Connection, queue: str) -> int:
        if self._unanswered:
            raise _no_answer(self._unanswered)
        answer: Deferred[int] = Deferred()
        timer = connection.clock.callLater(ANSWER_WITHIN, self._late, queue, answer)
        # Not cancelled when it is late: what the channel answers in the end would be taken for another answer.
        Deferred.fromCoroutine(self._ask(queue)).addBoth(self._answered, timer, answer)
        return await answer

    def _late(self, queue: str, answer: Deferred[int]) -> None:
        self._unanswered = queue
        answer.errback(_no_answer(queue))

    def _answered(self, outcome: int | Failure, timer: Any, answer: Deferred[int]) -> None:
        if timer.active():
            timer.cancel()
            answer.callback(outcome)  # a Failure makes it an errback
        else:
            self._unanswered = ""

    async def _ask(self, queue: str) -> int:
        assert self._declarer is not None
        found = await self._declarer.queue(queue, _SEAT, auto_delete=True)
        return found.consumers

    async def _take(self, connection: Connection, queue: str) -> bool:
        """Whether we got it; somebody may have been faster.

        No `Consumer`: nothing ever comes from a seat, and one that is lost is seen at the next look.
        """
        channel = await connection.open_channel()  # of its own, for a refusal closes it
        try:
            await channel.basic_consume(queue=queue, consumer_tag=queue, no_ack=True, exclusive=True)
        except BrokerRefused as error:
            if error.code == _ACCESS_REFUSED:
                return False
            raise
        return True


def _no_answer(queue: str) -> BrokerRefused:
    return BrokerRefused(NOT_FOUND, f"no answer about queue {queue!r} within {ANSWER_WITHIN:g} s: is its node down?")


INTERVAL = 2.0
"""Seconds between two looks at the seats: shards of a gateway that died wait that long at the most, and a look is a few
small questions."""
_ALONE = Position(0, 1)


@implementer(IReadiness)
class SharedIngress:
    """All consumers of one gateway. `rest` consumes from everything but the shards; `shards` has one for each."""

    log = Logger()
    name = "ingress"

    def __init__(
        self,
        clock: Clock,
        rest: Ingress,
        shards: Mapping[str, Ingress],
        membership: Membership,
        partitions: Sequence[Ingress] = (),
        switch: SourceSwitch | None = None,
    ) -> None:
        self._clock = clock
        self._rest = rest
        self._shards = tuple(shards.items())
        self._partitions = tuple(partitions)
        self._unread = UnreadPartitions(() if switch is None else switch.partitions)
        self._switch = switch
        self._membership = membership
        self._place: Position | None = None
        self._connection: Connection | None = None
        self._timer: Any = None
        self._unseated = ""  # why the broker does not let us look at the seats
        self._refused = False  # whether that is for somebody to mend, and no node that is away
        self._stopping = False
        self._looks = 0  # at the others, over this connection
        if switch is not None:
            for one in self._all:
                one.on_released, one.has_rivals = self.look, self._has_rivals

    @property
    def unacked(self) -> int:
        """Deliveries received and not yet acknowledged."""
        return sum(one.unacked for one in self._all)

    @property
    def repartitions(self) -> bool:
        """Whether what comes through other queues than the shards' is passed to the gateway that has its device."""
        return self._switch is not None and self._switch.repartitions

    @property
    def ledgers(self) -> list[AckLedger]:
        """Of the deliveries that are out."""
        return [ledger for one in self._all for ledger in one.ledgers]

    @property
    def _all(self) -> list[Ingress]:
        return [self._rest, *(shard for _, shard in self._shards), *self._partitions]

    def problem(self) -> str:
        switch = self._switch
        problems = [f"cannot share the shards with other gateways: {self._unseated}" if self._refused else ""]
        if switch is not None:
            problems.append(switch.problem())
        if switch is None or not switch.is_paused:
            problems.append(self._rest.problem())
        problems += [one.problem() for one in self._all[1:] if one.attached]
        return "; ".join(dict.fromkeys(filter(None, problems)))

    async def attach(self, connection: Connection) -> None:
        """Consume over this connection from now on.

        :raises BrokerRefused: the broker refuses a consumer. :raises BrokerUnavailable: the connection is lost.
        """
        if self._stopping:
            return
        self._connection, self._looks = connection, 0
        for one in self._all:
            one.detach()
        if self._switch is None:
            await self._rest.attach(connection)
        else:
            self._switch.lost()
        if self._shards:
            await self._share(connection)

    async def _share(self, connection: Connection) -> None:
        """See which shards are ours; begin with those, and hand over the others."""
        try:
            place = await self._membership.position(connection)
            self._unseated, self._refused = "", False
        except (BrokerRefused, TopologyClash) as error:
            if connection.closed:
                raise
            if not self._unseated:
                self.log.warn("Cannot see the other gateways ({reason}): consuming every shard", reason=str(error))
            self._unseated = str(error)
            self._refused = not (isinstance(error, BrokerRefused) and error.code == NOT_FOUND)
            place = _ALONE
        if connection is not self._connection or self._stopping:
            return
        self._looks += 1
        if place != self._place:
            self._place = place
            mine = [queue for number, (queue, _) in enumerate(self._shards) if place.owns(number)]
            self.log.info(
                "{gateways} gateways share the shards; ours: {mine}",
                gateways=place.gateways,
                mine=", ".join(mine) or "none",
            )
        if self._switch is not None:
            others = None if self._unseated else place.others
            await self._switch.look(connection, others, self._rest, self._partitions_unacked)
        for number, (_, shard) in enumerate(self._shards):
            await self._have(connection, shard, place.owns(number))
        if self._switch is not None and self._switch.uses_partitions:
            theirs = [number for number in range(len(self._partitions)) if not place.owns(number)]
            attached = [number for number in theirs if self._partitions[number].attached]
            unread = await self._unread.look(connection, place.rank, place.gateways, theirs, attached)
            for number, partition in enumerate(self._partitions):
                await self._have(connection, partition, number not in theirs or number in unread)
        if self._timer is None or not self._timer.active():
            self._timer = self._clock.callLater(INTERVAL, self._share_again)

    @staticmethod
    async def _have(connection: Connection, shard: Ingress, ours: bool) -> None:
        if not ours:
            shard.hand_over()
        elif not shard.attached:
            await shard.attach(connection)

    def _partitions_unacked(self) -> int:
        return sum(partition.unacked for partition in self._partitions)

    def _has_rivals(self) -> bool:
        """Whether others may stand by at our queues. Those that started with us are there at the second look."""
        return self._looks < 2 or bool(self._unseated) or self._place is None or self._place.others is not False

    def look(self) -> None:
        """Look at the seats now rather than at the next occasion: a gateway is known to have ended, or queues of ours
        are let go, from which nothing is taken until it is clear whose they are."""
        if self._timer is not None and self._timer.active():
            self._timer.reset(0)

    def _share_again(self) -> None:
        Deferred.fromCoroutine(self._shared_again())

    async def _shared_again(self) -> None:
        connection = self._connection
        if connection is None or connection.closed:
            return  # the next `attach` goes on
        try:
            await self._share(connection)
        except AmqprouterError as error:
            if not connection.closed:
                self.log.error("Cannot consume from a shard: {reason}; connecting anew", reason=str(error))
                connection.fail(error)

    async def stop(self) -> None:
        """Take no more deliveries; what was delivered can still be acknowledged."""
        self._stopping = True
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        for one in self._all:
            await one.stop()


def make_ingress(
    clock: Clock,
    topology: Topology,
    prefix: str,
    settings: IngressSettings,
    receive: Receive,
    *,
    counters: Counters,
    repartition: Repartition | None = None,
    envelope: Envelope | None = None,
) -> SharedIngress:
    """All consumers that these settings lead to; `prefix` begins the names of the seats.

    :param repartition: where what the sources bring goes while other gateways share the work; None for never.
    :param envelope: what it is in then.
    """
    names = topology.names

    def consumers(own_queues: tuple[str, ...], receive: Receive, queues: tuple[str, ...] = ()) -> Ingress:
        return Ingress(
            clock,
            topology,
            queues,
            settings.prefetch,
            receive,
            own_queues=own_queues,
            timeout=settings.consumer_timeout,
            watchdog=settings.watchdog,
            counters=counters,
        )

    shards = {shard: consumers((shard,), receive) for shard in names.shards}
    membership = Membership(prefix, len(shards))
    sources = (*settings.queues, names.replay)
    if repartition is None or envelope is None:
        return SharedIngress(clock, consumers((names.ingress,), receive, sources), shards, membership)
    switch = SourceSwitch(clock, topology, receive, repartition, settings.repartition)
    rest = consumers((names.ingress,), switch.receive, sources)
    partitions = [consumers((queue,), unwrapping(envelope, receive)) for queue in names.partitions]
    return SharedIngress(clock, rest, shards, membership, partitions, switch)
