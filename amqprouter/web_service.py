"""The web endpoint as a service: the site of `web`, with whom it asks about users, at its port."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from twisted.application import strports
from twisted.application.service import Service

from amqprouter.auth.user_authenticator import UserAuthenticator
from amqprouter.clock import SteadyClock
from amqprouter.core.counters import Counters
from amqprouter.interfaces import Identity, IReadiness
from amqprouter.mercure import Mercure
from amqprouter.settings import Settings
from amqprouter.web.hub import Hub
from amqprouter.web.metrics import Gauge
from amqprouter.web.site import make_site


def web_service(
    settings: Settings,
    reactor: Any,
    clock: SteadyClock,
    hub: Hub,
    counters: Counters,
    users: UserAuthenticator,
    may_see: Callable[[Identity, str], bool],
    readiness: list[IReadiness],
    gauges: list[Gauge],
    top_devices: Callable[[], list[dict[str, object]]],
    randomness: random.Random,
    mercure: Mercure,
) -> Service | None:
    """The web endpoint, or None where it is turned off."""
    if not settings.http.endpoint:
        return None

    async def authenticate(username: str, password: bytes, peer: str) -> Identity | None:
        return await users.identify(username, password, clock.seconds(), peer)

    def devices_for(user: Identity) -> list[dict[str, object]]:
        return [device for device in top_devices() if may_see(user, f"{device['device']}.status")]

    site = make_site(
        http=settings.http,
        events=settings.events,
        hub=hub,
        counters=counters,
        authenticate=authenticate,
        readiness=readiness,
        gauges=gauges,
        top_devices=devices_for,
        allows=may_see,
        reactor=reactor,
        random=randomness.random,
        further=mercure.routes,
        body_limits=mercure.body_limits,
    )
    return strports.service(settings.http.endpoint, site, reactor=reactor)
