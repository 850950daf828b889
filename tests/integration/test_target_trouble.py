"""A target is down: its messages wait in the broker, in order, and nobody else notices."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import treq
from twisted.trial.unittest import SkipTest, TestCase

from amqprouter.amqp.properties import Properties
from amqprouter.amqp.wire import Delivery
from amqprouter.broker.parking import parking_queue_name
from tests.support.fault_bed import COPIES, DEVICES, NAMES, FaultBed, fault_bed
from tests.support.gateway import drain_queue
from tests.support.process import until
from tests.support.rabbitmq import missing

FULL = {"x-max-length": 10, "x-overflow": "reject-publish"}
COPIES_LOT = parking_queue_name("amqprouter", "target", f"exchange:{COPIES}")
STORE_LOT = parking_queue_name("amqprouter", "target", "store:readings")
QUICK = {"limits": {"max_attempts": 2, "target_patience": 0.3}}


class TargetTroubleTests(TestCase):
    skip = missing or None
    timeout = 180

    def bed(self, **options: Any) -> Any:
        return fault_bed(Path(self.mktemp()), **{**QUICK, **options})

    def setUp(self) -> None:
        self.numbers = dict.fromkeys(DEVICES, 0)

    async def send(self, bed: FaultBed, count: int) -> None:
        """Readings, numbered by device."""
        for _ in range(count):
            device = bed.random.choice(DEVICES)
            bed.fleet.reading(device, self.numbers[device])
            self.numbers[device] += 1
        await bed.fleet.all_confirmed()

    async def sources_are_empty(self, bed: FaultBed, timeout: float = 90) -> None:
        """Every message is with its targets, or parked; but for one that was out as a trial when parking began: older
        than what is parked, it stays the one to be tried."""

        async def empty() -> bool:
            counts = await bed.queues()
            return sum(counts[name] for name in (NAMES.ingress, *NAMES.shards)) <= 1

        await until(empty, what="the ingress is empty", timeout=timeout, child=bed.gateway.running)

    async def parking_queue_is_empty(self, bed: FaultBed, parking_queue: str) -> None:
        async def empty() -> bool:
            return (await bed.queues())[parking_queue] == 0

        await until(empty, what=f"{parking_queue} is empty", timeout=90, child=bed.gateway.running)

    def check_order(self, bed: FaultBed, copies: Sequence[Delivery], *, repeats: bool = False) -> None:
        """Each device's readings, all of them, as good as in order, with the bytes that were sent."""
        bed.check_copies(self, copies)
        for device in DEVICES:
            numbers = [json.loads(copy.body)["n"] for copy in copies if _device(copy) == device]
            if repeats:
                numbers = list(dict.fromkeys(numbers))
            self.assertEqual(sorted(numbers), list(range(self.numbers[device])), device)
            # Those that are out together when the first is refused may overtake each other, once.
            self.assertLessEqual(sum(later < earlier for earlier, later in itertools.pairwise(numbers)), 1, device)

    async def check_nothing_was_given_up(self, bed: FaultBed) -> None:
        counts = await bed.queues()
        self.assertEqual((counts[NAMES.rejected], counts[NAMES.dead_letters]), (0, 0))

    async def test_a_full_queue(self) -> None:
        async with self.bed(copies=FULL) as bed:
            count = 2000
            await self.send(bed, count)
            await bed.stored_reaches(count)
            await self.sources_are_empty(bed)  # the others' flow goes on: nothing is held up
            self.assertEqual(bed.database.count("readings"), count)
            problems = await bed.problems()
            self.assertIn(f"exchange:{COPIES}", problems)
            self.assertIn("nacked by the broker", problems[f"exchange:{COPIES}"])
            await bed.gateway.metric_reaches("target_troubles_total", 6)
            await self.send(bed, 500)
            await bed.stored_reaches(count + 500)
            await self.sources_are_empty(bed)
            await self.check_nothing_was_given_up(bed)
            self.assertEqual(bed.gateway.running.tail(1_000_000).count("takes no messages: nacked"), 1)
            copies = await drain_queue(bed.uri, COPIES, count + 500)
            self.check_order(bed, copies)
            await bed.is_ready()
            self.assertEqual(bed.gateway.running.tail(1_000_000).count("takes messages again"), 1)
            await self.parking_queue_is_empty(bed, COPIES_LOT)
            for _ in range(5):  # on a busy machine the target may be too slow for its short patience, but not always
                parked = await bed.gateway.metric("parked_total")
                await self.send(bed, 5)
                await drain_queue(bed.uri, COPIES, 5)
                await self.parking_queue_is_empty(bed, COPIES_LOT)
                if await bed.gateway.metric("parked_total") == parked:
                    break
            else:
                self.fail("parked although all is well")

    async def test_a_target_that_is_taken_out(self) -> None:
        """What it had parked is told of, and delivered once some route names it again."""
        async with self.bed(copies=FULL) as bed:
            await self.send(bed, 200)
            await bed.stored_reaches(200)
            await self.sources_are_empty(bed)
            route, gateway = bed.gateway.sections["route all"], bed.gateway
            targets, route["targets"] = route["targets"], "store:readings"
            await gateway.stop()
            parked = (await bed.queues())[COPIES_LOT]
            self.assertGreater(parked, 100)
            gateway.write_config()
            await gateway.start()
            response = await treq.get(f"{gateway.url}/readyz", persistent=False)
            self.assertIn(f"{parked} messages in {COPIES_LOT}", (await response.json())["notes"]["left-parking"])
            self.assertEqual(await gateway.metric("left_parked_messages"), parked)
            self.assertEqual(gateway.running.tail(1_000_000).count(f"{parked} messages are parked in {COPIES_LOT}"), 1)

            gateway.sections["route drain"] = {"device": "no-such-device", "targets": targets}
            gateway.write_config()
            await gateway.stop()
            await gateway.start(ready=False)
            self.check_order(bed, await drain_queue(bed.uri, COPIES, 200), repeats=True)
            await self.parking_queue_is_empty(bed, COPIES_LOT)
            await bed.is_ready()
            self.assertEqual(await gateway.metric("left_parked_messages"), 0)
            await self.check_nothing_was_given_up(bed)

    async def test_a_limit_that_is_lifted(self) -> None:
        """Nobody consumes, so the queue stays as it is but for its limit; channels of RabbitMQ 3.10 do not notice."""
        async with self.bed(copies={"x-queue-type": "quorum"}) as bed:
            limit = json.dumps({"max-length": 10, "overflow": "reject-publish"})
            await bed.broker.ctl("set_policy", "-p", bed.vhost, "full", f"^{COPIES}$", limit)
            sent = 0
            while not await bed.problems():  # the limit, and the news that it is reached, come in their own time
                await self.send(bed, 50)
                sent += 50
            await bed.stored_reaches(sent)
            await bed.broker.ctl("clear_policy", "-p", bed.vhost, "full")
            await bed.is_ready()
            await self.parking_queue_is_empty(bed, COPIES_LOT)
            self.check_order(bed, await drain_queue(bed.uri, COPIES, sent))
            await self.check_nothing_was_given_up(bed)

    async def test_a_full_queue_and_the_daemon_is_killed(self) -> None:
        """The parking queue is found again, and what is sent meanwhile goes behind what is in it."""
        async with self.bed(copies=FULL) as bed:
            await self.send(bed, 600)
            await bed.stored_reaches(600)
            await self.sources_are_empty(bed)
            await bed.gateway.running.kill()
            await self.send(bed, 300)
            await bed.gateway.start(ready=False)
            await bed.stored_reaches(900)
            await self.sources_are_empty(bed)
            self.assertGreater((await bed.queues())[COPIES_LOT], 800)
            copies = await drain_queue(bed.uri, COPIES, 900)
            await self.parking_queue_is_empty(bed, COPIES_LOT)
            copies += await drain_queue(bed.uri, COPIES, (await bed.queues())[COPIES])
            self.check_order(bed, copies, repeats=True)
            await self.check_nothing_was_given_up(bed)

    async def test_a_full_queue_and_the_broker_is_killed(self) -> None:
        async with self.bed(private=True, copies=FULL, broker={"reconnect_max": 1}) as bed:
            await self.send(bed, 600)
            await bed.stored_reaches(600)
            await self.sources_are_empty(bed)
            await bed.broker.remember()
            await bed.broker.kill()
            await bed.broker.start()
            await until(bed.fleet.reconnected, what="the fleet is connected", timeout=30)
            await self.send(bed, 300)
            await bed.stored_reaches(900)
            await self.sources_are_empty(bed)
            copies = await drain_queue(bed.uri, COPIES, 900)

            async def drained() -> bool:
                """What the broker had not written to disk yet came again, and may be more than the queue takes."""
                copies.extend(await drain_queue(bed.uri, COPIES, (await bed.queues())[COPIES]))
                return not (await bed.queues()).get(COPIES_LOT)

            await until(drained, what=f"{COPIES_LOT} is empty", timeout=90, child=bed.gateway.running)
            copies += await drain_queue(bed.uri, COPIES, (await bed.queues())[COPIES])
            self.check_order(bed, copies, repeats=True)
            await self.check_nothing_was_given_up(bed)

    async def test_the_store_is_down(self) -> None:
        """...and the daemon is killed meanwhile: the exchange gets everything, and the store does once it is back."""
        async with self.bed(store={"timeout": 1}) as bed:
            server = bed.database.server
            if server is None:
                raise SkipTest("the server is not the test's own")
            await self.send(bed, 200)
            await bed.stored_reaches(200)
            server.kill()
            await self.send(bed, 1000)
            await self.sources_are_empty(bed)
            self.assertIn("store:readings", await bed.problems())
            await bed.gateway.running.kill()
            await bed.gateway.start(ready=False)
            await self.send(bed, 300)
            await self.sources_are_empty(bed)
            copies = await drain_queue(bed.uri, COPIES, 1500)
            copies += await drain_queue(bed.uri, COPIES, (await bed.queues())[COPIES])
            self.check_order(bed, copies, repeats=True)
            self.assertGreater((await bed.queues())[STORE_LOT], 1000)
            server.start()
            await bed.check(self, copied=())


def _device(delivery: Delivery) -> str:
    return str(Properties(delivery.properties).headers["x-amqprouter-device"])
