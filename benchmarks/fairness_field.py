"""Who is measured in ``benchmarks.fairness``: how each is started, and how the same messages are sent to it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from amqprouter.amqp.channel import Channel
from amqprouter.amqp.field_table import FieldValue
from amqprouter.amqp.properties import encode_properties
from amqprouter.amqp.wire import encode_publish
from amqprouter.auth.password_hash import Cost, hash_secret
from benchmarks.layout import TARGET_EXCHANGE
from tests.support.gateway import Gateway
from tests.support.process import Child

ROOT = Path(__file__).parents[1]
CAPACITY = 300.0
"""Messages a second that what is behind may get, in all: three quarters of it are quiet devices'."""
CAPACITY_BURST = 30
"""Messages that may follow at once after a tenth of a second of silence: programs on a busy machine wake up late."""
LIMIT, BURST = 10.0, 20.0
"""The noisy device's, and everybody else's, where there are limits by device."""
SECRET = "benchmark"


class Entrant:
    """A program that forwards to the target exchange, and the queues in front of it."""

    name = ""

    def __init__(self, folder: Path, uri: str, devices: list[str]) -> None:
        self.folder, self.uri, self.devices = folder, uri, devices
        self.child: Child | None = None
        folder.mkdir(parents=True)

    async def prepare(self, channel: Channel) -> None:
        """Declare what the program needs."""

    async def start(self) -> None:
        """Start it."""

    def message(self, channel: Channel, frame_max: int, device: str, body: str) -> bytes:
        """The frames that publish one message of a device."""
        raise NotImplementedError

    async def stop(self) -> None:
        """End it."""
        if self.child is not None:
            await self.child.kill()

    def spawn(self, command: Iterable[str], **environment: str) -> None:
        environ = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
        self.child = Child(list(command), log=self.folder / "log", env=environ, cwd=self.folder)


class Ours(Entrant):
    """The whole daemon: secrets checked, an ACL, a route, limits, turns."""

    name = "amqprouter"

    async def prepare(self, channel: Channel) -> None:
        self._gateway = Gateway(
            self.folder / "gateway",
            self.uri,
            "mongodb://127.0.0.1:1",  # no route names the store
            "none",
            scheduler={"rate": LIMIT, "burst": BURST, "gateway_limits": f"{CAPACITY:g}/s burst {CAPACITY_BURST}"},
            route_all={"targets": f"exchange:{TARGET_EXCHANGE}"},
        )
        hashed = hash_secret(SECRET.encode(), Cost.RANDOM)
        self._gateway.file("devices.passwd", "".join(f"{device}:{hashed}\n" for device in self.devices))
        self._properties = encode_properties(headers={"x-device-secret": SECRET}, content_type="application/json")

    async def start(self) -> None:
        await self._gateway.start(ready=False)
        self.child = self._gateway.child

    def message(self, channel: Channel, frame_max: int, device: str, body: str) -> bytes:
        key = f"{device}.up".encode()
        return encode_publish(channel.id, b"devices", key, self._properties, body.encode(), frame_max, mandatory=False)


class OneFifo(Entrant):
    """One queue for all, forwarded with pika."""

    name = "one FIFO queue, pika"

    async def prepare(self, channel: Channel) -> None:
        await channel.queue_declare(queue="fifo", durable=True)

    async def start(self) -> None:
        self.spawn([sys.executable, "-m", "benchmarks.peers.pika_paced", self.uri, str(CAPACITY), "32", "fifo"])

    def message(self, channel: Channel, frame_max: int, device: str, body: str) -> bytes:
        return encode_publish(channel.id, b"", b"fifo", b"\0\0", body.encode(), frame_max, mandatory=False)


class QueuePerDevice(Entrant):
    """A queue for each device, forwarded with pika and a prefetch of 1 each."""

    name = "queue per device, pika"

    async def prepare(self, channel: Channel) -> None:
        self._queues = {device: f"device.{number}".encode() for number, device in enumerate(self.devices)}
        for queue in self._queues.values():
            await channel.queue_declare(queue=queue.decode(), durable=True)

    async def start(self) -> None:
        program = [sys.executable, "-m", "benchmarks.peers.pika_paced"]
        self.spawn([*program, self.uri, str(CAPACITY), "1", "device.{}", str(len(self.devices))])

    def message(self, channel: Channel, frame_max: int, device: str, body: str) -> bytes:
        return encode_publish(channel.id, b"", self._queues[device], b"\0\0", body.encode(), frame_max, mandatory=False)


class CeleryRateLimit(Entrant):
    """A Celery worker whose task has a ``rate_limit``: by task, for Celery has none by device."""

    name = "Celery, rate_limit"

    async def prepare(self, channel: Channel) -> None:
        await channel.queue_declare(queue="celery", durable=True)
        headers: dict[str, FieldValue] = {
            "lang": "py",
            "task": "forward",
            "id": "",
            "root_id": "",
            "argsrepr": "",
            "kwargsrepr": "",
        }
        self._number, self._headers = 0, headers

    async def start(self) -> None:
        program = [sys.executable, "-m", "celery", "-A", "benchmarks.peers.celery_paced", "worker"]
        options = ["-P", "prefork", "-c", "1", "--without-gossip", "--without-mingle", "-l", "WARNING"]
        # Each task that the limit holds back sets a timer of its own, over and over until its turn has come: the fewer
        # are at hand, the more get through.
        options += ["--prefetch-multiplier", "1"]
        self.spawn([*program, *options], CELERY_BROKER=self.uri, RATE_LIMIT=f"{CAPACITY:g}/s")

    def message(self, channel: Channel, frame_max: int, device: str, body: str) -> bytes:
        self._number += 1
        name = f"task-{self._number}"
        properties = encode_properties(
            content_type="application/json",
            content_encoding="utf-8",
            correlation_id=name,
            headers=self._headers | {"id": name, "root_id": name},
        )
        task = json.dumps([[body], {}, {}]).encode()
        return encode_publish(channel.id, b"", b"celery", properties, task, frame_max, mandatory=False)


FIELD: tuple[type[Entrant], ...] = (Ours, OneFifo, QueuePerDevice, CeleryRateLimit)
