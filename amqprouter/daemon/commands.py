"""Commands to devices, wired: a part of the composition root."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from amqprouter.amqp.connection import Connection
from amqprouter.amqp.optional_step import OptionalStep
from amqprouter.amqp.publisher import Publisher
from amqprouter.auth.acl_file import command_acl
from amqprouter.broker.replies import Replies
from amqprouter.broker.work_queues import DeclaredQueues
from amqprouter.commands.outbox import CommandOutbox
from amqprouter.commands.queues import CommandQueues
from amqprouter.commands.reply_target import CommandReplies
from amqprouter.commands.service import CommandService
from amqprouter.daemon.broker import Attach, WiredBroker
from amqprouter.daemon.runtime import Runtime
from amqprouter.daemon.targets import WiredTargets
from amqprouter.interfaces import IReadiness, IReloadable, ITarget
from amqprouter.patterns import TopicPattern
from amqprouter.pipeline.ports import Quarantine
from amqprouter.pipeline.routes import Target
from amqprouter.scheduling.limit import DeviceRates, Limit
from amqprouter.settings import WorkQueueSettings
from amqprouter.web.command_leaf import CommandLeaf
from amqprouter.web.login import Authenticate, TokenLogin


@dataclass(frozen=True)
class WiredCommands:
    """The parts that others need; all empty where commands are not enabled."""

    consuming: Sequence[Attach] = ()
    """To be attached to the consuming connection."""
    publishing: Sequence[Attach] = ()
    """To be attached to the publishing connection."""
    reloadable: Sequence[IReloadable] = ()
    replies: Callable[[str], ITarget] | None = None
    """Makes the target for answers that go to devices under this topic."""
    leaf: Callable[[Authenticate], CommandLeaf] | None = None
    """Makes the way in over HTTP. There is no sending without a login, whatever ``[http] anonymous`` says."""
    readiness: Sequence[IReadiness] = ()
    """What ``/readyz`` is to ask."""


def wire_commands(runtime: Runtime, broker: WiredBroker, quarantine: Quarantine) -> WiredCommands:
    """All of it.

    :raises ConfigError: the ACL cannot be used.
    """
    settings, clock, wall_clock = runtime.settings, runtime.clock, runtime.wall_clock
    ours = settings.commands
    if not ours.enabled:
        return WiredCommands()
    per_device, outbox = _way_out(runtime, broker)
    acl = command_acl(settings.acl.commands)
    service = CommandService(
        clock,
        topics=TopicPattern(ours.topics),
        may_command=acl.allows_identity,
        rates=DeviceRates(Limit.parse(ours.limits)),
        max_bytes=ours.max_bytes,
        outbox=outbox,
        counters=runtime.counters,
    )
    queues = CommandQueues(
        clock,
        wall_clock,
        f"{settings.topology.prefix}.commands",
        settings.topology.queue_type,
        broker.names.dead_letter,
        submit=service.submit,
        outbox=outbox,
        quarantine=quarantine,
        random_id=runtime.random_id,
    )

    def leaf(authenticate: Authenticate) -> CommandLeaf:
        login, origins = TokenLogin(authenticate, anonymous=False), settings.http.allowed_origins
        return CommandLeaf(login, service.submit, ours.max_bytes, origins, wall_clock, runtime.random_id)

    def replies(topic: str) -> CommandReplies:
        return CommandReplies(clock, topic, service.submit, ours.ttl)

    async def sending(connection: Connection) -> None:
        await queues.declare(connection)  # which devices' queues dead-letter to
        await outbox.attach(connection)

    steps = [
        OptionalStep(clock, "commands-in", "no commands are taken from the broker", queues.attach),
        OptionalStep(clock, "commands-out", "no commands go to devices, whose senders are told", sending),
    ]
    return WiredCommands([steps[0].attach], [steps[1].attach], [acl], replies, leaf, [*steps, per_device])


def _way_out(runtime: Runtime, broker: WiredBroker) -> tuple[DeclaredQueues, CommandOutbox]:
    """The devices' own queues, and what publishes to them."""
    clock, ours, prefix = runtime.clock, runtime.settings.commands, runtime.settings.topology.prefix
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
        runtime.settings.topology.queue_type,
        f"{prefix}.commands-expired",
        name="commands",
        most_of_one=ours.max_queues_per_sender,
    )
    random = runtime.randomness.random
    outbox = CommandOutbox(
        clock,
        runtime.wall_clock,
        exchange=exchange,
        own_exchange=not ours.exchange,
        queue=ours.queue,
        queues=per_device,
        publisher=Publisher(clock, runtime.counters, max_attempts=1, random=random, patient=False),
        events=broker.publisher,
        stream=broker.names.events,
        ttl=ours.ttl,
        keys=broker.command_keys,
    )
    return per_device, outbox


def wire_replies(
    runtime: Runtime,
    broker: WiredBroker,
    wired: WiredTargets,
    gates: Mapping[Target, ITarget],
    quarantine: Quarantine,
    commands: WiredCommands,
) -> list[OptionalStep]:
    """What takes workers' answers to their targets over the consuming connection; empty where none are expected."""
    if not wired.answers:
        return []

    def target_of(answer: Target) -> ITarget:
        if answer.kind == "command":
            assert commands.replies is not None  # the configuration's checks see to that
            return commands.replies(answer.name)
        return gates[answer]

    replies = Replies(
        broker.names.replies,
        runtime.settings.topology.queue_type,
        broker.names.dead_letter,
        {section: [target_of(answer) for answer in answers] for section, answers in wired.answers.items()},
        quarantine,
        runtime.wall_clock,
    )
    cost = "no answers of workers are taken from the broker"
    return [OptionalStep(runtime.clock, "replies", cost, replies.attach)]
