"""The stream of parking queues on a real broker: what a start reads, and many parking queues that are opened and left
at once."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from amqprouter.amqp.channel import Channel
from amqprouter.amqp.delayed_calls import at_once
from amqprouter.amqp.link import connect_once
from amqprouter.amqp.properties import Properties, encode_properties
from amqprouter.amqp.publisher import Publisher
from amqprouter.amqp.wire import Delivery, encode_ack
from amqprouter.broker.device_parking import AT_ONCE, DeviceParking
from amqprouter.broker.event_stream import EventHistory
from amqprouter.broker.parked_message import parked_properties
from amqprouter.broker.parking import parking_queue_name
from amqprouter.broker.parking_reading import LOOK_BACK, SNAPSHOT_AFTER
from amqprouter.broker.parking_registry import ParkingRegistry
from amqprouter.counters import Counters
from amqprouter.errors import BrokerRefused
from amqprouter.identity import Verdict
from amqprouter.pipeline.message import Message
from amqprouter.pipeline.ports import IDeviceParkingUser
from amqprouter.pipeline.settlement import Settlement
from amqprouter.settings import BrokerSettings
from tests.support.process import reactor, until
from tests.support.rabbitmq import missing
from tests.support.servers import with_vhost

STREAM = "p.parked"
JSON = encode_properties(content_type="application/json")


class Gateway:
    """What a gateway has to do with the stream."""

    def __init__(self, uri: str) -> None:
        self.settings = BrokerSettings(uri=uri)
        self.publisher = Publisher(reactor, Counters(), max_attempts=3, random=lambda: 0.0)
        self.parking_queues: set[str] = set()

    async def connect(self) -> None:
        self.publishing = await connect_once(reactor, self.settings, "publish")
        await self.publisher.attach(self.publishing)
        self.consuming = await connect_once(reactor, self.settings, "consume")

    async def close(self) -> None:
        for connection in (self.consuming, self.publishing):
            await connection.shut()
        self.publisher.stop()

    async def publish(self, queue: str, messages: list[tuple[bytes, bytes]]) -> None:
        """Properties and bodies; returns when the broker has them all."""
        done = _All(len(messages))
        for properties, body in messages:
            self.publisher.publish(b"", queue.encode(), properties, body, done)
        self.publisher.flush()
        await done.result


class _All:
    """A receipt for many."""

    def __init__(self, count: int) -> None:
        self.left = count
        self.result: Deferred[None] = Deferred()

    def delivered(self) -> None:
        self.left -= 1
        if not self.left:
            self.result.callback(None)

    def refused(self, reason: str) -> None:
        raise AssertionError(reason)


@asynccontextmanager
async def a_gateway(uri: str) -> AsyncIterator[Gateway]:
    gateway = Gateway(uri)
    await gateway.connect()
    try:
        yield gateway
    finally:
        await gateway.close()


@asynccontextmanager
async def registry(uri: str, name: str) -> AsyncIterator[tuple[Gateway, ParkingRegistry, set[str]]]:
    """One that was attached, and the parking queues that it learned of then; it is killed in the end."""
    async with a_gateway(uri) as gateway:
        parking_queues: set[str] = set()

        def learned(parking_queue: str, used: bool) -> None:
            (parking_queues.add if used else parking_queues.discard)(parking_queue)

        it = ParkingRegistry(
            reactor, gateway.publisher, STREAM, name, learned, random=lambda: 0.0, wall_clock=reactor.seconds
        )
        await it.attach(gateway.consuming)
        try:
            yield gateway, it, parking_queues
        finally:
            it.stop()


def record(number: int, used: bool) -> tuple[bytes, bytes]:
    return JSON, json.dumps({"lot": f"device{number}", "used": used, "by": "earlier"}).encode()


async def as_earlier_releases_read(gateway: Gateway) -> tuple[set[str], int]:
    """The parking queues in use by everything that is in the stream, up to a mark; and how many snapshots are in it."""
    channel = await gateway.consuming.open_channel()
    known: dict[str, bool] = {}
    snapshots = 0
    done: Deferred[None] = Deferred()

    def received(deliveries: list[Delivery]) -> None:
        nonlocal snapshots
        for delivery in deliveries:
            said = json.loads(delivery.body)
            if "mark" not in said:
                known[said["lot"]] = said["used"]
            elif said["mark"] == "earlier.1":
                done.callback(None)
            else:
                snapshots += "snapshot" in said
        channel.write(encode_ack(channel.id, deliveries[-1].delivery_tag, True))

    channel.on_deliveries = received
    await gateway.publish(STREAM, [(JSON, b'{"mark": "earlier.1"}')])
    await channel.basic_qos(prefetch_count=1000)
    await channel.basic_consume(queue=STREAM, consumer_tag="reader", arguments={"x-stream-offset": "first"})
    await done
    await channel.shut()
    return {parking_queue for parking_queue, used in known.items() if used}, snapshots


class RegistryTests(TestCase):
    skip = missing or None
    timeout = 120

    async def test_one_that_may_not_be_read(self) -> None:
        """The refusal costs the registry, and not the connection; once it may, all is read."""
        async with with_vhost() as vhost:
            account = f"gateway-{vhost.name}"
            await vhost.broker.add_user(account, "secret")
            await vhost.broker.set_permissions(account, vhost.name, read="^nothing$")
            async with a_gateway(vhost.broker.uri_for(vhost.name, account, "secret")) as gateway:
                learned: list[str] = []
                it = ParkingRegistry(
                    *(reactor, gateway.publisher, STREAM, "a", lambda name, used: learned.append(name)),
                    random=lambda: 0.0,
                    wall_clock=reactor.seconds,
                )
                with self.assertRaisesRegex(BrokerRefused, f"access to queue '{STREAM}'"):
                    await it.attach(gateway.consuming)
                self.assertFalse(gateway.consuming.closed)
                await gateway.publish(STREAM, [record(7, True)])
                await vhost.broker.set_permissions(account, vhost.name)

                async def may() -> bool:  # the broker's channels remember for a moment what they were told
                    try:
                        await it.attach(gateway.consuming)
                    except BrokerRefused:
                        return False
                    return True

                await until(may, what="the registry may be read", timeout=15)
                self.assertEqual(learned, ["device7"])
                it.stop()

    async def test_readers_of_streams_leave_no_consumers(self) -> None:
        """RabbitMQ 3.10 counts for ever those whose channel is closed before they cancelled."""
        async with with_vhost() as vhost, registry(vhost.uri, "a") as (gateway, _, _):
            await gateway.publish(STREAM, [record(number, True) for number in range(10)])
            failures: list[Exception] = []
            history = EventHistory(STREAM, lambda: gateway.consuming)
            readings = [history.read(0, lambda events: None, failures.append) for _ in range(3)]

            async def all_read() -> bool:
                return (await vhost.list_queues("consumers"))[STREAM] == 4

            await until(all_read, what="four consumers", timeout=10)
            for reading in readings:
                reading.stop()

            async def one_reads() -> bool:
                return (await vhost.list_queues("consumers"))[STREAM] == 1

            await until(one_reads, what="the registry's is the only consumer", timeout=10)
            self.assertEqual(failures, [])

    async def test_a_history_of_an_earlier_release(self) -> None:
        """It is read whole once, over several of the broker's files; then from the snapshot that follows it, whoever
        else goes on writing."""
        hour = [record(number, used) for number in range(200) for used in (True, False)]
        history = hour * 60 + [record(number, True) for number in range(5)]
        async with with_vhost() as vhost:
            async with registry(vhost.uri, "first") as (gateway, it, parking_queues):
                it.stop()
                self.assertEqual(parking_queues, set())
                await gateway.publish(STREAM, history)
            expected = {f"device{number}" for number in range(5)}
            async with registry(vhost.uri, "a") as (gateway, it, parking_queues):
                self.assertEqual(parking_queues, expected)
                self.assertGreater(it.records_read, len(history))
                await self.snapshot(it, behind=len(history))
                await it.announce("more", True)
            async with registry(vhost.uri, "b") as (gateway, it, parking_queues):
                self.assertEqual(parking_queues, expected | {"more"})
                self.assertLess(it.records_read, LOOK_BACK + 20)
                end = it.snapshot_end
                await gateway.publish(STREAM, hour * (SNAPSHOT_AFTER // len(hour) + 1) + [record(7, True)])
                await self.snapshot(it, behind=end)
            async with registry(vhost.uri, "c") as (gateway, it, parking_queues):
                self.assertLess(it.records_read, LOOK_BACK + 20)
                self.assertEqual(parking_queues, {"more", "device7"})
                self.assertEqual(await as_earlier_releases_read(gateway), (parking_queues, 2))

    async def snapshot(self, it: ParkingRegistry, behind: int) -> None:
        async def there() -> bool:
            return it.snapshot_end > behind

        await until(there, what="a snapshot is there", timeout=20)


@implementer(IDeviceParkingUser)
class Drain:
    """Takes all that comes out of parking queues."""

    def __init__(self, parking_queues: DeviceParking) -> None:
        self._parking_queues = parking_queues
        self.open: set[str] = set()
        self.unchecked: set[str] = set()
        self.came: set[str] = set()
        self.is_lost = False
        parking_queues.use(self)

    def found(self, device: str) -> None:
        self.open.add(device)
        self._parking_queues.of(device).use(self._receive, lambda: None)

    def _receive(self, message: Message, settlement: Settlement) -> None:
        self.came.add(message.device)
        settlement.delivered()

    def abandoned(self, device: str) -> None:
        raise AssertionError(device)

    def checked(self, device: str, messages: int | None) -> None:
        self.unchecked.discard(device)

    def gone(self, device: str) -> None:
        self.open.discard(device)

    def lost(self) -> None:
        self.is_lost = True


class ParkingQueueTests(TestCase):
    """Many questions at once are answered in another order than they were asked in, and none of them is lost."""

    skip = missing or None
    timeout = 120

    async def check_many(self, queue_type: str) -> None:
        devices = [f"device{number}" for number in range(AT_ONCE + AT_ONCE // 2)]
        missing_devices = {f"gone{number}" for number in range(AT_ONCE)}
        async with with_vhost() as vhost, a_gateway(vhost.uri) as gateway:
            await self.make(gateway, devices, queue_type)
            async with registry(vhost.uri, "first") as (_, it, _):
                await at_once(it.announce(device, True) for device in (*devices, *missing_devices))
            parking_queues = DeviceParking(
                reactor,
                gateway.publisher,
                Counters(),
                prefix="p",
                queue_type=queue_type,
                max_parked=100,
                account="guest",
                random=lambda: 0.0,
                wake=lambda: None,
                finish=acknowledge,
            )
            drain = Drain(parking_queues)
            await parking_queues.attach(gateway.consuming)
            self.assertEqual(drain.open, {*devices, *missing_devices})

            async def drained() -> bool:
                return drain.came == drain.open == set(devices)

            await until(drained, what="what is there is drained, and what is not is forgotten", timeout=20)
            drain.unchecked.update(devices)
            for device in devices:
                parking_queues.check(device)

            async def checked() -> bool:
                return not drain.unchecked

            await until(checked, what="all are checked", timeout=30)
            for device in devices:
                parking_queues.leave(device, True)

            async def left() -> bool:
                return not drain.open and not parking_queues.parking_queues

            await until(left, what="all are left", timeout=30)
            parking_queues.stop()
            self.assertFalse(drain.is_lost)
            left_over = (await vhost.list_queues()).keys() - {STREAM}
            self.assertEqual(len(left_over), 0 if queue_type == "classic" else len(devices))
            async with registry(vhost.uri, "last") as (_, _, known):
                self.assertEqual(known, set())

    async def make(self, gateway: Gateway, devices: list[str], queue_type: str) -> None:
        """A parking queue with a message in it for each."""
        channel: Channel = await gateway.consuming.open_channel()
        arguments = {"x-queue-type": queue_type, "x-single-active-consumer": True}
        for device in devices:
            queue = parking_queue_name("p", "device", device)
            await channel.queue_declare(queue=queue, durable=True, arguments=arguments)
            message = Message(device, "up", b"{}", Properties(), routing_key=f"{device}.up".encode())
            message.verdict = Verdict(True, checker="test")
            await gateway.publish(queue, [(parked_properties(message, "guest"), b"{}")])
        await channel.shut()

    async def test_classic(self) -> None:
        await self.check_many("classic")

    async def test_quorum(self) -> None:
        await self.check_many("quorum")


def acknowledge(settlement: Settlement) -> None:
    settlement.ledger.settle(settlement.tag)
    settlement.ledger.flush()
