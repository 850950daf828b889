"""The broker's side, wired: its names, who publishes there, and the connections to it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from amqprouter.amqp.address import account_of
from amqprouter.amqp.connection import Connection
from amqprouter.amqp.link import BrokerLink
from amqprouter.amqp.publisher import Publisher
from amqprouter.broker.event_publisher import EventPublisher
from amqprouter.broker.outgoing import Outgoing
from amqprouter.broker.topology import Names, Topology
from amqprouter.daemon.runtime import Runtime
from amqprouter.layouts.command_keys import CommandKeys
from amqprouter.layouts.layout_set import LayoutSet, layouts_of
from amqprouter.settings import Settings

Attach = Callable[[Connection], Awaitable[None]]
"""Prepares a new connection: declares, consumes, or publishes over it from now on."""


@dataclass(frozen=True)
class WiredBroker:
    """What others publish by. Nothing is connected yet."""

    topology: Topology
    layouts: LayoutSet
    """How routing keys are read."""
    command_keys: CommandKeys
    """Those of commands, and what was heard of devices for them."""
    account: str
    """The user that we are at the broker."""
    outgoing: Outgoing
    publisher: Publisher
    event_publisher: EventPublisher
    """Publishes events of our own, and never waits."""

    @property
    def names(self) -> Names:
        """Of exchanges and queues."""
        return self.topology.names


def wire_broker(runtime: Runtime) -> WiredBroker:
    """All but the connections."""
    settings, counters = runtime.settings, runtime.counters
    layouts, usual = layouts_of(settings), settings.ingress.bind
    topology = Topology(
        settings.topology,
        settings.ingress,
        settings.events,
        lambda exchange: layouts.bindings(exchange, usual),
        lambda exchange: layouts.replaced(exchange, usual),
    )
    account = account_of(settings.broker)
    publisher = Publisher(
        runtime.clock, counters, max_attempts=settings.limits.max_attempts, random=runtime.randomness.random
    )
    return WiredBroker(
        topology,
        layouts,
        CommandKeys(layouts, settings.commands.unheard_layout),
        account,
        Outgoing(*proof_headers(settings), account=account),
        publisher,
        EventPublisher(publisher, topology.names.events, counters, runtime.wall_clock),
    )


def proof_headers(settings: Settings) -> list[str]:
    """The headers with which devices and publishers prove who they are: they are nobody else's business."""
    auth = settings.auth
    return [auth.secret_header, auth.signature_header, *([auth.publisher_header] if settings.acl.publishers else [])]


def make_link(runtime: Runtime, purpose: str, *steps: Attach) -> BrokerLink:
    """A connection to the broker, which is prepared by these steps, in order."""

    async def prepare(connection: Connection) -> None:
        for step in steps:
            await step(connection)

    return BrokerLink(
        runtime.reactor,
        runtime.settings.broker,
        purpose,
        prepare,
        clock=runtime.clock,
        counters=runtime.counters,
        random=runtime.randomness.random,
    )
