"""The composition root: the daemon's parts are made and wired here, and only here.

Each subject has a module next to this one, with a function that makes its parts and returns them as a dataclass; they
are called in the order of a message's way. What comes later may use what was made before, never the other way round.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from typing import Any

from twisted.logger import ILogObserver

from amqprouter.amqp.link import BrokerLink
from amqprouter.amqp.optional_step import OptionalStep
from amqprouter.auth.checkers.configured import reads_documents
from amqprouter.clock import SteadyClock
from amqprouter.control.top_devices import TopDevices
from amqprouter.counters import Counters
from amqprouter.daemon.auth import WiredAuth, share_logins, wire_auth
from amqprouter.daemon.broker import WiredBroker, make_link, wire_broker
from amqprouter.daemon.commands import WiredCommands, wire_commands, wire_replies
from amqprouter.daemon.control import WiredControl, wire_control
from amqprouter.daemon.decoding import wire_decoding
from amqprouter.daemon.lifecycle import Daemon, Step
from amqprouter.daemon.pipeline import WiredPipeline, wire_pipeline
from amqprouter.daemon.runtime import Listen, Runtime, listen_by
from amqprouter.daemon.service_manager import Notifier
from amqprouter.daemon.targets import WiredTargets, wire_targets
from amqprouter.daemon.web import WiredEvents, WiredWeb, wire_events, wire_web
from amqprouter.events.hub import Hub
from amqprouter.interfaces import IReadiness
from amqprouter.pipeline.latency import Latencies
from amqprouter.settings import Settings
from amqprouter.web.health import report
from amqprouter.web.siblings import Siblings
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
    listen: Listen | None = None,
    siblings: Siblings | None = None,
) -> Daemon:
    """Build and wire the daemon. `load` reads the configuration again for a reload; `last_resort` ends the process in
    so many seconds. `siblings` are the other processes of the service, where there are any: a supervisor then has the
    control socket and the ports, and `listen` is how to get at these.

    :raises ConfigError: a file that the settings name is bad.
    """
    counters, clock = Counters(), SteadyClock(reactor, time.monotonic)
    decoding = wire_decoding(settings, counters)
    listen, chance = listen or listen_by(reactor), randomness or random.Random()
    latencies, bodies = Latencies(wall_clock), decoding.bodies
    runtime = Runtime(settings, reactor, clock, wall_clock, chance, counters, latencies, bodies, listen, siblings)
    broker = wire_broker(runtime)
    rules = decoding.rules(settings)
    reads_store = reads_documents(settings.auth) or settings.scheduler.overrides.startswith("mongodb:")
    targets = wire_targets(runtime, broker, rules.targets, needs_store=reads_store)
    auth = wire_auth(runtime, targets.store)
    way = wire_pipeline(runtime, broker, targets, auth, rules)
    commands = wire_commands(runtime, broker, way.quarantine)
    replies = wire_replies(runtime, broker, targets, way.gates, way.quarantine, commands)
    events = wire_events(runtime, broker)
    consume, publish = _links(runtime, broker, targets, auth, way, commands, replies)

    readiness: list[IReadiness] = [consume, publish, events.link, *way.readiness, *targets.queues]
    readiness += (*way.quarantine.gates, *replies, *commands.readiness)
    readiness += [*([] if targets.store is None else [targets.store]), *auth.readiness]
    _provide(siblings, auth, way, readiness)
    report = _report(runtime, way, events.hub, readiness)
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
        gauges=way.gauges,
        report=report,
        top_devices=top_devices,
    )
    control = wire_control(
        runtime,
        auth,
        way,
        events.hub,
        load=load,
        rules_of=decoding.rules,
        notifier=notifier or Notifier(),
        readiness=readiness,
        reloadable=[*auth.reloadable, events.hub, way.overrides, *web.mercure.reloadable, *commands.reloadable],
        report=report,
        top_devices=top_devices,
        flushed=(events.hub.reload, web.mercure.recheck),
    )
    return Daemon(
        reactor,
        [*decoding.steps(runtime), *_steps(broker, targets, auth, way, events, web, control, report, consume, publish)],
        under_way=lambda: way.pipeline.under_way,
        reload=control.reload,
        shutdown_deadline=settings.limits.shutdown_deadline,
        manager=control.manager,
        last_resort=last_resort,
        observer=observer,
        is_supervised=siblings is not None,
    )


def _provide(siblings: Siblings | None, auth: WiredAuth, way: WiredPipeline, readiness: Sequence[IReadiness]) -> None:
    """Tell other processes, where there are any, what they ask, and what they are to know."""
    if siblings is not None:
        siblings.provide("ready", lambda: report(readiness))
        siblings.provide("look", way.ingress.look)
        share_logins(auth.authenticator.logins, siblings)


def _report(runtime: Runtime, way: WiredPipeline, hub: Hub, readiness: Sequence[IReadiness]) -> StatusReport:
    """What the control socket tells of the daemon."""
    gauges = (*way.gauges, *hub_gauges(hub))
    return StatusReport(runtime.counters, gauges, readiness, runtime.reactor, runtime.latencies)


def _links(
    runtime: Runtime,
    broker: WiredBroker,
    targets: WiredTargets,
    auth: WiredAuth,
    way: WiredPipeline,
    commands: WiredCommands,
    replies: Sequence[OptionalStep],
) -> tuple[BrokerLink, BrokerLink]:
    """The connections for consuming and for publishing, each with what is prepared over it, in order."""
    consume = make_link(
        runtime,
        "consume",
        broker.topology.declare,
        auth.attach,
        way.parking.attach,  # what is parked is older than what the ingress brings
        way.device_queues.attach,
        way.left.attach,
        way.ingress.attach,
        *[step.attach for step in replies],
        *commands.consuming,
    )
    publish = make_link(
        runtime,
        "publish",
        broker.topology.declare,
        broker.publisher.attach,
        way.repartition.attach,
        way.quarantine.attach,
        targets.attach,
        *commands.publishing,
    )
    return consume, publish


def _steps(
    broker: WiredBroker,
    targets: WiredTargets,
    auth: WiredAuth,
    way: WiredPipeline,
    events: WiredEvents,
    web: WiredWeb,
    control: WiredControl,
    report: StatusReport,
    consume: BrokerLink,
    publish: BrokerLink,
) -> list[Step]:
    """In the order of starting: first what others lean on. Draining and closing begin at the end."""
    hashing, store, socket, endpoints = auth.hashing, targets.store, control.socket, web.service
    steps = [Step("the hashing threads", hashing.startService, hashing.stopService)]
    steps += [Step("the checkers", stop=chain.close) for chain in reversed(auth.chains)]
    if store is not None:
        steps.append(Step("the document store", targets.connect_store, store.close))
    if socket is not None:
        steps.append(Step("the control socket", socket.startService, socket.stopService))
    steps += [
        Step(
            "the web endpoint",
            endpoints.startService,
            endpoints.stopService,
            listen=endpoints.privilegedStartService,
        ),
        Step("the daemon's history", report.startService, report.stopService),
        Step("the limits set by hand", way.overrides.startService, way.overrides.stopService),
        Step("the watch for overdue deliveries", way.overdue.startService, way.overdue.stopService),
        Step("the event connection", events.link.startService, events.link.stopService),
        Step("the publisher", stop=broker.publisher.stop),
        Step("the publisher to the shards", stop=way.repartition.stop),
        Step("the publishing connection", publish.startService, publish.stopService),
        Step("the subscriptions", stop=events.hub.close),  # before: their ends are published
        Step("the consuming connection", consume.startService, consume.stopService),
        Step("the pipeline", drain=way.pipeline.drain),
        Step("the quarantine", drain=way.quarantine.stop),
        Step("the parking queues of devices", drain=way.device_queues.stop),
        Step("the parking queues", drain=way.parking.stop),
        Step("the look for parking queues that were left", drain=way.left.stop),
        Step("the way to the shards", drain=way.repartition.drain),
        Step("the consumers", drain=way.ingress.stop),
    ]
    return steps
