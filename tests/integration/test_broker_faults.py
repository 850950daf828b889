"""The broker and the way to it misbehave, under load; nothing is lost, stored twice, changed or left unacknowledged."""

from __future__ import annotations

import signal
from contextlib import AbstractAsyncContextManager
from itertools import product
from pathlib import Path
from typing import Any
from unittest import SkipTest

from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from amqprouter.amqp.publisher import CONFIRM_TIMEOUT
from amqprouter.amqp.silence import SILENT
from tests.support.fault_bed import COPIES, NAMES, FaultBed, declare_copies, fault_bed
from tests.support.gateway import drain_queue
from tests.support.process import reactor, until
from tests.support.rabbitmq import missing
from tests.support.thoroughness import times

HEARTBEAT = 5
"""Seconds: the least that the configuration takes."""
HASTY = {"heartbeat": HEARTBEAT, "connect_timeout": 2}
GRACE = 1.0
"""Seconds for us to see what the gateway has noticed, on a busy machine."""


class FaultTestCase(TestCase):
    skip = missing or None
    timeout = times(120, 1800)

    def bed(self, **options: Any) -> AbstractAsyncContextManager[FaultBed]:
        return fault_bed(Path(self.mktemp()), **options)


class NetworkTests(FaultTestCase):
    """What the network does."""

    async def test_resets_in_the_midst_of_frames(self) -> None:
        """On every connection, in both directions, at random bytes: no part of a message counts as one."""
        purposes = "consume", "publish", "events", "consume", "publish", "consume", "publish"
        async with self.bed(broker={"reconnect_max": 1}) as bed:
            async with bed.load():
                for purpose, direction in product(purposes, ("to_server", "to_client")):
                    # Acks and confirms are few bytes, which take a while to come together; of events come few at all.
                    heavy = (purpose, direction) in {("consume", "to_client"), ("publish", "to_server")}
                    link = bed.proxy.link(b"amqprouter %b" % purpose.encode())
                    offset = bed.random.randrange(1, 30_000 if heavy else 300)
                    await getattr(link, direction).reset_after(offset)
                    await self.ready_anew(bed)
            await bed.check(self)
            self.assertEqual(await bed.gateway.metric("reconnects_total"), 2 * len(purposes))

    async def ready_anew(self, bed: FaultBed) -> None:
        async def linked() -> bool:
            return len(bed.proxy.links) == 3 and await bed.gateway.is_ready()

        await until(linked, what="all connections are back", timeout=15, child=bed.gateway.running)

    async def test_black_hole(self) -> None:
        """All three connections are given up within three heartbeats, and replaced once that is possible."""
        async with self.bed(broker=HASTY) as bed:
            async with bed.load():
                bed.proxy.black_hole()
                began = reactor.seconds()

                async def all_noticed() -> bool:
                    return {"broker-consume", "broker-publish", "broker-events"} <= set(await bed.problems())

                await until(all_noticed, what="the silence is noticed", timeout=30, child=bed.gateway.running)
                self.assertLess(reactor.seconds() - began, 3 * HEARTBEAT + GRACE)
                bed.proxy.normal()
                await bed.is_ready()
            await bed.check(self)

    async def test_confirms_that_never_come(self) -> None:
        """The broker has the messages, and says so to nobody: no ack until it has, on the next connection."""
        count = 200
        async with self.bed() as bed:
            bed.proxy.link(b"amqprouter publish").to_client.black_hole()
            began = reactor.seconds()
            bed.send(count)
            await bed.fleet.all_confirmed()
            await bed.stored_reaches(count)

            async def copied() -> bool:
                return (await bed.queues())[COPIES] == count

            await until(copied, what="the broker has the copies", timeout=10, child=bed.gateway.running)
            self.assertEqual((await bed.unacked(), await bed.gateway.metric("settled_total")), (count, 0))
            await bed.gateway.metric_reaches("reconnects_total", 1)
            self.assertLess(reactor.seconds() - began, 1.25 * CONFIRM_TIMEOUT + GRACE + 1)
            self.assertIn(f"no publisher confirm within {CONFIRM_TIMEOUT:g} s", bed.gateway.running.tail())
            await bed.check(self)

    async def test_slices(self) -> None:
        """Every frame in pieces: of one byte, from the handshake on, and then of what an Ethernet frame holds."""
        async with self.bed(slices=1) as bed:
            bed.send(30, largest=200)
            await bed.fleet.all_confirmed()
            await bed.stored_reaches(30)
            bed.proxy.slice(1460)
            bed.send(400, largest=10_000)
            bed.send(3, largest=500_000)  # several frames each
            await bed.check(self)
            self.assertEqual(await bed.gateway.metric("reconnects_total"), 0)


class StoppedTests(FaultTestCase):
    """A process that stands still: its sockets stay open and say nothing."""

    async def test_the_broker_stands_still(self) -> None:
        """For longer than the heartbeats allow: the gateway's memory and open files stay as they were."""
        async with self.bed(private=True, broker=HASTY) as bed:
            async with bed.load():
                await bed.stored_reaches(500)
                memory, files = bed.memory, bed.open_files
                bed.broker.signal("STOP")
                try:
                    began, most_memory, most_files = reactor.seconds(), 0, 0
                    while reactor.seconds() - began < times(3 * HEARTBEAT + 2, 60):
                        await deferLater(reactor, 0.25)
                        most_memory, most_files = max(most_memory, bed.memory), max(most_files, bed.open_files)
                    self.assertIn("no word from the broker", bed.gateway.running.tail(10_000))
                finally:
                    bed.broker.signal("CONT")
                self.assertLess(most_memory - memory, 10_000_000)
                self.assertLessEqual(most_files, files + 2)
                await bed.is_ready()
            await bed.check(self)

    async def test_it_is_told_long_before_heartbeats_tell(self) -> None:
        """And nothing is given up for it: once the broker goes on, so does all else."""
        async with self.bed(private=True) as bed:
            await bed.is_ready()
            bed.broker.signal("STOP")
            try:
                began = reactor.seconds()

                async def told() -> bool:
                    problems = await bed.problems()
                    return {problems.get(f"broker-{name}") for name in ("consume", "publish", "events")} == {SILENT}

                await until(told, what="the silence is told", timeout=30, child=bed.gateway.running)
                self.assertLess(reactor.seconds() - began, 10)
            finally:
                bed.broker.signal("CONT")
            await bed.is_ready()
            self.assertEqual(await bed.gateway.metric("reconnects_total"), 0)
            bed.send(50)
            await bed.check(self)

    async def test_the_daemon_stands_still(self) -> None:
        """The broker gives its messages back meanwhile: none of the old tags is acknowledged afterwards."""
        count = 300
        async with self.bed(broker=HASTY) as bed:
            store = bed.database.server
            if store is None:
                raise SkipTest("needs a store that may be stopped")
            store.signal(signal.SIGSTOP)
            try:
                bed.send(count)
                await bed.fleet.all_confirmed()
                await bed.gateway.metric_reaches("received_total", count)
                bed.gateway.running.signal("STOP")
                await deferLater(reactor, 3 * HEARTBEAT + GRACE)

                async def given_back() -> bool:
                    return (await bed.queues("messages_ready"))[NAMES.ingress] == count

                await until(given_back, what="the broker has dropped the daemon", timeout=10)
            finally:
                store.signal(signal.SIGCONT)
                bed.gateway.running.signal("CONT")
            await bed.check(self)
            self.assertEqual(await bed.gateway.metric("redelivered_total"), count)
            # What its targets' gates found waiting for so long was parked, and is settled again out of the parking
            # queue.
            settled = await bed.gateway.metric("settled_total") - await bed.gateway.metric("unparked_total")
            self.assertEqual(settled, count)
            # What the broker answers to an ack of a tag that its channel never gave.
            self.assertNotIn("unknown delivery tag", bed.gateway.running.tail(1000))


class OperatorTests(FaultTestCase):
    """What is done to the broker."""

    async def test_stopped_and_started(self) -> None:
        """Afterwards each queue has one consumer, not one for each time."""
        async with self.bed(private=True) as bed:

            async def consumers() -> int:
                told = await bed.broker.ctl("list_channels", "consumer_count")
                return sum(int(line) for line in told.splitlines() if line.isdigit())

            before = await consumers()
            async with bed.load():
                for _ in range(times(2, 10)):
                    await bed.broker.ctl("stop_app")
                    await bed.broker.ctl("start_app")
                    await bed.is_ready(within=30)
            await bed.check(self)

            async def one_each() -> bool:
                counts = await bed.queues("consumers")
                return all(counts[name] == 1 for name in (NAMES.ingress, *NAMES.shards))

            await until(one_each, what="each queue has one consumer", timeout=10)

            async def no_more() -> bool:
                return await consumers() <= before

            # By channel: a stream of RabbitMQ 4.3 may count a reader for good whose connection went with the node.
            await until(no_more, what="there are no more consumers than before", timeout=10)

    async def test_connections_closed_over_and_over(self) -> None:
        cycles, pause = times(20, 200), times(500, 3000)
        close_all = '[catch rabbit_networking:close_connection(C, "a test") || C <- rabbit_networking:connections()]'
        ten_times = f"[begin {close_all}, timer:sleep({pause}) end || _ <- lists:seq(1, 10)], ok."
        async with self.bed(broker={"reconnect_max": 1}) as bed:
            async with bed.load():
                await bed.is_ready()
                files = bed.open_files
                for _ in range(cycles // 10):  # one command for each would take longer than the pause
                    await bed.broker.eval(ten_times)
                await bed.gateway.metric_reaches("reconnects_total", cycles)
                await bed.is_ready()
            await bed.check(self)

            async def as_before() -> bool:
                return bed.open_files <= files + 1  # the store's client opens a connection for its pings sometime

            await until(as_before, what=f"there are {files} open files again", timeout=5, child=bed.gateway.running)

    async def test_a_full_target(self) -> None:
        """Its queue rejects: tried again more and more rarely, and delivered when there is room again."""
        room, count = 5, 50
        full = {"x-max-length": room, "x-overflow": "reject-publish"}
        async with self.bed(copies=full) as bed:
            bed.send(count)
            await bed.fleet.all_confirmed()
            await bed.stored_reaches(count)
            await bed.gateway.metric_reaches("target_troubles_total", 6)
            await deferLater(reactor, 0.5)
            self.assertEqual(await bed.held(), count - room)
            # At most all of them once, and then one at a time, more and more rarely.
            self.assertLessEqual(await bed.gateway.metric("target_troubles_total"), count + 6)
            copies = await drain_queue(bed.uri, COPIES, count)
            bed.check_copies(self, copies)
            await bed.check(self, copied=())

    async def test_a_target_exchange_deleted_in_mid_flow(self) -> None:
        async with self.bed() as bed:
            async with bed.load():
                async with bed.operator() as channel:
                    await channel.exchange_delete(exchange=COPIES)
                    await bed.gateway.metric_reaches("publish_retries_total", 3)
                    await declare_copies(channel)
                await bed.stored_reaches(bed.database.count("readings") + 200)
            await bed.check(self)
            self.assertEqual(await bed.gateway.metric("reconnects_total"), 0)  # a channel's trouble only

    async def test_no_permission_to_write(self) -> None:
        """To the target and then to anything: it waits, says why, gets nothing again and again, and recovers."""
        account = "gateway-of-the-faults"
        async with self.bed(account=account, broker={"reconnect_max": 1}) as bed:
            for allowed in (f"^(?!{COPIES}$).*", "^$"):
                await bed.broker.set_permissions(account, bed.vhost, write=allowed)
                # The broker asks once for a channel and remembers the answer.
                await bed.broker.ctl("close_all_user_connections", account, "a test")
                bed.send(100)
                began, redelivered = reactor.seconds(), await bed.gateway.metric("redelivered_total")
                await self.told(bed, "ACCESS_REFUSED")
                await deferLater(reactor, 2)
                again = await bed.gateway.metric("redelivered_total") - redelivered
                self.assertLess(again / (reactor.seconds() - began), 10)

                async def all_held() -> bool:
                    # More where one is parked and not yet acknowledged, and where the channel ended before the confirm
                    # of what the parking queue had taken: then it was parked once more.
                    return await bed.held() >= 100

                await until(all_held, what="all are held", timeout=10, child=bed.gateway.running)
                await bed.broker.set_permissions(account, bed.vhost)
                await bed.is_ready()
                await bed.gateway.metric_reaches("settled_total", bed.fleet.sent)
            await bed.check(self)

    async def told(self, bed: FaultBed, words: str) -> None:
        seen = bed.gateway.running.tail(1_000_000).count(words)

        async def more() -> bool:
            return bed.gateway.running.tail(1_000_000).count(words) > seen

        await until(more, what=f"the log says {words}", timeout=10, child=bed.gateway.running)

    async def test_memory_alarm(self) -> None:
        """What needs no publish is acknowledged, the rest waits and no more is taken in; then all goes on."""
        window = 100
        routes: dict[str, Any] = {
            "route_stored": {"topic": "up.stored", "targets": "store:readings"},
            "route_copied": {"topic": "up.copied", "targets": f"exchange:{COPIES}"},
        }
        async with self.bed(private=True, ingress={"prefetch": window}, scheduler={"max_waiting": 10}, **routes) as bed:
            bed.gateway.running.signal("STOP")
            try:
                stored = bed.send(300, topic="up.stored")
                copied = bed.send(1000, topic="up.copied")
                await bed.fleet.all_confirmed()  # now, since the alarm is for the fleet as well
                await bed.broker.ctl("set_vm_memory_high_watermark", "absolute", "1MB")
            finally:
                bed.gateway.running.signal("CONT")

            async def paused() -> bool:
                return await bed.gateway.metric("unacked") == window and "broker-publish" in await bed.problems()

            await bed.stored_reaches(len(stored))
            await until(paused, what="the intake pauses", timeout=15, child=bed.gateway.running)
            self.assertIn("low on memory", (await bed.problems())["broker-publish"])
            received = await bed.gateway.metric("received_total")
            self.assertLess(received, len(stored) + len(copied))
            await deferLater(reactor, 2)
            self.assertEqual(await bed.gateway.metric("received_total"), received)
            self.assertGreaterEqual(await bed.gateway.metric("settled_total"), len(stored))
            await bed.broker.ctl("set_vm_memory_high_watermark", "0.4")
            await bed.is_ready()
            await bed.check(self, stored=stored, copied=copied)
