"""What a redelivery adds to a message reaches nobody behind the daemon, whatever the broker's version."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from amqprouter.amqp.link import connect_once
from amqprouter.amqp.properties import Properties
from amqprouter.amqp.wire import Delivery
from amqprouter.settings import BrokerSettings
from tests.support.fault_bed import declare_copies
from tests.support.gateway import Fleet, Gateway, drain_queue
from tests.support.gateway_case import GatewayTestCase
from tests.support.mongo import TestDatabase
from tests.support.process import reactor, until
from tests.support.rabbitmq import VERSION, missing
from tests.support.servers import Vhost

INGRESS = "amqprouter.ingress"
COUNTS = {"x-delivery-count"} | ({"x-acquired-count"} if VERSION >= (4, 3) else set())
"""Headers of a message that came back because its consumer's connection ended."""


class RedeliveryTests(GatewayTestCase):
    skip = missing or None

    def test_counts(self) -> Deferred[None]:
        async def test(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            connection = await connect_once(reactor, BrokerSettings(uri=vhost.uri), "test")
            channel = await connection.open_channel()
            await declare_copies(channel, name="out")
            await connection.shut()
            await gateway.start()
            await gateway.stop()
            await fleet.connect()
            headers = {f"h{number}": number for number in range(63)}  # and the secret: as many as are allowed
            fleet.send("dev1", "up.a", b"1", headers=headers)
            await fleet.all_confirmed()
            seen: list[Delivery] = []
            for _ in range(2):
                connection = await connect_once(reactor, BrokerSettings(uri=vhost.uri), "test")
                channel, seen = await connection.open_channel(), []
                channel.on_deliveries = seen.extend
                await channel.basic_consume(queue=INGRESS, consumer_tag="dies")

                async def is_there(seen: list[Delivery] = seen) -> bool:
                    return bool(seen)

                await until(is_there, what="the message", timeout=10)
                connection.transport.abortConnection()
                await connection.disconnected.wait()
            self.assertLessEqual(COUNTS, set(Properties(seen[0].properties).headers))

            await gateway.start()
            (out,) = await drain_queue(vhost.uri, "out", 1)
            self.assertEqual(Properties(out.properties).headers, headers | {"x-amqprouter-device": "dev1"})

            async def is_stored() -> bool:
                return database.count("readings") == 1

            await until(is_stored, what="a document", timeout=10)
            self.assertEqual(database.documents("readings")[0]["headers"], headers)

        options: dict[str, Any] = {"route_all": {"targets": "exchange:out, store:readings"}}
        return self.run_with(test, start=False, topology={"queue_type": "quorum"}, **options)
