"""Which way goes what the sources bring: to this gateway's own pipeline, or to the shards of all gateways.

Alone, a gateway works on what it reads. Once others share the work it passes everything to the queue of its device's
shard (`amqprouter.broker.repartition`), so that each gateway, and so each process, has its part of it.

House rules. The way changes without a loss and without a message overtaking another of its device. So before it does,
nothing is taken from the sources, and what was taken is finished, for `WITHIN` at most: what still waits then, for a
rate or a target, is given back to the source, and goes the new way in its order. And before a gateway that was left
alone works on the sources itself, everything that was on its way through the shards has to be done.

Theory of operation. ::

    UNKNOWN ──alone, no partitions───────► DIRECT ──others──► LEAVING_DIRECT ──all finished──► REPARTITION
       └──────────others, or there are partitions──────────────────────────────────────────────►┘    │
              ▲ REPARTITION ◄──not in time── LEAVING_REPARTITION ◄──alone for a while, little left────┘
                                               └──────────nothing on its way──► DIRECT

It is looked at whenever the other gateways are, and as soon as the sources are let go. Gateways that come and go, as
when all are restarted in turn, don't turn it each time: it waits for `ALONE`. A gateway that cannot see the seats, or
has none, does not know that it is alone: it stays with the way that it has.

The partitions' queues are declared when they are needed first. Those that are there already are consumed from in any
case, so that nothing is left in them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from enum import Enum

from twisted.logger import Logger

from amqprouter.amqp.ack_ledger import AckLedger
from amqprouter.amqp.connection import Connection
from amqprouter.amqp.declare import queue_state
from amqprouter.amqp.wire import Delivery
from amqprouter.broker.ingress import Ingress, Receive
from amqprouter.broker.repartition import Repartition
from amqprouter.broker.topology import Topology
from amqprouter.clock import Clock
from amqprouter.errors import BrokerRefused, TopologyClash

WITHIN = 5.0
"""Seconds that what was taken from the sources may take to be finished: targets take milliseconds, and meanwhile
nothing is taken."""
ALONE = 60.0
"""Seconds without another gateway before it is tried to do without the shards: a restart takes a few."""
FEW = 1000
"""Messages on their way through the shards, up to which it is tried: they are done in a second or so."""
EMPTY_WITHIN = 10.0
"""Seconds in which they have to be done, while nothing is taken from the sources. Those of a device that is over its
rate may take longer: then it is tried again after `ALONE`."""


class Way(Enum):
    """Where what the sources bring goes."""

    UNKNOWN = "unknown"
    DIRECT = "direct"
    LEAVING_DIRECT = "direct, and about to change"
    REPARTITION = "by way of the shards"
    LEAVING_REPARTITION = "by way of the shards, and about to change"


_PAUSED = Way.LEAVING_DIRECT, Way.LEAVING_REPARTITION


class SourceSwitch:
    """The way in force.

    :param receive: this gateway's pipeline. :param choice: ``auto``, or ``yes`` or ``no`` whoever else is there.
    """

    log = Logger()

    def __init__(
        self, clock: Clock, topology: Topology, receive: Receive, repartition: Repartition, choice: str
    ) -> None:
        self._clock = clock
        self._topology = topology
        self._receive_here = receive
        self._repartition = repartition
        self._choice = choice
        self.way = Way.UNKNOWN
        self._alone_since = clock.seconds()
        self._paused_at = 0.0
        self._refused = ""  # why the broker makes no queues for the partitions

    @property
    def is_paused(self) -> bool:
        """Whether nothing is taken from the sources for now."""
        return self.way in _PAUSED

    @property
    def repartitions(self) -> bool:
        """Whether what the sources bring is passed to the gateway that has its device."""
        return self.way in (Way.REPARTITION, Way.LEAVING_REPARTITION)

    @property
    def uses_partitions(self) -> bool:
        """Whether the partitions' queues are to be consumed from."""
        return self._topology.has_partitions

    @property
    def partitions(self) -> tuple[str, ...]:
        """The partitions' queues, by number."""
        return self._topology.names.partitions

    def problem(self) -> str:
        """As of `amqprouter.interfaces.IReadiness`."""
        refused = f"cannot share what comes through other queues with other gateways: {self._refused}"
        return "; ".join(filter(None, (self._repartition.problem(), self._refused and refused)))

    def receive(self, deliveries: list[Delivery], ledger: AckLedger) -> None:
        """Take a batch from the sources' channel."""
        if self.repartitions:
            self._repartition.receive(deliveries, ledger)
        else:
            self._receive_here(deliveries, ledger)

    def lost(self) -> None:
        """The connection is gone, and all that was taken goes back to the sources."""
        if self.way is Way.LEAVING_DIRECT:
            self.way = Way.DIRECT
        elif self.way is Way.LEAVING_REPARTITION:
            self.way = Way.REPARTITION

    async def look(
        self, connection: Connection, others: bool | None, sources: Ingress, unacked: Callable[[], int]
    ) -> None:
        """See which way it is to be, and have `sources` consumed from.

        :param others: whether other gateways share the work; None where that cannot be seen, and then the way stays.
        :param unacked: deliveries from the partitions here.
        :raises BrokerRefused: the broker refuses a consumer. :raises BrokerUnavailable: the connection is lost.
        """
        now = self._clock.seconds()
        if others is None:
            others = self.repartitions  # another one may have taken what is on its way, which no count of ours tells
        if others or self._choice == "yes":
            self._alone_since = now
        wanted = self._choice == "yes" or (others and self._choice == "auto")
        if wanted and not self._topology.has_partitions:
            wanted = await self._declare(connection)
        if self.way is Way.UNKNOWN:
            await self._begin(connection, wanted)
        elif self.way is Way.DIRECT and wanted:
            self.way = Way.LEAVING_DIRECT
            sources.hand_over(WITHIN)
        elif self.way is Way.REPARTITION and not wanted and await self._may_leave(connection, now, unacked()):
            self.way, self._paused_at = Way.LEAVING_REPARTITION, now
            sources.hand_over(WITHIN)
        if self.is_paused and not sources.attached:
            await self._turn(connection, wanted, unacked)
        if not self.is_paused and not sources.attached:
            await sources.attach(connection)

    async def _declare(self, connection: Connection) -> bool:
        """Have the partitions' queues; False where the broker makes none, which is no reason to stand still."""
        try:
            await self._topology.declare_partitions(connection)
        except (BrokerRefused, TopologyClash) as error:
            if connection.closed:
                raise
            if str(error) != self._refused:
                self._refused = str(error)
                self.log.error("{problem}; asking again every few seconds", problem=self.problem())
            return False
        self._refused = ""
        return True

    async def _may_leave(self, connection: Connection, now: float, unacked: int) -> bool:
        if self._choice == "auto" and now - self._alone_since < ALONE:
            return False
        return await self._on_the_way(connection) + unacked <= FEW

    async def _begin(self, connection: Connection, wanted: bool) -> None:
        """Where there are partitions, something may be on its way; nobody consumes yet, so that the broker's word for
        none is no proof (see `Found`)."""
        if not wanted and await self._exists(connection):
            wanted = await self._declare(connection)
        self._take(Way.REPARTITION if wanted else Way.DIRECT)

    async def _turn(self, connection: Connection, wanted: bool, unacked: Callable[[], int]) -> None:
        """All that was taken from the sources is finished."""
        if self.way is Way.LEAVING_DIRECT:
            self._take(Way.REPARTITION)
        elif wanted:
            self.way = Way.REPARTITION
        elif not unacked() and not self._repartition.under_way and not await self._on_the_way(connection):
            self._take(Way.DIRECT)
        elif self._clock.seconds() - self._paused_at >= EMPTY_WITHIN:
            self.way, self._alone_since = Way.REPARTITION, self._clock.seconds()

    def _take(self, way: Way) -> None:
        if self.way is not Way.UNKNOWN or way is Way.REPARTITION:
            self.log.info("What comes through queues that are no shards goes {way}", way=_WORDS[way])
        self.way = way

    async def _exists(self, connection: Connection) -> bool:
        return await queue_state(connection, self._topology.names.partitions[0]) is not None

    async def _on_the_way(self, connection: Connection) -> int:
        """Messages in the partitions' queues that nobody has taken; very many where the broker does not tell. Alone, we
        consume from all of them."""
        count = 0
        for queue in self._topology.names.partitions:
            found = await queue_state(connection, queue)
            if found is not None:
                count += found.messages if found.tells else sys.maxsize
        return count


_WORDS = {
    Way.DIRECT: "to this gateway's targets directly: no other gateway shares the work",
    Way.REPARTITION: "to the gateway that has its device, by way of the partitions' queues",
}
