"""Commands to devices, wired: a part of the composition root."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from amqprouter.amqp.connection import Connection
from amqprouter.amqp.optional_step import OptionalStep
from amqprouter.amqp.publisher import Publisher
from amqprouter.auth.acl_file import command_acl
from amqprouter.broker.topology import Names
from amqprouter.broker.work_queues import DeclaredQueues
from amqprouter.commands.outbox import CommandOutbox
from amqprouter.commands.queues import CommandQueues
from amqprouter.commands.reply_target import CommandReplies
from amqprouter.commands.service import CommandDesk
from amqprouter.counters import Counters
from amqprouter.interfaces import IReadiness, IReloadable, ITarget
from amqprouter.patterns import TopicPattern
from amqprouter.pipeline.ports import Quarantine
from amqprouter.scheduling.limit import DeviceRates, Limit
from amqprouter.settings import Settings, WorkQueueSettings
from amqprouter.web.command_leaf import CommandLeaf
from amqprouter.web.login import Authenticate, TokenLogin

Attach = Callable[[Connection], Awaitable[None]]


@dataclass
class WiredCommands:
    """The parts that others need; all empty where commands are not enabled."""

    consuming: list[Attach] = field(default_factory=list)
    """To be attached to the consuming connection."""
    publishing: list[Attach] = field(default_factory=list)
    """To be attached to the publishing connection."""
    reloadable: list[IReloadable] = field(default_factory=list)
    replies: Callable[[str], ITarget] | None = None
    """Makes the target for answers that go to devices under this topic."""
    leaf: Callable[[Authenticate], CommandLeaf] | None = None
    """Makes the way in over HTTP. There is no sending without a login, whatever ``[http] anonymous`` says."""
    readiness: list[IReadiness] = field(default_factory=list)
    """What ``/readyz`` is to ask."""


def wire_commands(
    settings: Settings,
    clock: Any,
    wall_clock: Callable[[], float],
    names: Names,
    publisher: Publisher,
    quarantine: Quarantine,
    counters: Counters,
    randomness: random.Random,
) -> WiredCommands:
    """All of it.

    :raises ConfigError: the ACL cannot be used.
    """
    ours, prefix = settings.commands, settings.topology.prefix
    if not ours.enabled:
        return WiredCommands()
    exchange = ours.exchange or f"{prefix}.to-devices"
    # The ttl is each command's own, so that another one does not clash with the queues that are there.
    queue = WorkQueueSettings(
        "commands",
        queue=ours.queue,
        exchange=exchange,
        exchange_type="topic",
        max_length=ours.max_length,
        max_queues=ours.max_queues,
        idle=ours.idle,
    )
    per_device = DeclaredQueues(
        clock,
        queue,
        settings.topology.queue_type,
        f"{prefix}.commands-expired",
        name="commands",
        most_of_one=ours.max_queues_per_sender,
    )
    outbox = CommandOutbox(
        clock,
        wall_clock,
        exchange=exchange,
        own_exchange=not ours.exchange,
        queue=ours.queue,
        queues=per_device,
        publisher=Publisher(clock, counters, max_attempts=1, random=randomness.random, patient=False),
        events=publisher,
        stream=names.events,
        ttl=ours.ttl,
    )
    acl = command_acl(settings.acl.commands)
    desk = CommandDesk(
        clock,
        topics=TopicPattern(ours.topics),
        may_command=acl.allows_identity,
        rates=DeviceRates(Limit.parse(ours.limits)),
        max_bytes=ours.max_bytes,
        outbox=outbox,
        counters=counters,
    )

    def random_id() -> UUID:
        return UUID(int=randomness.getrandbits(128), version=4)

    queues = CommandQueues(
        clock,
        wall_clock,
        f"{prefix}.commands",
        settings.topology.queue_type,
        names.dead_letter,
        submit=desk.submit,
        outbox=outbox,
        quarantine=quarantine,
        random_id=random_id,
    )

    def leaf(authenticate: Authenticate) -> CommandLeaf:
        login = TokenLogin(authenticate, anonymous=False)
        return CommandLeaf(login, desk.submit, ours.max_bytes, settings.http.allowed_origins, wall_clock, random_id)

    def replies(topic: str) -> CommandReplies:
        return CommandReplies(clock, topic, desk.submit, ours.ttl)

    async def sending(connection: Connection) -> None:
        await queues.declare(connection)  # which devices' queues dead-letter to
        await outbox.attach(connection)

    steps = [
        OptionalStep(clock, "commands-in", "no commands are taken from the broker", queues.attach),
        OptionalStep(clock, "commands-out", "no commands go to devices, whose senders are told", sending),
    ]
    return WiredCommands([steps[0].attach], [steps[1].attach], [acl], replies, leaf, [*steps, per_device])
