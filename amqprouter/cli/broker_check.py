"""What ``amqprouter check --connect`` asks the broker: whether it lets us in, and whether what others declare is there.

Everything is asked by passive declarations, which make nothing. Each has a channel of its own, for the broker ends the
channel at a name that it does not know.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from amqprouter.amqp.declare import exchange_exists, queue_state
from amqprouter.amqp.uri import masked
from amqprouter.broker.topology import Names
from amqprouter.cli.broker import connect
from amqprouter.config.work import work_sections
from amqprouter.pipeline.placeholders import Template
from amqprouter.pipeline.routes import RuleSet, Target

if TYPE_CHECKING:
    from amqprouter.settings import Settings

Say = Callable[[str], None]


async def check_broker(reactor: Any, settings: Settings, say: Say) -> bool:
    """Log in and look; whether nothing is missing that the daemon does not declare itself.

    :raises BrokerUnavailable: there is no connection. :raises BrokerRefused: the broker does not let us in, or look.
    """
    broker = settings.broker
    where = broker.endpoint or ", ".join(broker.hosts) or masked(broker.uri)
    connection = await connect(reactor, broker, "check")
    say(f"{where} answers, and lets {connection.handshake.username!r} into {connection.handshake.vhost!r}")
    vhost = connection.handshake.vhost
    try:
        channel = await connection.open_channel()
        await channel.confirm_select()
        say(f"a channel with publisher confirms opens; heartbeat {connection.heartbeat} s")
        await channel.shut()
        names = Names.of(settings.topology, settings.ingress)
        queues = (names.ingress, *names.shards, names.rejected, names.dead_letters, names.unrouted)
        queues += (names.replay, names.events)
        there = [queue for queue in queues if await queue_state(connection, queue) is not None]
        say(f"{len(there)} of the daemon's {len(queues)} queues are there; it declares what is missing when it starts")
        missing = [
            *[
                words
                for name, words in exchanges_of_others(settings, vhost)
                if not await exchange_exists(connection, name)
            ],
            *[words for name, words in queues_of_others(settings) if await queue_state(connection, name) is None],
        ]
        for words in missing:
            say(f"FAILED: {words}")
        return not missing
    finally:
        await connection.shut()


def exchanges_of_others(settings: Settings, vhost: str) -> Iterator[tuple[str, str]]:
    """The exchanges that must be there before the daemon starts, each with what to say where it is not."""
    for name in settings.ingress.exchanges:
        yield (
            name,
            f"no exchange {name!r}, which [ingress] exchanges names: declare it as a durable topic exchange, as "
            f"{_declare(vhost, name, 'topic')} does, or take it out there; the daemon is not ready before it is there",
        )
    named: dict[str, list[str]] = {}
    for where, target in _targets(settings):
        if target.kind == "exchange":
            named.setdefault(target.name, []).append(where)
    for name, places in named.items():
        yield (
            name,
            f"no exchange {name!r}, to which {' and '.join(dict.fromkeys(places))} {_send(places)}: the daemon does "
            "not declare exchanges of yours, so what goes there waits, or is parked. Declare it, as "
            f"{_declare(vhost, name, 'topic')} does, bind a queue of yours to it, or take the target out",
        )
    for header, section in work_sections(settings):
        if not section.declare and section.exchange:
            yield (
                section.exchange,
                f"no exchange {section.exchange!r}, which [{header}] names: declare it, as "
                f"{_declare(vhost, section.exchange, section.exchange_type)} does, or have the daemon do so with "
                "declare = yes",
            )


def queues_of_others(settings: Settings) -> Iterator[tuple[str, str]]:
    """The queues that must be there, likewise. Those that placeholders name are not known before messages come."""
    for name in settings.ingress.queues:
        yield name, f"no queue {name!r}: declare it, or take it out of [ingress] queues"
    for header, section in work_sections(settings):
        name = section.queue or section.name
        if not section.declare and not section.exchange and Template(name).constant:
            yield (
                Template(name).text.replace("{{", "{").replace("}}", "}"),
                f"no queue {name!r}, which [{header}] sends to with declare = no: declare it, start the worker "
                "that does, or set declare = yes; its messages wait until it is there",
            )


def _targets(settings: Settings) -> Iterator[tuple[str, Target]]:
    """Each target with the section that names it: those of routes, and those of answers to work that routes send."""
    for route in settings.routes:
        for text in route.targets:
            yield f"[route {route.name}]", Target.parse(text)
    used = {f"{target.kind} {target.name}" for target in RuleSet(settings.routes).targets}
    for header, section in work_sections(settings):
        for text in section.reply if header in used else ():
            yield f"[{header}] reply", Target.parse(text)


def _send(places: list[str]) -> str:
    return "send" if len(set(places)) > 1 else "sends"


def _declare(vhost: str, name: str, kind: str) -> str:
    """How to, with what every node has: rabbitmqadmin needs a plugin, and is another program on each version."""
    exchange = {"vhost": vhost, "name": name, "type": kind, "durable": True, "auto_delete": False, "arguments": {}}
    return f"`rabbitmqctl import_definitions FILE` with a file of {json.dumps({'exchanges': [exchange]})}"
