"""Putting together what stands between the pipeline and its targets: a gate for each, and a parking queue behind it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeVar

from amqprouter.amqp.ack_ledger import OVERDUE
from amqprouter.broker.parking import Parking
from amqprouter.daemon.broker import WiredBroker
from amqprouter.daemon.runtime import Runtime
from amqprouter.pipeline.gate import TargetGate
from amqprouter.pipeline.ports import IGatedTarget
from amqprouter.pipeline.routes import Target
from amqprouter.pipeline.settlement import Settlement
from amqprouter.settings import Settings

Kind = TypeVar("Kind", bound=Parking)
Finish = Callable[[Settlement], None]
"""Told of a parked message that its target has answered for it."""


def make_parking(
    kind: type[Kind],
    runtime: Runtime,
    broker: WiredBroker,
    max_parked: int,
    *,
    wake: Callable[[], None],
    finish: Finish,
) -> Kind:
    """Parking queues of this kind, each for at most `max_parked` messages. `wake` asks for a flush of the pipeline."""
    settings = runtime.settings
    return kind(
        runtime.clock,
        broker.publisher,
        runtime.counters,
        prefix=settings.topology.prefix,
        account=broker.account,
        queue_type=settings.topology.queue_type,
        max_parked=max_parked,
        timeout=settings.ingress.consumer_timeout,
        random=runtime.randomness.random,
        wake=wake,
        finish=finish,
    )


def max_pending(settings: Settings) -> int:
    """How many messages that wait for a checker's answer are held, before the others are parked."""
    return max(1, min(settings.auth.max_held, settings.ingress.prefetch // 2))


def park_and_gate(
    runtime: Runtime,
    broker: WiredBroker,
    targets: Mapping[Target, IGatedTarget],
    *,
    wake: Callable[[], None],
    finish: Finish,
) -> tuple[Parking, dict[Target, TargetGate]]:
    """The gates of all targets, with a parking queue for each. A single target holds up nobody else: there it is for
    what would be unacknowledged for longer than the broker allows. `wake` asks for a flush of the pipeline.
    """
    settings, random = runtime.settings, runtime.randomness.random
    limits, everything = settings.limits, settings.scheduler.max_in_flight
    parking = make_parking(Parking, runtime, broker, limits.max_parked, wake=wake, finish=finish)
    several = len(targets) > 1
    gates: dict[Target, TargetGate] = {}

    def most(of: Target) -> int | None:
        """How many messages that cannot be parked may wait for this target. While no other one goes on, they hold up
        nobody; else all targets in trouble together leave half of the room to those that are not."""
        if any(not gate.is_down for target, gate in gates.items() if target != of):
            return max(1, min(settings.ingress.prefetch, everything) // 2 // len(targets))
        return None

    timeout = settings.ingress.consumer_timeout
    window = limits.target_window or max(1, min(settings.ingress.prefetch, everything) // 2)
    for target, adapter in targets.items():
        gates[target] = TargetGate(
            str(target),
            adapter,
            runtime.clock,
            window=window if several else everything,
            patience=limits.target_patience if several else timeout * OVERDUE / 2,
            random=random,
            wake=wake,
            parking_queue=parking.parking_queue("target", str(target), prefetch=window) if several or timeout else None,
            reluctant=not several,
            most=partial(most, target),
            latency=runtime.latencies.target(str(target)),
        )
    return parking, gates
