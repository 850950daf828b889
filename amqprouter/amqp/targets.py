"""Targets on the broker: exchanges, and the event stream."""

from __future__ import annotations

from zope.interface import implementer

from amqprouter.amqp.outgoing import Outgoing
from amqprouter.amqp.publisher import Publisher
from amqprouter.core.counters import Counters
from amqprouter.core.event import KEY_HEADER, encode_event_body
from amqprouter.core.message import Message
from amqprouter.core.properties import encode_properties
from amqprouter.core.settlement import Settlement
from amqprouter.errors import Unencodable
from amqprouter.interfaces import ITarget

_KEY = KEY_HEADER.decode()


@implementer(ITarget)
class ExchangeTarget:
    """Passes messages on to an exchange; an empty `routing_key` keeps each message's own."""

    def __init__(self, publisher: Publisher, exchange: str, routing_key: str, outgoing: Outgoing) -> None:
        self._publisher = publisher
        self._exchange = exchange.encode()
        self._routing_key = routing_key.encode()
        self._outgoing = outgoing

    def deliver(self, message: Message, settlement: Settlement) -> None:
        try:
            properties = self._outgoing.passed_on(message)
        except ValueError:
            settlement.refused("malformed-properties")
            return
        key = self._routing_key or message.routing_key
        self._publisher.publish(self._exchange, key, properties, message.body, settlement)

    def flush(self) -> None:
        self._publisher.flush()


@implementer(ITarget)
class EventsTarget:
    """Publishes messages as events to the stream that all gateways read."""

    def __init__(self, publisher: Publisher, stream: str, counters: Counters) -> None:
        self._publisher = publisher
        self._stream = stream.encode()
        self._counters = counters

    def deliver(self, message: Message, settlement: Settlement) -> None:
        try:
            properties = encode_properties(
                content_type="application/json", headers={_KEY: message.key}, timestamp=int(message.received_at)
            )
            body = encode_event_body(message)
        except (ValueError, Unencodable):
            settlement.refused("malformed-properties")
            return
        # The default exchange routes to the queue that the key names.
        self._publisher.publish(b"", self._stream, properties, body, _Counted(settlement, self._counters))

    def flush(self) -> None:
        self._publisher.flush()


class _Counted:
    """A settlement that counts its event once it is on the stream."""

    __slots__ = ("_counters", "_settlement")

    def __init__(self, settlement: Settlement, counters: Counters) -> None:
        self._settlement = settlement
        self._counters = counters

    def delivered(self) -> None:
        self._counters.events_published += 1
        self._settlement.delivered()

    def refused(self, reason: str) -> None:
        self._settlement.refused(reason)
