"""A gateway whose way to the broker can be broken, a load on it, and the oracle that says whether anything was lost.

The oracle is the fleet's ledger of confirmed message ids and body digests. Once all is quiet each of them is in the
store exactly once and in the target exchange's queue at least once, with equal bytes; nothing is unacknowledged, and
nothing was rejected or dead-lettered.
"""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import treq
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from amqprouter.amqp.channel import Channel
from amqprouter.amqp.connection import Connection
from amqprouter.amqp.link import connect_once
from amqprouter.amqp.properties import Properties
from amqprouter.broker.topology import Names
from amqprouter.settings import BrokerSettings, IngressSettings, TopologySettings
from tests.support.fault_proxy import FaultProxy
from tests.support.gateway import Fleet, Gateway, drain_queue
from tests.support.mongo import TestDatabase, mongo_for_tests
from tests.support.process import reactor, until
from tests.support.rabbitmq import PrivateRabbitMQ
from tests.support.servers import with_vhost

DEVICES = [f"dev{number}" for number in range(10)]
COPIES = "copies"
"""The target exchange and the queue bound to it."""
ROUTE = {"targets": f"store:readings, exchange:{COPIES}, events:"}
NAMES = Names.of(TopologySettings(), IngressSettings())
QUIET = 60.0
"""Seconds within which everything must have come to rest once the fault is over."""
_MOST_UNCONFIRMED = 2000
"""Messages that the load keeps waiting at most while the broker takes none."""


async def declare_copies(channel: Channel, arguments: Mapping[str, Any] | None = None, name: str = COPIES) -> None:
    """The target exchange and its queue, of the same name."""
    await channel.exchange_declare(exchange=name, exchange_type="fanout", durable=True)
    await channel.queue_declare(queue=name, durable=True, arguments=dict(arguments or {}))
    await channel.queue_bind(queue=name, exchange=name)


@dataclass(frozen=True)
class Bed:
    """The parts, running."""

    gateway: Gateway
    fleet: Fleet
    broker: PrivateRabbitMQ
    vhost: str
    uri: str
    """The broker's, for the fleet and the test itself."""
    database: TestDatabase
    random: random.Random

    # The load.

    def send(self, count: int, largest: int = 3000, topic: str = "up.raw") -> set[str]:
        """Publish messages with bodies of any bytes; returns their ids."""
        octets = "application/octet-stream"
        sent = {
            self.fleet.send(
                self.random.choice(DEVICES),
                topic,
                self.random.randbytes(self.random.randint(0, largest)),
                content_type=octets,
            )
            for _ in range(count)
        }
        self.fleet.flush()
        return sent

    @asynccontextmanager
    async def load(self) -> AsyncIterator[None]:
        """Publish 200 messages a second meanwhile; it begins with the gateway in full flow."""
        going = [True]

        async def publish() -> None:
            while going:
                if await self.fleet.reconnected() and (
                    self.fleet.sent - len(self.fleet.ledger.confirmed) < _MOST_UNCONFIRMED
                ):
                    self.send(10)
                await deferLater(reactor, 0.05)

        publishing = Deferred.fromCoroutine(publish())
        try:
            await self.stored_reaches(100)
            yield
        finally:
            going.clear()
            await publishing

    # What is to be seen.

    async def stored_reaches(self, count: int) -> None:
        async def reached() -> bool:
            return self.database.count("readings") >= count

        await until(reached, what=f"{count} messages are stored", timeout=60, child=self.gateway.running)

    async def is_ready(self, within: float = 15.0) -> None:
        await until(self.gateway.is_ready, what="the gateway is ready", timeout=within, child=self.gateway.running)

    async def problems(self) -> dict[str, str]:
        """What /readyz finds wrong, by part."""
        response = await treq.get(f"{self.gateway.url}/readyz", persistent=False)
        parts = (await response.json())["parts"]
        return {part: problem for part, problem in parts.items() if problem}

    async def queues(self, column: str = "messages") -> dict[str, int]:
        return await self.broker.list_queues(self.vhost, column)

    async def held(self) -> int:
        """Messages that are not yet with all their targets: in the ingress queues, or parked."""
        counts = await self.queues()
        parked = [name for name in counts if name.startswith("amqprouter.parked.")]
        return sum(counts[name] for name in (NAMES.ingress, *NAMES.shards, *parked))

    async def unacked(self) -> int:
        """Deliveries that the broker waits for, from the queues that the gateway takes messages from."""
        counts = await self.queues("messages_unacknowledged")
        return sum(counts[name] for name in (NAMES.ingress, *NAMES.shards))

    @property
    def open_files(self) -> int:
        return len(os.listdir(f"/proc/{self.gateway.running.pid}/fd"))

    @property
    def memory(self) -> int:
        """Bytes of the gateway that are in the machine's memory."""
        pages = int(Path(f"/proc/{self.gateway.running.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection of the test's own."""
        connection = await connect_once(reactor, BrokerSettings(uri=self.uri), "operator")
        try:
            yield connection
        finally:
            await connection.shut()

    @asynccontextmanager
    async def operator(self) -> AsyncIterator[Channel]:
        """A channel of the test's own."""
        async with self.connection() as connection:
            yield await connection.open_channel()

    # The oracle.

    async def check(
        self, case: TestCase, *, stored: Collection[str] | None = None, copied: Collection[str] | None = None
    ) -> None:
        """Wait until all is quiet, then compare with the ledger; `stored` and `copied` are message ids, all by default.

        :raises AssertionError: it does not agree.
        """
        await self.fleet.all_confirmed()
        ledger = self.fleet.ledger.confirmed
        expected = {name: ledger[name] for name in (ledger if stored is None else stored)}

        async def quiet() -> bool:
            if self.database.count("readings") < len(expected):
                return False
            return not await self.held()

        await until(quiet, what="every message is acknowledged", timeout=QUIET, child=self.gateway.running)
        documents = self.database.documents("readings")
        times = Counter(document["message_id"] for document in documents)
        case.assertEqual(set(times) ^ set(expected), set(), "lost, or never sent")
        case.assertEqual({name for name, count in times.items() if count > 1}, set(), "stored twice")
        digests = {document["message_id"]: self._digest(document["body"]) for document in documents}
        case.assertEqual({name for name in expected if digests[name] != expected[name]}, set(), "stored changed")
        counts = await self.queues()
        case.assertEqual((counts[NAMES.rejected], counts[NAMES.dead_letters]), (0, 0))
        copies = await drain_queue(self.uri, COPIES, counts[COPIES])
        self.check_copies(case, copies, copied)

    def check_copies(self, case: TestCase, copies: Collection[Any], copied: Collection[str] | None = None) -> None:
        """Each at least once, each with the bytes that were sent."""
        ledger = self.fleet.ledger.confirmed
        expected = {name: ledger[name] for name in (ledger if copied is None else copied)}
        found: dict[str, set[str]] = {}
        for delivery in copies:
            name = Properties(delivery.properties).message_id or ""
            found.setdefault(name, set()).add(self._digest(delivery.body))
        case.assertEqual(set(found) ^ set(expected), set(), "not copied, or never sent")
        case.assertEqual({name for name in expected if found[name] != {expected[name]}}, set(), "copied changed")

    def _digest(self, body: object) -> str:
        return self.fleet.ledger.digest(body if isinstance(body, bytes) else json.dumps(body).encode())


@dataclass(frozen=True)
class FaultBed(Bed):
    """The gateway goes through a proxy; `fleet` and `operator` reach the broker directly."""

    proxy: FaultProxy


@asynccontextmanager
async def fault_bed(
    folder: Path,
    *,
    private: bool = False,
    rabbitmq: Mapping[str, str] | None = None,
    account: str = "",
    copies: Mapping[str, Any] | None = None,
    seed: int = 1,
    slices: int = 0,
    **options: Mapping[str, object],
) -> AsyncIterator[FaultBed]:
    """Everything started and connected; stopped again behind the test.

    :param private: on a broker of the test's own, which it may stop and alarm.
    :param rabbitmq: lines of rabbitmq.conf for that broker.
    :param account: the gateway's user name, to be made, with all permissions; ``guest`` when empty.
    :param copies: arguments of the target's queue.
    :param slices: bytes in one write, from the first on.
    :param options: sections of the gateway's configuration; see `Gateway`.
    """
    folder.mkdir()
    async with AsyncExitStack() as stack:
        database = stack.enter_context(mongo_for_tests(folder / "mongo"))
        if private:
            broker = await stack.enter_async_context(PrivateRabbitMQ(folder / "rabbitmq", config=rabbitmq))
            vhost, uri = "/", broker.uri
        else:
            shared = await stack.enter_async_context(with_vhost())
            broker, vhost, uri = shared.broker, shared.name, shared.uri
        own_uri = uri
        if account:
            await broker.add_user(account, "secret")
            await broker.set_permissions(account, vhost)
            own_uri = broker.uri_for(vhost, account, "secret")
        proxy = await stack.enter_async_context(FaultProxy(broker.port))
        proxy.slice(slices)
        if not any(name.startswith("route_") for name in options):
            options["route_all"] = ROUTE
        gateway = Gateway(folder / "gateway", proxy.uri_of(own_uri), database.uri, database.name, **options)
        gateway.devices(*DEVICES)
        fleet = Fleet(uri)
        bed = FaultBed(gateway, fleet, broker, vhost, uri, database, random.Random(seed), proxy)
        async with bed.operator() as channel:
            await declare_copies(channel, copies)
        try:
            await gateway.start()
            await fleet.connect()
            yield bed
        finally:
            await fleet.close()
            await gateway.stop()
