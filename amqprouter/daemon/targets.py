"""Every target that the configuration names, made and wired: a part of the composition root.

A route names the targets of messages; a section of work names those of the answers to it. A target that both name is
the same one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from amqprouter.amqp.connection import Connection
from amqprouter.broker.targets import EventsTarget, ExchangeTarget
from amqprouter.broker.work_queues import DeclaredQueues
from amqprouter.broker.work_target import Encoder, WorkTarget, calling, passing_on
from amqprouter.config.work import work_sections
from amqprouter.daemon.broker import WiredBroker, proof_headers
from amqprouter.daemon.runtime import Runtime
from amqprouter.errors import AmqprouterError
from amqprouter.pipeline.ports import IGatedTarget
from amqprouter.pipeline.routes import Target
from amqprouter.settings import CeleryTaskSettings, WorkQueueSettings
from amqprouter.storage.mongo import MongoStore
from amqprouter.storage.target import StoreTarget

log = Logger()


@dataclass(frozen=True)
class WiredTargets:
    """The targets, and what goes along with them."""

    targets: Mapping[Target, IGatedTarget]
    store: MongoStore | None
    """The document store, where something needs it."""
    queues: Sequence[DeclaredQueues]
    """To be attached to the publishing connection."""
    answers: Mapping[str, Sequence[Target]]
    """By section of work (``queue images``): the targets of its answers."""

    async def attach(self, connection: Connection) -> None:
        """Have the queues of work declared over the publishing connection."""
        for queues in self.queues:
            await queues.attach(connection)

    def connect_store(self) -> None:
        """Begin to connect to the store, if there is one. That it is down now is not the end: writes are retried, and
        ``/readyz`` says so."""
        if self.store is not None:
            Deferred.fromCoroutine(_connect(self.store))


def wire_targets(
    runtime: Runtime, broker: WiredBroker, targets: Iterable[Target], *, needs_store: bool
) -> WiredTargets:
    """Make these targets, and those of the answers that they lead to; with `needs_store` the store in any case."""
    settings, clock, wall_clock = runtime.settings, runtime.clock, runtime.wall_clock
    sections = dict(work_sections(settings))
    max_values, bodies = settings.limits.max_body_values, runtime.bodies
    wanted = list(targets)
    answers: dict[str, list[Target]] = {}
    for target in tuple(wanted):
        section = sections.get(f"{target.kind} {target.name}")
        if section is not None and section.reply:
            replies = [Target.parse(text) for text in section.reply]
            answers[f"{target.kind} {target.name}"] = replies
            wanted += [target for target in replies if target.kind != "command"]
    collections = list(dict.fromkeys(target.name for target in wanted if target.kind == "store"))
    store = MongoStore(settings.store, collections, runtime.reactor) if collections or needs_store else None
    declared: list[DeclaredQueues] = []
    hidden_headers = proof_headers(settings)

    def make(target: Target) -> IGatedTarget:
        if target.kind == "exchange":
            return ExchangeTarget(broker.publisher, target.name, target.routing_key, broker.outgoing)
        if target.kind == "events":
            stream = broker.names.events
            return EventsTarget(broker.publisher, stream, runtime.counters, bodies.of, wall_clock=wall_clock)
        if target.kind == "store" and store is not None:
            counters, randomness = runtime.counters, runtime.randomness
            return StoreTarget(
                store, target.name, settings.store, clock, counters, randomness, hidden_headers, max_values, bodies
            )
        section = sections[f"{target.kind} {target.name}"]
        queues = _queues(runtime, broker, target, section)
        if section.declare:
            declared.append(queues)
        return _work(runtime, broker, target, section, queues)

    return WiredTargets({target: make(target) for target in dict.fromkeys(wanted)}, store, declared, answers)


def _queues(runtime: Runtime, broker: WiredBroker, target: Target, section: WorkQueueSettings) -> DeclaredQueues:
    return DeclaredQueues(
        runtime.clock,
        section,
        runtime.settings.topology.queue_type,
        broker.names.dead_letter,
        unlimited=target.kind == "queue",
        name=f"{target.kind} {target.name}",
        most_of_one=section.max_queues_per_device,
    )


def _work(
    runtime: Runtime, broker: WiredBroker, target: Target, section: WorkQueueSettings, queues: DeclaredQueues
) -> WorkTarget:
    body_of = runtime.bodies.of
    encode: Encoder = passing_on(broker.outgoing)
    if isinstance(section, CeleryTaskSettings):
        encode = calling(section, runtime.wall_clock, runtime.random_id, body_of)
    return WorkTarget(
        target.kind,
        section,
        broker.publisher,
        queues,
        encode,
        own_prefix=f"{runtime.settings.topology.prefix}.",
        replies=broker.names.replies,
        random_id=runtime.random_id,
        body_of=body_of,
    )


async def _connect(store: MongoStore) -> None:
    try:
        await store.connect()
    except AmqprouterError as error:
        log.error("The document store is not usable: {error}; messages wait until it is", error=str(error))
