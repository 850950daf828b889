"""What a broker tells of a queue whose leader is busy: nothing, which must not be taken for an empty queue."""

from __future__ import annotations

from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from amqprouter.amqp.declare import Declarer, Found, queue_state
from amqprouter.amqp.link import connect_once
from amqprouter.amqp.properties import encode_properties
from amqprouter.amqp.publisher import Publisher
from amqprouter.counters import Counters
from amqprouter.settings import BrokerSettings
from tests.support.process import reactor
from tests.support.rabbitmq import PrivateRabbitMQ


class BusyLeaderTests(TestCase):
    timeout = 60

    def test_nothing_is_no_answer(self) -> Deferred[None]:
        """`Found.tells` of a quorum queue that is consumed from: the broker would have to count the consumer."""

        async def test() -> None:
            folder = Path(self.mktemp())
            folder.mkdir()
            async with PrivateRabbitMQ(folder / "rabbitmq") as broker:
                connection = await connect_once(reactor, BrokerSettings(uri=broker.uri), "test")
                publisher = Publisher(reactor, Counters(), max_attempts=1, random=lambda: 0.0)
                await publisher.attach(connection)
                await Declarer(connection, "").queue("parked", {"x-queue-type": "quorum"})
                for _ in range(3):
                    await publisher.send("", "parked", encode_properties(), b"")
                channel = await connection.open_channel()
                await channel.basic_qos(prefetch_count=1)
                first: Deferred[object] = Deferred()
                channel.on_deliveries = first.callback
                await channel.basic_consume(queue="parked", consumer_tag="parked")
                await first
                self.assertEqual(await queue_state(connection, "parked"), Found(2, 1))
                await broker.ctl("eval", "sys:suspend(whereis('%2F_parked')).")
                found = await queue_state(connection, "parked")
                await broker.ctl("eval", "sys:resume(whereis('%2F_parked')).")
                self.assertEqual(found, Found(0, 0))
                assert found is not None
                self.assertFalse(found.tells)
                self.assertEqual(await queue_state(connection, "parked"), Found(2, 1))
                publisher.stop()
                await connection.shut()

        return Deferred.fromCoroutine(test())
