"""What a soak runs on: a broker, a store and a daemon of its own, with a proxy on either way of the daemon.

House rules. Everything is a child of this process and ends with it, however it ends. What a fault takes away comes back
at the same address. A daemon that ends by itself is started again, as systemd would do it, and counted.
"""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pymongo import MongoClient
from pymongo.errors import PyMongoError
from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThread

from amqprouter.amqp.link import connect_once
from amqprouter.auth.password_hash import Cost, hash_secret
from amqprouter.settings import BrokerSettings
from benchmarks.soak_fleet import SECRETS, VICTIMS, Fleet, is_signed, signature_key
from benchmarks.soak_ledger import Stored, digest
from benchmarks.soak_links import Subscriber, TargetReader
from tests.support.fault_proxy import FaultProxy
from tests.support.gateway import Gateway
from tests.support.mongo import PrivateMongo
from tests.support.process import CommandFailed, free_ports, reactor, until
from tests.support.rabbitmq import PrivateRabbitMQ

TARGET = "soak"
"""The target exchange, and the queue bound to it."""
ACCOUNT, PASSWORD = "gateway", "of the soak"
DATABASE, COLLECTION, PROBES = "soak", "readings", "probes"
LIMIT = "5/s burst 10"
"""Of noisy devices, whose messages are parked beyond it, and of greedy ones, whose are rejected."""
SECTIONS: dict[str, dict[str, object]] = {
    "broker": {"heartbeat": 5, "connect_timeout": 10, "reconnect_max": 1},
    "auth": {"accept": "secret, hmac", "hmac_keys": "devices.keys"},
    "scheduler": {"max_waiting_per_device": 20, "overrides": "limits.json"},
    "class_noisy": {"devices": "noisy-*", "limits": LIMIT},
    "class_greedy": {"devices": "greedy-*", "limits": LIMIT, "over": "reject"},
    "route_probes": {"topic": "up.probe", "targets": f"store:{PROBES}, exchange:{TARGET}, events:", "final": "yes"},
    "route_all": {"targets": f"store:{COLLECTION}, exchange:{TARGET}, events:"},
    "store": {"timeout": 5},
    "limits": {"shutdown_deadline": 10},
}
LOGIN = "Basic " + base64.b64encode(b"ann:ann's").decode()
LOOK = 1.0
"""Seconds between two looks at the daemon's process."""
_TROUBLE = re.compile(r"^Traceback \(most recent call last\)|[Uu]nhandled", re.M)


async def declare_target(uri: str) -> None:
    """The target's exchange and its queue, bound: what may have been taken away is there again.

    The queue refuses from the beginning, not by the policy that limits it: a classic one that learns of both at once,
    as it does when it is busy meanwhile, drops what it has beyond the limit (``findings/``).
    """
    connection = await connect_once(reactor, BrokerSettings(uri=uri), "soak operator")
    try:
        channel = await connection.open_channel()
        await channel.exchange_declare(exchange=TARGET, exchange_type="topic", durable=True)
        await channel.queue_declare(queue=TARGET, durable=True, arguments={"x-overflow": "reject-publish"})
        await channel.queue_bind(queue=TARGET, exchange=TARGET, routing_key="#")
    finally:
        await connection.shut()


@dataclass
class Process:
    """The daemon's process over time; see `Bed.look`."""

    meant_to_run: bool = False
    ended_by_itself: int = 0
    memory: list[int] = field(default_factory=list)
    """Bytes in the machine's memory, at each look."""
    files: list[int] = field(default_factory=list)
    """Open file descriptors, likewise."""


@dataclass
class Bed:
    """The parts, running."""

    broker: PrivateRabbitMQ
    store: PrivateMongo
    to_broker: FaultProxy
    to_store: FaultProxy
    gateway: Gateway
    reader: TargetReader
    fleet: Fleet
    subscriber: Subscriber
    has_classic: bool
    """Whether the daemon's queues are classic ones."""
    process: Process = field(default_factory=Process)
    broker_lock: DeferredLock = field(default_factory=DeferredLock)
    """Held while the broker cannot answer operators."""

    async def start_daemon(self, *, ready: bool = False) -> None:
        self.process.meant_to_run = True
        await self.gateway.start(ready=ready)

    async def follows(self) -> bool:
        """Whether the target is read and the events are followed."""
        return self.reader.channel is not None and self.subscriber.streams > 0

    def look(self) -> None:
        """Measure the daemon's process; start it again if it has ended by itself."""
        child = self.gateway.child
        if child is None or not self.process.meant_to_run:
            return
        if not child.running:
            self.process.ended_by_itself += 1
            Deferred.fromCoroutine(self.gateway.start(ready=False))
            return
        try:
            pages = int(Path(f"/proc/{child.pid}/statm").read_text().split()[1])
            self.process.files.append(len(os.listdir(f"/proc/{child.pid}/fd")))
            self.process.memory.append(pages * os.sysconf("SC_PAGE_SIZE"))
        except OSError:
            return  # it has just ended

    async def ctl(self, *arguments: str) -> None:
        """What an operator says; waits while there is no broker to say it to, and says it again where that fails."""
        for left in (2, 1, 0):
            await self.broker_lock.acquire()
            try:
                await self.broker.ctl(*arguments)
                return
            except CommandFailed:
                if not left:
                    raise
            finally:
                self.broker_lock.release()

    async def broker_figures(self) -> dict[str, int]:
        """How many connections and channels the broker has."""
        told = await self.broker.eval("{length(rabbit_networking:connections()), length(rabbit_channel:list())}")
        connections, channels = map(int, told.strip("{}").split(","))
        return {"connections": connections, "channels": channels}

    async def queues(self) -> dict[str, tuple[str, int]]:
        """Type and length of every queue; -1 where it cannot tell, since it does not work."""
        rows = (await self.broker.ctl("list_queues", "name", "type", "messages")).splitlines()
        found = {}
        for row in rows:
            name, kind, count = row.split("\t")
            length = int(count) if count.isdigit() else -1
            found[name] = kind.removeprefix("rabbit_").removesuffix("_queue"), length
        return found

    async def is_stored(self, name: str) -> bool:
        """Whether a probe is in the store; no while the store does not answer."""
        return bool(await deferToThread(self._is_stored, name))

    def _is_stored(self, name: str) -> bool:
        try:
            with MongoClient[dict[str, Any]](self.store.uri, serverSelectionTimeoutMS=500, timeoutMS=1000) as client:
                return client[DATABASE][PROBES].find_one({"message_id": name}) is not None
        except PyMongoError:
            return False

    def stored(self) -> list[Stored]:
        """All documents, in the order in which they were written."""
        found = []
        with MongoClient[dict[str, Any]](self.store.uri) as client:
            for collection in (COLLECTION, PROBES):
                for one in client[DATABASE][collection].find({}, {"message_id": 1, "body": 1, "headers": 1}):
                    found.append(Stored(one.get("message_id", ""), _digest(one["body"]), one.get("headers")))
        return found

    def troubles(self) -> list[str]:
        """Every traceback in the daemon's log, with what is around it."""
        text = (self.gateway.folder / "daemon.log").read_text("utf-8", "replace")
        return [text[max(0, found.start() - 300) : found.end() + 1500] for found in _TROUBLE.finditer(text)]


def _hash(device: str) -> str:
    """Of its secret; costly where others guess it, as a person's would be, and cheap for the fleet's machines."""
    cost = Cost.PASSWORD if device in VICTIMS else Cost.RANDOM
    return hash_secret(SECRETS[device].encode(), cost)


def _digest(body: object) -> str:
    """Of a document's body, written as the fleet writes it."""

    if not isinstance(body, bytes):
        body = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
    return digest(body)


@asynccontextmanager
async def soak_bed(folder: Path, queue_type: str, seed: int) -> AsyncIterator[Bed]:
    """Everything started and connected, and the fleet not yet sending."""
    store = PrivateMongo(folder / "mongo")
    broker = PrivateRabbitMQ(folder / "rabbitmq")
    try:
        await deferToThread(store.start)
        await broker.start()
        await broker.add_user(ACCOUNT, PASSWORD)
        await broker.set_permissions(ACCOUNT)
        await declare_target(broker.uri)
        to_broker, to_store = FaultProxy(broker.port), FaultProxy(store.port)
        # Not ephemeral ones: while it refuses, a client that knocks there could be given the port as its own.
        to_broker.port, to_store.port = free_ports(2)
        async with to_broker, to_store:
            own = to_broker.uri_of(broker.uri_for("/", ACCOUNT, PASSWORD))
            options: dict[str, Any] = {**SECTIONS, "topology": {"queue_type": queue_type}}
            gateway = Gateway(folder / "gateway", own, to_store.uri_of(store.uri), DATABASE, **options)
            gateway.file("devices.passwd", "".join(f"{name}:{_hash(name)}\n" for name in SECRETS))
            signing = [device for device in SECRETS if is_signed(device)]
            gateway.file("devices.keys", "".join(f"{device}:{signature_key(device)}\n" for device in signing))
            bed = Bed(
                broker,
                store,
                to_broker,
                to_store,
                gateway,
                TargetReader(broker.uri, TARGET),
                Fleet(broker.uri, gateway.port, LOGIN, seed),
                Subscriber(gateway.port, LOGIN),
                has_classic=queue_type == "classic",
            )
            looking = LoopingCall(bed.look)
            try:
                await bed.start_daemon(ready=True)
                bed.reader.start()
                bed.subscriber.start()
                looking.start(LOOK)
                await until(bed.follows, what="reader and subscriber are there", timeout=30, child=gateway.child)
                yield bed
            finally:
                if looking.running:
                    looking.stop()
                bed.process.meant_to_run = False
                bed.subscriber.close()
                await bed.fleet.close()
                await bed.reader.close()
                await gateway.stop()
    finally:
        await broker.stop()
        await deferToThread(store.stop)
