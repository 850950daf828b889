"""A queue in quarantine is full, by an operator's policy: good messages pass, the bad ones are kept or counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from twisted.trial.unittest import TestCase

from amqprouter.amqp.properties import Properties
from tests.integration.test_cli import amqprouter
from tests.support.fault_bed import DEVICES, NAMES, FaultBed, fault_bed
from tests.support.gateway import drain_queue
from tests.support.process import until
from tests.support.rabbitmq import missing

ROOM, BAD, GOOD = 50, 200, 5
DEVICE = DEVICES[0]
QUICK = {"target_patience": 0.4, "max_attempts": 2}
PREFETCH = 64
"""A quarter of it may wait."""


class FullTestCase(TestCase):
    skip = missing or None
    timeout = 120

    def bed(self, policy: str = "drop-oldest", prefetch: int = PREFETCH, **options: Any) -> Any:
        return fault_bed(
            Path(self.mktemp()),
            limits={**QUICK, "when_quarantine_is_full": policy},
            ingress={"prefetch": prefetch},
            scheduler={"max_waiting": 20, "max_waiting_per_device": 10},
            route_all={"targets": "store:readings", "topic": "up.good"},
            **options,
        )

    async def fill_up(self, bed: FaultBed, queue: str, room: int = ROOM) -> None:
        """The queue takes no more than that."""
        definition = json.dumps({"max-length": room, "overflow": "reject-publish"})
        pattern = f"^{queue.replace('.', '[.]')}$"
        await bed.broker.ctl("set_policy", "-p", bed.vhost, "--apply-to", "queues", "full", pattern, definition)

    async def lift(self, bed: FaultBed) -> None:
        await bed.broker.ctl("clear_policy", "-p", bed.vhost, "full")

    def bad(self, bed: FaultBed, queue: str, count: int = BAD) -> list[str]:
        """Messages that go there, all of one device; returns their ids, in order."""
        if queue == NAMES.rejected:
            sent = [bed.fleet.send(DEVICE, "up.good", b"1", secret="wrong") for _ in range(count)]
        else:
            sent = [bed.fleet.send(DEVICE, "up.bad", b"1") for _ in range(count)]
        bed.fleet.flush()
        return sent

    async def good(self, bed: FaultBed, count: int = GOOD) -> None:
        """The device itself sends good messages, behind the bad ones; they arrive."""
        before = bed.database.count("readings")
        for _ in range(count):
            bed.fleet.send(DEVICE, "up.good", b"1")
        await bed.fleet.all_confirmed()
        await bed.stored_reaches(before + count)

    async def warm_up(self, bed: FaultBed) -> None:
        """The prefetch grows once something has passed."""
        await self.good(bed, 20)

    async def settled(self, bed: FaultBed, queue: str) -> None:
        """There is no trouble any more, and nothing waits."""

        async def done() -> bool:
            return not await bed.held() and not await bed.problems()

        await until(done, what=f"{queue} has taken what waited", timeout=30, child=bed.gateway.running)

    async def is_named(self, bed: FaultBed, part: str) -> None:
        async def named() -> bool:
            return "nacked" in (await bed.problems()).get(part, "")

        await until(named, what=f"/readyz names {part}", timeout=10, child=bed.gateway.running)
        self.assertEqual(set(await bed.problems()), {part})

    def lines(self, bed: FaultBed) -> list[str]:
        """What the log says of quarantine."""
        log = (bed.gateway.folder / "daemon.log").read_text()
        return [line for line in log.splitlines() if "QuarantineGate" in line or "Cannot publish" in line]

    async def ids(self, bed: FaultBed, queue: str) -> list[str]:
        count = (await bed.queues())[queue]
        return [str(Properties(one.properties).message_id) for one in await drain_queue(bed.uri, queue, count)]


class PolicyTests(FullTestCase):
    async def full(self, queue: str, policy: str, **options: Any) -> tuple[list[str], list[str], float]:
        """The queue is full for a while; returns what was sent and what it has in the end, and how many were let go."""
        part = "quarantine:rejected" if queue == NAMES.rejected else "quarantine:dead-letters"
        async with self.bed(policy, **options) as bed:
            await self.fill_up(bed, queue)
            await self.warm_up(bed)
            sent = self.bad(bed, queue)
            await self.good(bed)
            await self.is_named(bed, part)
            other = ({NAMES.rejected, NAMES.dead_letters} - {queue}).pop()
            self.bad(bed, other, 3)

            async def there() -> bool:
                counts = await bed.queues()
                return bool(counts[other] == 3)

            await until(there, what="the other queue takes its own", timeout=10)
            self.assertEqual(len(self.lines(bed)), 1)
            await self.lift(bed)
            await self.settled(bed, queue)
            self.assertEqual(len(self.lines(bed)), 2)
            self.assertFalse(await bed.gateway.metric("target_down"))
            return sent, await self.ids(bed, queue), await bed.gateway.metric("quarantine_dropped_total")

    async def test_the_oldest_are_let_go_of(self) -> None:
        for queue in (NAMES.rejected, NAMES.dead_letters):
            sent, kept, dropped = await self.full(queue, "drop-oldest")
            self.assertEqual(len(kept) + dropped, BAD)
            self.assertEqual(kept, [one for one in sent if one in set(kept)], "in order")
            self.assertIn(sent[-1], kept)
            self.assertGreaterEqual(len(kept), ROOM + PREFETCH // 4)

    async def test_the_newest_are_let_go_of(self) -> None:
        sent, kept, dropped = await self.full(NAMES.dead_letters, "drop-newest")
        self.assertEqual(len(kept) + dropped, BAD)
        self.assertEqual(kept, sent[: len(kept)])

    async def test_all_wait(self) -> None:
        """There is room enough for them."""
        sent, kept, dropped = await self.full(NAMES.rejected, "wait", prefetch=2 * BAD)
        self.assertEqual((kept, dropped), (sent, 0))

    async def test_a_quorum_queue(self) -> None:
        """It may take some more than it should."""
        sent, kept, dropped = await self.full(NAMES.rejected, "drop-oldest", topology={"queue_type": "quorum"})
        self.assertEqual(len(kept) + dropped, BAD)
        self.assertEqual(kept, [one for one in sent if one in set(kept)], "in order")

    async def test_full_before_the_start(self) -> None:
        """The prefetch is one at first, and no message may wait."""
        async with self.bed() as bed:
            await bed.gateway.stop()
            await self.fill_up(bed, NAMES.rejected, 0)
            self.bad(bed, NAMES.rejected, 20)
            await bed.fleet.all_confirmed()
            await bed.gateway.start(ready=False)
            await self.good(bed)


class ReplayTests(FullTestCase):
    async def denied(self, bed: FaultBed) -> list[str]:
        """Messages that the access list rejects: as many as there will be room for."""
        sent = [bed.fleet.send(DEVICE, "down.good", b"1") for _ in range(ROOM)]
        await bed.fleet.all_confirmed()
        await bed.gateway.metric_reaches("rejected_total", ROOM)
        return sent

    async def test_replays_are_not_let_go_of(self) -> None:
        """What is refused again while there is no room for it stays until there is."""
        async with self.bed() as bed:
            sent = await self.denied(bed)
            await self.fill_up(bed, NAMES.rejected)
            await self.warm_up(bed)
            strangers = self.bad(bed, NAMES.rejected)
            await self.is_named(bed, "quarantine:rejected")
            config = str(bed.gateway.folder / "config.ini")
            done = await amqprouter(
                "rejected", "replay", "-c", config, "--reason", "not-authorised", "--yes", check=False
            )
            self.assertIn(f"{ROOM} replayed", done.stdout)
            await self.good(bed)
            await self.lift(bed)
            await self.settled(bed, NAMES.rejected)
            kept = await self.ids(bed, NAMES.rejected)
            self.assertEqual([one for one in kept if one in set(sent)], sent)
            self.assertEqual(len(kept) + await bed.gateway.metric("quarantine_dropped_total"), ROOM + len(strangers))

    async def test_a_replay_without_room(self) -> None:
        """The queue that replays go through is full: they stay where they are."""
        async with self.bed() as bed:
            sent = await self.denied(bed)
            await bed.gateway.stop()
            await self.fill_up(bed, NAMES.replay, 10)
            config = str(bed.gateway.folder / "config.ini")
            done = await amqprouter("rejected", "replay", "-c", config, "--all", "--yes", check=False)
            self.assertEqual(done.status, 1)
            self.assertIn("left where they were: the broker did not take it: nacked", done.stdout + done.stderr)
            counts = await bed.queues()
            self.assertEqual(counts[NAMES.rejected] + counts[NAMES.replay], len(sent))
