"""A RabbitMQ cluster of three nodes: one is killed under load, and comes back."""

from __future__ import annotations

import random
from pathlib import Path

from twisted.trial.unittest import TestCase

from tests.support.fault_bed import DEVICES, NAMES, ROUTE, Bed, declare_copies
from tests.support.gateway import Fleet, Gateway
from tests.support.mongo import mongo_for_tests
from tests.support.process import until
from tests.support.rabbitmq import missing
from tests.support.rabbitmq_cluster import RabbitMQCluster

CONSUMES = "amqprouter consume"
"""How the connection is named that the ingress uses."""
BACK = 60.0
"""Seconds for the gateway to be at another node: it notices at once, but the queues' new leaders take a busy machine
their time."""


class ClusterTests(TestCase):
    skip = missing or None
    timeout = 360

    async def test_the_node_that_a_gateway_consumes_from_is_killed(self) -> None:
        folder = Path(self.mktemp())
        folder.mkdir()
        with mongo_for_tests(folder / "mongo") as database:
            async with RabbitMQCluster(folder / "cluster") as cluster:
                gateway = Gateway(
                    folder / "gateway",
                    cluster.nodes[0].uri,
                    database.uri,
                    database.name,
                    broker={"hosts": cluster.hosts},
                    topology={"queue_type": "quorum"},
                    route_all=ROUTE,
                )
                gateway.devices(*DEVICES)
                try:
                    await gateway.start()
                    struck = await cluster.of_connection(CONSUMES)
                    other = next(node for node in cluster.nodes if node is not struck)
                    bed = Bed(gateway, Fleet(other.uri), other, "/", other.uri, database, random.Random(1))
                    async with bed.operator() as channel:
                        await declare_copies(channel, {"x-queue-type": "quorum"})
                    try:
                        await bed.fleet.connect()
                        async with bed.load():
                            for node in cluster.nodes:
                                await node.remember()
                            await struck.kill()

                            async def elsewhere() -> bool:
                                # Ready it may still call itself in the moment before it notices.
                                return await gateway.metric("reconnects_total") > 0 and await gateway.is_ready()

                            await until(elsewhere, what="the gateway is back", timeout=BACK, child=gateway.running)
                            self.assertIsNot(await cluster.of_connection(CONSUMES), struck)
                            await bed.stored_reaches(database.count("readings") + 200)
                            await struck.start()
                            await bed.stored_reaches(database.count("readings") + 200)
                        await bed.check(self)
                    finally:
                        await bed.fleet.close()

                    async def one_each() -> bool:
                        consumers = await other.list_queues(column="consumers")
                        return [consumers[name] for name in (NAMES.ingress, *NAMES.shards)] == [1] * 5

                    await until(one_each, what="the queues tell of one consumer each", timeout=15)
                finally:
                    await gateway.stop()
