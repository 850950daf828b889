"""Running a make-believe fleet against a broker: a few connections, confirms, and a ledger of what was confirmed.

Theory of operation. Every `TICK` the plan says whose turn it is; each device publishes over one connection, always the
same, so that its order holds. No more than `MOST_OUTSTANDING` messages wait for their confirms: past that the fleet
falls behind rather than the memory filling. A connection that is lost is opened again, and what it left unconfirmed is
published again with the same message id: once in the ledger, at least once on the broker.
"""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError, Deferred, TimeoutError  # noqa: A004 - the one that Deferreds raise
from twisted.internet.task import LoopingCall, deferLater
from twisted.python.failure import Failure

from amqprouter.amqp.publisher import Publisher
from amqprouter.cli.broker import connect
from amqprouter.cli.fleet import DeviceReading, FleetDevice, Plan, Readings
from amqprouter.counters import Counters
from amqprouter.errors import AmqprouterError

if TYPE_CHECKING:
    from amqprouter.amqp.connection import Connection
    from amqprouter.settings import BrokerSettings

TICK = 0.02
"""Seconds. Shorter pauses than a broker's round trip gain nothing, and a batch costs less than its messages apart."""
MOST_OUTSTANDING = 2000
"""Messages; some ten times what a broker nearby has under way at a rate that one Python process reaches."""
MAX_ATTEMPTS = 5
"""Publishes of one message that the broker nacks or returns."""
RECONNECT_MAX = 5.0
"""Seconds between two attempts, before jitter."""
LAST_CONFIRMS = 30.0
"""Seconds to wait for them at the end: as long as the publisher waits for any."""


@dataclass
class Tally:
    """How many messages came to what, by kind of device."""

    confirmed: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    """The broker nacked or returned them, time and again."""
    reasons: Counter[str] = field(default_factory=Counter)
    unconfirmed: int = 0
    """Nobody knows: the run ended before the broker answered."""
    seconds: float = 0.0

    def as_json(self) -> dict[str, object]:
        """For the summary."""
        return {
            "published": self.confirmed.total(),
            "nacked": self.refused.total(),
            "unconfirmed": self.unconfirmed,
            "seconds": round(self.seconds, 3),
            "by_kind": dict(sorted(self.confirmed.items())),
            "nacked_by_kind": dict(sorted(self.refused.items())),
            "reasons": dict(self.reasons.most_common(10)),
        }


class FleetRun:
    """One run. `ledger` gets a line of JSON for each confirmed message, as the confirms arrive."""

    def __init__(
        self,
        reactor: Any,
        broker: BrokerSettings,
        exchange: str,
        fleet: list[FleetDevice],
        readings: Readings,
        randomness: random.Random,
        *,
        connections: int,
        ledger: IO[str] | None = None,
    ) -> None:
        self.tally = Tally()
        self.sent = 0
        self._reactor = reactor
        self._exchange = exchange.encode()
        self._fleet = fleet
        self._readings = readings
        self._randomness = randomness
        self._ledger = ledger
        self._lines = [_Line(reactor, broker, randomness) for _ in range(connections)]
        self._line_of = {device.id: self._lines[n % connections] for n, device in enumerate(fleet)}
        self._most = 0
        self._over: Deferred[None] = Deferred()

    @property
    def outstanding(self) -> int:
        """Messages that wait for their confirms."""
        return self.sent - self.tally.confirmed.total() - self.tally.refused.total()

    async def run(self, seconds: float | None, messages: int | None) -> Tally:
        """Publish for so long, or so many, or until cancelled, and wait for the last confirms.

        :raises BrokerUnavailable: the broker cannot be reached at the start.
        :raises BrokerRefused: it does not let us in.
        :raises CancelledError: after the last confirms; the tally is complete.
        """
        try:
            for line in self._lines:
                await line.open()
            began = self._reactor.seconds()
            self._most = messages or 0
            plan = Plan(self._fleet, self._randomness, began)
            ticks = LoopingCall(self._tick, plan)
            ticks.clock = self._reactor
            ticks.start(TICK).addErrback(self._broken)
            if seconds is not None:
                self._over.addTimeout(seconds, self._reactor)
            try:
                with suppress(TimeoutError):
                    await self._over
            finally:
                if ticks.running:
                    ticks.stop()
                self.tally.seconds = self._reactor.seconds() - began
                await self._last_confirms()
        finally:
            self.tally.unconfirmed = self.outstanding
            for line in self._lines:
                await line.close()
        return self.tally

    def _broken(self, failure: Failure) -> None:
        if not self._over.called:
            self._over.errback(failure)

    async def _last_confirms(self) -> None:
        deadline = self._reactor.seconds() + LAST_CONFIRMS
        while self.outstanding and self._reactor.seconds() < deadline:
            await deferLater(self._reactor, TICK)

    def _tick(self, plan: Plan) -> None:
        room = MOST_OUTSTANDING - self.outstanding
        if self._most:
            room = min(room, self._most - self.sent)
        wall = time.time()
        for device in plan.due(self._reactor.seconds(), room):
            reading = self._readings.next(device, wall)
            self.sent += 1
            self._line_of[device.id].publish(self._exchange, reading, _Receipt(self, device, reading))
        for line in self._lines:
            line.publisher.flush()
        if self._most and self.sent >= self._most and not self._over.called:
            self._over.callback(None)

    def confirmed(self, device: FleetDevice, reading: DeviceReading) -> None:
        """The broker has it."""
        self.tally.confirmed[device.kind.value] += 1
        if self._ledger is not None:
            entry = {"id": reading.message_id, "kind": device.kind.value, "sha256": reading.digest()}
            self._ledger.write(json.dumps(entry | {"device": device.id, "topic": device.topic}) + "\n")

    def refused(self, device: FleetDevice, reason: str) -> None:
        """The broker does not take it."""
        self.tally.refused[device.kind.value] += 1
        self.tally.reasons[reason] += 1


class _Receipt:
    """Books what became of one message."""

    __slots__ = ("_device", "_reading", "_run")

    def __init__(self, run: FleetRun, device: FleetDevice, reading: DeviceReading) -> None:
        self._run = run
        self._device = device
        self._reading = reading

    def delivered(self) -> None:
        self._run.confirmed(self._device, self._reading)

    def refused(self, reason: str) -> None:
        self._run.refused(self._device, reason)


class _Line:
    """One connection to the broker, kept open."""

    def __init__(self, reactor: Any, broker: BrokerSettings, randomness: random.Random) -> None:
        self.publisher = Publisher(reactor, Counters(), max_attempts=MAX_ATTEMPTS, random=randomness.random)
        self._reactor = reactor
        self._broker = broker
        self._random = randomness.random
        self._connection: Connection | None = None
        self._keeping: Deferred[None] | None = None

    async def open(self) -> None:
        """Connect, and from then on connect again whenever the connection is lost."""
        await self._connect()
        self._keeping = Deferred.fromCoroutine(self._keep())
        self._keeping.addErrback(lambda failure: failure.trap(CancelledError))

    def publish(self, exchange: bytes, reading: DeviceReading, receipt: _Receipt) -> None:
        """Hand a message to the publisher."""
        self.publisher.publish(exchange, reading.routing_key.encode(), reading.properties, reading.body, receipt)

    async def _connect(self) -> None:
        self._connection = await connect(self._reactor, self._broker, "simulate")
        await self.publisher.attach(self._connection)

    async def _keep(self) -> None:
        while True:
            assert self._connection is not None
            await self._connection.disconnected.wait()
            while self._connection.closed:
                await deferLater(self._reactor, self._random() * RECONNECT_MAX)
                with suppress(AmqprouterError):
                    await self._connect()

    async def close(self) -> None:
        """Close for good."""
        if self._keeping is not None:
            self._keeping.cancel()
        self.publisher.stop()
        if self._connection is not None:
            await self._connection.shut()
