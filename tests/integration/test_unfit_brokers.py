"""Brokers that lack what the daemon needs: it says in words what is wrong and what to do, and tries again."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path

from twisted.trial.unittest import SkipTest, TestCase

from amqprouter.amqp.connection import Connection
from amqprouter.amqp.link import BrokerLink, Prepare
from amqprouter.broker.topology import Topology
from amqprouter.counters import Counters
from amqprouter.settings import BrokerSettings, EventsSettings, IngressSettings, TopologySettings
from tests.support.gateway import Fleet, Gateway
from tests.support.mongo import mongo_for_tests
from tests.support.process import reactor, until
from tests.support.rabbitmq import CONSISTENT_HASH, VERSION, PrivateRabbitMQ, missing
from tests.support.servers import with_vhost

DENIED = ("transient_nonexcl_queues", "queue_master_locator", "global_qos", "classic_queue_mirroring", "ram_node_type")
"""Features that RabbitMQ 4 deprecates, as far as its configuration knows them."""


def topology() -> Topology:
    return Topology(TopologySettings(), IngressSettings(shards=1), EventsSettings())


class UnfitBrokerTests(TestCase):
    skip = missing or None
    timeout = 120

    def node(self, config: Mapping[str, str], plugins: tuple[str, ...] = (CONSISTENT_HASH,)) -> PrivateRabbitMQ:
        return PrivateRabbitMQ(Path(self.mktemp()), plugins=plugins, config=config)

    async def problem(self, uri: str, prepare: Prepare) -> str:
        """What a link with this preparation says once it has tried; empty when it is up."""
        settings = BrokerSettings(uri=uri, connect_timeout=10)
        link = BrokerLink(reactor, settings, "test", prepare, clock=reactor, counters=Counters(), random=random.random)

        async def has_tried() -> bool:
            return link.problem() != "not connected yet"

        link.startService()
        try:
            await until(has_tried, what="an attempt", timeout=30)
            return link.problem()
        finally:
            await link.close()

    async def test_no_plugin(self) -> None:
        async with self.node({}, plugins=()) as broker:
            problem = await self.problem(broker.uri, topology().declare)
        self.assertIn("unknown exchange type", problem)
        self.assertIn("run: rabbitmq-plugins enable rabbitmq_consistent_hash_exchange", problem)
        self.assertNotIn("other properties", problem)

    async def test_a_full_virtual_host(self) -> None:
        async with with_vhost() as vhost:
            await vhost.broker.ctl("set_vhost_limits", "-p", vhost.name, '{"max-queues": 2}')
            problem = await self.problem(vhost.uri, topology().declare)
        self.assertIn(f"queue limit in vhost '{vhost.name}' (2) is reached", problem)
        self.assertIn("set_vhost_limits", problem)
        self.assertNotIn("other properties", problem)

    async def test_small_frames(self) -> None:
        async def nothing(connection: Connection) -> None:
            self.assertEqual(connection.frame_max, 4096)

        async with self.node({"frame_max": "4096"}) as broker:
            problem = await self.problem(broker.uri, nothing)
        if VERSION < (4, 1):
            self.assertEqual(problem, "")
        else:
            self.assertIn("frame_max of 4096 is too small", problem)
            self.assertIn("set frame_max in rabbitmq.conf to 8192 or more", problem)

    async def test_denied_features(self) -> None:
        """None of them is needed; one that were would be told of on one line."""
        if VERSION < (4,):
            raise SkipTest("this RabbitMQ cannot deny features")

        async def transient_queue(connection: Connection) -> None:
            channel = await connection.open_channel()
            await channel.queue_declare(queue="transient", durable=False)

        config = {f"deprecated_features.permit.{feature}": "false" for feature in DENIED}
        async with self.node(config) as broker:
            problem = await self.problem(broker.uri, transient_queue)
            self.assertRegex(problem, "^541 Feature `transient_nonexcl_queues` is deprecated; .*$")
            self.assertIn("deprecated_features.permit.transient_nonexcl_queues = true", problem)
            with mongo_for_tests(Path(self.mktemp())) as database:
                gateway = Gateway(
                    Path(self.mktemp()),
                    broker.uri,
                    database.uri,
                    database.name,
                    topology={"queue_type": "quorum"},
                    commands={"enabled": "yes"},
                    acl={"commands": "commands.acl"},
                )
                gateway.devices("dev1")
                gateway.file("commands.acl", "ann -> #\n")
                fleet = Fleet(broker.uri)
                try:
                    await gateway.start()
                    await fleet.connect()
                    fleet.reading("dev1", 1)
                    await fleet.all_confirmed()
                    await gateway.metric_reaches("stored_total", 1)
                finally:
                    await fleet.close()
                    await gateway.stop()
