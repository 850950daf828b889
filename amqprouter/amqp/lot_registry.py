"""Which devices have parking queues: a small stream that all gateways write and read.

AMQP 0-9-1 cannot list queues, so their names must be kept where a restarted gateway, or another one, finds them. Each
record says that a lot is used, before its first message is parked, or that it was empty and was left; a lot's last
record counts. Streams forget their oldest, so lots that stay in use are named again, once in `ANNOUNCE_EVERY`.

Theory of operation. At each connection the stream is read from its start, up to a mark that the reader itself appended
to it, confirmed: what is before the mark is all that was known when it connected. `learned` is told of each lot that is
used then, and afterwards of each record that another gateway appends. A record that cannot be read is logged and
skipped.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from amqprouter.amqp.channel import Channel
from amqprouter.amqp.connection import Connection
from amqprouter.amqp.declare import Declarer
from amqprouter.amqp.publisher import Publisher
from amqprouter.core.properties import encode_properties
from amqprouter.core.wire import Delivery, encode_ack
from amqprouter.errors import BrokerUnavailable, TopologyClash

MAX_AGE = 7 * 86400
"""Seconds that records are kept at least: a lot is found for so long after all gateways have gone."""
ANNOUNCE_EVERY = 86400.0
"""Seconds after which a lot in use is named again, long before its last record is forgotten."""
SEGMENT_BYTES = 1_000_000
"""Of the stream's files: retention removes whole ones, and everything is read at each start."""
PREFETCH = 1000
"""Records under way, acknowledged as soon as they come."""


class LotRegistry:
    """Reads and writes the stream. `gateway` tells one process from all others."""

    log = Logger()

    def __init__(self, publisher: Publisher, stream: str, gateway: str, learned: Callable[[str, bool], None]) -> None:
        self._publisher = publisher
        self._stream = stream
        self._gateway = gateway
        self._learned = learned
        self._marks = 0
        self._known: dict[str, bool] = {}
        self._reading: tuple[str, Deferred[None]] | None = None

    async def attach(self, connection: Connection) -> None:
        """Read all that is known, and what comes from now on.

        :raises BrokerRefused: the broker refuses the stream. :raises BrokerUnavailable: the connection is lost.
        """
        await self._declare(connection)
        self._marks += 1
        mark = f"{self._gateway}.{self._marks}"
        done: Deferred[None] = Deferred()
        self._known, self._reading = {}, (mark, done)
        await self._append({"mark": mark})
        channel = await connection.open_channel()
        await channel.basic_qos(prefetch_count=PREFETCH)
        channel.on_deliveries = lambda deliveries: self._received(channel, deliveries)
        channel.on_closed = lambda error: self._ended(connection, done, error)
        channel.on_cancelled = lambda tag: self._ended(connection, done, BrokerUnavailable(f"{tag} was cancelled"))
        await channel.basic_consume(
            queue=self._stream, consumer_tag=f"amqprouter:{self._stream}", arguments={"x-stream-offset": "first"}
        )
        await done

    async def announce(self, name: str, used: bool) -> None:
        """Append a record; returns when the broker has it."""
        await self._append({"lot": name, "used": used, "by": self._gateway})

    async def _append(self, record: dict[str, object]) -> None:
        properties = encode_properties(content_type="application/json")
        await self._publisher.send("", self._stream, properties, json.dumps(record).encode())

    async def _declare(self, connection: Connection) -> None:
        arguments: dict[str, Any] = {
            "x-queue-type": "stream",
            "x-max-age": f"{MAX_AGE}s",
            "x-stream-max-segment-size-bytes": SEGMENT_BYTES,
        }
        declarer = Declarer(connection, "it is used as it is")
        try:
            await declarer.queue(self._stream, arguments)
        except TopologyClash as clash:
            self.log.warn("Using {stream} as it is: {reason}", stream=self._stream, reason=str(clash))
            return
        await declarer.shut()

    def _received(self, channel: Channel, deliveries: list[Delivery]) -> None:
        for delivery in deliveries:
            try:
                self._read(json.loads(delivery.body))
            except (ValueError, KeyError, TypeError) as error:
                self.log.warn("Skipping a record of {stream}: {error}", stream=self._stream, error=repr(error))
        channel.write(encode_ack(channel.id, deliveries[-1].delivery_tag, True))

    def _read(self, record: dict[str, object]) -> None:
        if "mark" in record:
            if self._reading is not None and record["mark"] == self._reading[0]:
                _, done = self._reading
                self._reading = None
                for lot in [lot for lot, is_used in self._known.items() if is_used]:
                    self._learned(lot, True)
                self._known = {}
                done.callback(None)
            return
        name, used, by = record["lot"], bool(record["used"]), record["by"]
        if not isinstance(name, str):
            raise TypeError(name)
        if self._reading is not None:
            self._known[name] = used
        elif by != self._gateway:
            self._learned(name, used)

    def _ended(self, connection: Connection, done: Deferred[None], error: Exception) -> None:
        """Whatever ends the consumer, a new connection reads everything again."""
        self._reading = None
        if not done.called:
            done.errback(error)
        connection.fail(error)
