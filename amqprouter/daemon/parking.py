"""Putting together what stands between the pipeline and its targets: a gate for each, and a parking lot behind it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from amqprouter.amqp.ack_ledger import OVERDUE
from amqprouter.amqp.address import account_of
from amqprouter.amqp.publisher import Publisher
from amqprouter.broker.device_parking import DeviceLots
from amqprouter.broker.parking import Parking
from amqprouter.counters import Counters
from amqprouter.pipeline.gate import TargetGate
from amqprouter.pipeline.pending_overflow import HeldOverflow
from amqprouter.pipeline.pipeline import Pipeline
from amqprouter.pipeline.ports import IAuthenticator, IGatedTarget
from amqprouter.pipeline.routes import Target
from amqprouter.pipeline.settlement import Settlement
from amqprouter.settings import Settings


def device_lots(
    settings: Settings,
    clock: Any,
    publisher: Publisher,
    counters: Counters,
    *,
    random: Callable[[], float],
    pipeline: Callable[[], Pipeline],
) -> DeviceLots:
    """The parking queues of devices over their rates. `pipeline` gives the pipeline, which is made after these."""
    return DeviceLots(
        clock,
        publisher,
        counters,
        prefix=settings.topology.prefix,
        account=account_of(settings.broker),
        queue_type=settings.topology.queue_type,
        max_parked=settings.limits.max_parked_per_device,
        timeout=settings.ingress.consumer_timeout,
        random=random,
        wake=lambda: pipeline().wake(),
        finish=lambda settlement: pipeline().finish(settlement, in_flight=False),
    )


def park_held(
    settings: Settings, parking: Parking, pipeline: Pipeline, authenticator: IAuthenticator, clock: Any
) -> HeldOverflow:
    """Have messages parked that wait for a checker's answer, when they become too many."""
    most = max(1, min(settings.auth.max_held, settings.ingress.prefetch // 2))
    overflow = HeldOverflow(
        parking.lot("auth", "held", prefetch=most),
        credential=authenticator.credential,
        seconds=clock.seconds,
        readmit=lambda message, ledger: pipeline.readmit(Settlement(message, 1, ledger, pipeline.finish)),
        parked=lambda settlement: pipeline.finish(settlement, in_flight=False),
    )
    pipeline.held.use_overflow(overflow, most)
    return overflow


def park_and_gate(
    targets: Mapping[Target, IGatedTarget],
    settings: Settings,
    clock: Any,
    publisher: Publisher,
    counters: Counters,
    *,
    random: Callable[[], float],
    pipeline: Callable[[], Pipeline],
) -> tuple[Parking, dict[Target, TargetGate]]:
    """The gates of all targets, with a lot for each. A single target holds up nobody else: there it is for what would
    be unacknowledged for longer than the broker allows.

    `pipeline` gives the pipeline, which is made after these.
    """

    def wake() -> None:
        pipeline().wake()

    def finish_parked(settlement: Settlement) -> None:
        pipeline().finish(settlement, in_flight=False)

    limits, everything = settings.limits, settings.scheduler.max_in_flight
    parking = Parking(
        clock,
        publisher,
        counters,
        prefix=settings.topology.prefix,
        account=account_of(settings.broker),
        queue_type=settings.topology.queue_type,
        max_parked=limits.max_parked,
        timeout=settings.ingress.consumer_timeout,
        random=random,
        wake=wake,
        finish=finish_parked,
    )
    several = len(targets) > 1
    gates: dict[Target, TargetGate] = {}

    def most(of: Target) -> int | None:
        """How many messages that cannot be parked may wait for this target. While no other one goes on, they hold up
        nobody; else all targets in trouble together leave half of the room to those that are not."""
        if any(not gate.is_open for target, gate in gates.items() if target != of):
            return max(1, min(settings.ingress.prefetch, everything) // 2 // len(targets))
        return None

    timeout = settings.ingress.consumer_timeout
    window = limits.target_window or max(1, min(settings.ingress.prefetch, everything) // 2)
    for target, adapter in targets.items():
        gates[target] = TargetGate(
            str(target),
            adapter,
            clock,
            window=window if several else everything,
            patience=limits.target_patience if several else timeout * OVERDUE / 2,
            random=random,
            wake=wake,
            lot=parking.lot("target", str(target), prefetch=window) if several or timeout else None,
            reluctant=not several,
            most=partial(most, target),
        )
    return parking, gates
