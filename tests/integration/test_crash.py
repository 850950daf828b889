"""Nothing is lost and nothing is stored twice: the daemon is killed, the broker is killed, in mid-flow.

The oracle is the publisher's ledger of confirmed message ids and body digests: after all is quiet each must be in the
store exactly once with an equal body, and at the target exchange's queue at least once.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from amqprouter.amqp.link import connect_once
from amqprouter.amqp.properties import Properties
from amqprouter.settings import BrokerSettings
from tests.support.gateway import Fleet, Gateway, drain_queue
from tests.support.mongo import TestDatabase, mongo_for_tests
from tests.support.process import reactor, until
from tests.support.rabbitmq import PrivateRabbitMQ
from tests.support.thoroughness import times

KILLS = times(3, 50)
PHASE = 3000
"""Messages of which an outage strikes in the midst: two seconds of them."""
DEVICES = [f"dev{number}" for number in range(20)]
STREAMS = ("amqprouter.events", "amqprouter.parked")
"""What is in a stream stays there."""
ROUTE = {"targets": "store:readings, exchange:copies, events:"}


class CrashTests(TestCase):
    timeout = times(240, 1800)

    def run_with(self, test: Any, **options: Any) -> Deferred[None]:
        """Run ``test(gateway, fleet, broker, database)`` with a broker of its own."""

        async def run() -> None:
            folder = Path(self.mktemp())
            folder.mkdir()
            with mongo_for_tests(folder / "mongo") as database:
                async with PrivateRabbitMQ(folder / "rabbitmq") as broker:
                    gateway = Gateway(
                        folder / "gateway", broker.uri, database.uri, database.name, route_all=ROUTE, **options
                    )
                    # One secret for all spares the test the hashing of twenty.
                    gateway.devices(*DEVICES)
                    await self.declare_copies(broker.uri)
                    fleet = Fleet(broker.uri)
                    try:
                        await gateway.start()
                        await fleet.connect()
                        await test(gateway, fleet, broker, database)
                    finally:
                        await fleet.close()
                        await gateway.stop()

        return Deferred.fromCoroutine(run())

    async def declare_copies(self, uri: str) -> None:
        connection = await connect_once(reactor, BrokerSettings(uri=uri), "test")
        channel = await connection.open_channel()
        await channel.exchange_declare(exchange="copies", exchange_type="fanout", durable=True)
        await channel.queue_declare(queue="copies", durable=True)
        await channel.queue_bind(queue="copies", exchange="copies")
        await connection.shut()

    async def phases(
        self, gateway: Gateway, fleet: Fleet, database: TestDatabase, outages: Sequence[Callable[[], Awaitable[None]]]
    ) -> None:
        """Publish as many phases as there are outages; each strikes in the midst of its phase."""
        size = PHASE
        for number, outage in enumerate(outages):
            first = number * size
            publishing = Deferred.fromCoroutine(self.publish_slowly(fleet, first, first + size))

            async def well_begun(count: int = first + size // 4) -> bool:
                return database.count("readings") >= count

            await until(well_begun, what="the phase is well begun", timeout=60, child=gateway.running)
            self.assertLess(database.count("readings"), first + size, "the outage comes too late to mean anything")
            await outage()
            await until(fleet.reconnected, what="the fleet is connected", timeout=30)
            await until(gateway.is_ready, what="the gateway is back", timeout=45, child=gateway.running)
            await publishing
            await fleet.all_confirmed()

    async def publish_slowly(self, fleet: Fleet, first: int, last: int) -> None:
        """At most 1,500 messages a second, so that the outage finds some to come."""
        for start in range(first, last, 30):
            for number in range(start, min(start + 30, last)):
                fleet.reading(DEVICES[number % len(DEVICES)], number)
            fleet.flush()
            await deferLater(reactor, 0.02)

    async def check(self, gateway: Gateway, fleet: Fleet, broker: PrivateRabbitMQ, database: TestDatabase) -> None:
        """Wait until all is quiet, then compare with the ledger."""

        async def quiet() -> bool:
            counts = await broker.list_queues()  # ready and unacknowledged
            waiting = sum(count for name, count in counts.items() if name not in ("copies", *STREAMS))
            return waiting == 0 and database.count("readings") >= fleet.sent

        await until(quiet, what="every queue is empty", timeout=60, child=gateway.running)
        self.assertEqual(len(fleet.ledger.confirmed), fleet.sent)
        documents = database.documents("readings")
        times_stored = Counter(document["message_id"] for document in documents)
        self.assertEqual(set(times_stored), set(fleet.ledger.confirmed), "lost, or never sent")
        self.assertEqual(max(times_stored.values()), 1, "stored twice")
        for document in documents:
            body = json.dumps(document["body"]).encode()
            self.assertEqual(fleet.ledger.digest(body), fleet.ledger.confirmed[document["message_id"]])
        counts = await broker.list_queues()
        copies = await drain_queue(broker.uri, "copies", counts["copies"])
        digests = {Properties(d.properties).message_id: fleet.ledger.digest(d.body) for d in copies}
        self.assertEqual(digests, fleet.ledger.confirmed)
        self.assertEqual(counts["amqprouter.rejected"] + counts["amqprouter.dead-letters"], 0)

    def test_the_daemon_killed_in_mid_flow(self) -> Deferred[None]:
        async def test(gateway: Gateway, fleet: Fleet, broker: PrivateRabbitMQ, database: TestDatabase) -> None:
            async def kill() -> None:
                await gateway.running.kill()
                await gateway.start()

            await self.phases(gateway, fleet, database, [kill] * KILLS)
            await self.check(gateway, fleet, broker, database)

        return self.run_with(test)

    def test_the_broker_restarted_and_then_killed_in_mid_flow(self) -> Deferred[None]:
        async def test(gateway: Gateway, fleet: Fleet, broker: PrivateRabbitMQ, database: TestDatabase) -> None:
            async def kill() -> None:
                await broker.remember()
                await broker.kill()
                await broker.start()

            await self.phases(gateway, fleet, database, [broker.restart, kill])
            await self.check(gateway, fleet, broker, database)
            self.assertGreaterEqual(await gateway.metric("reconnects_total"), 6)

        return self.run_with(test, topology={"queue_type": "quorum"})
