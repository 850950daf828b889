"""What the daemon declares on the broker, at every connect: exchanges, queues and bindings.

::

    devices (topic) ──bind patterns──► <prefix>.ingress ◄──bind patterns── [ingress] exchanges, which others declare
       └─ alternate exchange ────────► <prefix>.unrouted (fanout) ──► <prefix>.unrouted
    devices.by-id (consistent hash) ─► <prefix>.shard.0 … <prefix>.shard.N-1
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
it up after `DELIVERY_LIMIT` times: it goes to the dead letters, so that a message which crashes the daemon does not do
so for ever.
Declaring is idempotent; what exists with other properties is reported, never changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from amqprouter.amqp.channel import Channel
from amqprouter.amqp.connection import Connection
from amqprouter.errors import BrokerRefused, TopologyClash
from amqprouter.settings import EventsSettings, IngressSettings, TopologySettings

_PRECONDITION_FAILED = 406
_COMMAND_INVALID = 503
DELIVERY_LIMIT = 20
"""Returns to a quorum queue that a message may have. Each connection lost, for whatever reason, is one for all messages
under way; so it must not be small. It is the default of RabbitMQ 4; before, there was no limit."""
QUARANTINE_DELIVERY_LIMIT = 1_000_000
"""The same for the queues that people look into, who take messages and return them: without a limit of their own,
RabbitMQ 4 would drop what was looked at 20 times."""
_SEGMENT_BYTES = 50_000_000
"""Bytes of a stream's segment file. Retention drops whole segments: RabbitMQ's 500 MB would round it up too far."""


@dataclass(frozen=True)
class Names:
    """The names of everything the daemon declares."""

    devices: str
    by_id: str
    ingress: str
    shards: tuple[str, ...]
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
            devices=topology.devices_exchange,
            by_id=f"{topology.devices_exchange}.by-id",
            ingress=f"{prefix}.ingress",
            shards=tuple(f"{prefix}.shard.{number}" for number in range(ingress.shards)),
            unrouted=f"{prefix}.unrouted",
            rejected=f"{prefix}.rejected",
            dead_letter=f"{prefix}.dead-letter",
            dead_letters=f"{prefix}.dead-letters",
            replay=f"{prefix}.replay",
            events=f"{prefix}.events",
            replies=f"{prefix}.replies",
        )


class Topology:
    """Declares one configuration's exchanges and queues, over any connection."""

    def __init__(self, topology: TopologySettings, ingress: IngressSettings, events: EventsSettings) -> None:
        self.names = Names.of(topology, ingress)
        self._queue_type = topology.queue_type
        self._bind = ingress.bind
        self._exchanges = ingress.exchanges
        self._events = events

    async def declare(self, connection: Connection) -> None:
        """Declare everything but the event stream.

        :raises TopologyClash: something exists with other properties.
        :raises BrokerRefused: the broker does not let us (403: grant configure, write and read on these names).
        """
        names, channel = self.names, await connection.open_channel()
        durable: dict[str, Any] = {"x-queue-type": self._queue_type}
        work: dict[str, Any] = durable | {"x-single-active-consumer": True}
        if self._queue_type == "quorum":
            work |= {
                "x-delivery-limit": DELIVERY_LIMIT,
                "x-dead-letter-exchange": names.dead_letter,
                # Kept until the dead-letter queue has it. The broker insists on the overflow policy with it; it is also
                # the one that loses nothing, should an operator's policy limit the length.
                "x-dead-letter-strategy": "at-least-once",
                "x-overflow": "reject-publish",
            }
            durable |= {"x-delivery-limit": QUARANTINE_DELIVERY_LIMIT}
        await self._exchange(channel, names.unrouted, "fanout")
        await self._queue(channel, names.unrouted, durable, names.unrouted)
        await self._exchange(channel, names.devices, "topic", {"alternate-exchange": names.unrouted})
        await self._queue(channel, names.ingress, work)
        for exchange in (names.devices, *self._exchanges):
            for pattern in self._bind:
                await channel.queue_bind(queue=names.ingress, exchange=exchange, routing_key=pattern)
        await self._exchange(channel, names.by_id, "x-consistent-hash")
        for shard in names.shards:
            # The key of such a binding is the queue's weight on the hash ring.
            await self._queue(channel, shard, work, names.by_id, key="1")
        await self._exchange(channel, names.rejected, "fanout")
        await self._queue(channel, names.rejected, durable, names.rejected)
        await self._exchange(channel, names.dead_letter, "fanout")
        await self._queue(channel, names.dead_letters, durable, names.dead_letter)
        await self._exchange(channel, names.replay, "fanout")
        await self._queue(channel, names.replay, work, names.replay)
        await channel.shut()

    async def declare_events(self, connection: Connection) -> None:
        """Declare the event stream. It is apart from the rest so that trouble with it leaves the rest working.

        :raises TopologyClash: :raises BrokerRefused: as `declare`.
        """
        channel = await connection.open_channel()
        await self._queue(
            channel,
            self.names.events,
            {
                "x-queue-type": "stream",
                "x-max-age": f"{self._events.max_age}s",
                "x-max-length-bytes": self._events.max_bytes,
                "x-stream-max-segment-size-bytes": min(_SEGMENT_BYTES, self._events.max_bytes),
            },
        )
        await channel.shut()

    async def _exchange(self, channel: Channel, name: str, kind: str, arguments: dict[str, Any] | None = None) -> None:
        what = f"exchange {name!r} as a durable {kind} exchange" + (f" with {arguments}" if arguments else "")
        try:
            await channel.exchange_declare(exchange=name, exchange_type=kind, durable=True, arguments=arguments or {})
        except BrokerRefused as error:
            if error.code == _COMMAND_INVALID and kind == "x-consistent-hash":
                raise BrokerRefused(
                    error.code, f"{error.text}; run: rabbitmq-plugins enable rabbitmq_consistent_hash_exchange"
                ) from None
            raise _explained(error, what) from None

    async def _queue(
        self, channel: Channel, name: str, arguments: dict[str, Any], exchange: str = "", key: str = ""
    ) -> None:
        try:
            await channel.queue_declare(queue=name, durable=True, arguments=arguments)
        except BrokerRefused as error:
            raise _explained(error, f"queue {name!r} as a durable queue with {arguments}") from None
        if exchange:
            await channel.queue_bind(queue=name, exchange=exchange, routing_key=key)


def _explained(error: BrokerRefused, wanted: str) -> Exception:
    """A failed declaration, in words that name what was wanted and what the broker has."""
    if error.code != _PRECONDITION_FAILED:
        return error
    return TopologyClash(
        f"cannot declare {wanted}: it exists with other properties ({error.text}); "
        "delete it on the broker, or choose other names in [topology]"
    )
