"""Mercure put together: keys from `auth`, the hub's resource from `web`, publishing through `amqp`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any
from uuid import UUID

from amqprouter.amqp.properties import encode_properties
from amqprouter.amqp.publisher import Publisher
from amqprouter.auth.token_verifier import EXPIRED, FOREVER, Claims, TokenVerifier
from amqprouter.counters import Counters
from amqprouter.errors import BadToken, BrokerUnavailable
from amqprouter.events.event import Event
from amqprouter.events.hub import Hub
from amqprouter.interfaces import IReloadable, RunInThread
from amqprouter.settings import MercureSettings, Settings
from amqprouter.web.bearer import Bearers, Verified, Verify
from amqprouter.web.granted_streams import GrantedStreams
from amqprouter.web.leaf import Leaf
from amqprouter.web.mercure.bearers import PATH, MercureBearers, Tokens
from amqprouter.web.mercure.metadata import MetadataLeaf
from amqprouter.web.mercure.resource import MercureLeaf, PublishUpdate
from amqprouter.web.mercure.subscriptions import PATH as SUBSCRIPTIONS
from amqprouter.web.mercure.subscriptions import Subscriptions, SubscriptionsLeaf
from amqprouter.web.mercure.version1 import METADATA_PATH, Version1
from amqprouter.web.sse_resource import Permission

LEEWAY = 30.0
"""Seconds that a token may be from our future (``iat``, ``nbf``), for clocks differ; ``exp`` counts by ours, to the
second."""


@dataclass(frozen=True)
class Mercure:
    """What the daemon needs to know of it: nothing, while it is turned off."""

    routes: Mapping[bytes, Leaf] = field(default_factory=dict)
    body_limits: Mapping[bytes, int] = field(default_factory=dict)
    reloadable: tuple[IReloadable, ...] = ()
    """The keys, and behind them the streams that were opened by them."""
    bearers: Bearers | None = None
    """Users with tokens, where there are keys for these."""
    streams: GrantedStreams | None = None
    recheck: Callable[[], None] = lambda: None
    """Verify the tokens of all open streams again."""


def make_mercure(
    settings: Settings,
    hub: Hub,
    allows: Permission,
    publish: PublishUpdate,
    *,
    reactor: Any,
    wall_clock: Callable[[], float],
    run_in_thread: RunInThread,
    randomness: Random,
    tell: Callable[[Event], object],
) -> Mercure:
    """The resource and what belongs to it. `tell` publishes an event of our own, and never waits.

    :raises AuthFileError: a key set cannot be used.
    """
    ours = settings.mercure
    if not ours.enabled:
        return Mercure()
    verifiers = make_verifiers(ours)

    def verify_with(path: str) -> Verify | None:
        return _verify(verifiers[path], wall_clock, run_in_thread) if path else None

    subscribers = verify_with(ours.subscriber_keys)

    async def again(token: bytes) -> Verified:
        assert subscribers is not None, "a stream by a token, and no keys"
        return await subscribers(token)

    bearers = None if subscribers is None else Bearers(ours, subscribers)
    streams = GrantedStreams(again, reactor, wall_clock, randomness.random, settings.events.max_lifetime)
    version1 = Version1(ours.hub_url) if ours.hub_url else None
    tokens = Tokens(ours, hub.slices, version1)
    senders = MercureBearers(ours, bearers, allows, tokens)
    origins = settings.http.allowed_origins
    routes: dict[bytes, Leaf] = {}
    if version1 is not None:
        routes[METADATA_PATH.encode()] = MetadataLeaf(ours, version1, origins)
    subscriptions: Subscriptions | None = None
    if ours.subscriptions:
        subscriptions = Subscriptions(tell, lambda: UUID(int=randomness.getrandbits(128), version=4).urn, reactor)
        listing = SubscriptionsLeaf(subscriptions, senders, hub, origins, reactor)
        routes |= {SUBSCRIPTIONS: listing, SUBSCRIPTIONS + b"/": listing}
    leaf = MercureLeaf(
        ours,
        hub,
        senders,
        tokens,
        verify_with(ours.publisher_keys),
        publish,
        streams,
        origins,
        reactor=reactor,
        random=randomness.random,
        random_bits=randomness.getrandbits,
        subscriptions=subscriptions,
    )
    routes[PATH] = leaf
    return Mercure(
        routes, {PATH: ours.max_update_bytes}, (*verifiers.values(), streams), bearers, streams, streams.reload
    )


def make_verifiers(settings: MercureSettings) -> dict[str, TokenVerifier]:
    """By path, what verifies tokens with the keys of the files that are configured.

    :raises AuthFileError: a key set cannot be used.
    """
    paths = dict.fromkeys(path for path in (settings.subscriber_keys, settings.publisher_keys) if path)
    return {
        path: TokenVerifier(
            path,
            issuer=settings.issuer,
            audience=settings.audience,
            leeway=LEEWAY,
            require_expiry=settings.require_expiry,
            resource=settings.hub_url,
        )
        for path in paths
    }


def update_publisher(
    publisher: Publisher,
    stream: str,
    is_up: Callable[[], bool],
    counters: Counters,
    wall_clock: Callable[[], float],
) -> PublishUpdate:
    """Publishes updates to the event stream. While `is_up` says no, they are refused at once, not kept for later."""

    async def publish(update: Event) -> None:
        if not is_up():
            raise BrokerUnavailable("there is no connection to the broker")
        properties = encode_properties(headers=update.headers(), timestamp=int(wall_clock()))
        await publisher.send("", stream, properties, update.data)
        counters.events_published += 1

    return publish


def _verify(
    verifier: TokenVerifier, wall_clock: Callable[[], float], run_in_thread: RunInThread
) -> Callable[[bytes], Awaitable[Verified]]:
    async def verify(token: bytes) -> Verified:
        now = wall_clock()

        def work() -> Claims:
            return verifier.verify(token, now)

        claims = await run_in_thread(work) if verifier.slow else work()
        if claims.good_until == FOREVER:
            return Verified(claims.values, None, claims.access)
        expires = claims.good_until - LEEWAY
        if expires <= now:  # or a stream that has just ended would begin again
            raise BadToken(EXPIRED)
        return Verified(claims.values, expires, claims.access)

    return verify
