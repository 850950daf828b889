"""Three gateways share the shards: one dies and comes back, and each device keeps its order and its rate.

The fleet publishes by device id, numbered for each device. What arrived, and when, is read from a queue behind a target
exchange; the oracle is the publisher's ledger.
"""

from __future__ import annotations

import json
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall, deferLater
from twisted.trial.unittest import TestCase

from amqprouter.amqp.link import connect_once
from amqprouter.amqp.properties import Properties, encode_properties
from amqprouter.amqp.publisher import Publisher
from amqprouter.amqp.wire import Delivery, encode_ack
from amqprouter.broker.topology import Topology
from amqprouter.counters import Counters
from amqprouter.settings import BrokerSettings, EventsSettings, IngressSettings, TopologySettings
from tests.support.gateway import Fleet, Gateway
from tests.support.mongo import mongo_for_tests
from tests.support.process import reactor, until
from tests.support.rabbitmq import VERSION, PrivateRabbitMQ

DEVICES = [f"dev{number}" for number in range(24)]
SHARDS = 6
INTERVAL = 0.1
"""Seconds between two messages of a device."""
GREEDY, RATE, BURST = "greedy", 5.0, 5.0
GREEDY_COUNT = 20
"""Messages that it sends at once, and 3 seconds' worth of waiting."""
SLACK = 1.5
"""Messages by which a window may seem too full: a reader sees arrivals in batches."""
WITHIN = 10.0
"""Seconds in which the shards must have found their gateways."""


class Arrivals:
    """Reads the target's queue, and keeps what came, when, in order."""

    def __init__(self) -> None:
        self.came: list[tuple[float, str, int, str]] = []

    async def read(self, uri: str) -> None:
        self._connection = await connect_once(reactor, BrokerSettings(uri=uri), "test reader")
        self._channel = await self._connection.open_channel()
        await self._channel.exchange_declare(exchange="copies", exchange_type="fanout", durable=True)
        await self._channel.queue_declare(queue="copies", durable=True)
        await self._channel.queue_bind(queue="copies", exchange="copies")
        self._channel.on_deliveries = self._take
        await self._channel.basic_qos(prefetch_count=1000)
        await self._channel.basic_consume(queue="copies", consumer_tag="copies")

    def _take(self, deliveries: list[Delivery]) -> None:
        for delivery in deliveries:
            body = json.loads(delivery.body)
            message_id = Properties(delivery.properties).message_id or ""
            self.came.append((time.monotonic(), body["device"], body["n"], message_id))
        self._channel.write(encode_ack(self._channel.id, deliveries[-1].delivery_tag, True))

    async def close(self) -> None:
        await self._connection.shut()

    def ids(self) -> Counter[str]:
        return Counter(message_id for *_, message_id in self.came)


class Plant:
    """A fleet that sends on and on: by device id, or as most do, with the device's id and topic for the key."""

    def __init__(self, fleet: Fleet, by_id: bool) -> None:
        self._fleet = fleet
        self._by_id = by_id
        self._numbers: Counter[str] = Counter()
        self._loop = LoopingCall(self._round)

    def start(self) -> None:
        self._loop.start(INTERVAL)

    def stop(self) -> None:
        if self._loop.running:
            self._loop.stop()

    def send(self, device: str) -> None:
        self._numbers[device] += 1
        body = json.dumps({"device": device, "n": self._numbers[device]}).encode()
        if self._by_id:
            self._fleet.send(device, "", body, exchange="devices.by-id", key=device, kind="up.reading")
        else:
            self._fleet.send(device, "up.reading", body)

    def greedy(self) -> None:
        """More at once than the device's burst."""
        for _ in range(GREEDY_COUNT):
            self.send(GREEDY)

    def _round(self) -> None:
        for device in DEVICES:
            self.send(device)
        self._fleet.flush()


ScaleOutTest = Callable[[list[Gateway], Plant, Fleet, PrivateRabbitMQ, Arrivals], Awaitable[None]]


async def connections(broker: PrivateRabbitMQ, word: str) -> Counter[str]:
    """How many such queues are consumed from over each connection, as the broker tells it."""
    # As text, for JSON has process ids in a form that rabbitmqctl does not take.
    consumers = await broker.ctl(
        "--quiet", "--no-table-headers", "list_consumers", "queue_name", "channel_pid", "active"
    )
    channels = await broker.ctl("--quiet", "--no-table-headers", "list_channels", "pid", "connection")
    connection_of = dict(line.split("\t") for line in channels.splitlines())
    found = (line.split("\t") for line in consumers.splitlines())
    return Counter(
        connection_of.get(channel, "") for queue, channel, active in found if word in queue and active == "true"
    )


async def owners(broker: PrivateRabbitMQ, word: str) -> list[int]:
    """How many such queues each gateway has; the most first."""
    return sorted((await connections(broker, word)).values(), reverse=True)


class AssignmentTests(TestCase):
    timeout = 120

    async def test_devices_keep_their_shards_when_the_node_starts_anew(self) -> None:
        """However many shards there are. Up to RabbitMQ 4.2 a node that starts binds as many at a time as it has
        workers for that, in whichever order they come to it: with one, in order (docs/deployment, several gateways)."""
        ingress = IngressSettings(shards=12)
        topology = Topology(TopologySettings(queue_type="classic"), ingress, EventsSettings())
        devices = [f"dev{number}" for number in range(200)]

        async def assignment(broker: PrivateRabbitMQ) -> dict[str, str]:
            """The shard of each device."""
            connection = await connect_once(reactor, BrokerSettings(uri=broker.uri), "test")
            await topology.declare(connection)
            publisher = Publisher(reactor, Counters(), max_attempts=1, random=lambda: 0.0)
            await publisher.attach(connection)
            channel = await connection.open_channel()
            found: dict[str, str] = {}
            everyone: Deferred[None] = Deferred()

            def take(deliveries: list[Delivery]) -> None:
                for delivery in deliveries:
                    found[delivery.routing_key.decode()] = delivery.consumer_tag.decode()
                channel.write(encode_ack(channel.id, deliveries[-1].delivery_tag, True))
                if len(found) == len(devices):
                    everyone.callback(None)

            channel.on_deliveries = take
            for shard in topology.names.shards:
                await channel.basic_consume(queue=shard, consumer_tag=shard)
            for device in devices:
                await publisher.send(topology.names.by_id, device, encode_properties(), b"")
            await everyone
            publisher.stop()
            await connection.shut()
            return found

        folder = Path(self.mktemp())
        folder.mkdir()
        config = {} if VERSION >= (4, 3) else {"default_worker_pool_size": "1"}
        async with PrivateRabbitMQ(folder / "rabbitmq", config=config) as broker:
            before = await assignment(broker)
            self.assertEqual(set(before.values()), set(topology.names.shards))
            for _ in range(3):
                await broker.restart()
                self.assertEqual(await assignment(broker), before)


class ScaleOutTests(TestCase):
    timeout = 180

    def run_with(self, test: ScaleOutTest, by_id: bool = True, ways: tuple[str, ...] = ("auto",) * 3) -> Deferred[None]:
        async def around() -> None:
            folder = Path(self.mktemp())
            folder.mkdir()
            with mongo_for_tests(folder / "mongo") as database:
                async with PrivateRabbitMQ(folder / "rabbitmq") as broker:
                    gateways = [
                        Gateway(
                            folder / f"gateway-{number}",
                            broker.uri,
                            database.uri,
                            database.name,
                            ingress={"shards": SHARDS, "repartition": ways[number]},
                            scheduler={"max_waiting_per_device": 1000, "max_hold": 10},
                            class_greedy={"devices": GREEDY, "limits": f"{RATE:g}/s burst {BURST:g}"},
                            route_all={"targets": "exchange:copies"},
                        )
                        for number in range(3)
                    ]
                    fleet, arrivals = Fleet(broker.uri), Arrivals()
                    plant = Plant(fleet, by_id)
                    for gateway in gateways:
                        gateway.devices(*DEVICES, GREEDY)
                    await arrivals.read(broker.uri)
                    await gateways[0].start()
                    await fleet.connect()
                    try:
                        await test(gateways, plant, fleet, broker, arrivals)
                    finally:
                        plant.stop()
                        await fleet.close()
                        await arrivals.close()
                        for gateway in gateways:
                            await gateway.stop()

        return Deferred.fromCoroutine(around())

    async def shared(self, broker: PrivateRabbitMQ, plant: Plant, *shares: int, word: str = ".shard.") -> None:
        """Wait until the gateways have so many of these queues each; then the greedy device sends."""

        async def so() -> bool:
            return await owners(broker, word) == list(shares)

        await until(so, what=f"the shards are shared as {shares}", timeout=WITHIN)
        plant.greedy()
        await deferLater(reactor, 4.0)

    def test_one_dies_and_comes_back(self) -> Deferred[None]:
        async def test(
            gateways: list[Gateway], plant: Plant, fleet: Fleet, broker: PrivateRabbitMQ, arrivals: Arrivals
        ) -> None:
            plant.start()
            moves = []
            await self.shared(broker, plant, 6)
            for gateway, *shares in ((gateways[1], 3, 3), (gateways[2], 2, 2, 2)):
                await gateway.start()
                moves.append(time.monotonic())
                await self.shared(broker, plant, *shares)
            await gateways[1].running.kill()
            killed = time.monotonic()
            moves.append(killed)
            await self.shared(broker, plant, 3, 3)
            await gateways[1].start()
            moves.append(time.monotonic())
            await self.shared(broker, plant, 2, 2, 2)
            plant.stop()
            await self.all_arrived(gateways, fleet, broker, arrivals)
            self.check_once_and_in_order(arrivals, fleet, killed)
            self.check_rate(arrivals, moves)

        return self.run_with(test)

    def test_so_do_devices_that_publish_to_the_topic_exchange(self) -> Deferred[None]:
        """One gateway reads the queue behind it, and passes on what is the others': for as long as there are others."""

        async def test(
            gateways: list[Gateway], plant: Plant, fleet: Fleet, broker: PrivateRabbitMQ, arrivals: Arrivals
        ) -> None:
            plant.start()
            moves = [time.monotonic()]
            plant.greedy()
            await deferLater(reactor, 2.0)
            self.assertNotIn("amqprouter.partition.0", await broker.list_queues(), "alone, there is no need of it")
            for gateway, *shares in ((gateways[1], 3, 3), (gateways[2], 2, 2, 2)):
                await gateway.start()
                moves.append(time.monotonic())
                await self.shared(broker, plant, *shares, word=".partition.")
            for gateway in gateways:
                self.assertGreater(await gateway.metric("settled_total"), 20, "each has its part of the work")
            await gateways[0].running.kill()  # who reads the queue of all
            killed = time.monotonic()
            moves.append(killed)
            await self.shared(broker, plant, 3, 3, word=".partition.")
            await gateways[0].start()
            moves.append(time.monotonic())
            await self.shared(broker, plant, 2, 2, 2, word=".partition.")
            plant.stop()
            await self.all_arrived(gateways, fleet, broker, arrivals)
            self.check_once_and_in_order(arrivals, fleet, killed)
            self.check_rate(arrivals, moves)

        return self.run_with(test, by_id=False)

    def test_one_that_knows_nothing_of_partitions(self) -> Deferred[None]:
        """As one of an earlier version is while all are upgraded in turn: the others read its partitions for it."""

        async def test(
            gateways: list[Gateway], plant: Plant, fleet: Fleet, broker: PrivateRabbitMQ, arrivals: Arrivals
        ) -> None:
            plant.start()
            await gateways[1].start()
            await self.shared(broker, plant, 3, 3)
            self.assertEqual(await gateways[0].metric("repartitions"), 1)
            self.assertEqual(await gateways[1].metric("repartitions"), 0)
            # The second reads what comes, as the first has let go of it, until its connection is lost.
            [connection] = await connections(broker, "amqprouter.ingress")
            await broker.ctl("close_connection", connection, "test")

            async def read() -> bool:
                return await owners(broker, ".partition.") == [6]

            await until(read, what="the first gateway reads all partitions", timeout=WITHIN)
            await gateways[2].start()
            await self.shared(broker, plant, 4, 2, word=".partition.")
            plant.stop()
            await fleet.all_confirmed()

            async def all_there() -> bool:
                return len(arrivals.ids()) >= fleet.sent

            await until(all_there, what="all has arrived", timeout=30, child=gateways[0].running)
            self.assertEqual(set(arrivals.ids()), set(fleet.ledger.confirmed))

        return self.run_with(test, by_id=False, ways=("auto", "no", "auto"))

    async def all_arrived(
        self, gateways: list[Gateway], fleet: Fleet, broker: PrivateRabbitMQ, arrivals: Arrivals
    ) -> None:
        """Wait for all that was sent; nothing of it is in quarantine."""
        await fleet.all_confirmed()

        async def all_there() -> bool:
            return len(arrivals.ids()) >= fleet.sent

        await until(all_there, what="all has arrived", timeout=30, child=gateways[0].running)
        waiting = await broker.list_queues()
        self.assertEqual(waiting["amqprouter.rejected"] + waiting["amqprouter.dead-letters"], 0)

    def check_once_and_in_order(self, arrivals: Arrivals, fleet: Fleet, killed: float) -> None:
        """What was lost, doubled or overtaken? Only a kill may double anything; hand-overs may not."""
        self.assertEqual(set(arrivals.ids()), set(fleet.ledger.confirmed))
        seen: dict[str, int] = defaultdict(int)
        for when, device, number, _ in arrivals.came:
            if number > seen[device]:
                self.assertEqual(number, seen[device] + 1, f"{device}'s messages are out of order")
                seen[device] = number
            else:
                self.assertTrue(killed <= when <= killed + WITHIN, f"{device}'s {number} came twice, without a reason")

    def check_rate(self, arrivals: Arrivals, moves: list[float]) -> None:
        """In no span of time did more pass than its rate allows, and one burst more for each owner."""
        times = {number: when for when, device, number, _ in reversed(arrivals.came) if device == GREEDY}
        first = [times[number] for number in sorted(times)]
        for start, began in enumerate(first):
            for end in range(start, len(first)):
                owned = 1 + sum(began - WITHIN < moved <= first[end] for moved in moves)
                allowed = RATE * (first[end] - began) + BURST * owned + SLACK
                self.assertLessEqual(end - start + 1, allowed, f"of {GREEDY}, within {first[end] - began:.1f} s")
