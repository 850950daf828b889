"""The web endpoint put together: routes, limits, heartbeats."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.web.resource import IResource

from amqprouter.counters import Counters
from amqprouter.events.heartbeats import SPOKES
from amqprouter.events.hub import Hub
from amqprouter.interfaces import IReadiness
from amqprouter.net import TrustedProxies
from amqprouter.pipeline.latency import Latencies
from amqprouter.pipeline.ports import IGateFigures
from amqprouter.settings import EventsSettings, HttpSettings
from amqprouter.web.bearer import Bearers
from amqprouter.web.channel import PublishChannel
from amqprouter.web.events_login import EventsLogin
from amqprouter.web.granted_streams import GrantedStreams
from amqprouter.web.health import HealthLeaf, ReadyLeaf
from amqprouter.web.leaf import Leaf
from amqprouter.web.login import Authenticate, Login, Version, no_version
from amqprouter.web.mercure.bearers import DISCOVERY
from amqprouter.web.mercure.bearers import PATH as MERCURE
from amqprouter.web.metrics import Gauge, MetricsLeaf
from amqprouter.web.page import PageLeaf, page_files
from amqprouter.web.request import RouterRequest
from amqprouter.web.siblings import Siblings
from amqprouter.web.sse_resource import EventsLeaf, Permission
from amqprouter.web.status import HistoryLeaf, StatusLeaf, StatusReport, TopDevices
from amqprouter.web.table_site import TableSite, at_path
from amqprouter.web.tickets import TicketLeaf, Tickets, share_tickets


class RouterSite(TableSite):
    """The endpoint's site. Heartbeats run while it listens."""

    _log = Logger()
    protocol = PublishChannel

    def __init__(
        self,
        routes: Mapping[bytes, Leaf],
        hub: Hub,
        *,
        header_timeout: float,
        heartbeat: float,
        reactor: IReactorTime,
        proxies: TrustedProxies,
        body_limits: Mapping[bytes, int] | None = None,
    ) -> None:
        super().__init__(routes, request_timeout=header_timeout, reactor=reactor)
        self._heartbeat = heartbeat / SPOKES
        self._heartbeats = LoopingCall(hub.heartbeat)
        self._heartbeats.clock = reactor
        self.body_limits = body_limits or {}
        """The most bytes that a POST may have, by path, as routes are."""
        self.bodies_under_way = 0
        self._proxies = proxies

    def body_limit(self, path: bytes) -> int:
        """Bytes that the body of a POST to this path may have."""
        return at_path(self.body_limits, path) or 0

    def getResourceFor(self, request: RouterRequest) -> IResource:
        """As any table; the request is told who may say where it comes from."""
        request.proxies = self._proxies
        return super().getResourceFor(request)

    def startFactory(self) -> None:
        """Called when listening begins."""
        super().startFactory()
        self._heartbeats.start(self._heartbeat, now=False).addErrback(
            lambda failure: self._log.failure("heartbeats have stopped", failure=failure)
        )

    def stopFactory(self) -> None:
        """Called when listening is over."""
        if self._heartbeats.running:
            self._heartbeats.stop()
        super().stopFactory()


def make_site(
    *,
    http: HttpSettings,
    events: EventsSettings,
    hub: Hub,
    counters: Counters,
    authenticate: Authenticate,
    readiness: Sequence[IReadiness],
    gauges: Sequence[Gauge],
    report: StatusReport,
    top_devices: TopDevices,
    allows: Permission,
    reactor: IReactorTime,
    random: Callable[[], float],
    further: Mapping[bytes, Leaf] | None = None,
    body_limits: Mapping[bytes, int] | None = None,
    bearers: Bearers | None = None,
    streams: GrantedStreams | None = None,
    version: Version = no_version,
    siblings: Siblings | None = None,
    latencies: Latencies | None = None,
) -> RouterSite:
    """The site of one gateway. Listen with it, and call `Hub.close` before the end.

    `random` gives numbers in [0, 1). `further` are more leaves by their paths, and `body_limits` the most bytes that a
    POST to some of these may have. `bearers` and `streams`, where there are keys, are for users with tokens; `version`
    tells of users' passwords. `report` is for the live page; it is not started here. To the metrics go the hub's own
    gauges with `gauges`, and the figures of those parts of `readiness` that are gates. `siblings` are the
    other processes of the service, where there are any.
    """
    login = Login(authenticate, anonymous=http.anonymous)
    tickets = Tickets(reactor.seconds, partial(secrets.token_urlsafe, 24))
    if siblings is not None:
        share_tickets(tickets, siblings)
    hub.on_reload = (*hub.on_reload, tickets.reload)
    users = EventsLogin(login, bearers, tickets, version=version)
    owners = EventsLogin(login, bearers, tickets, take_tickets=False, version=version)
    if streams is None:  # then there are no tokens, only passwords that end
        streams = GrantedStreams(None, reactor, reactor.seconds, random, events.max_lifetime)
    hub.on_reload = (*hub.on_reload, partial(streams.recheck, version))
    gates = [part for part in readiness if IGateFigures.providedBy(part)]
    routes: dict[bytes, Leaf] = {
        b"/": PageLeaf(login, DISCOVERY if further and MERCURE in further else b""),
        **page_files(),
        b"/events": EventsLeaf(users, hub, events, allows, http.allowed_origins, random, streams),
        b"/events/ticket": TicketLeaf(owners, tickets, http.allowed_origins),
        b"/status": StatusLeaf(login, report, top_devices, allows, siblings),
        b"/status/history": HistoryLeaf(login, report),
        b"/metrics": MetricsLeaf(counters, (*gauges, *hub_gauges(hub)), gates, siblings, latencies, readiness),
        b"/healthz": HealthLeaf(siblings),
        b"/readyz": ReadyLeaf(readiness, siblings),
        **(further or {}),
    }
    return RouterSite(
        routes,
        hub,
        header_timeout=http.header_timeout,
        heartbeat=events.heartbeat,
        reactor=reactor,
        proxies=TrustedProxies(http.trusted_proxies),
        body_limits=body_limits,
    )


def hub_gauges(hub: Hub) -> tuple[Gauge, ...]:
    """What the hub holds."""
    return (
        Gauge("subscribers", "Subscribers connected now.", lambda: len(hub.subscribers)),
        Gauge(
            "subscriber_buffer_bytes",
            "Bytes that wait for slow subscribers.",
            lambda: sum(subscriber.buffered for subscriber in hub.subscribers),
        ),
        Gauge(
            "event_window_bytes",
            "Bytes of recent events kept for subscribers that resume, with their topics.",
            lambda: hub.window.bytes,
        ),
    )
