"""Nothing of ours vanishes at a quorum queue's delivery limit, on any version, and having one breaks no upgrade."""

from __future__ import annotations

import re
import shlex
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs

from amqprouter.amqp.declare import DELIVERY_LIMIT, queue_state
from amqprouter.amqp.link import connect_once
from amqprouter.amqp.properties import encode_properties
from amqprouter.amqp.publisher import Publisher
from amqprouter.amqp.wire import Delivery
from amqprouter.counters import Counters
from amqprouter.settings import BrokerSettings
from amqprouter.worker.queues import WorkQueues
from tests.support.gateway import Fleet, Gateway
from tests.support.gateway_case import GatewayTestCase
from tests.support.mongo import TestDatabase
from tests.support.process import reactor, until
from tests.support.rabbitmq import VERSION, missing
from tests.support.servers import Vhost

QUORUM = {"x-queue-type": "quorum"}
RETURNS = DELIVERY_LIMIT + 5
DEAD = "amqprouter.dead-letters"
HAS_LIMIT = VERSION >= (4,)
"""Whether a quorum queue has one without being told so."""
OURS = ("amqprouter.commands", "amqprouter.commands-expired", "amqprouter.replies")
OLDER: dict[str, dict[str, Any]] = {
    **dict.fromkeys(OURS, QUORUM),
    "jobs": QUORUM
    | {
        "x-dead-letter-exchange": "amqprouter.dead-letter",
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    },
    "bare": QUORUM,
    "work": QUORUM,
    "work.failed": QUORUM,
}
"""Queues as they were declared before there were limits."""
OPTIONS: dict[str, Any] = {
    "topology": {"queue_type": "quorum"},
    "commands": {"enabled": "yes"},
    "acl": {"commands": "commands.acl"},
    "route_jobs": {"topic": "up.jobs", "targets": "queue:jobs, queue:bare"},
    "queue_jobs": {"reply": "events:"},
    "queue_bare": {"dead_letter": "no"},
    "ingress": {"shards": 1},
}


@asynccontextmanager
async def publisher_at(uri: str) -> AsyncIterator[Publisher]:
    connection = await connect_once(reactor, BrokerSettings(uri=uri), "test publisher")
    publisher = Publisher(reactor, Counters(), max_attempts=2, random=lambda: 0.0)
    await publisher.attach(connection)
    try:
        yield publisher
    finally:
        publisher.stop()
        await connection.shut()


async def put_one_into_each(uri: str, queues: list[str]) -> None:
    async with publisher_at(uri) as publisher:
        for queue in queues:
            await publisher.send("", queue, encode_properties(message_id=queue), b"{}")


async def die_with_all(uri: str, queues: list[str]) -> None:
    """Take the first message of each queue, and end without having settled any."""
    connection = await connect_once(reactor, BrokerSettings(uri=uri), "test")
    channel = await connection.open_channel()
    taken: set[bytes] = set()

    def received(deliveries: list[Delivery]) -> None:
        taken.update(delivery.consumer_tag for delivery in deliveries)

    channel.on_deliveries = received
    await channel.basic_qos(prefetch_count=1)
    for queue in queues:
        await channel.basic_consume(queue=queue, consumer_tag=queue)

    async def all_taken() -> bool:
        return len(taken) == len(queues)

    await until(all_taken, what=f"a message out of each of {queues}", timeout=15)
    connection.transport.abortConnection()
    await connection.disconnected.wait()


async def waiting(uri: str, queues: list[str]) -> dict[str, int]:
    """The messages in these queues."""
    connection = await connect_once(reactor, BrokerSettings(uri=uri), "test")
    found = {queue: await queue_state(connection, queue) for queue in queues}
    await connection.shut()
    return {queue: 0 if one is None else one.messages for queue, one in found.items()}


class DeliveryLimitTests(GatewayTestCase):
    skip = missing or None
    timeout = 120

    async def returned(self, uri: str, limited: list[str], unlimited: list[str]) -> dict[str, int]:
        """What is where after a message in each queue came back more often than the limit."""
        await put_one_into_each(uri, [*limited, *unlimited])
        for number in range(RETURNS):
            await die_with_all(uri, [*unlimited, *(limited if number <= DELIVERY_LIMIT else [])])
        expected = len(limited) + len(unlimited)

        async def settled() -> bool:
            return sum((await waiting(uri, await_in)).values()) >= expected

        await_in = [*limited, *unlimited, *({DEAD, "work.failed"} - set(unlimited))]
        await until(settled, what="every message is in a queue again", timeout=20)
        return await waiting(uri, await_in)

    def test_new_queues(self) -> Deferred[None]:
        """All that the daemon and a worker declare on a broker that is new."""

        async def test(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            gateway.file("commands.acl", "ann -> #\n")
            await gateway.start()
            connection = await connect_once(reactor, BrokerSettings(uri=vhost.uri), "test")
            await WorkQueues("work", delays=(600,)).declare(connection)
            await connection.shut()
            await gateway.stop()
            self.assertNotIn("No delivery limit", (gateway.folder / "daemon.log").read_text())
            limited = ["amqprouter.ingress", "amqprouter.shard.0", "amqprouter.replay", *OURS, "work"]
            unlimited = ["amqprouter.unrouted", "amqprouter.rejected", DEAD, "jobs", "bare", "work.failed"]
            quorum = await vhost.broker.quorum_queues(vhost.name)
            self.assertEqual(sorted(quorum), sorted([*limited, *unlimited, "work.retry.600s"]))
            found = await self.returned(vhost.uri, limited, unlimited)
            self.assertEqual(found.pop(DEAD), len(limited))  # its own, and all but that of "work"
            self.assertEqual(found.pop("work.failed"), 2)
            self.assertEqual({queue for queue, count in found.items() if count}, set(unlimited) - {DEAD, "work.failed"})

        return self.run_with(test, start=False, **OPTIONS)

    def test_queues_of_an_earlier_release(self) -> Deferred[None]:
        """They are used as they are; where they would lose messages, it is said what to run, and that helps."""

        async def test(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            connection = await connect_once(reactor, BrokerSettings(uri=vhost.uri), "test")
            channel = await connection.open_channel()
            for queue, arguments in OLDER.items():
                await channel.queue_declare(queue=queue, durable=True, arguments=arguments)
            gateway.file("commands.acl", "ann -> #\n")
            await gateway.start()
            with capturedLogs() as logs:
                await WorkQueues("work", delays=(600,)).declare(connection)
            await connection.shut()
            await gateway.stop()
            log = (gateway.folder / "daemon.log").read_text()
            told = [event["command"] for event in logs if "command" in event]
            commands = re.findall("run: (rabbitmqctl .*)", log) + told
            if not HAS_LIMIT:
                self.assertEqual(commands, [])
                found = await self.returned(vhost.uri, [], list(OLDER))
                self.assertEqual({queue for queue, count in found.items() if not count}, {DEAD})
                return
            self.assertEqual(len(commands), 6)
            for command in commands:
                await vhost.broker.ctl(*shlex.split(command)[1:])
            limited, unlimited = [*OURS, "work"], ["jobs", "bare", "work.failed"]
            found = await self.returned(vhost.uri, limited, unlimited)
            self.assertEqual((found.pop(DEAD), found.pop("work.failed")), (len(OURS), 2))
            self.assertEqual({queue for queue, count in found.items() if count}, {"jobs", "bare"})

        return self.run_with(test, start=False, **OPTIONS)
