"""Every target that the configuration names, made and wired: a part of the composition root.

A route names the targets of messages; a section of work names those of the answers to it. A target that both name is
the same one.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from amqprouter.amqp.connection import Connection
from amqprouter.amqp.publisher import Publisher
from amqprouter.broker.outgoing import Outgoing
from amqprouter.broker.targets import EventsTarget, ExchangeTarget
from amqprouter.broker.topology import Names
from amqprouter.broker.work_queues import DeclaredQueues
from amqprouter.broker.work_target import Encoder, WorkTarget, calling, passing_on
from amqprouter.config.work import work_sections
from amqprouter.counters import Counters
from amqprouter.pipeline.ports import IGatedTarget
from amqprouter.pipeline.routes import Target
from amqprouter.settings import CeleryTaskSettings, Settings, WorkQueueSettings
from amqprouter.storage.mongo import MongoStore
from amqprouter.storage.target import StoreTarget


@dataclass
class WiredTargets:
    """The targets, and what goes along with them."""

    targets: dict[Target, IGatedTarget] = field(default_factory=dict)
    store: MongoStore | None = None
    """The document store, where something needs it."""
    queues: list[DeclaredQueues] = field(default_factory=list)
    """To be attached to the publishing connection."""
    answers: dict[str, list[Target]] = field(default_factory=dict)
    """By section of work (``queue images``): the targets of its answers."""

    async def attach(self, connection: Connection) -> None:
        """Have the queues of work declared over the publishing connection."""
        for queues in self.queues:
            await queues.attach(connection)


def wire_targets(
    settings: Settings,
    reactor: Any,
    clock: Any,
    *,
    targets: Iterable[Target],
    needs_store: bool,
    names: Names,
    publisher: Publisher,
    outgoing: Outgoing,
    counters: Counters,
    randomness: random.Random,
    wall_clock: Callable[[], float],
) -> WiredTargets:
    """Make these targets, and those of the answers that they lead to; with `needs_store` the store in any case."""
    wired = WiredTargets()
    sections = dict(work_sections(settings))
    max_values = settings.limits.max_body_values
    wanted = list(targets)
    for target in tuple(wanted):
        section = sections.get(f"{target.kind} {target.name}")
        if section is not None and section.reply:
            replies = [Target.parse(text) for text in section.reply]
            wired.answers[f"{target.kind} {target.name}"] = replies
            wanted += [target for target in replies if target.kind != "command"]
    collections = list(dict.fromkeys(target.name for target in wanted if target.kind == "store"))
    if collections or needs_store:
        wired.store = MongoStore(settings.store, collections, reactor)

    def random_id() -> UUID:
        return UUID(int=randomness.getrandbits(128), version=4)

    def work(target: Target, section: WorkQueueSettings) -> WorkTarget:
        queues = DeclaredQueues(
            clock,
            section,
            settings.topology.queue_type,
            names.dead_letter,
            unlimited=target.kind == "queue",
            name=f"{target.kind} {target.name}",
            most_of_one=section.max_queues_per_device,
        )
        if section.declare:
            wired.queues.append(queues)
        encode: Encoder = passing_on(outgoing)
        if isinstance(section, CeleryTaskSettings):
            encode = calling(section, wall_clock, random_id, max_values)
        return WorkTarget(
            target.kind,
            section,
            publisher,
            queues,
            encode,
            own_prefix=f"{settings.topology.prefix}.",
            replies=names.replies,
            random_id=random_id,
            max_values=max_values,
        )

    proof_headers = [settings.auth.secret_header, settings.auth.signature_header]
    for target in dict.fromkeys(wanted):
        if target.kind == "exchange":
            wired.targets[target] = ExchangeTarget(publisher, target.name, target.routing_key, outgoing)
        elif target.kind == "events":
            wired.targets[target] = EventsTarget(publisher, names.events, counters, max_values, wall_clock=wall_clock)
        elif target.kind == "store" and wired.store is not None:
            wired.targets[target] = StoreTarget(
                wired.store, target.name, settings.store, clock, counters, randomness, proof_headers, max_values
            )
        else:
            wired.targets[target] = work(target, sections[f"{target.kind} {target.name}"])
    return wired
