"""Consuming when several gateways share the shards: each consumes those that are its own.

House rules. One connection, and on it a channel for each shard, so that a shard can be handed over by itself; all other
queues are one `Ingress`'s. Which shards are ours follows from where we sit among the gateways (`amqprouter.broker.seats`)
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

from collections.abc import Mapping
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from zope.interface import implementer

from amqprouter.amqp.connection import Connection
from amqprouter.amqp.declare import NOT_FOUND
from amqprouter.broker.ingress import Ingress, Receive
from amqprouter.broker.seats import Place, Seats
from amqprouter.broker.topology import Topology
from amqprouter.counters import Counters
from amqprouter.errors import AmqprouterError, BrokerRefused, TopologyClash
from amqprouter.interfaces import IReadiness
from amqprouter.pipeline.settlement import AckLedger
from amqprouter.settings import IngressSettings

INTERVAL = 2.0
"""Seconds between two looks at the seats: shards of a gateway that died wait that long at the most, and a look is a few
small questions."""
_ALONE = Place(0, 1)


@implementer(IReadiness)
class SharedIngress:
    """All consumers of one gateway. `rest` consumes from everything but the shards; `shards` has one for each."""

    log = Logger()
    name = "ingress"

    def __init__(self, clock: Any, rest: Ingress, shards: Mapping[str, Ingress], seats: Seats) -> None:
        self._clock = clock
        self._rest = rest
        self._shards = tuple(shards.items())
        self._seats = seats
        self._place: Place | None = None
        self._connection: Connection | None = None
        self._timer: Any = None
        self._unseated = ""  # why the broker does not let us look at the seats
        self._refused = False  # whether that is for somebody to mend, and no node that is away
        self._stopping = False

    @property
    def unacked(self) -> int:
        """Deliveries received and not yet acknowledged."""
        return self._rest.unacked + sum(shard.unacked for _, shard in self._shards)

    @property
    def ledgers(self) -> list[AckLedger]:
        """Of the deliveries that are out."""
        return [ledger for one in (self._rest, *(shard for _, shard in self._shards)) for ledger in one.ledgers]

    def problem(self) -> str:
        seats = f"cannot share the shards with other gateways: {self._unseated}" if self._refused else ""
        problems = [seats, self._rest.problem(), *(shard.problem() for _, shard in self._shards if shard.attached)]
        return "; ".join(dict.fromkeys(filter(None, problems)))

    async def attach(self, connection: Connection) -> None:
        """Consume over this connection from now on.

        :raises BrokerRefused: the broker refuses a consumer. :raises BrokerUnavailable: the connection is lost.
        """
        if self._stopping:
            return
        self._connection = connection
        for _, shard in self._shards:
            shard.detach()
        await self._rest.attach(connection)
        if self._shards:
            await self._share(connection)

    async def _share(self, connection: Connection) -> None:
        """See which shards are ours; begin with those, and hand over the others."""
        try:
            place = await self._seats.look(connection)
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
        if place != self._place:
            self._place = place
            mine = [queue for number, (queue, _) in enumerate(self._shards) if place.owns(number)]
            self.log.info(
                "{gateways} gateways share the shards; ours: {mine}",
                gateways=place.gateways,
                mine=", ".join(mine) or "none",
            )
        for number, (_, shard) in enumerate(self._shards):
            if not place.owns(number):
                shard.hand_over()
            elif not shard.attached:
                await shard.attach(connection)
        if self._timer is None or not self._timer.active():
            self._timer = self._clock.callLater(INTERVAL, self._look_again)

    def _look_again(self) -> None:
        Deferred.fromCoroutine(self._looked_again())

    async def _looked_again(self) -> None:
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
        await self._rest.stop()
        for _, shard in self._shards:
            await shard.stop()


def make_ingress(
    clock: Any, topology: Topology, prefix: str, settings: IngressSettings, receive: Receive, *, counters: Counters
) -> SharedIngress:
    """All consumers that these settings lead to; `prefix` begins the names of the seats."""
    names = topology.names

    def consumers(own_queues: tuple[str, ...], queues: tuple[str, ...] = ()) -> Ingress:
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

    rest = consumers((names.ingress,), (*settings.queues, names.replay))
    shards = {shard: consumers((shard,)) for shard in names.shards}
    return SharedIngress(clock, rest, shards, Seats(prefix, len(shards)))
