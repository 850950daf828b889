"""The pipeline with what stands right before and behind it, wired: consumers, scheduler, gates, parking, quarantine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from twisted.logger import Logger

from amqprouter.amqp.consumer import consumer_tag
from amqprouter.amqp.publisher import Publisher
from amqprouter.broker.device_parking import DeviceParking
from amqprouter.broker.left_parking import LeftParking
from amqprouter.broker.parking import Parking
from amqprouter.broker.quarantine import BrokerQuarantine
from amqprouter.broker.repartition import Partitions, Repartition
from amqprouter.broker.repartition_envelope import Envelope
from amqprouter.broker.shards import SharedIngress, make_ingress
from amqprouter.control.kept_limits import keeps_limits
from amqprouter.control.overrides import Overrides
from amqprouter.daemon.auth import WiredAuth
from amqprouter.daemon.broker import WiredBroker
from amqprouter.daemon.parking import make_parking, max_pending, park_and_gate
from amqprouter.daemon.runtime import Runtime
from amqprouter.daemon.targets import WiredTargets
from amqprouter.events.limit_events import Throttling
from amqprouter.interfaces import IReadiness
from amqprouter.pipeline.device_parking import ParkedDevices
from amqprouter.pipeline.flush import Flush
from amqprouter.pipeline.gate import TargetGate
from amqprouter.pipeline.overdue import Overdue
from amqprouter.pipeline.pipeline import Pipeline
from amqprouter.pipeline.replay import Replays
from amqprouter.pipeline.routes import RuleSet, Target
from amqprouter.pipeline.settlement import Settlement
from amqprouter.scheduling.scheduler import Scheduler
from amqprouter.web.metrics import Gauge

log = Logger()


@dataclass(frozen=True)
class WiredPipeline:
    """The way of the messages."""

    pipeline: Pipeline
    ingress: SharedIngress
    """Consumes the messages."""
    repartition: Repartition
    """Passes them to the gateways that have their devices, where several share the work."""
    scheduler: Scheduler[Settlement]
    overrides: Overrides
    """Limits that were set by hand, as a service."""
    gates: Mapping[Target, TargetGate]
    parking: Parking
    """For what a target, or a checker, does not take now."""
    device_queues: DeviceParking
    """For what is over its device's rate."""
    left: LeftParking
    """Tells of what is parked for targets that are gone."""
    parked_devices: ParkedDevices
    quarantine: BrokerQuarantine
    overdue: Overdue
    """Sees to deliveries that are unacknowledged for too long, as a service."""

    @property
    def readiness(self) -> list[IReadiness]:
        """What ``/readyz`` is to ask about the way to the targets."""
        return [self.ingress, self.parking, self.device_queues, self.left, *self.gates.values()]

    @property
    def gauges(self) -> list[Gauge]:
        """What is under way, and where."""
        ingress, scheduler, overdue, parked = self.ingress, self.scheduler, self.overdue, self.parked_devices
        return [
            Gauge("oldest_unacked_seconds", "Age of the oldest delivery not acknowledged yet.", lambda: overdue.oldest),
            Gauge("unacked", "Deliveries received and not yet acknowledged.", lambda: ingress.unacked),
            Gauge(
                "repartitions",
                "1 while what comes through other queues than the shards' goes to the gateway that has its device.",
                lambda: float(ingress.repartitions),
            ),
            Gauge("in_flight", "Messages on their way to their targets.", lambda: scheduler.in_flight),
            Gauge("waiting", "Messages that wait for their turn.", lambda: scheduler.waiting),
            Gauge("known_devices", "Devices in the scheduler's memory.", lambda: scheduler.known_devices),
            Gauge("parked_devices", "Devices whose messages are parked.", lambda: parked.devices),
            Gauge("parked_messages", "Messages in devices' parking queues.", lambda: parked.messages),
            Gauge(
                "left_parked_messages", "Messages parked for targets that nothing names.", lambda: self.left.messages
            ),
        ]


def wire_pipeline(
    runtime: Runtime, broker: WiredBroker, wired: WiredTargets, auth: WiredAuth, rules: RuleSet
) -> WiredPipeline:
    """All of it. `rules` name targets that are wired.

    :raises ConfigError: the file of limits set by hand makes no sense.
    """
    settings, clock, counters, names = runtime.settings, runtime.clock, runtime.counters, broker.names
    flush = Flush(clock)

    def finish_parked(settlement: Settlement) -> None:
        pipeline.finish(settlement, in_flight=False)

    parking, gates = park_and_gate(runtime, broker, wired.targets, wake=flush.wake, finish=finish_parked)
    most_parked = settings.limits.max_parked_per_device
    device_queues = make_parking(DeviceParking, runtime, broker, most_parked, wake=flush.wake, finish=finish_parked)
    left = LeftParking(clock, parking, settings.topology.prefix, lambda: device_queues.registry)
    quarantine = BrokerQuarantine(
        names,
        broker.outgoing,
        runtime.wall_clock,
        clock=clock,
        counters=counters,
        prefetch=settings.ingress.prefetch,
        limits=settings.limits,
        random=runtime.randomness.random,
        wake=flush.wake,
    )
    scheduler = _scheduler(runtime)
    runtime.latencies.classes = scheduler
    most = max_pending(settings)
    has_checkers = auth.device_chain is not None
    tags = {consumer_tag(queue).encode(): queue for queue in settings.ingress.queues}
    tell, every = broker.event_publisher.tell, settings.scheduler.limit_events
    pipeline = Pipeline(
        clock,
        runtime.wall_clock,
        authenticator=auth.authenticator,
        acl=auth.devices_acl,
        scheduler=scheduler,
        rules=rules,
        targets={target: gates[target] for target in rules.targets},
        quarantine=quarantine,
        by_id_exchange=names.by_id,
        flush=flush,
        device_parking=device_queues,
        pending_queue=parking.parking_queue("auth", "held", prefetch=most) if has_checkers else None,
        max_pending=most,
        replays=Replays(names.replay, broker.account),
        layouts=broker.layouts,
        heard=broker.command_keys.heard,
        queue_of=lambda tag: tags.get(tag, ""),
        limits=settings.limits,
        counters=counters,
        random=runtime.randomness.random,
        latencies=runtime.latencies,
        throttled=Throttling(scheduler, counters, tell, runtime.wall_clock, every).note,
    )
    overrides = _overrides(runtime, wired, scheduler, pipeline, flush)
    parked_devices = pipeline.parked
    assert parked_devices is not None
    repartition, ingress = _consumers(runtime, broker, pipeline, flush)
    overdue = Overdue(
        clock,
        settings.ingress.consumer_timeout,
        lambda: (*ingress.ledgers, *parking.ledgers, *device_queues.ledgers),
        (parked_devices, pipeline.pending, *gates.values(), *quarantine.gates),
    )
    parts = (gates, parking, device_queues, left, parked_devices, quarantine, overdue)
    return WiredPipeline(pipeline, ingress, repartition, scheduler, overrides, *parts)


def _consumers(
    runtime: Runtime, broker: WiredBroker, pipeline: Pipeline, flush: Flush
) -> tuple[Repartition, SharedIngress]:
    """What reads the queues, and what passes on what is other gateways'."""
    settings, clock, counters, names = runtime.settings, runtime.clock, runtime.counters, broker.names
    random, receive, envelope = runtime.randomness.random, pipeline.receive, Envelope(broker.account)
    repartition = Repartition(
        clock,
        Publisher(clock, counters, max_attempts=settings.limits.max_attempts, random=random),
        Partitions(names.partitions),
        envelope,
        device_of=pipeline.device_of,
        receive=receive,
        flush=flush,
        counters=counters,
        random=random,
    )
    ingress = make_ingress(
        *(clock, broker.topology, settings.topology.prefix, settings.ingress, receive),
        counters=counters,
        repartition=repartition,
        envelope=envelope,
    )
    return repartition, ingress


def _overrides(
    runtime: Runtime, wired: WiredTargets, scheduler: Scheduler[Settlement], pipeline: Pipeline, flush: Flush
) -> Overrides:
    keeps = keeps_limits(runtime.settings.scheduler.overrides, wired.store)
    overrides = Overrides(keeps, scheduler, runtime.clock, pipeline.park, flush.wake)
    if not overrides.is_shared:
        overrides.reload()
    return overrides


def _scheduler(runtime: Runtime) -> Scheduler[Settlement]:
    settings = runtime.settings
    return Scheduler(
        settings.scheduler,
        settings.classes,
        settings.tenants,
        counts=runtime.counters.scheduled,
        complain=lambda problem: log.warn("{problem}", problem=problem),
        publishers=settings.publishers,
    )
