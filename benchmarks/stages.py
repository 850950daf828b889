"""What each stage of our path costs: ``python -m benchmarks.stages [--messages N] [--repeats N] [--json FILE]``.

One process, no network. Every stage runs alone over the same messages, fed with what the stage before it made, and
then comes the whole way at once: bytes of a consuming connection in, bytes of publishes and acks out. The difference
between that and the sum is what lies between the stages: the pipeline's own calls and batches. CPU time, the best of
several repeats, for a disturbed repeat is only ever slower. The socket, the reactor and the kernel come on top.

What passing on costs, where several gateways share what one reads, stands below that: at who reads, from a delivery to
the publish, its confirm and the ack, and at who has the device, to take it out of its envelope. Slicing frames comes on
top at both.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.cred.checkers import ICredentialsChecker
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from zope.interface import implementer

from amqprouter.acl.acl import Acl
from amqprouter.amqp.ack_ledger import AckLedger
from amqprouter.amqp.channel import Channel
from amqprouter.amqp.connection import Connection, Handshake
from amqprouter.amqp.publisher import Publisher
from amqprouter.amqp.wire import Confirm, Delivery, FrameReader, encode_ack, encode_publish
from amqprouter.auth.authenticator import Authenticator
from amqprouter.auth.credentials import DeviceSecret
from amqprouter.broker.outgoing import Outgoing
from amqprouter.broker.quarantine import BrokerQuarantine
from amqprouter.broker.repartition import Partitions, Repartition, unwrapping
from amqprouter.broker.repartition_envelope import Envelope
from amqprouter.broker.targets import ExchangeTarget
from amqprouter.broker.topology import Topology
from amqprouter.counters import Counters
from amqprouter.interfaces import IDeviceSecret
from amqprouter.pipeline.flush import Flush
from amqprouter.pipeline.gate import TargetGate
from amqprouter.pipeline.latency import Latencies
from amqprouter.pipeline.message import Message
from amqprouter.pipeline.pipeline import Pipeline
from amqprouter.pipeline.routes import RuleSet
from amqprouter.pipeline.settlement import Settlement
from amqprouter.scheduling.scheduler import Scheduler
from amqprouter.settings import (
    EventsSettings,
    IngressSettings,
    LimitsSettings,
    RouteSettings,
    SchedulerSettings,
    TopologySettings,
)
from benchmarks.figures import table
from benchmarks.layout import DEVICES, TARGET_EXCHANGE
from benchmarks.traffic import deliveries_as_bytes

CHUNK = 65_536
"""Bytes that Twisted reads from a socket at a time (``twisted.internet.abstract.FileDescriptor.bufferSize``)."""
CONFIRMED_AT_ONCE = 50
"""Publishes that one confirm answers; under load RabbitMQ coalesces dozens."""


@implementer(ICredentialsChecker)
class _KnowsAll:
    credentialInterfaces = (IDeviceSecret,)

    def requestAvatarId(self, credentials: DeviceSecret) -> Deferred[Any]:
        return succeed(credentials.device_id)


class Bench:
    """Everything between two transports, put together as in `amqprouter.daemon`, over messages made beforehand."""

    def __init__(self, messages: int) -> None:
        self.clock = Clock()
        self.counters = Counters()
        self.outgoing = Outgoing("x-device-secret")
        self.rules = RuleSet([RouteSettings("all", (f"exchange:{TARGET_EXCHANGE}",))])
        self.acl = Acl.parse("* -> %d.up.#\n", "acl", "%d")
        self.scheduler: Scheduler[Settlement] = Scheduler(SchedulerSettings(rate=1e9, burst=1e9, max_in_flight=10**9))
        self.authenticator = Authenticator(
            ("user-id", "secret"),
            _KnowsAll(),
            "x-device-secret",
            cache_size=1000,
            cache_seconds=300,
            negative_cache_seconds=10,
        )
        self.publisher = Publisher(self.clock, self.counters, max_attempts=8, random=random.random)
        names = Topology(TopologySettings(), IngressSettings(), EventsSettings()).names
        self.flush = Flush(self.clock)
        latencies = Latencies(time.time)
        latencies.classes = self.scheduler
        self.pipeline = Pipeline(
            self.clock,
            time.time,
            authenticator=self.authenticator,
            acl=self.acl,
            scheduler=self.scheduler,
            rules=self.rules,
            targets={
                target: TargetGate(
                    str(target),
                    ExchangeTarget(self.publisher, target.name, "", self.outgoing),
                    self.clock,
                    window=messages + 1,
                    patience=1,
                    random=random.random,
                    wake=lambda: None,
                    latency=latencies.target(str(target)),
                )
                for target in self.rules.targets
            },
            quarantine=BrokerQuarantine(
                names,
                self.outgoing,
                time.time,
                clock=self.clock,
                counters=self.counters,
                prefetch=messages,
                limits=LimitsSettings(),
                random=random.random,
                wake=lambda: None,
            ),
            by_id_exchange=names.by_id,
            flush=self.flush,
            limits=LimitsSettings(),
            counters=self.counters,
            latencies=latencies,
        )
        self.consuming, self.consume_transport = self._connection()
        self.publishing, self.publish_transport = self._connection()
        self.publisher._channel = self._channel(self.publishing)
        self.publisher._frame_max = self.publishing.frame_max
        self._channel(self.consuming)
        data = deliveries_as_bytes(messages)
        self.chunks = [data[start : start + CHUNK] for start in range(0, len(data), CHUNK)]
        self._warm_up()

    def _connection(self) -> tuple[Connection, StringTransport]:
        connection = Connection(Handshake("guest", "guest", "/", 30, "benchmark"), self.clock)
        transport = StringTransport()
        connection.makeConnection(transport)
        return connection, transport

    @staticmethod
    def _channel(connection: Connection) -> Channel:
        channel: Channel = connection.channelFactory(1, None, connection)
        connection.channels[1] = channel
        return channel

    def _warm_up(self) -> None:
        """Have every device's secret asked about once."""
        deliveries = FrameReader(131_072).feed(deliveries_as_bytes(len(DEVICES)))
        for delivery in deliveries:
            assert isinstance(delivery, Delivery)
            self.authenticator.ask(self._message(delivery), 0.0)

    def _message(self, delivery: Delivery) -> Message:
        return self.pipeline._senders.of(delivery.exchange, delivery.routing_key).message(delivery, 0.0)

    def stages(self) -> dict[str, Callable[[], Any]]:
        """Each stage as a callable over all messages; their inputs are made here, fresh for every repeat."""
        pipeline, now = self.pipeline, self.clock.seconds()
        deliveries: list[Any] = []
        reader = FrameReader(131_072)
        for chunk in self.chunks:
            deliveries.extend(reader.feed(chunk))
        messages = [self._message(delivery) for delivery in deliveries]
        untouched = [self._message(delivery) for delivery in deliveries]
        ledger = AckLedger(lambda acks: self.consume_transport.write(b"".join(encode_ack(1, *ack) for ack in acks)))
        ledger.received(len(messages))
        settlements = [Settlement(m, tag, ledger, pipeline.finish) for tag, m in enumerate(messages, 1)]
        properties = [self.outgoing.passed_on(message) for message in messages]
        in_flight = self.scheduler.in_flight

        def slice_frames() -> None:
            reader = FrameReader(131_072)
            for chunk in self.chunks:
                reader.feed(chunk)

        def confirm() -> None:
            self.scheduler.in_flight = len(messages)
            for last in range(CONFIRMED_AT_ONCE, len(messages) + 1, CONFIRMED_AT_ONCE):
                self.publisher._confirmed(Confirm(1, last, True, True))
                ledger.flush()
            self.scheduler.in_flight = in_flight

        def publish() -> None:
            self.publisher._sequence, self.publisher._oldest = 0, 1
            for message, raw, settlement in zip(messages, properties, settlements, strict=True):
                self.publisher.publish(b"out", message.routing_key, raw, message.body, settlement)
            self.publisher.flush()

        def schedule() -> None:
            for message, settlement in zip(messages, settlements, strict=True):
                self.scheduler.offer(message.device, settlement, now)
            self.scheduler.in_flight = in_flight

        # Properties remember where things are, so who reads first pays; the order is the pipeline's.
        return {
            "slice frames": slice_frames,
            "make messages": lambda: [self._message(delivery) for delivery in deliveries],
            "make settlements": lambda: [Settlement(m, 1, ledger, pipeline.finish) for m in messages],
            "look for reasons to refuse": lambda: [pipeline._admission.refusal(message) for message in untouched],
            "authenticate, from cache": lambda: [self.authenticator.check(message, now) for message in untouched],
            "authorise": lambda: [self.acl.allows(message.device, message.key) for message in untouched],
            "schedule": schedule,
            "route": lambda: [self.rules.match(message) for message in untouched],
            "splice properties": lambda: [self.outgoing.passed_on(message) for message in untouched],
            "encode (within publish)": lambda: [
                encode_publish(1, b"out", m.routing_key, raw, m.body, 131_072)
                for m, raw in zip(messages, properties, strict=True)
            ],
            "publish": publish,
            "confirm, settle, ack": confirm,
        }

    def whole(self) -> None:
        """The whole way of every message, confirms in between as they would come."""
        ledger = AckLedger(lambda acks: self.consume_transport.write(b"".join(encode_ack(1, *ack) for ack in acks)))

        def received(deliveries: list[Delivery]) -> None:
            ledger.received(len(deliveries))
            self.pipeline.receive(deliveries, ledger)

        self.consuming.channels[1].on_deliveries = received
        answered = 0
        self.publisher._sequence, self.publisher._oldest = 0, 1
        for chunk in self.chunks:
            self.consuming.dataReceived(chunk)
            sent = self.publisher._sequence
            for last in (*range(answered + CONFIRMED_AT_ONCE, sent, CONFIRMED_AT_ONCE), sent):
                self.publisher._confirmed(Confirm(1, last, True, True))
            answered = sent
            self.flush.flush()
            self.clock.advance(0)
        if ledger.unacked or self.publisher.outstanding:
            raise AssertionError(f"{ledger.unacked} messages unacknowledged, {self.publisher.outstanding} unconfirmed")

    def passing(self) -> dict[str, Callable[[], Any]]:
        """The two halves of the way through the shards, over deliveries made here; see the top of this file."""
        reader, envelope = FrameReader(131_072), Envelope("gateway")
        batches: list[Any] = [reader.feed(chunk) for chunk in self.chunks]
        publisher = Publisher(self.clock, self.counters, max_attempts=8, random=random.random)
        publisher._channel, publisher._frame_max = self.publisher._channel, self.publishing.frame_max
        names = Topology(TopologySettings(), IngressSettings(), EventsSettings()).names
        repartition = Repartition(
            self.clock,
            publisher,
            Partitions(names.partitions),
            envelope,
            device_of=self.pipeline.device_of,
            receive=self.pipeline.receive,
            flush=self.flush,
            counters=self.counters,
            random=random.random,
        )
        ledger = AckLedger(lambda acks: self.consume_transport.write(b"".join(encode_ack(1, *ack) for ack in acks)))
        wrapped = [
            [
                Delivery(1, b"t", d.delivery_tag, False, b"", names.partitions[0].encode(), envelope.wrapped(d), d.body)
                for d in batch
            ]
            for batch in batches
        ]
        take_out = unwrapping(envelope, lambda deliveries, ledger: None)

        def pass_on() -> None:
            answered = 0
            for batch in batches:
                ledger.received(len(batch))
                repartition.receive(batch, ledger)
                sent = publisher._sequence
                for last in (*range(answered + CONFIRMED_AT_ONCE, sent, CONFIRMED_AT_ONCE), sent):
                    publisher._confirmed(Confirm(1, last, True, True))
                answered = sent
                self.clock.advance(0)
            if ledger.unacked or repartition.under_way:
                raise AssertionError(f"{ledger.unacked} unacknowledged, {repartition.under_way} not passed on")

        def unwrap() -> None:
            for batch in wrapped:
                take_out(batch, ledger)

        return {"pass to the shard": pass_on, "take out of the envelope": unwrap}

    def clear(self) -> None:
        self.consume_transport.clear()
        self.publish_transport.clear()


def measure(messages: int, repeats: int) -> dict[str, float]:
    """Microseconds of CPU for each message, by stage."""
    bench = Bench(messages)
    best: dict[str, float] = {}

    def timed(name: str, action: Callable[[], Any]) -> None:
        gc.collect()
        began = time.process_time()
        action()
        spent = (time.process_time() - began) / messages * 1e6
        best[name] = min(best.get(name, spent), spent)

    for _ in range(repeats):
        for name, action in bench.stages().items():
            timed(name, action)
        bench.clear()
        timed("the whole way", bench.whole)
        bench.clear()
        for name, action in bench.passing().items():
            timed(name, action)
        bench.clear()
    return best


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.stages", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", type=Path, help="a file for all figures")
    options = parser.parse_args(argv)
    best = measure(options.messages // CONFIRMED_AT_ONCE * CONFIRMED_AT_ONCE, options.repeats)
    print(table([(name, f"{spent:.2f}") for name, spent in best.items()], ("stage", "CPU µs")))
    if options.json is not None:
        options.json.write_text(json.dumps(best, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
