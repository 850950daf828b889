"""Faults that a whole gateway meets between broker and targets: alarms, deleted queues, time-outs, a backlog."""

from __future__ import annotations

import json
import signal
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any
from unittest import SkipTest

from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from amqprouter.amqp.properties import Properties, encode_properties
from amqprouter.amqp.publisher import Publisher
from amqprouter.broker.parking import parking_queue_name
from amqprouter.counters import Counters
from tests.support.fault_bed import COPIES, NAMES, FaultBed, fault_bed
from tests.support.gateway import SECRET, drain_queue, reason_of
from tests.support.process import reactor, until
from tests.support.rabbitmq import VERSION, missing

CONSUMER_TIMEOUT = 3.0
"""Seconds; the broker's default is half an hour (https://www.rabbitmq.com/docs/consumers#acknowledgement-timeout)."""

TIMEOUT_ENDS_CONSUMERS = VERSION >= (4, 3)
"""Of quorum queues; up to then one closes a channel."""
CHANNEL_CLOSED = "PRECONDITION_FAILED"

SLOW = "dev9"
"""A device with a limit far below the others'."""


class GatewayFaultTestCase(TestCase):
    skip = missing or None
    timeout = 120

    def bed(self, **options: Any) -> AbstractAsyncContextManager[FaultBed]:
        return fault_bed(Path(self.mktemp()), **options)


class AlarmTests(GatewayFaultTestCase):
    async def test_stopped_during_a_disk_alarm(self) -> None:
        """No confirm comes and the broker reads nothing of us: the stop still ends by its deadline, losing nothing."""
        deadline = 2
        async with self.bed(private=True, limits={"shutdown_deadline": deadline}) as bed:
            bed.gateway.running.signal("STOP")
            try:
                bed.send(200)
                await bed.fleet.all_confirmed()  # now, since the alarm is for the fleet as well
                await bed.broker.ctl("set_disk_free_limit", "900000000000000")
            finally:
                bed.gateway.running.signal("CONT")

            async def alarmed() -> bool:
                return "broker-publish" in await bed.problems() and await bed.gateway.metric("in_flight") > 0

            await until(alarmed, what="the alarm is noticed", timeout=15, child=bed.gateway.running)
            self.assertIn("low on disk", (await bed.problems())["broker-publish"])
            began = reactor.seconds()
            bed.gateway.running.signal("TERM")
            await bed.gateway.running.wait(30)
            self.assertLess(reactor.seconds() - began, deadline + 3)
            await bed.broker.ctl("set_disk_free_limit", "50000000")
            await bed.gateway.start()
            await bed.check(self)


class TargetTests(GatewayFaultTestCase):
    async def test_a_target_without_a_binding(self) -> None:
        """What the broker returns is tried again; what was never taken is dead-lettered, and nothing counts as sent."""
        routes: dict[str, Any] = {"route_all": {"targets": f"exchange:{COPIES}"}}
        async with self.bed(limits={"max_attempts": 4}, **routes) as bed:
            bed.send(50)
            await bed.gateway.metric_reaches("settled_total", 50)  # by now the prefetch is what is configured
            async with bed.operator() as channel:
                await channel.queue_unbind(queue=COPIES, exchange=COPIES)
                passing = bed.send(20) | {bed.fleet.send("dev1", "up.empty", b"", content_type="text/plain")}
                await bed.fleet.all_confirmed()
                await bed.gateway.metric_reaches("publish_retries_total", len(passing))
                self.assertEqual(await bed.gateway.metric("settled_total"), 50)
                await channel.queue_bind(queue=COPIES, exchange=COPIES)
            await bed.gateway.metric_reaches("settled_total", 50 + len(passing))
            copies = await drain_queue(bed.uri, COPIES, 50 + len(passing))
            bed.check_copies(self, copies)
            async with bed.operator() as channel:
                await channel.queue_unbind(queue=COPIES, exchange=COPIES)
            lasting = bed.send(20) | {bed.fleet.send("dev1", "up.empty", b"", content_type="text/plain")}
            await bed.fleet.all_confirmed()
            dead = await drain_queue(bed.uri, NAMES.dead_letters, len(lasting), timeout=60)
            self.assertEqual({Properties(delivery.properties).message_id for delivery in dead}, lasting)
            for delivery in dead:
                self.assertIn("unroutable", str(reason_of(delivery)))
            counts = await bed.queues()
            self.assertEqual((counts[COPIES], counts[NAMES.rejected]), (0, 0))


class IngressTests(GatewayFaultTestCase):
    async def test_the_queue_is_deleted(self) -> None:
        """And whoever deleted it sees it come back within a second or so, consumed from."""
        async with self.bed() as bed:
            bed.send(50)
            await bed.stored_reaches(50)
            async with bed.operator() as channel:
                await channel.queue_delete(queue=NAMES.ingress)
                deleted = reactor.seconds()

                async def back() -> bool:
                    return (await bed.queues("consumers")).get(NAMES.ingress) == 1

                await until(back, what="the queue is consumed from again", timeout=10, child=bed.gateway.running)
            self.assertLess(reactor.seconds() - deleted, 5)  # rabbitmqctl itself takes most of it
            await bed.is_ready(within=1)
            async with bed.load():
                pass
            await bed.check(self)
            self.assertEqual(await bed.gateway.metric("reconnects_total"), 0)

    async def test_the_store_hangs_for_longer_than_the_consumer_timeout(self) -> None:
        """Up to RabbitMQ 4.2 the broker closes the consumers' channel (406), over and over: it is opened again, and
        nothing is lost. From 4.3 on classic queues have no such timeout."""
        await self.check_store_hangs("classic", "" if TIMEOUT_ENDS_CONSUMERS else CHANNEL_CLOSED)

    async def test_the_store_hangs_and_the_queue_is_a_quorum_queue(self) -> None:
        """From RabbitMQ 4.3 on the broker ends the consumer (basic.cancel), over and over; what it takes back comes
        again while the store still has it, and is not stored twice, not even without a message id."""
        await self.check_store_hangs("quorum", "cancelled the consumer" if TIMEOUT_ENDS_CONSUMERS else CHANNEL_CLOSED)

    async def check_store_hangs(self, queue_type: str, sign: str) -> None:
        """`sign` is what the gateway's log says of a consumer timeout; empty where there is none."""
        timeout = {"consumer_timeout": f"{CONSUMER_TIMEOUT * 1000:.0f}"}
        options: dict[str, Any] = {
            "route_nameless": {"topic": "up.nameless", "targets": "store:nameless", "final": "yes"},
            "route_all": {"targets": "store:readings"},
            "ingress": {"consumer_timeout": CONSUMER_TIMEOUT},
            "scheduler": {"max_hold": 1},
            "store": {"timeout": 30},
            "topology": {"queue_type": queue_type},
        }
        async with self.bed(private=True, rabbitmq=timeout, **options) as bed:
            server = bed.database.server
            if server is None:
                raise SkipTest("somebody else's store is not for us to stop")
            # How often a new channel looks; once a minute by default, and no setting of rabbitmq.conf.
            await bed.broker.eval("application:set_env(rabbit, channel_tick_interval, 500).")
            await bed.gateway.stop()
            await bed.gateway.start()
            bed.send(50)
            await bed.stored_reaches(50)
            server.signal(signal.SIGSTOP)
            try:
                bed.send(200)
                await bed.fleet.all_confirmed()
                if sign == "":
                    await deferLater(reactor, 2 * CONSUMER_TIMEOUT)
                elif TIMEOUT_ENDS_CONSUMERS:
                    await self.publish_without_ids(bed, 20)
                began = reactor.seconds()

                # A busy RabbitMQ 4.3 may not look at its timeouts again once it has ended a consumer.
                times = 1 if TIMEOUT_ENDS_CONSUMERS else 2

                async def timed_out() -> bool:
                    return bed.gateway.running.tail(1_000_000).count(sign) >= times

                await until(timed_out, what=f"timeouts: {times}", timeout=40)
                if sign:
                    self.assertLess(reactor.seconds() - began, 4 * CONSUMER_TIMEOUT)
                else:
                    log = bed.gateway.running.tail(1_000_000)
                    self.assertEqual((log.count("cancelled"), log.count("PRECONDITION_FAILED")), (0, 0))
                await deferLater(reactor, 1.5 * CONSUMER_TIMEOUT if TIMEOUT_ENDS_CONSUMERS else 0.5)
            finally:
                server.signal(signal.SIGCONT)
            nameless = 20 if sign and TIMEOUT_ENDS_CONSUMERS else 0
            await bed.gateway.metric_reaches("settled_total", 250 + nameless, timeout=60)
            await bed.check(self, copied=())
            stored = [document["body"]["n"] for document in bed.database.documents("nameless")]
            self.assertEqual(sorted(stored), [number // 2 for number in range(nameless)])
            self.assertEqual(await bed.gateway.metric("reconnects_total"), 0)
            self.assertEqual((await bed.queues())[NAMES.dead_letters], 0)

    async def publish_without_ids(self, bed: FaultBed, count: int) -> None:
        """Numbered messages, each of them twice: equal, and two messages all the same."""
        publisher = Publisher(reactor, Counters(), max_attempts=1, random=lambda: 0.0)
        async with bed.connection() as connection:
            await publisher.attach(connection)
            properties = encode_properties(content_type="application/json", headers={"x-device-secret": SECRET})
            for number in range(count):
                body = json.dumps({"n": number // 2}).encode()
                await publisher.send("devices", "dev1.up.nameless", properties, body)
            publisher.stop()


class BacklogTests(GatewayFaultTestCase):
    async def test_many_messages_wait_at_the_start(self) -> None:
        """The prefetch bounds what is taken, and so memory (``benchmarks.backlog`` has a million waiting)."""
        routes: dict[str, Any] = {"route_all": {"targets": f"exchange:{COPIES}"}}
        few, many, bound = 2_000, 40_000, 30_000_000
        async with self.bed(ingress={"prefetch": 512}, **routes) as bed:
            bed.send(few, largest=1000)
            await bed.gateway.metric_reaches("settled_total", few)
            before = bed.memory
            await bed.gateway.stop()
            for _ in range(20):
                bed.send(many // 20, largest=1000)
                await bed.fleet.all_confirmed()
            await bed.gateway.start()
            peak, settled = 0, 0.0
            while settled < many:
                settled = await bed.gateway.metric("settled_total")
                peak = max(peak, bed.memory)
                self.assertLessEqual(await bed.gateway.metric("unacked"), 2 * 512)
                await deferLater(reactor, 0.05)
            self.assertLess(peak, before + bound)
            await bed.check(self, stored=())


class ConsumerTimeoutTests(GatewayFaultTestCase):
    async def test_whatever_waits_is_parked_well_before_it(self) -> None:
        """For a store that hangs, the only target; for a checker that does not answer; for a limit of one a minute. The
        broker never closes a channel, nor ends a consumer, and all is there in the end."""
        timeout = 6.0
        # From 4.3 on the broker is told it.
        rabbitmq = {} if TIMEOUT_ENDS_CONSUMERS else {"consumer_timeout": f"{timeout * 1000:.0f}"}
        options: dict[str, Any] = {
            "topology": {"queue_type": "quorum" if TIMEOUT_ENDS_CONSUMERS else "classic"},
            "ingress": {"consumer_timeout": timeout},
            "scheduler": {"max_hold": 2, "max_waiting_per_device": 20, "overrides": ""},
            "class_slow": {"devices": SLOW, "limits": "1/min burst 1"},
            "auth": {"device_checker": "file:devices.passwd, mongodb:registry"},
            "store": {"timeout": 1},
            "route_all": {"targets": "store:readings"},
        }
        async with self.bed(private=True, rabbitmq=rabbitmq, **options) as bed:
            server = bed.database.server
            if server is None:
                raise SkipTest("somebody else's store is not for us to stop")
            await bed.broker.eval("application:set_env(rabbit, channel_tick_interval, 500).")
            await bed.gateway.stop()
            await bed.gateway.start()
            for number in range(4):
                bed.fleet.reading(SLOW, number)  # of which three are to wait for a minute and more
            await bed.fleet.all_confirmed()
            await bed.gateway.metric_reaches("parked_messages", 3)
            server.signal(signal.SIGSTOP)
            try:
                for number in range(100):
                    bed.fleet.reading("dev1", number)
                bed.fleet.reading("unknown", 0)  # which only the registry could tell
                await bed.fleet.all_confirmed()
                began = reactor.seconds()
                oldest = 0.0
                while reactor.seconds() < began + 2 * timeout:
                    oldest = max(oldest, await bed.gateway.metric("oldest_unacked_seconds"))
                    await deferLater(reactor, 0.2)
                parked = await bed.gateway.metric("parked_total")
            finally:
                server.signal(signal.SIGCONT)
            self.assertGreaterEqual(parked, 3 + 100 + 1)
            self.assertLess(oldest, 0.8 * timeout)
            await bed.gateway.metric_reaches("stored_total", 101)
            await bed.gateway.metric_reaches("rejected_total", 1)
            for sign in ("PRECONDITION_FAILED", "cancelled the consumer"):
                self.assertNotIn(sign, bed.gateway.running.tail(1_000_000))
            stored = [one["body"]["n"] for one in bed.database.documents("readings") if one["device"] == "dev1"]
            self.assertEqual(sorted(stored), list(range(100)))
            self.assertEqual((await bed.queues())[parking_queue_name("amqprouter", "device", SLOW)], 3)
            self.assertEqual(await bed.gateway.metric("reconnects_total"), 0)
