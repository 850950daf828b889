"""What becomes of messages when the service that knows the devices misbehaves; the faults are numbered as in the plan.

A gateway process on real servers asks an auth service of this process, which can be taken down or made to fail.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import treq
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from amqprouter.amqp.link import connect_once
from amqprouter.amqp.properties import Properties, encode_properties
from amqprouter.amqp.wire import Delivery, encode_ack, encode_publish
from amqprouter.broker.parked_message import parked_properties
from amqprouter.identity import Verdict
from amqprouter.pipeline.message import Message
from amqprouter.settings import BrokerSettings
from tests.support.auth_service import AuthService
from tests.support.gateway import SECRET, Fleet, Gateway, drain_queue, reason_of
from tests.support.gateway_case import GatewayTestCase
from tests.support.mongo import TestDatabase
from tests.support.process import reactor, until
from tests.support.servers import Vhost

CROWD = [f"dev{n}" for n in range(100)]
WARM = "warm"
MOST_HELD = 20
OUTAGE = 4.0
"""Seconds of an outage: enough for four probes, and for a stampede to show."""


class ServiceTestCase(GatewayTestCase):
    def with_service(
        self,
        test: Callable[[AuthService, Gateway, Fleet, Vhost, TestDatabase], Awaitable[None]],
        *,
        auth: dict[str, object] | None = None,
        timeout: float = 0.5,
        **options: Any,
    ) -> Deferred[None]:
        """Run the test with a gateway that asks `service`."""
        service = AuthService(dict.fromkeys([*CROWD, WARM], SECRET))
        service.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(service.stop()))
        checker = f"http://{service.address}/device timeout={timeout} connections=8"
        settings = {"device_checker": checker, "negative_cache_seconds": 1, **(auth or {})}
        return self.run_with(
            lambda gateway, fleet, vhost, database: test(service, gateway, fleet, vhost, database),
            auth=settings,
            **options,
        )

    async def warm_up(self, gateway: Gateway, fleet: Fleet) -> None:
        """Have a device known, and the prefetch grown, which begins at 1."""
        for n in range(20):
            fleet.reading(WARM, n)
        await fleet.all_confirmed()
        await gateway.metric_reaches("settled_total", 20)


class OutageTests(ServiceTestCase):
    """Fault 29: the auth backend is down, fails, or is slow."""

    def outage(self, begin: Callable[[AuthService], object]) -> Deferred[None]:
        async def test(
            service: AuthService, gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase
        ) -> None:
            await self.warm_up(gateway, fleet)
            began = begin(service)
            if began is not None:
                await began  # type: ignore[misc]
            asked_before = len(service.asked)
            for device in CROWD:
                fleet.reading(device, 1)
                fleet.send(device, "up.reading", b"2", secret="wrong")
            fleet.reading(WARM, 99)
            await fleet.all_confirmed()
            await gateway.metric_reaches("received_total", 20 + 2 * len(CROWD) + 1)
            await deferLater(reactor, OUTAGE)
            # Nothing is rejected and nobody is let in; who is known goes on.
            self.assertEqual(len(database.documents("readings")), 21)
            self.assertEqual(await gateway.metric("settled_total"), 21)
            self.assertEqual(await gateway.metric("rejected_total"), 0)
            self.assertEqual(await gateway.metric("dead_lettered_total"), 0)
            unacked = await vhost.list_queues("messages_unacknowledged")
            self.assertEqual(sum(unacked.values()), 2 * len(CROWD))
            # No stampede: one round of all connections (and again, where requests are cut off), then probes.
            self.assertLessEqual(len(service.asked) - asked_before, 2 * 8 + 2 * 5)
            self.assertLessEqual(service.most_at_once, 8)
            response = await treq.get(f"{gateway.url}/readyz", persistent=False)
            parts = (await response.json())["parts"]
            self.assertEqual(response.code, 503)
            self.assertIn("does not answer", parts["checker devices/http"])
            # And when it is back:
            service.behave = service.judge
            if service.stopped:
                service.start()
            await gateway.metric_reaches("settled_total", 21 + 2 * len(CROWD), timeout=40)
            stored = [document["device"] for document in database.documents("readings")]
            self.assertEqual(sorted(stored), sorted([*CROWD, *[WARM] * 21]))
            rejected = await drain_queue(vhost.uri, "amqprouter.rejected", len(CROWD))
            self.assertEqual({reason_of(d) for d in rejected}, {"bad-secret"})
            self.assertEqual(await gateway.metric("dead_lettered_total"), 0)
            self.assertLessEqual(service.most_at_once, 8)
            self.assertTrue(await gateway.is_ready())

        return self.with_service(test)

    def test_down(self) -> Deferred[None]:
        return self.outage(lambda service: service.stop())

    def test_status_500(self) -> Deferred[None]:
        return self.outage(lambda service: setattr(service, "behave", service.fails_with(500)))

    def test_status_404(self) -> Deferred[None]:
        return self.outage(lambda service: setattr(service, "behave", service.fails_with(404)))

    def test_slow(self) -> Deferred[None]:
        return self.outage(lambda service: setattr(service, "behave", service.slow(60)))


class LongOutageTests(ServiceTestCase):
    """More comes meanwhile than may wait in memory."""

    devices = ("dev1", "dev2", "guest")

    def test_parked_in_the_broker_and_judged_afterwards(self) -> Deferred[None]:
        """A device that needs no checker goes on; the others' messages survive a crash, and are let in only once the
        service has said so, each of them once."""
        few = CROWD[:10]
        each = 30

        async def test(
            service: AuthService, gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase
        ) -> None:
            await self.warm_up(gateway, fleet)
            await service.stop()
            for n in range(each):
                for device in few:
                    fleet.reading(device, n)
            for device in few:
                fleet.send(device, "up.reading", b"-1", secret="wrong")
            await fleet.all_confirmed()
            count = len(few) * (each + 1)
            await gateway.metric_reaches("parked_total", count - 2 * MOST_HELD)
            connection = await connect_once(reactor, BrokerSettings(uri=vhost.uri), "test")
            channel = await connection.open_channel()
            for n in range(100):
                properties = encode_properties(user_id="guest", message_id=f"g{n}")
                channel.write(encode_publish(channel.id, b"devices", b"guest.up.x", properties, b"%d" % n, 4096))
            # Somebody writes to the daemon's own queue what it would park, for a device that is proven.
            forged = Message("dev1", "up.x", b"666", Properties(encode_properties(message_id="forged")))
            forged.verdict = Verdict(True, checker="secret")
            properties = parked_properties(forged)
            channel.write(encode_publish(channel.id, b"", b"amqprouter.parked.auth.held", properties, b"666", 4096))
            await gateway.metric_reaches("stored_total", 20 + 100)
            await connection.shut()
            self.assertEqual(await gateway.metric("rejected_total"), 0)
            unacked = await vhost.list_queues("messages_unacknowledged")
            self.assertLessEqual(sum(unacked.values()), 2 * MOST_HELD)
            await gateway.running.kill()
            await gateway.start(ready=False)
            service.start()

            async def all_there() -> bool:
                return database.count("readings") >= 20 + 100 + len(few) * each

            await until(all_there, what="everything is stored", timeout=60, child=gateway.running)
            rejected = await drain_queue(vhost.uri, "amqprouter.rejected", len(few))
            self.assertEqual({reason_of(d) for d in rejected}, {"bad-secret"})
            (dead,) = await drain_queue(vhost.uri, "amqprouter.dead-letters", 1)
            self.assertIn("not parked", reason_of(dead))
            self.assertNotIn("x-amqprouter-proven", Properties(dead.properties).headers)
            stored = [(document["device"], document["body"]) for document in database.documents("readings")]
            for device in few:
                numbers = [body["n"] for who, body in stored if who == device]
                self.assertEqual(sorted(numbers), list(range(each)))

            async def empty() -> bool:
                counts = await vhost.list_queues()
                return not counts["amqprouter.parked.auth.held"] and not counts["amqprouter.ingress"]

            await until(empty, what="nothing is left parked", timeout=20, child=gateway.running)

        return self.with_service(
            test,
            auth={"max_held": MOST_HELD},
            ingress={"prefetch": 100},
            scheduler={"max_waiting": 50},
            route_all={"targets": "store:readings"},
        )


class OrderTests(ServiceTestCase):
    def test_order_holds_while_what_was_parked_is_judged(self) -> Deferred[None]:
        """The device is known once the first has been judged, and goes on sending."""

        async def test(
            service: AuthService, gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase
        ) -> None:
            watch = _Watch(fleet)
            await watch.start(vhost.uri)
            await self.warm_up(gateway, fleet)
            await service.stop()
            sent = [fleet.reading("dev1", n) for n in range(500)]
            await fleet.all_confirmed()
            await gateway.metric_reaches("parked_total", 500 - 2 * MOST_HELD)
            service.start()
            while len(watch.arrived) < 20 + 500:
                sent.append(fleet.reading("dev1", len(sent)))
                fleet.flush()
                await deferLater(reactor, 0.005)
            await fleet.all_confirmed()
            await watch.until_there(sent)
            self.assertEqual([message for message in watch.arrived if message in set(sent)], sent)
            await watch.stop()

        return self.with_service(
            test,
            auth={"max_held": MOST_HELD},
            ingress={"prefetch": 100},
            scheduler={"max_waiting": 50},
            route_all={"targets": "exchange:amq.topic"},
        )


class PoisonTests(ServiceTestCase):
    """Fault 21: a checker that always raises on one id."""

    measures = True

    def test_its_messages_are_dead_lettered_and_the_others_notice_nothing(self) -> Deferred[None]:
        async def test(
            service: AuthService, gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase
        ) -> None:
            watch = _Watch(fleet)
            await watch.start(vhost.uri)
            try:
                await self.warm_up(gateway, fleet)
                before = await watch.p99_of(CROWD[:20], seconds=4)

                def poisoned(request: Any) -> bytes:
                    if request.args[b"username"] == [b"poison"]:
                        request.setResponseCode(500)
                        return b"allow"
                    return service.judge(request)

                service.behave = poisoned
                ids = [fleet.reading("poison", n) for n in range(5)]
                during = await watch.p99_of(CROWD[:20], seconds=8)
                after = await watch.p99_of(CROWD[:20], seconds=4)  # the machine may have got busier meanwhile
                self.assertLess(
                    during, max(2 * before, 2 * after, 0.1), f"p99 was {before:.3f} s before and {after:.3f} s after"
                )
                dead = await drain_queue(vhost.uri, "amqprouter.dead-letters", len(ids), timeout=30)
                self.assertEqual([Properties(d.properties).message_id for d in dead], ids)
                self.assertEqual({reason_of(d) for d in dead}, {"checker-error"})
                self.assertEqual(await gateway.metric("rejected_total"), 0)
                # Asked about as often as it takes to be sure, and not for each message again.
                self.assertEqual(service.asked.count("poison"), 4)
                self.assertTrue(await gateway.is_ready())
            finally:
                await watch.stop()

        return self.with_service(
            test,
            auth={"max_checker_errors": 4, "cache_seconds": 0.2},
            route_all={"targets": "exchange:amq.topic"},
        )


class _Watch:
    """Takes what the gateway passes on, and tells how long it took."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self.arrived: dict[str, float] = {}
        """When each message came, by id; in that order."""

    async def start(self, uri: str) -> None:
        self._connection = await connect_once(reactor, BrokerSettings(uri=uri), "test watch")
        channel = await self._connection.open_channel()
        await channel.queue_declare(queue="watched", durable=True)
        await channel.queue_bind(queue="watched", exchange="amq.topic", routing_key="#")

        def received(deliveries: list[Delivery]) -> None:
            now = reactor.seconds()
            for delivery in deliveries:
                self.arrived[str(Properties(delivery.properties).message_id)] = now
            channel.write(encode_ack(channel.id, deliveries[-1].delivery_tag, True))

        channel.on_deliveries = received
        await channel.basic_consume(queue="watched", consumer_tag="watch")

    async def p99_of(self, devices: list[str], seconds: float) -> float:
        """Send from these devices in turn, 100 messages a second, and return the 99th percentile of their ways."""
        sent: dict[str, float] = {}
        for n in range(int(seconds * 100)):
            sent[self._fleet.reading(devices[n % len(devices)], n)] = reactor.seconds()
            self._fleet.flush()
            await deferLater(reactor, 0.01)

        await self.until_there(sent)
        ways = sorted(self.arrived[message] - at for message, at in sent.items())
        return ways[math.ceil(0.99 * len(ways)) - 1]

    async def until_there(self, messages: Iterable[str]) -> None:
        async def all_there() -> bool:
            return self.arrived.keys() >= set(messages)

        await until(all_there, what="every message of the others has arrived", timeout=30)

    async def stop(self) -> None:
        await self._connection.shut()
