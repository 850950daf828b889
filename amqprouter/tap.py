"""The composition root: everything is built and wired here, and only here."""

from __future__ import annotations

from amqprouter.daemon import hangup

hangup.catch()  # before what takes long to import

import faulthandler
import gc
import os
import random
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from twisted.application.service import MultiService, Service
from twisted.logger import Logger

from amqprouter.amqp.address import account_of
from amqprouter.amqp.connection import Connection
from amqprouter.amqp.link import BrokerLink
from amqprouter.amqp.optional_step import OptionalStep
from amqprouter.amqp.publisher import Publisher
from amqprouter.auth.acl_file import device_acl, user_acl
from amqprouter.auth.authenticator import Authenticator
from amqprouter.auth.broker_topic_proof import BrokerTopicProof
from amqprouter.auth.checkers.configured import make_chain, reads_documents
from amqprouter.auth.checkers.installed import Provisions
from amqprouter.auth.lock_out import LockOut
from amqprouter.auth.proofs import Proof
from amqprouter.auth.threads import HashingThreads
from amqprouter.auth.user_authenticator import UserAuthenticator
from amqprouter.broker.event_publisher import Announcer
from amqprouter.broker.event_stream import EventHistory, EventReader
from amqprouter.broker.outgoing import Outgoing
from amqprouter.broker.quarantine import BrokerQuarantine
from amqprouter.broker.replies import Replies
from amqprouter.broker.shards import make_ingress
from amqprouter.broker.topology import Topology
from amqprouter.clock import SteadyClock
from amqprouter.control.commands import Control
from amqprouter.control.kept_limits import keeps_limits
from amqprouter.control.limits import LimitCommands
from amqprouter.control.overrides import Overrides
from amqprouter.control.reloader import Reloader
from amqprouter.control.site import Command, ControlSite
from amqprouter.control.socket import ControlSocket
from amqprouter.control.top_devices import TopDevices
from amqprouter.counters import Counters
from amqprouter.daemon.commands import wire_commands
from amqprouter.daemon.lifecycle import Daemon
from amqprouter.daemon.logs import make_observer
from amqprouter.daemon.mercure import make_mercure, update_publisher
from amqprouter.daemon.options import Options
from amqprouter.daemon.parking import device_lots, park_and_gate, park_held
from amqprouter.daemon.preflight import hmac_proof, load_settings
from amqprouter.daemon.service_manager import Notifier, ServiceManager
from amqprouter.daemon.targets import wire_targets
from amqprouter.daemon.web import web_service
from amqprouter.events.hub import Hub
from amqprouter.events.limit_events import Throttling
from amqprouter.identity import Identity
from amqprouter.interfaces import IDeviceSecret, IReadiness, IReloadable, ITarget, IUserPassword
from amqprouter.pipeline.overdue import Overdue
from amqprouter.pipeline.pipeline import Pipeline
from amqprouter.pipeline.replay import Replays
from amqprouter.pipeline.routes import RuleSet, Target
from amqprouter.pipeline.settlement import Settlement
from amqprouter.scheduling.scheduler import Scheduler
from amqprouter.settings import Settings
from amqprouter.web.broker_auth_service import broker_auth_service
from amqprouter.web.metrics import Gauge
from amqprouter.web.site import hub_gauges
from amqprouter.web.status import StatusReport

log = Logger()

GC_THRESHOLDS = (20_000, 20, 100)
"""New objects that start a collection, and how many collections the older generations sit out. Messages under way are
thousands of objects that live for milliseconds and are freed without the collector's help; with Python's own figures
(700, 10, 10) it looked at them again and again, for a fifth of all CPU time (docs/performance.rst)."""


def makeService(options: Options) -> Daemon:
    """Called by twistd."""
    from twisted.internet import reactor  # noqa: PLC0415  # twistd chooses the reactor after this module is imported

    faulthandler.enable(sys.__stderr__ or sys.stderr)  # a watchdog's SIGABRT tells where we stood still
    twistd: dict[str, Any] = options.parent or {}
    logfile, daemonized = twistd.get("logfile") or "", not twistd.get("nodaemon", True)
    daemon = build(
        options.settings,
        reactor,
        load=partial(load_settings, options["config"]),
        observer=partial(make_observer, options.settings.logging, logfile, daemonized),
        notifier=Notifier.of(os.environ),
        last_resort=partial(faulthandler.dump_traceback_later, exit=True, file=sys.__stderr__ or sys.stderr),
    )
    # What is alive by now stays so: no garbage collection needs to look at it again.
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    return daemon


def build(
    settings: Settings,
    reactor: Any,
    *,
    load: Callable[[], Settings],
    observer: Callable[[], Any] | None = None,
    randomness: random.Random | None = None,
    wall_clock: Callable[[], float] = time.time,
    notifier: Notifier | None = None,
    last_resort: Callable[[float], None] | None = None,
) -> Daemon:
    """Build and wire the daemon. `load` reads the configuration again for a reload; `last_resort` ends the process in
    so many seconds.

    :raises ConfigError: a file that the settings name is bad.
    """
    randomness = randomness or random.Random()  # jitter and ids, no secrets
    clock = SteadyClock(reactor)
    counters = Counters()
    hashing = HashingThreads(reactor)

    topology = Topology(settings.topology, settings.ingress, settings.events)
    account = account_of(settings.broker)
    outgoing = Outgoing(settings.auth.secret_header, settings.auth.signature_header, account=account)
    publisher = Publisher(clock, counters, max_attempts=settings.limits.max_attempts, random=randomness.random)

    rules = RuleSet(settings.routes)
    wired = wire_targets(
        settings,
        reactor,
        clock,
        targets=rules.targets,
        needs_store=reads_documents(settings.auth) or settings.scheduler.overrides.startswith("mongodb:"),
        names=topology.names,
        publisher=publisher,
        outgoing=outgoing,
        counters=counters,
        randomness=randomness,
        wall_clock=wall_clock,
    )
    store = wired.store

    parking, gates = park_and_gate(
        wired.targets, settings, clock, publisher, counters, random=randomness.random, pipeline=lambda: pipeline
    )

    def lock_out(from_address: int = 0) -> LockOut:
        auth = settings.auth
        return LockOut(auth.lock_out_after, auth.lock_out_seconds, auth.cache_size, counters, from_address)

    provisions = [Provisions(hashing.share(audience), reactor, store) for audience in ("devices", "users")]
    device_chain = make_chain("devices", settings.auth, IDeviceSecret, provisions[0], counters, clock.seconds)
    user_chain = make_chain("users", settings.auth, IUserPassword, provisions[1], counters, clock.seconds)
    chains = [each for each in (device_chain, user_chain) if each is not None]
    further: list[Proof] = [BrokerTopicProof(settings.auth.broker_checked_exchanges)]
    signatures = hmac_proof(settings.auth, wall_clock)
    if signatures is not None:
        further.append(signatures)
    authenticator = Authenticator(
        settings.auth.accept,
        device_chain,
        settings.auth.secret_header,
        cache_size=settings.auth.cache_size,
        cache_seconds=settings.auth.cache_seconds,
        negative_cache_seconds=settings.auth.negative_cache_seconds,
        further=further,
        lock_out=lock_out(),
    )
    users = UserAuthenticator(
        user_chain,
        lock_out=lock_out(settings.auth.lock_out_address_after),
        cache_size=settings.auth.cache_size,
        cache_seconds=settings.auth.cache_seconds,
        negative_cache_seconds=settings.auth.negative_cache_seconds,
    )
    devices_acl, users_acl = device_acl(settings.acl.devices), user_acl(settings.acl.users)
    scheduler: Scheduler[Settlement] = Scheduler(
        settings.scheduler,
        settings.classes,
        settings.tenants,
        counts=counters.scheduled,
        complain=lambda problem: log.warn("{problem}", problem=problem),
    )

    announcer = Announcer(publisher, topology.names.events, counters, wall_clock)
    throttling = Throttling(scheduler, counters, announcer.tell, wall_clock, settings.scheduler.limit_events)
    quarantine = BrokerQuarantine(
        topology.names,
        outgoing,
        wall_clock,
        clock=clock,
        counters=counters,
        prefetch=settings.ingress.prefetch,
        limits=settings.limits,
        random=randomness.random,
        wake=lambda: pipeline.wake(),  # noqa: PLW0108  # made after this
    )
    pipeline = Pipeline(
        clock,
        wall_clock,
        authenticator=authenticator,
        acl=devices_acl,
        scheduler=scheduler,
        rules=rules,
        targets={target: gates[target] for target in rules.targets},
        quarantine=quarantine,
        by_id_exchange=topology.names.by_id,
        replays=Replays(topology.names.replay, account),
        limits=settings.limits,
        counters=counters,
        random=randomness.random,
        throttled=throttling.note,
    )
    kept = keeps_limits(settings.scheduler.overrides, store)
    overrides = Overrides(kept, scheduler, clock, pipeline.park, pipeline.wake)
    if not overrides.is_shared:
        overrides.reload()
    lots = device_lots(settings, clock, publisher, counters, random=randomness.random, pipeline=lambda: pipeline)
    parked_devices = pipeline.use_parking(lots)
    top_devices = TopDevices(scheduler, clock.seconds, parked_devices.backlog).read
    if device_chain is not None:
        park_held(settings, parking, pipeline, authenticator, clock)
    ingress = make_ingress(
        clock, topology, settings.topology.prefix, settings.ingress, pipeline.receive, counters=counters
    )
    commands = wire_commands(settings, clock, wall_clock, topology.names, publisher, quarantine, counters, randomness)

    def reply_target(target: Target) -> ITarget:
        if target.kind == "command":
            assert commands.replies is not None  # the configuration's checks see to that
            return commands.replies(target.name)
        return gates[target]

    replies = Replies(
        topology.names.replies,
        settings.topology.queue_type,
        topology.names.dead_letter,
        {section: [reply_target(target) for target in answers] for section, answers in wired.answers.items()},
        quarantine,
        wall_clock,
    )
    hub = Hub(settings.events, counters, clock)
    reader = EventReader(topology.names.events, hub.publish, wall_clock, hub.restart)
    hub.throttle = reader.throttle

    def link(purpose: str, *steps: Callable[[Connection], Awaitable[None]]) -> BrokerLink:
        async def prepare(connection: Connection) -> None:
            for step in steps:
                await step(connection)

        return BrokerLink(
            reactor, settings.broker, purpose, prepare, clock=clock, counters=counters, random=randomness.random
        )

    replying = OptionalStep(clock, "replies", "no answers of workers are taken from the broker", replies.attach)
    answering = [replying] if wired.answers else []
    # What is parked is older than what the ingress brings.
    consume = link(
        "consume",
        topology.declare,
        parking.attach,
        lots.attach,
        ingress.attach,
        *[step.attach for step in answering],
        *commands.consuming,
    )
    publish = link("publish", topology.declare, publisher.attach, quarantine.attach, wired.attach, *commands.publishing)
    events = link("events", topology.declare_events, reader.attach)
    hub.use_history(EventHistory(topology.names.events, lambda: events.connection))
    readiness: list[IReadiness] = [consume, publish, events, ingress, parking, lots, *gates.values(), *wired.queues]
    readiness.extend((*quarantine.gates, *answering, *commands.readiness))
    readiness.extend([] if store is None else [store])
    readiness.extend(checker for each in chains for checker in each.checkers if IReadiness.providedBy(checker))

    mercure = make_mercure(
        settings,
        hub,
        users_acl.allows_identity,
        update_publisher(publisher, topology.names.events, lambda: not publish.problem(), counters, wall_clock),
        reactor=reactor,
        wall_clock=wall_clock,
        run_in_thread=hashing.share("tokens"),
        randomness=randomness,
        tell=announcer.tell,
    )
    reloadable: list[IReloadable] = [devices_acl, users_acl, authenticator, users, hub, overrides, *mercure.reloadable]
    reloadable.extend(commands.reloadable)
    manager = ServiceManager(reactor, notifier or Notifier(), readiness)
    reloader = Reloader(load, settings, pipeline, scheduler, reloadable, counters, clock.seconds, manager)
    overdue = Overdue(
        clock,
        settings.ingress.consumer_timeout,
        lambda: (*ingress.ledgers, *parking.ledgers, *lots.ledgers),
        (parked_devices, pipeline.held, *gates.values(), *quarantine.gates),
    )
    gauges = [
        Gauge("oldest_unacked_seconds", "Age of the oldest delivery not acknowledged yet.", lambda: overdue.oldest),
        Gauge("unacked", "Deliveries received and not yet acknowledged.", lambda: ingress.unacked),
        Gauge("in_flight", "Messages on their way to their targets.", lambda: scheduler.in_flight),
        Gauge("waiting", "Messages that wait for their turn.", lambda: scheduler.waiting),
        Gauge("known_devices", "Devices in the scheduler's memory.", lambda: scheduler.known_devices),
        Gauge("parked_devices", "Devices whose messages are parked.", lambda: parked_devices.devices),
        Gauge("parked_messages", "Messages in devices' parking queues.", lambda: parked_devices.messages),
    ]

    web = MultiService()
    overdue.setServiceParent(web)  # type: ignore[no-untyped-call]
    overrides.setServiceParent(web)  # type: ignore[no-untyped-call]
    for service in (
        web_service(
            settings,
            reactor,
            clock,
            hub,
            counters,
            users,
            users_acl.allows_identity,
            readiness,
            gauges,
            top_devices,
            randomness,
            mercure,
            commands,
        ),
        broker_auth_service(
            settings,
            topology.names.devices,
            topology.names.by_id,
            lambda device, secret: authenticator.check_secret(device, secret, clock.seconds()),
            lambda device, key: devices_acl.allows_identity(
                authenticator.logins.identity(device) or Identity(device), key
            ),
            takes_reasons=lambda: consume.connection is not None and consume.connection.server.at_least(4, 3),
            counters=counters,
            reactor=reactor,
        ),
    ):
        if service is not None:
            service.setServiceParent(web)
    control = Control(
        clock,
        authenticator,
        users,
        reloader,
        StatusReport(counters, (*gauges, *hub_gauges(hub)), readiness, reactor),
        top_devices,
        LimitCommands(scheduler, overrides, counters.scheduled, clock.seconds).commands(),
        flushed=(hub.reload, mercure.recheck),
    )
    return Daemon(
        reactor,
        ingress=ingress,
        pipeline=pipeline,
        publisher=publisher,
        parking=(parking, lots, quarantine),
        consume=consume,
        publish=publish,
        events=events,
        hub=hub,
        store=store,
        hashing=hashing,
        checkers=chains,
        web=web,
        control=_control(settings, reactor, control.commands()),
        reloader=reloader,
        shutdown_deadline=settings.limits.shutdown_deadline,
        manager=manager,
        last_resort=last_resort,
        observer=observer,
    )


def _control(settings: Settings, reactor: Any, commands: list[Command]) -> Service | None:
    """The control socket, or None where it is turned off."""
    if not settings.control.socket:
        return None
    return ControlSocket(reactor, settings.control.socket, ControlSite(commands, reactor))
