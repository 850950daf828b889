"""Targets on the broker: exchanges, and the event stream."""

from __future__ import annotations

from collections.abc import Callable

from zope.interface import implementer

from amqprouter.amqp.properties import encode_properties
from amqprouter.amqp.publisher import Publisher
from amqprouter.broker.outgoing import Outgoing
from amqprouter.counters import Counters
from amqprouter.errors import Unencodable
from amqprouter.events.event import KEY_HEADER, encode_event_body
from amqprouter.pipeline.bodies import BodyOf, default_bodies
from amqprouter.pipeline.message import Message
from amqprouter.pipeline.ports import IGate, IGatedTarget
from amqprouter.pipeline.settlement import Settlement

_KEY = KEY_HEADER.decode()


@implementer(IGatedTarget)
class ExchangeTarget:
    """Passes messages on to an exchange; an empty `routing_key` keeps each message's own."""

    def __init__(self, publisher: Publisher, exchange: str, routing_key: str, outgoing: Outgoing) -> None:
        self._publisher = publisher
        self._exchange = exchange.encode()
        self._routing_key = routing_key.encode()
        self._outgoing = outgoing
        self._gate: IGate | None = None

    def use_gate(self, gate: IGate) -> None:
        """See `IGatedTarget`."""
        self._gate = gate

    def deliver(self, message: Message, settlement: Settlement) -> None:
        gate = self._gate
        try:
            properties = self._outgoing.passed_on(message)
        except ValueError:
            if gate is None:
                settlement.refused("malformed-properties")
            else:
                gate.refused(settlement, "malformed-properties")
            return
        key = self._routing_key or message.routing_key
        self._publisher.publish(self._exchange, key, properties, message.body, settlement, lane=gate)

    def flush(self) -> None:
        self._publisher.flush()


@implementer(IGatedTarget)
class EventsTarget:
    """Publishes messages as events to the stream that all gateways read; it needs a gate.

    It is its own publishes' lane, to count those that arrive. `body_of` judges bodies; `wall_clock` is seconds
    since 1970.
    """

    _gate: IGate

    def __init__(
        self,
        publisher: Publisher,
        stream: str,
        counters: Counters,
        body_of: BodyOf = default_bodies.of,
        *,
        wall_clock: Callable[[], float],
    ) -> None:
        self._publisher = publisher
        self._stream = stream.encode()
        self._counters = counters
        self._body_of = body_of
        self._wall_clock = wall_clock

    def use_gate(self, gate: IGate) -> None:
        """See `IGatedTarget`."""
        self._gate = gate

    def deliver(self, message: Message, settlement: Settlement) -> None:
        try:
            # Readers tell by the timestamp what is news. A message may have been parked since before they started.
            properties = encode_properties(
                content_type="application/json", headers={_KEY: message.key}, timestamp=int(self._wall_clock())
            )
            body = encode_event_body(message, self._body_of)
        except (ValueError, Unencodable):
            self._gate.refused(settlement, "malformed-properties")
            return
        # The default exchange routes to the queue that the key names.
        self._publisher.publish(b"", self._stream, properties, body, settlement, lane=self)

    def flush(self) -> None:
        self._publisher.flush()

    def delivered_all(self, receipts: list[Settlement]) -> None:
        """See `PublishLane`."""
        self._counters.events_published += len(receipts)
        self._gate.delivered_all(receipts)

    def refused(self, settlement: Settlement, reason: str) -> None:
        """See `PublishLane`."""
        self._gate.refused(settlement, reason)

    def troubled(self, settlement: Settlement, reason: str) -> None:
        """See `PublishLane`."""
        self._gate.troubled(settlement, reason)
