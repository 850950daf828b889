"""A device far over its rate: its messages are parked in the broker and come at its rate; the others notice nothing."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from amqprouter.amqp.connection import Connection
from amqprouter.amqp.declare import queue_state
from amqprouter.amqp.properties import Properties
from amqprouter.amqp.wire import Delivery
from amqprouter.broker.parking import parking_queue_name
from tests.support.fault_bed import COPIES, DEVICES, NAMES, ROUTE, FaultBed, fault_bed
from tests.support.gateway import Gateway, drain_queue
from tests.support.process import reactor, until
from tests.support.rabbitmq import VERSION, missing

NOISY, *QUIET = DEVICES
RATE = 50
LOT = parking_queue_name("amqprouter", "device", NOISY)
OPTIONS: dict[str, Any] = {
    "scheduler": {"max_waiting_per_device": 20},
    "class noisy": {"devices": NOISY, "limits": f"{RATE}/s burst 10"},
}


class DeviceParkingTests(TestCase):
    skip = missing or None
    timeout = 120

    async def send(self, bed: FaultBed, device: str, numbers: Sequence[int]) -> None:
        for number in numbers:
            bed.fleet.reading(device, number)
        await bed.fleet.all_confirmed()

    async def parking_queue_holds(self, bed: FaultBed, least: int) -> None:
        async def holds() -> bool:
            return (await bed.queues()).get(LOT, 0) >= least

        await until(holds, what=f"{least} messages are parked", timeout=60, child=bed.gateway.running)

    async def check_nothing_was_rejected(self, bed: FaultBed) -> None:
        counts = await bed.queues()
        self.assertEqual((counts[NAMES.rejected], counts[NAMES.dead_letters]), (0, 0))

    async def test_parked_and_drained_at_its_rate(self) -> None:
        async with fault_bed(Path(self.mktemp()), **OPTIONS) as bed:
            count = 400
            began = time.monotonic()
            await self.send(bed, NOISY, range(count))
            await self.parking_queue_holds(bed, count // 4)
            self.assertEqual(await bed.gateway.metric("parked_devices"), 1)
            asked = time.monotonic()
            for device in QUIET:
                await self.send(bed, device, range(10))
            copies = await self.drain(bed, count + 10 * len(QUIET))
            took = time.monotonic() - began
            self.assertLess(asked - began, 5)
            self.assertGreater(took, (count - 10) / RATE * 0.95)
            self.assertLess(took, (count - 10) / RATE * 1.3 + 2)
            self.check_order(copies, {NOISY: count, **dict.fromkeys(QUIET, 10)})
            order = [device_of(copy) for copy in copies]
            last_quiet = max(len(order) - order[::-1].index(device) for device in QUIET)
            self.assertLess(last_quiet, len(order) * 0.8, "quiet devices wait for the noisy one")
            await self.check_nothing_was_rejected(bed)
            await bed.check(self, copied=())
            self.assertEqual(await bed.gateway.metric("parked_messages"), 0)

    async def test_the_gateway_is_killed_meanwhile(self) -> None:
        """The parking queue is found again, and what is sent meanwhile goes behind what is in it."""
        async with fault_bed(Path(self.mktemp()), **OPTIONS) as bed:
            await self.send(bed, NOISY, range(300))
            await self.parking_queue_holds(bed, 100)

            async def nothing_in_memory() -> bool:
                """What waits there goes before the parking queue, and would come again behind it: order ends with a
                gateway."""
                return not await bed.unacked()

            await until(
                nothing_in_memory, what="all else is in the parking queue", timeout=20, child=bed.gateway.running
            )
            await bed.gateway.running.kill()
            await self.send(bed, NOISY, range(300, 400))
            await bed.gateway.start()
            await self.send(bed, NOISY, range(400, 450))
            await until(lambda: self.is_stored(bed, 450), what="all is stored", timeout=40, child=bed.gateway.running)
            copies = await self.drain(bed, (await bed.queues())[COPIES])
            self.check_order(copies, {NOISY: 450})
            await self.check_nothing_was_rejected(bed)
            await bed.check(self, copied=())

    async def test_killed_again_and_again_under_load(self) -> None:
        """Whatever was on its way into the queue, in it or out of it: nothing is lost and nothing is stored twice."""
        noisy = {"devices": NOISY, "limits": "15/s burst 5"}
        async with fault_bed(Path(self.mktemp()), **{**OPTIONS, "class noisy": noisy}) as bed:
            for parked in (10, 20, 30):
                async with bed.load():
                    await self.send(bed, NOISY, range(100))
                    await self.parking_queue_holds(bed, parked)
                    await bed.gateway.running.kill()
                await bed.gateway.start()
            await bed.check(self)
            self.assertEqual(await bed.gateway.metric("parked_messages"), 0)

    async def test_the_broker_is_killed_just_after_the_queue_was_declared(self) -> None:
        """A quorum queue does not survive that in its first second, whatever was confirmed: RabbitMQ 4.3 has it empty
        then, earlier ones without a leader. What was to go into it is still with its source."""
        classes = {f"class {device}": {"devices": device, "limits": "20/s burst 5"} for device in QUIET[:4]}
        options = {**OPTIONS, "topology": {"queue_type": "quorum"}, "store": {"timeout": 5}, **classes}
        async with fault_bed(Path(self.mktemp()), private=True, **options) as bed:
            await deferLater(reactor, 2.0)  # the other queues are just declared as well
            for device in (NOISY, *QUIET[:4]) if VERSION >= (4, 3) else (NOISY,):
                await self.send(bed, device, range(60))
                async with bed.connection() as connection:

                    async def declared(device: str = device, connection: Connection = connection) -> bool:
                        return (
                            await queue_state(connection, parking_queue_name("amqprouter", "device", device))
                            is not None
                        )

                    await until(declared, what="the parking queue is declared", timeout=10, child=bed.gateway.running)
                await deferLater(reactor, 0.3)  # for what was parked to be settled, if it is
                await bed.broker.kill()
                await bed.broker.start()
                if VERSION < (4, 3):  # the queue has no leader for ever, and is to be deleted by hand
                    async with bed.operator() as channel:
                        await channel.queue_delete(queue=parking_queue_name("amqprouter", "device", device))
                await bed.is_ready(within=60)
            await bed.check(self)

    async def test_another_gateway_takes_over(self) -> None:
        """It knows of the parking queue already, and drains it. What waited in the other's memory comes again, but
        behind the
        parking queue: the order does not outlive a gateway."""
        options = {**OPTIONS, "class noisy": {"devices": NOISY, "limits": "15/s burst 10"}}
        async with fault_bed(Path(self.mktemp()), **options) as bed:
            folder = Path(self.mktemp())
            folder.mkdir()
            second = Gateway(
                folder / "second", bed.uri, bed.database.uri, bed.database.name, **options, route_all=ROUTE
            )
            second.devices(*DEVICES)
            await second.start()
            try:
                await self.send(bed, NOISY, range(300))
                for gateway in (bed.gateway, second):
                    await gateway.metric_reaches("parked_devices", 1)
                await bed.gateway.running.kill()
                await self.send(bed, NOISY, range(300, 350))
                await until(lambda: self.is_stored(bed, 350), what="all is stored", timeout=60, child=second.running)
                copies = await self.drain(bed, (await bed.queues())[COPIES])
                numbers = {json.loads(copy.body)["n"] for copy in copies if device_of(copy) == NOISY}
                self.assertEqual(numbers, set(range(350)))
                await self.check_nothing_was_rejected(bed)
            finally:
                await second.stop()

    async def is_stored(self, bed: FaultBed, count: int) -> bool:
        return bed.database.count("readings") >= count

    async def drain(self, bed: FaultBed, count: int) -> list[Delivery]:
        return await drain_queue(bed.uri, COPIES, count, timeout=40)

    def check_order(self, copies: Sequence[Delivery], counts: dict[str, int]) -> None:
        """Each device's readings, all of them, in order; some may have come twice."""
        for device, count in counts.items():
            numbers = [json.loads(copy.body)["n"] for copy in copies if device_of(copy) == device]
            self.assertEqual(list(dict.fromkeys(numbers)), list(range(count)), device)


def device_of(delivery: Delivery) -> str:
    return str(Properties(delivery.properties).headers["x-amqprouter-device"])
