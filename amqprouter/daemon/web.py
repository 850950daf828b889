"""Events for subscribers and the web endpoint, wired: the hub with its source, Mercure, and the endpoint for RabbitMQ's
questions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from twisted.application.service import MultiService, Service

from amqprouter.amqp.link import BrokerLink
from amqprouter.broker.event_stream import EventHistory, EventReader
from amqprouter.daemon.auth import WiredAuth
from amqprouter.daemon.broker import WiredBroker, make_link
from amqprouter.daemon.commands import WiredCommands
from amqprouter.daemon.mercure import Mercure, make_mercure, update_publisher
from amqprouter.daemon.runtime import Runtime
from amqprouter.events.hub import Hub
from amqprouter.identity import Identity
from amqprouter.interfaces import IReadiness
from amqprouter.web.broker_auth_service import broker_auth_service
from amqprouter.web.command_leaf import PREFIX as COMMANDS
from amqprouter.web.leaf import Leaf
from amqprouter.web.login import TokenLogin
from amqprouter.web.metrics import Gauge
from amqprouter.web.site import make_site
from amqprouter.web.status import StatusReport
from amqprouter.web.subscription_leaf import PATH as SUBSCRIPTIONS
from amqprouter.web.subscription_leaf import SubscriptionLeaf


@dataclass(frozen=True)
class WiredEvents:
    """The hub with its source."""

    hub: Hub
    link: BrokerLink
    """The connection over which the event stream is read."""


@dataclass(frozen=True)
class WiredWeb:
    """What listens."""

    service: MultiService
    """All endpoints; none of them need be there."""
    mercure: Mercure


def wire_events(runtime: Runtime, broker: WiredBroker) -> WiredEvents:
    """The hub. A subscriber that comes back is given what it missed over the same connection.

    The reader hands events to the hub, which asks it to wait: one of the two has to know the other by a function.
    """
    stream = broker.names.events

    def throttle(wait: bool) -> None:
        reader.throttle(wait)

    hub = Hub(
        runtime.settings.events,
        runtime.counters,
        runtime.clock,
        history=EventHistory(stream, lambda: link.connection),
        throttle=throttle,
        written=runtime.latencies.written,
    )
    reader = EventReader(stream, hub.publish, runtime.wall_clock, hub.restart, hub.fell_behind, hub.caught_up)
    hub.fell_behind()  # until it has caught up for the first time
    link = make_link(runtime, "events", broker.topology.declare_events, reader.attach)
    return WiredEvents(hub, link)


def wire_web(
    runtime: Runtime,
    broker: WiredBroker,
    auth: WiredAuth,
    hub: Hub,
    commands: WiredCommands,
    *,
    consume: BrokerLink,
    publish: BrokerLink,
    readiness: Sequence[IReadiness],
    gauges: Sequence[Gauge],
    report: StatusReport,
    top_devices: Callable[[], list[dict[str, object]]],
) -> WiredWeb:
    """All endpoints. `consume` and `publish` are the connections that they tell of.

    :raises ConfigError: a key set, or a file of the endpoint for RabbitMQ, cannot be used.
    """
    settings, counters = runtime.settings, runtime.counters

    def is_up() -> bool:
        return not publish.problem()

    mercure = make_mercure(
        settings,
        hub,
        auth.users_acl.allows_identity,
        update_publisher(broker.publisher, broker.names.events, is_up, counters, runtime.wall_clock),
        reactor=runtime.reactor,
        wall_clock=runtime.wall_clock,
        run_in_thread=auth.hashing.share("tokens"),
        randomness=runtime.randomness,
        tell=broker.event_publisher.tell,
    )
    endpoints = (
        web_service(runtime, auth, hub, commands, mercure, readiness, gauges, report, top_devices),
        broker_auth_service(
            settings,
            lambda device, secret: auth.authenticator.check_secret(device, secret, runtime.clock.seconds()),
            auth.device_may,
            auth.may_speak,
            takes_reasons=lambda: consume.connection is not None and consume.connection.server.at_least(4, 3),
            counters=counters,
            reactor=runtime.reactor,
            listen=runtime.listen,
        ),
    )
    service = MultiService()
    for endpoint in endpoints:
        if endpoint is not None:
            endpoint.setServiceParent(service)
    return WiredWeb(service, mercure)


def web_service(
    runtime: Runtime,
    auth: WiredAuth,
    hub: Hub,
    commands: WiredCommands,
    mercure: Mercure,
    readiness: Sequence[IReadiness],
    gauges: Sequence[Gauge],
    report: StatusReport,
    top_devices: Callable[[], list[dict[str, object]]],
) -> Service | None:
    """The web endpoint, or None where it is turned off."""
    settings, clock, users, may_see = runtime.settings, runtime.clock, auth.users, auth.users_acl.allows_identity
    if not settings.http.endpoint:
        return None

    async def authenticate(username: str, password: bytes, peer: str) -> Identity | None:
        began = clock.seconds()
        user = await users.identify(username, password, began, peer)
        if user is None or user.valid_for is None:
            return user
        return replace(user, valid_for=user.valid_for - (clock.seconds() - began))  # asking may have taken a while

    def devices_for(user: Identity) -> list[dict[str, object]]:
        return [device for device in top_devices() if may_see(user, f"{device['device']}.status")]

    operators, operates = TokenLogin(authenticate, anonymous=False), auth.operators_acl.allows_identity
    leaves: dict[bytes, Leaf] = {
        SUBSCRIPTIONS: SubscriptionLeaf(operators, hub, operates, settings.http.allowed_origins)
    }
    body_limits = dict(mercure.body_limits)
    if commands.leaf is not None:
        commanding = commands.leaf(authenticate)
        leaves[COMMANDS], body_limits[COMMANDS] = commanding, commanding.max_body
    site = make_site(
        http=settings.http,
        events=settings.events,
        hub=hub,
        counters=runtime.counters,
        authenticate=authenticate,
        readiness=readiness,
        gauges=gauges,
        report=report,
        latencies=runtime.latencies,
        top_devices=devices_for,
        allows=may_see,
        reactor=runtime.reactor,
        random=runtime.randomness.random,
        further={**mercure.routes, **leaves},
        body_limits=body_limits,
        bearers=mercure.bearers,
        streams=mercure.streams,
        version=users.version,
        siblings=runtime.siblings,
    )
    return runtime.listen("http", settings.http.endpoint, site)
