"""The web endpoint as a service: the site of `web`, with whom it asks about users, at its port."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from twisted.application import strports
from twisted.application.service import Service

from amqprouter.auth.user_authenticator import UserAuthenticator
from amqprouter.clock import SteadyClock
from amqprouter.counters import Counters
from amqprouter.daemon.commands import WiredCommands
from amqprouter.daemon.mercure import Mercure
from amqprouter.events.hub import Hub
from amqprouter.identity import Identity
from amqprouter.interfaces import IReadiness
from amqprouter.settings import Settings
from amqprouter.web.command_leaf import PREFIX as COMMANDS
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
    commands: WiredCommands,
) -> Service | None:
    """The web endpoint, or None where it is turned off."""
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

    leaves = {COMMANDS: commands.leaf(authenticate)} if commands.leaf is not None else {}
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
        further={**mercure.routes, **leaves},
        body_limits={**mercure.body_limits, **{path: leaf.max_body for path, leaf in leaves.items()}},
        bearers=mercure.bearers,
        streams=mercure.streams,
        version=users.version,
    )
    return strports.service(settings.http.endpoint, site, reactor=reactor)
