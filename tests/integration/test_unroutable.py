"""What no queue takes is kept or dead-lettered on every RabbitMQ, whatever is in its headers."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from amqprouter.amqp.channel import Channel
from amqprouter.amqp.connection import PREFERRED_FRAME_MAX
from amqprouter.amqp.field_table import encode_entry
from amqprouter.amqp.properties import Properties, encode_properties
from amqprouter.amqp.publisher import Publisher
from amqprouter.amqp.wire import Delivery
from amqprouter.broker.parked_message import parked_message
from amqprouter.broker.parking import parking_queue_name
from amqprouter.counters import Counters
from tests.integration.test_amqp_engine import TABLE, Answer, connected
from tests.integration.test_cli import amqprouter
from tests.support.fault_bed import COPIES, NAMES, FaultBed, fault_bed
from tests.support.gateway import SECRET, drain_queue, reason_of
from tests.support.process import reactor, until
from tests.support.rabbitmq import VERSION, PrivateRabbitMQ, missing
from tests.support.servers import with_vhost

OVERWRITING = {
    "message_interceptors.incoming.set_header_timestamp.overwrite": "true",
    "message_interceptors.incoming.set_header_routing_node.overwrite": "true",
}
ADDING = dict.fromkeys(OVERWRITING, "false")
"""Lines of rabbitmq.conf."""
no_interceptors = None if VERSION >= (4, 0) else "RabbitMQ 3.10 has no message interceptors"
DEVICE = "dev1"


def with_headers(message_id: str, *entries: bytes, timestamp: int | None = None) -> bytes:
    """Properties with these encoded headers, in this order, behind the device's secret."""
    properties = encode_properties(message_id=message_id, timestamp=timestamp)
    return Properties(properties).spliced(0, (), b"".join((encode_entry("x-device-secret", SECRET), *entries)))


def messages() -> dict[str, tuple[bytes, bytes]]:
    """Properties and body by message id: headers in any order, of every type, repeated, none; bodies that are equal."""
    unit, site = encode_entry("unit", "C"), encode_entry("site", "x")
    timed = encode_entry("timestamp_in_ms", 5) + encode_entry("x-routed-by", "me")
    huge = b"\x01LL" + b"\xff" * 8
    entries = {
        "none": b"",
        "one": unit,
        "unordered": unit + site,
        "ordered": site + unit,
        "repeated": unit + site + encode_entry("unit", "F"),
        "types": TABLE,
        "huge": huge,
        "stamped": timed,
        "nested": encode_entry("z", {"b": 1, "a": [True, None, {"d": 2, "c": "x"}]}) + unit,
    }
    made = {}
    for body in (b"", b'{"n": 1}', b"\xce" * (PREFERRED_FRAME_MAX + 1)):
        for name, encoded in entries.items():
            for timestamp in (None, 5):
                message_id = f"{name}-{len(body)}-{timestamp}"
                made[message_id] = with_headers(message_id, encoded, timestamp=timestamp), body
    return made


class UnroutableTestCase(TestCase):
    skip = missing or None
    timeout = 120

    async def publish(self, bed: FaultBed, made: dict[str, tuple[bytes, bytes]], key: str = "up.x") -> None:
        """Publish these as a device."""
        async with connected(bed.uri) as connection:
            publisher = Publisher(reactor, Counters(), max_attempts=1, random=lambda: 0.0)
            await publisher.attach(connection)
            answers = []
            for properties, body in made.values():
                answers.append(Answer())
                publisher.publish(NAMES.devices.encode(), f"{DEVICE}.{key}".encode(), properties, body, answers[-1])
            publisher.flush()
            said = await gatherResults([answer.said for answer in answers])
            publisher.stop()
        self.assertEqual(said, ["delivered"] * len(made))

    def ids(self, deliveries: list[Delivery]) -> list[str]:
        return sorted(str(Properties(delivery.properties).message_id) for delivery in deliveries)

    async def dead_lettered(self, bed: FaultBed, made: dict[str, tuple[bytes, bytes]]) -> None:
        """All of these are dead letters, for being unroutable, with the bodies that they had."""
        dead = await drain_queue(bed.uri, NAMES.dead_letters, len(made), timeout=60)
        self.assertEqual(self.ids(dead), sorted(made))
        for delivery in dead:
            self.assertRegex(str(reason_of(delivery)), "^unroutable: NO_ROUTE")
            self.assertEqual(delivery.body, made[str(Properties(delivery.properties).message_id)][1])


class TargetTests(UnroutableTestCase):
    async def unbound(self, **options: Any) -> None:
        made = messages()
        async with fault_bed(
            Path(self.mktemp()),
            limits={"max_attempts": 2},
            route_all={"targets": f"exchange:{COPIES}"},
            **options,
        ) as bed:
            async with bed.operator() as channel:
                await channel.queue_unbind(queue=COPIES, exchange=COPIES)
            await self.publish(bed, made)
            await self.dead_lettered(bed, made)
            self.assertEqual(await bed.gateway.metric('returned_total{match="none"}'), 0)
            self.assertEqual(await bed.gateway.metric("returned_total"), 2 * len(made))
            self.assertEqual((await bed.queues())[COPIES], 0)

    async def test_an_exchange_without_a_binding(self) -> None:
        await self.unbound()

    async def test_interceptors_that_overwrite(self) -> None:
        await self.unbound(private=True, rabbitmq=OVERWRITING)

    async def test_interceptors_that_add(self) -> None:
        await self.unbound(private=True, rabbitmq=ADDING)

    for test in (test_interceptors_that_overwrite, test_interceptors_that_add):
        test.skip = no_interceptors  # type: ignore[attr-defined]

    async def test_a_work_queue_that_is_gone(self) -> None:
        """Deleted, as after it expired, while the gateway counts on it: dead-lettered, or in the queue made again."""
        made = messages()
        options: dict[str, Any] = {
            "route_all": {"targets": "queue:work"},
            "queue_work": {"queue": "work.{device}", "idle": "1h"},
        }
        async with fault_bed(Path(self.mktemp()), limits={"max_attempts": 2}, **options) as bed:
            await self.publish(bed, {"first": (with_headers("first"), b"")})
            await bed.gateway.metric_reaches("settled_total", 1)
            async with bed.operator() as channel:
                await channel.queue_delete(queue=f"work.{DEVICE}")
            await self.publish(bed, made)
            await bed.gateway.metric_reaches("settled_total", 1 + len(made))
            counts = await bed.queues()
            there, dead = counts.get(f"work.{DEVICE}", 0), counts[NAMES.dead_letters]
            self.assertEqual(there + dead, len(made))
            found = await drain_queue(bed.uri, NAMES.dead_letters, dead)
            for delivery in found:
                self.assertRegex(str(reason_of(delivery)), "^unroutable: NO_ROUTE")
            if there:
                found += await drain_queue(bed.uri, f"work.{DEVICE}", there)
            self.assertEqual(self.ids(found), sorted(made))


class QuarantineTests(UnroutableTestCase):
    async def test_without_its_queue(self) -> None:
        """Nothing is acknowledged until there is one again."""
        made = messages()
        async with fault_bed(Path(self.mktemp())) as bed:
            async with bed.operator() as channel:
                await channel.queue_delete(queue=NAMES.rejected)
                await self.publish(bed, made, key="down.x")  # which its access list does not have
                await bed.gateway.metric_reaches("returned_total", 2 * len(made))
                self.assertEqual(await bed.gateway.metric("settled_total"), 0)
                await channel.queue_declare(queue=NAMES.rejected, durable=True)
                await channel.queue_bind(queue=NAMES.rejected, exchange=NAMES.rejected)
            await bed.gateway.metric_reaches("settled_total", len(made))
            self.assertEqual((await bed.queues())[NAMES.rejected], len(made))
            self.assertEqual(self.ids(await drain_queue(bed.uri, NAMES.rejected, len(made))), sorted(made))

    async def test_a_replay_that_nobody_takes(self) -> None:
        """The messages stay where they are."""
        made = messages()
        async with fault_bed(Path(self.mktemp()), route_all={"targets": "store:readings", "topic": "up.y"}) as bed:
            await self.publish(bed, made)
            await bed.gateway.metric_reaches("dead_lettered_total", len(made))
            async with bed.operator() as channel:
                await channel.queue_unbind(queue=NAMES.replay, exchange=NAMES.replay)
            config = str(bed.gateway.folder / "config.ini")
            replay = ("rejected", "replay", "-c", config, "--queue", "dead-letters", "--all", "--yes")
            failed = await amqprouter(*replay, check=False)
            self.assertIn("unroutable: NO_ROUTE", failed.stdout + failed.stderr)
            self.assertEqual((failed.status, (await bed.queues())[NAMES.dead_letters]), (1, len(made)))


class ParkingTests(UnroutableTestCase):
    async def test_a_parking_queue_that_is_gone(self) -> None:
        """Deleted while the gateway counts on it: what is parked from then on is in the queue made again."""
        options: dict[str, Any] = {
            "scheduler": {"max_waiting_per_device": 2},
            "class slow": {"devices": DEVICE, "limits": "1/min burst 1"},
        }
        before = {name: (with_headers(name), b"") for name in map(str, range(20))}
        made = {name: message for name, message in messages().items() if len(message[1]) < 100}
        parking_queue = parking_queue_name("amqprouter", "device", DEVICE)
        async with fault_bed(Path(self.mktemp()), **options) as bed:
            await self.publish(bed, before)
            await bed.gateway.metric_reaches("parked_total", len(before) - 5)
            bed.gateway.running.signal("STOP")  # so that it learns of the new messages first, then of the queue
            try:
                async with bed.operator() as channel:
                    await self.publish(bed, made)
                    await channel.queue_delete(queue=parking_queue)
            finally:
                bed.gateway.running.signal("CONT")
            await bed.gateway.metric_reaches("parked_total", len(before) - 5 + len(made))
            await bed.gateway.stop()
            counts = await bed.queues()
            found = [document["message_id"] for document in bed.database.documents("readings")]
            for queue in (NAMES.ingress, *NAMES.shards):
                found += self.ids(await drain_queue(bed.uri, queue, counts[queue]))
            parked = await drain_queue(bed.uri, parking_queue, counts.get(parking_queue, 0))
            found += [parked_message(one.properties, one.body).properties.message_id for one in parked]
            self.assertEqual(set(made) - set(found), set(), "lost")


class FlappingTests(UnroutableTestCase):
    """A binding comes and goes while messages flow that differ in their properties only."""

    async def flap(self, uri: str) -> None:
        random = Random(1)
        sent: dict[str, Deferred[str]] = {}
        counters = Counters()
        async with connected(uri) as connection, connected(uri) as operator:
            channel = await operator.open_channel()
            await channel.exchange_declare(exchange="flaps", exchange_type="fanout", durable=True)
            await channel.queue_declare(queue="q", durable=True, arguments={"x-queue-type": "quorum"})
            publisher = Publisher(reactor, counters, max_attempts=3, random=lambda: 0.0)
            await publisher.attach(connection)
            async with self.flapping(channel):
                while counters.published < 3000 or len(counters.returned) < 1 or sum(counters.returned.values()) < 500:
                    for _ in range(50):
                        message_id = str(len(sent)) if random.random() < 0.8 else ""
                        stamps = [encode_entry("x-routed-by", random.choice("ab"))] if random.random() < 0.3 else []
                        names = random.sample(["unit", "site", "n"], 2)
                        marks = [encode_entry(name, str(len(sent) if name == "n" else "x")) for name in names]
                        marks.append(encode_entry("mark", str(len(sent))) if not message_id else b"")
                        timestamp = random.choice((None, 5, 6))
                        encoded = with_headers(message_id, *marks, *stamps, timestamp=timestamp)
                        answer, body = Answer(), random.choice((b"", b"1"))
                        sent[str(len(sent))] = answer.said
                        publisher.publish(b"flaps", b"key", encoded, body, answer, must_arrive=True)
                    publisher.flush()
                    await deferLater(reactor, 0.005)
            said = await gatherResults(list(sent.values()))
            publisher.stop()
        self.assertEqual(set(said), {"delivered"})
        count = await self.messages_in(uri, "q", len(sent))
        found = set()
        for delivery in await drain_queue(uri, "q", count):
            properties = Properties(delivery.properties)
            found.add(properties.message_id or str(properties.header(b"mark")))
        self.assertEqual(found ^ set(sent), set(), "lost")
        self.assertEqual(counters.returned["none"], 0)

    async def messages_in(self, uri: str, queue: str, least: int) -> int:
        async with connected(uri) as connection:
            channel = await connection.open_channel()
            counts: list[int] = []

            async def there() -> bool:
                answer = await channel.queue_declare(queue=queue, passive=True)
                counts.append(answer.message_count)
                return counts[-1] >= least

            await until(there, what=f"{least} messages in {queue}", timeout=20)
            return counts[-1]

    @asynccontextmanager
    async def flapping(self, channel: Channel) -> AsyncIterator[None]:
        going = [True]

        async def flap() -> None:
            while going:
                await channel.queue_bind(queue="q", exchange="flaps")
                await deferLater(reactor, 0.01)
                await channel.queue_unbind(queue="q", exchange="flaps")
            await channel.queue_bind(queue="q", exchange="flaps")

        flaps = Deferred.fromCoroutine(flap())
        try:
            yield
        finally:
            going.clear()
            await flaps

    async def test_a_binding_that_flaps(self) -> None:
        async with with_vhost() as vhost:
            await self.flap(vhost.uri)

    async def test_with_interceptors(self) -> None:
        for rabbitmq in (OVERWRITING, ADDING):
            async with PrivateRabbitMQ(Path(self.mktemp()), config=rabbitmq) as broker:
                await self.flap(broker.uri)

    test_with_interceptors.skip = no_interceptors  # type: ignore[attr-defined]


class FullFrameTests(UnroutableTestCase):
    async def test_headers_that_fill_a_frame(self) -> None:
        """An interceptor makes them larger than was agreed, on 4.x; the connection stays all the same."""
        room = PREFERRED_FRAME_MAX - 8 - 12 - 2 - 4
        name = b"\x04full"
        full = b"\x20\x00" + struct.pack(">I", room) + name + b"S" + struct.pack(">I", room - 10) + b"x" * (room - 10)
        for rabbitmq in ({}, *(() if no_interceptors else (OVERWRITING,))):
            node = PrivateRabbitMQ(Path(self.mktemp()), config=rabbitmq)
            async with node as broker, connected(broker.uri) as connection:
                publisher = Publisher(reactor, Counters(), max_attempts=2, random=lambda: 0.0)
                await publisher.attach(connection)
                answer = Answer()
                publisher.publish(b"", b"no-such-queue", full, b"1", answer)
                publisher.flush()
                self.assertEqual(await answer.said, "refused: unroutable: NO_ROUTE")
                self.assertFalse(connection.closed)
                publisher.stop()
