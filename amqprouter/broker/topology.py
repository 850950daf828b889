"""What the daemon declares on the broker, at every connect: exchanges, queues and bindings.

::

    devices (topic) ──bind patterns──► <prefix>.ingress ◄──bind patterns── [ingress] exchanges, which others declare
       └─ alternate exchange ────────► <prefix>.unrouted (fanout) ──► <prefix>.unrouted
    devices.by-id (consistent hash) ─► <prefix>.shard.0 … <prefix>.shard.N-1
                                       <prefix>.partition.0 … N-1  (once several gateways share the work)
    <prefix>.rejected (fanout) ──────► <prefix>.rejected
    <prefix>.dead-letter (fanout) ───► <prefix>.dead-letters
    <prefix>.replay (fanout) ────────► <prefix>.replay   (out of those three, by `amqprouter rejected replay`)
                                       <prefix>.events  (stream)
                                       <prefix>.replies (where a section of work wants answers)

Ingress, shard and replay queues have a single active consumer, so that of several gateways one owns a queue, and with
it the devices in it, at a time. The consistent-hash exchange hashes the whole routing key; device affinity needs the
device id alone, hence a second exchange, to which devices publish with their id as the key and the topic in the
``type`` property.

These queues, where they are quorum queues, count how often a message came back because whoever had it died, and give
it up after `amqprouter.amqp.declare.DELIVERY_LIMIT` times: it goes to the dead letters, so that a message which crashes
the daemon does not do so for ever.
Declaring is idempotent; what exists with other properties is reported, never changed. Bindings cannot be listed over
AMQP. So those of an earlier configuration are taken off as far as it can be told which there may be, and where nothing
is lost by it: where layouts say what is wanted, ``[ingress] bind`` and what other built-in layouts bind.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from amqprouter.amqp.connection import Connection
from amqprouter.amqp.declare import MANY_RETURNS, Declarer, dead_lettering, is_queue_limit
from amqprouter.errors import BrokerRefused
from amqprouter.settings import EventsSettings, IngressSettings, TopologySettings

_REMEDY = "delete it on the broker, or choose other names in [topology]"
_INGRESS_REMEDY = (
    "take [ingress] queue_type back, or delete the queue once it is empty (docs/fairness.rst, 'Priorities of "
    "messages'), or choose other names in [topology]"
)
_SEGMENT_BYTES = 50_000_000
"""Bytes of a stream's segment file. Retention drops whole segments: RabbitMQ's 500 MB would round it up too far."""


@dataclass(frozen=True)
class Names:
    """The names of everything the daemon declares."""

    prefix: str
    """What all but the exchanges of devices begin with."""
    devices: str
    by_id: str
    ingress: str
    shards: tuple[str, ...]
    partitions: tuple[str, ...]
    """As many as shards: what came through other queues goes through these (`amqprouter.broker.repartition`)."""
    unrouted: str
    rejected: str
    dead_letter: str
    dead_letters: str
    replay: str
    events: str
    replies: str

    @classmethod
    def of(cls, topology: TopologySettings, ingress: IngressSettings) -> Names:
        """The names that these settings lead to."""
        prefix = topology.prefix
        return cls(
            prefix=prefix,
            devices=topology.devices_exchange,
            by_id=f"{topology.devices_exchange}.by-id",
            ingress=f"{prefix}.ingress",
            shards=tuple(f"{prefix}.shard.{number}" for number in range(ingress.shards)),
            partitions=tuple(f"{prefix}.partition.{number}" for number in range(ingress.shards)),
            unrouted=f"{prefix}.unrouted",
            rejected=f"{prefix}.rejected",
            dead_letter=f"{prefix}.dead-letter",
            dead_letters=f"{prefix}.dead-letters",
            replay=f"{prefix}.replay",
            events=f"{prefix}.events",
            replies=f"{prefix}.replies",
        )


class Topology:
    """Declares one configuration's exchanges and queues, over any connection.

    :param bindings: the patterns that bind the ingress queue to an exchange; ``[ingress] bind`` for all by default.
    :param replaced: the patterns that the daemon itself may have bound it with under another configuration, and that
        are not wanted now; none by default.
    """

    def __init__(
        self,
        topology: TopologySettings,
        ingress: IngressSettings,
        events: EventsSettings,
        bindings: Callable[[str], Sequence[str]] | None = None,
        replaced: Callable[[str], Sequence[str]] = lambda exchange: (),
    ) -> None:
        self.names = Names.of(topology, ingress)
        self.ingress_type = ingress.queue_type or topology.queue_type
        """Of the queues that devices' messages come through: ingress, shards and replay."""
        self._queue_type = topology.queue_type
        self._bindings = bindings or (lambda exchange: ingress.bind)
        self._replaced = replaced
        self._exchanges = ingress.exchanges
        self._events = events
        self.has_partitions = False
        """Whether the queues of the partitions are declared as well."""

    async def declare(self, connection: Connection) -> None:
        """Declare everything but the event stream.

        :raises TopologyClash: something exists with other properties.
        :raises BrokerRefused: the broker does not let us (403: grant configure, write and read on these names).
        """
        try:
            await self._declare(connection)
        except BrokerRefused as error:
            raise self._with_needs(error) from None

    def _with_needs(self, error: BrokerRefused) -> BrokerRefused:
        """Where there are too many queues, how many are needed, and which."""
        if not is_queue_limit(error):
            return error
        names = self.names
        own = [names.ingress, names.unrouted, names.rejected, names.dead_letters, names.replay, names.events]
        own.append(f"{names.prefix}.parked")
        count, shards = len(own), len(names.shards)
        if shards:
            count += (3 if self.has_partitions else 2) * shards
            last = f" to {shards - 1}" if shards > 1 else ""
            own += [f"{names.prefix}.shard.0{last}", f"{names.prefix}.seat.0{last}"]
            if self.has_partitions:
                own.append(f"{names.prefix}.partition.0{last}")
        return BrokerRefused(
            error.code,
            f"{error.text}. Needed are {count} queues ({', '.join(own)}), those of [queue], [celery] and [commands] "
            "sections where there are any, and one for each target that is down and for each device over its rate",
        )

    async def _declare(self, connection: Connection) -> None:
        names, declarer = self.names, Declarer(connection, _REMEDY)
        durable: dict[str, Any] = {"x-queue-type": self._queue_type}
        work = self._work
        if self._queue_type == "quorum":
            durable |= {"x-delivery-limit": MANY_RETURNS}
        await declarer.exchange(names.unrouted, "fanout")
        await _queue(declarer, names.unrouted, durable, names.unrouted)
        await declarer.exchange(names.devices, "topic", {"alternate-exchange": names.unrouted})
        await declarer.queue(names.ingress, work, remedy=_INGRESS_REMEDY)
        for exchange in (names.devices, *self._exchanges):
            for pattern in self._bindings(exchange):
                await declarer.bind(names.ingress, exchange, pattern)
            for pattern in self._replaced(exchange):
                await declarer.unbind(names.ingress, exchange, pattern)
        await declarer.exchange(names.by_id, "x-consistent-hash")
        # Which device has which shard follows from the order in which they were bound. A node of RabbitMQ 3.10 or 4.0
        # that starts binds them anew, more often than not sorted by name, shard.10 before shard.2. So that is how they
        # are bound at first.
        for shard in sorted(names.shards):
            # The key of such a binding is the queue's weight on the hash ring.
            await _queue(declarer, shard, work, names.by_id, key="1", remedy=_INGRESS_REMEDY)
        if self.has_partitions:
            await self._partitions(declarer)
        await declarer.exchange(names.rejected, "fanout")
        await _queue(declarer, names.rejected, durable, names.rejected)
        await declarer.exchange(names.dead_letter, "fanout")
        await _queue(declarer, names.dead_letters, durable, names.dead_letter)
        await declarer.exchange(names.replay, "fanout")
        await _queue(declarer, names.replay, work, names.replay, remedy=_INGRESS_REMEDY)
        await declarer.shut()

    @property
    def _work(self) -> dict[str, Any]:
        """The arguments of queues that devices' messages come through."""
        work: dict[str, Any] = {"x-queue-type": self.ingress_type, "x-single-active-consumer": True}
        return work | dead_lettering(self.names.dead_letter) if self.ingress_type == "quorum" else work

    async def declare_partitions(self, connection: Connection) -> None:
        """Declare the queues of the partitions, now and at each connection from now on.

        :raises TopologyClash: :raises BrokerRefused: as `declare`.
        """
        declarer = Declarer(connection, _REMEDY)
        try:
            await self._partitions(declarer)
        except BrokerRefused as error:
            raise self._with_needs(error) from None
        await declarer.shut()
        self.has_partitions = True

    async def _partitions(self, declarer: Declarer) -> None:
        for partition in self.names.partitions:
            await declarer.queue(partition, self._work, remedy=_INGRESS_REMEDY)

    async def declare_events(self, connection: Connection) -> None:
        """Declare the event stream. It is apart from the rest so that trouble with it leaves the rest working.

        :raises TopologyClash: :raises BrokerRefused: as `declare`.
        """
        declarer = Declarer(connection, _REMEDY)
        arguments = {
            "x-queue-type": "stream",
            "x-max-age": f"{self._events.max_age}s",
            "x-max-length-bytes": self._events.max_bytes,
            "x-stream-max-segment-size-bytes": min(_SEGMENT_BYTES, self._events.max_bytes),
        }
        try:
            await declarer.queue(self.names.events, arguments)
        except BrokerRefused as error:
            raise self._with_needs(error) from None
        await declarer.shut()


async def _queue(
    declarer: Declarer, name: str, arguments: dict[str, Any], exchange: str, key: str = "", remedy: str = _REMEDY
) -> None:
    await declarer.queue(name, arguments, remedy=remedy)
    await declarer.bind(name, exchange, key)
