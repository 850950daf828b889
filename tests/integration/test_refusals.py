"""What the broker refuses to declare or to take costs whoever needs it, and nobody else; and it heals by itself."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import treq
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionRefusedError  # noqa: A004 - Twisted's name

from amqprouter.amqp.link import connect_once
from amqprouter.broker.parking import parking_queue_name
from amqprouter.settings import BrokerSettings
from tests.support.gateway import Fleet, Gateway, drain_queue, reason_of
from tests.support.gateway_case import GatewayTestCase
from tests.support.mongo import TestDatabase
from tests.support.process import reactor, until
from tests.support.rabbitmq import missing
from tests.support.servers import Vhost

NOISY, QUIET = "dev1", "dev2"
DEVICE_LOT = parking_queue_name("amqprouter", "device", NOISY)
TARGET_LOT = parking_queue_name("amqprouter", "target", "exchange:gone")
SLOW: dict[str, Any] = {"class slow": {"devices": NOISY, "limits": "5/s burst 5"}}
CLASSIC: dict[str, Any] = {"topology": {"queue_type": "classic"}}
"""A full quorum queue takes what is on its way already, which may be all that a test sends."""
ONLY_STORE: dict[str, Any] = {"route_all": {"targets": "store:readings"}}
TWO: dict[str, Any] = {
    "route_all": {"targets": "store:readings, exchange:gone"},
    "limits": {"target_patience": 0.3, "max_attempts": 2, "shutdown_deadline": 1},
    "ingress": {"prefetch": 64},
    "scheduler": {"max_waiting": 50},
}
FEW_WAIT: dict[str, Any] = {"scheduler": {"max_waiting_per_device": 20}}


class RefusalsTestCase(GatewayTestCase):
    skip = missing or None
    devices = (NOISY, QUIET)

    async def fill(self, vhost: Vhost) -> None:
        """Let there be no more queues than there are."""
        queues = len(await vhost.list_queues())
        await vhost.broker.ctl("set_vhost_limits", "-p", vhost.name, json.dumps({"max-queues": queues}))

    async def problems(self, gateway: Gateway) -> dict[str, str]:
        response = await treq.get(f"{gateway.url}/readyz", persistent=False)
        return {part: problem for part, problem in (await response.json())["parts"].items() if problem}

    async def named(self, gateway: Gateway, part: str, *words: str) -> None:
        """/readyz says of this part what the matter is."""

        async def so() -> bool:
            try:
                problem = (await self.problems(gateway)).get(part, "")
            except ConnectionRefusedError:  # it is starting
                return False
            return all(word in problem for word in words)

        await until(so, what=f"{part} says {words}", timeout=20, child=gateway.running)

    async def healed(self, gateway: Gateway) -> None:
        await until(gateway.is_ready, what="all is well", timeout=30, child=gateway.running)

    async def stored(self, gateway: Gateway, database: TestDatabase, device: str, count: int) -> None:
        async def so() -> bool:
            found = Counter(document["device"] for document in database.documents("readings"))
            return found[device] >= count

        await until(so, what=f"{count} messages of {device} are stored", timeout=30, child=gateway.running)

    @asynccontextmanager
    async def operator(self, vhost: Vhost) -> AsyncIterator[Any]:
        connection = await connect_once(reactor, BrokerSettings(uri=vhost.uri), "operator")
        try:
            yield await connection.open_channel()
        finally:
            await connection.shut()

    async def send(self, fleet: Fleet, device: str, *numbers: int) -> None:
        for number in numbers:
            fleet.reading(device, number)
        await fleet.all_confirmed()


class DevicesTests(RefusalsTestCase):
    """A device over its rate, whose parking queue there cannot be, or takes less than was configured."""

    def test_a_full_virtual_host(self) -> Deferred[None]:
        async def test(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            await self.fill(vhost)
            await self.send(fleet, NOISY, *range(300))
            await self.send(fleet, QUIET, *range(3))
            await self.stored(gateway, database, QUIET, 3)
            await self.named(gateway, "device-parking", DEVICE_LOT, "queue limit in vhost", "rate-limited")
            for gauge in ("parked_messages", "parked_devices"):
                self.assertEqual(await gateway.metric(gauge), 0, gauge)
            await gateway.metric_reaches('rejected_total{reason="rate-limited"}', 300 - 5 - 20 - 5)
            log = gateway.running.tail(1_000_000)
            self.assertEqual(log.count("Cannot use parking queue"), 1)
            self.assertNotIn("delete it", log)
            # It has its rate meanwhile, and what is more waits in memory as far as there is room.
            await self.stored(gateway, database, NOISY, 15)

            await vhost.broker.ctl("clear_vhost_limits", "-p", vhost.name)
            await self.healed(gateway)
            rejected = (await vhost.list_queues())["amqprouter.rejected"]
            await self.send(fleet, NOISY, *range(1000, 1100))
            await gateway.metric_reaches("parked_messages", 20)
            await self.send(fleet, QUIET, 3)
            await self.stored(gateway, database, QUIET, 4)
            self.assertEqual((await vhost.list_queues())["amqprouter.rejected"], rejected)
            self.assertEqual(gateway.running.tail(1_000_000).count("all parking queues again"), 1)

        return self.run_with(test, **SLOW, **ONLY_STORE, **FEW_WAIT)

    def test_a_policy_that_lets_it_hold_less(self) -> Deferred[None]:
        async def test(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            for name, definition in (("length", {"max-length": 10}), ("bytes", {"max-length-bytes": 150})):
                policy = json.dumps({**definition, "overflow": "reject-publish"})
                await vhost.broker.ctl(
                    "set_policy", "-p", vhost.name, "--apply-to", "queues", name, r"^amqprouter\.parked\.device", policy
                )
                before = await gateway.metric('rejected_total{reason="rate-limited"}')
                await self.send(fleet, NOISY, *range(300))
                await self.send(fleet, QUIET, 1, 2, 3)
                await self.stored(gateway, database, QUIET, 3)
                await gateway.metric_reaches('rejected_total{reason="rate-limited"}', before + 200)
                await self.named(gateway, "device-parking", DEVICE_LOT, "nacked")
                self.assertLessEqual(await gateway.metric("parked_messages"), 40)
                await vhost.broker.ctl("clear_policy", "-p", vhost.name, name)
            await self.healed(gateway)
            self.assertEqual(gateway.running.tail(1_000_000).count("takes no more"), 1)
            rejected, *_ = await drain_queue(vhost.uri, "amqprouter.rejected", 1)
            self.assertRegex(str(reason_of(rejected)), "^rate-limited")

        return self.run_with(test, **SLOW, **ONLY_STORE, **FEW_WAIT, **CLASSIC)


class TargetsTests(RefusalsTestCase):
    """One of two targets is down, and there can be no parking queue for it, or none that is large enough."""

    def test_a_full_virtual_host(self) -> Deferred[None]:
        """Some wait, for an exchange that may come; the rest is dead-lettered, and all of it is stored."""

        async def test(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            await self.fill(vhost)
            await self.send(fleet, QUIET, *range(300))
            await self.stored(gateway, database, QUIET, 300)
            await self.named(gateway, "parking", TARGET_LOT, "queue limit in vhost", "dead-lettered as cannot-park")
            await self.named(gateway, "exchange:gone", "no exchange", " 0 are parked")
            self.assertEqual(await gateway.metric("target_parked"), 0)
            await gateway.metric_reaches('dead_lettered_total{reason="cannot-park"}', 300 - 64 // 2)
            log = gateway.running.tail(1_000_000)
            self.assertEqual((log.count("Cannot use parking queue"), log.count("takes no messages")), (1, 1))
            letters = await drain_queue(vhost.uri, "amqprouter.dead-letters", 1)
            self.assertRegex(str(reason_of(letters[0])), "cannot-park: exchange:gone does not take it now .404.*limit")

            await vhost.broker.ctl("clear_vhost_limits", "-p", vhost.name)
            await gateway.metric_reaches("target_parked", 1)
            await self.send(fleet, QUIET, *range(300, 400))
            await gateway.metric_reaches("target_parked", 100)
            dead = await gateway.metric("dead_lettered_total")
            async with self.operator(vhost) as channel:
                await channel.queue_declare(queue="gone", durable=True)
                await channel.exchange_declare(exchange="gone", exchange_type="fanout", durable=True)
                await channel.queue_bind(queue="gone", exchange="gone")
            await self.healed(gateway)

            async def all_is_there() -> bool:
                left = [await gateway.metric(f"target_{kind}") for kind in ("parked", "waiting", "outstanding")]
                return not any(left)

            await until(all_is_there, what="nothing is left to be copied", timeout=30, child=gateway.running)
            copies = await drain_queue(vhost.uri, "gone", (await vhost.list_queues())["gone"])
            # What was on its way into the parking queue when a try ended the channel may have gone in twice.
            numbers = list(dict.fromkeys(json.loads(copy.body)["n"] for copy in copies))
            self.assertEqual((len(numbers), numbers[-100:]), (400 - dead, list(range(300, 400))))
            self.assertEqual(await gateway.metric("dead_lettered_total"), dead)

        return self.run_with(test, **TWO)

    def test_a_policy_that_lets_it_hold_less(self) -> Deferred[None]:
        async def test(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            policy = json.dumps({"max-length": 10, "overflow": "reject-publish"})
            await vhost.broker.ctl(
                "set_policy", "-p", vhost.name, "--apply-to", "queues", "length", r"^amqprouter\.parked\.target", policy
            )
            await self.send(fleet, QUIET, *range(300))
            await self.stored(gateway, database, QUIET, 300)
            await self.named(gateway, "parking", TARGET_LOT, "nacked")
            await gateway.metric_reaches('dead_lettered_total{reason="cannot-park"}', 200)

        return self.run_with(test, **TWO, **CLASSIC)


class EverythingElseTests(RefusalsTestCase):
    """What only some need: it is named, and the rest goes on."""

    OURS = ("amqprouter.events", "amqprouter.parked", "amqprouter.replies", "amqprouter.commands", "jobs")
    PARTS = ("broker-events", "device-parking", "replies", "commands-in", "commands-out", "queue jobs", "ingress")

    def test_a_full_virtual_host(self) -> Deferred[None]:
        async def test(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            gateway.file("commands.acl", "ann -> #\n")
            await gateway.start()
            await fleet.connect()
            await gateway.stop()
            async with self.operator(vhost) as channel:
                for queue in self.OURS:
                    await channel.queue_delete(queue=queue)
            await self.fill(vhost)
            await gateway.start(ready=False)
            await self.named(gateway, "device-parking", "amqprouter.parked", "queue limit in vhost")
            await self.send(fleet, NOISY, *range(100))
            await self.send(fleet, QUIET, *range(3))
            await self.stored(gateway, database, QUIET, 3)
            for part in self.PARTS:
                await self.named(gateway, part, "queue limit in vhost", "set_vhost_limits")
            problems = await self.problems(gateway)
            self.assertEqual(set(problems), set(self.PARTS))
            self.assertIn("cannot share the shards", problems["ingress"])
            await gateway.metric_reaches('rejected_total{reason="rate-limited"}', 50)

            await vhost.broker.ctl("clear_vhost_limits", "-p", vhost.name)
            await self.healed(gateway)
            self.assertLessEqual({*self.OURS, "amqprouter.seat.0"}, set(await vhost.list_queues()))
            log = gateway.running.tail(1_000_000)
            for words in ("Cannot see the other gateways", "Cannot use replies", "Devices cannot be parked"):
                self.assertEqual(log.count(words), 1, words)
            fleet.send(QUIET, "up.job", b"{}")
            await fleet.all_confirmed()
            await drain_queue(vhost.uri, "jobs", 1)

        return self.run_with(
            test,
            start=False,
            **SLOW,
            **FEW_WAIT,
            acl={"commands": "commands.acl"},
            commands={"enabled": "yes"},
            queue_jobs={"queue": "jobs", "reply": "store:readings"},
            route_all={"targets": "store:readings"},
            route_jobs={"targets": "queue:jobs", "topic": "up.job"},
        )

    def test_no_right_to_configure(self) -> Deferred[None]:
        async def test(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            await vhost.broker.ctl("set_permissions", "-p", vhost.name, "guest", "^$", ".*", ".*")
            await self.send(fleet, NOISY, *range(100))
            await self.send(fleet, QUIET, *range(3))
            await self.stored(gateway, database, QUIET, 3)
            await self.named(gateway, "device-parking", DEVICE_LOT, "ACCESS_REFUSED", "set_permissions")
            self.assertEqual(await gateway.metric("reconnects_total"), 0)
            await vhost.broker.ctl("set_permissions", "-p", vhost.name, "guest", ".*", ".*", ".*")
            await self.healed(gateway)
            self.assertEqual(await gateway.metric("reconnects_total"), 0)

        return self.run_with(test, **SLOW, **ONLY_STORE, **FEW_WAIT)
