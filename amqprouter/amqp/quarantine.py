"""The rejected and the dead-letter queue: where messages go that do not reach their targets, with the reason why.

A quarantined message must arrive, for it is acknowledged at its source afterwards: its publish is repeated for as long
as it takes. Should the broker refuse it as it is (properties beyond a frame, say), the body goes without them.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.logger import Logger

from amqprouter.amqp.outgoing import Outgoing
from amqprouter.amqp.publisher import Publisher
from amqprouter.amqp.topology import Names
from amqprouter.core.message import Message
from amqprouter.core.settlement import Settlement


class BrokerQuarantine:
    """Publishes to the two exchanges; `wall_clock` is seconds since 1970."""

    def __init__(self, publisher: Publisher, names: Names, outgoing: Outgoing, wall_clock: Callable[[], float]) -> None:
        self._publisher = publisher
        self._rejected = names.rejected.encode()
        self._dead_letter = names.dead_letter.encode()
        self._outgoing = outgoing
        self._wall_clock = wall_clock

    def reject(self, message: Message, reason: str, settlement: Settlement) -> None:
        """The device may not send this."""
        self._publish(self._rejected, message, reason, settlement)

    def dead_letter(self, message: Message, reason: str, settlement: Settlement) -> None:
        """This cannot be delivered."""
        self._publish(self._dead_letter, message, reason, settlement)

    def _publish(self, exchange: bytes, message: Message, reason: str, settlement: Settlement) -> None:
        properties = self._outgoing.quarantined(message, reason, self._wall_clock())
        receipt = _Receipt(self, exchange, message, reason, settlement)
        key = message.routing_key[:255]
        self._publisher.publish(exchange, key, properties, message.body, receipt, must_arrive=True)

    def publish_bare(self, exchange: bytes, message: Message, reason: str, settlement: Settlement) -> None:
        """Publish the body with nothing of the device's properties."""
        properties = self._outgoing.story_only(message, reason, self._wall_clock())
        self._publisher.publish(exchange, b"", properties, message.body, settlement, must_arrive=True)

    def flush(self) -> None:
        """The end of a batch."""
        self._publisher.flush()


class _Receipt:
    """Passes a confirm on; turns a refusal into a second try without the device's properties."""

    __slots__ = ("_exchange", "_message", "_quarantine", "_reason", "_settlement")

    log = Logger()

    def __init__(
        self, quarantine: BrokerQuarantine, exchange: bytes, message: Message, reason: str, settlement: Settlement
    ) -> None:
        self._quarantine = quarantine
        self._exchange = exchange
        self._message = message
        self._reason = reason
        self._settlement = settlement

    def delivered(self) -> None:
        self._settlement.delivered()

    def refused(self, reason: str) -> None:
        self.log.warn("Quarantining a message without its properties: {reason}", reason=reason)
        self._quarantine.publish_bare(self._exchange, self._message, self._reason, self._settlement)
