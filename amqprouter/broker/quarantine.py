"""The rejected and the dead-letter queue: where messages go that do not reach their targets, with the reason why.

A quarantined message should arrive, for it is acknowledged at its source afterwards: its publish is repeated for as
long as there is room for it to wait. That is up to the gates, `amqprouter.pipeline.quarantine_gate`, of which each of
the two queues has one. Should the broker refuse it as it is (properties beyond a frame, say), the body goes without
them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, cast

from amqprouter.amqp.connection import Connection
from amqprouter.amqp.publisher import Publisher
from amqprouter.broker.outgoing import Outgoing
from amqprouter.broker.topology import Names
from amqprouter.clock import Clock
from amqprouter.counters import Counters
from amqprouter.pipeline.message import Message
from amqprouter.pipeline.quarantine_gate import SHARE, Held, QuarantineGate
from amqprouter.pipeline.settlement import Settlement
from amqprouter.settings import LimitsSettings


class BrokerQuarantine:
    """Publishes to the two exchanges, over a channel for each: what ends or blocks one is nobody else's trouble.

    :param wall_clock: seconds since 1970.
    :param prefetch: of the consumers that messages come from.
    :param wake: asks for a `flush` in the reactor's next turn.
    """

    def __init__(
        self,
        names: Names,
        outgoing: Outgoing,
        wall_clock: Callable[[], float],
        *,
        clock: Clock,
        counters: Counters,
        prefetch: int,
        limits: LimitsSettings,
        random: Callable[[], float],
        wake: Callable[[], None],
    ) -> None:
        self._outgoing = outgoing
        self._wall_clock = wall_clock

        self._publishers: list[Publisher] = []

        def gate(queue: str, exchange: str, arrived: Counter[str]) -> QuarantineGate:
            publisher = Publisher(clock, counters, max_attempts=1, random=random, condemns=False)
            self._publishers.append(publisher)
            made = QuarantineGate(
                queue,
                lambda held: self._publish(publisher, exchange.encode(), held, made),
                clock,
                is_stalled=lambda: publisher.is_stalled,
                renew=publisher.renew,
                arrived=arrived,
                dropped=counters.quarantine_dropped,
                share=prefetch // SHARE,
                when_full=limits.when_quarantine_is_full,
                patience=limits.target_patience,
                random=random,
                wake=wake,
            )
            return made

        self._rejected = gate("rejected", names.rejected, counters.rejected)
        self._dead_letters = gate("dead-letters", names.dead_letter, counters.dead_lettered)
        self.gates = (self._rejected, self._dead_letters)

    async def attach(self, connection: Connection) -> None:
        """Publish over this connection from now on.

        :raises BrokerRefused: the broker has no publisher confirms. :raises BrokerUnavailable: the connection is lost.
        """
        for publisher in self._publishers:
            await publisher.attach(connection)

    def reject(self, message: Message, reason: str, settlement: Settlement) -> None:
        """The device may not send this."""
        self._rejected.take(message, reason, settlement, self._wall_clock())

    def dead_letter(self, message: Message, reason: str, settlement: Settlement) -> None:
        """This cannot be delivered."""
        self._dead_letters.take(message, reason, settlement, self._wall_clock())

    def _publish(self, publisher: Publisher, exchange: bytes, held: Held, gate: QuarantineGate) -> None:
        message, key = held.message, b""
        if held.is_bare:
            properties = self._outgoing.headers_only(message, held.reason, held.at)
        else:
            properties, key = self._outgoing.quarantined(message, held.reason, held.at), message.routing_key[:255]
        receipt = cast(Any, held)  # its gate is told instead
        publisher.publish(exchange, key, properties, message.body, receipt, must_arrive=True, lane=gate)

    def flush(self) -> None:
        """The end of a batch."""
        for gate in self.gates:
            gate.flush()
        for publisher in self._publishers:
            publisher.flush()

    def stop(self) -> None:
        """Try no more what was not taken; it stays unacknowledged."""
        for gate in self.gates:
            gate.stop()
