"""The composition root: the daemon's parts are made and wired here, and only here.

Each subject has a module next to this one, with a function that makes its parts and returns them as a dataclass; they
are called in the order of a message's way. What comes later may use what was made before, never the other way round.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

from twisted.logger import ILogObserver

from amqprouter.auth.checkers.configured import reads_documents
from amqprouter.clock import SteadyClock
from amqprouter.control.top_devices import TopDevices
from amqprouter.counters import Counters
from amqprouter.daemon.auth import wire_auth
from amqprouter.daemon.broker import make_link, wire_broker
from amqprouter.daemon.commands import wire_commands, wire_replies
from amqprouter.daemon.control import wire_control
from amqprouter.daemon.lifecycle import Daemon
from amqprouter.daemon.pipeline import wire_pipeline
from amqprouter.daemon.runtime import Runtime
from amqprouter.daemon.service_manager import Notifier
from amqprouter.daemon.targets import wire_targets
from amqprouter.daemon.web import wire_events, wire_web
from amqprouter.interfaces import IReadiness
from amqprouter.pipeline.routes import RuleSet
from amqprouter.settings import Settings
from amqprouter.web.site import hub_gauges
from amqprouter.web.status import StatusReport


def build(
    settings: Settings,
    reactor: Any,
    *,
    load: Callable[[], Settings],
    observer: Callable[[], ILogObserver] | None = None,
    randomness: random.Random | None = None,
    wall_clock: Callable[[], float] = time.time,
    notifier: Notifier | None = None,
    last_resort: Callable[[float], None] | None = None,
) -> Daemon:
    """Build and wire the daemon. `load` reads the configuration again for a reload; `last_resort` ends the process in
    so many seconds.

    :raises ConfigError: a file that the settings name is bad.
    """
    runtime = Runtime(settings, reactor, SteadyClock(reactor), wall_clock, randomness or random.Random(), Counters())
    broker = wire_broker(runtime)
    rules = RuleSet(settings.routes)
    reads_store = reads_documents(settings.auth) or settings.scheduler.overrides.startswith("mongodb:")
    targets = wire_targets(runtime, broker, rules.targets, needs_store=reads_store)
    auth = wire_auth(runtime, targets.store)
    way = wire_pipeline(runtime, broker, targets, auth, rules)
    commands = wire_commands(runtime, broker, way.quarantine)
    replies = wire_replies(runtime, broker, targets, way.gates, way.quarantine, commands)
    events = wire_events(runtime, broker)

    consume = make_link(
        runtime,
        "consume",
        broker.topology.declare,
        way.parking.attach,  # what is parked is older than what the ingress brings
        way.lots.attach,
        way.ingress.attach,
        *[step.attach for step in replies],
        *commands.consuming,
    )
    publish = make_link(
        runtime,
        "publish",
        broker.topology.declare,
        broker.publisher.attach,
        way.quarantine.attach,
        targets.attach,
        *commands.publishing,
    )
    readiness: list[IReadiness] = [consume, publish, events.link, *way.readiness, *targets.queues]
    readiness += (*way.quarantine.gates, *replies, *commands.readiness)
    readiness += [] if targets.store is None else [targets.store]
    readiness += auth.readiness
    gauges = way.gauges
    top_devices = TopDevices(way.scheduler, runtime.clock.seconds, way.parked_devices.backlog).read

    web = wire_web(
        runtime,
        broker,
        auth,
        events.hub,
        commands,
        consume=consume,
        publish=publish,
        readiness=readiness,
        gauges=gauges,
        top_devices=top_devices,
    )
    control = wire_control(
        runtime,
        auth,
        way,
        load=load,
        notifier=notifier or Notifier(),
        readiness=readiness,
        reloadable=[*auth.reloadable, events.hub, way.overrides, *web.mercure.reloadable, *commands.reloadable],
        report=StatusReport(runtime.counters, (*gauges, *hub_gauges(events.hub)), readiness, reactor),
        top_devices=top_devices,
        flushed=(events.hub.reload, web.mercure.recheck),
    )
    for service in (way.overdue, way.overrides):
        service.setServiceParent(web.service)  # type: ignore[no-untyped-call]
    return Daemon(
        reactor,
        ingress=way.ingress,
        pipeline=way.pipeline,
        publisher=broker.publisher,
        parking=(way.parking, way.lots, way.quarantine),
        consume=consume,
        publish=publish,
        events=events.link,
        hub=events.hub,
        store=targets.store,
        hashing=auth.hashing,
        checkers=auth.chains,
        web=web.service,
        control=control.socket,
        reloader=control.reloader,
        shutdown_deadline=settings.limits.shutdown_deadline,
        manager=control.manager,
        last_resort=last_resort,
        observer=observer,
    )
