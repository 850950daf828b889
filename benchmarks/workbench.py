"""The broker's side of a measurement: 100 filled device queues, a gate in front of them, and a target to count in.

Theory of operation. How long a program takes to start must not count, and consumers must not begin one after another
while others still register. So every device queue has a single active consumer, which at first is ours: the gate,
holding one message of each queue. The measured program registers behind it. Closing the gate's channel puts the held
messages back and makes the measured consumers active all at once; that is the start. (Where a message that comes again
is more work than others, the gate holds plugs, messages of its own, and is cancelled.) The end is when the target queue
holds everything, which we ask the broker for every few milliseconds: equal for whoever forwards, in whatever process.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from pamqp import commands, frame
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from amqprouter.amqp.channel import Channel
from amqprouter.amqp.connection import Connection
from amqprouter.amqp.link import connect_once
from amqprouter.amqp.properties import encode_properties
from amqprouter.amqp.wire import Confirm, Delivery, encode_ack, encode_publish
from amqprouter.settings import BrokerSettings
from benchmarks.layout import DEVICES, QUEUES, SOURCE_EXCHANGE, TARGET_EXCHANGE, TARGET_QUEUE, queue_of
from benchmarks.traffic import publishes
from tests.support.process import reactor, until
from tests.support.rabbitmq import PrivateRabbitMQ

POLL_SECONDS = 0.004
"""Between two looks at the target: under one percent of the shortest run, and a few hundred requests a second."""
BLOCK = 20
"""Messages of each device in one write while filling."""
QUIET = 0.3
"""Seconds without a byte after which nobody has anything more to say."""
_OCTETS = re.compile(r"\{(\d+),(\d+)\}")


class Stalled(Exception):
    """A measured program made no progress for a while."""


class Workbench:
    """Queues on one broker, and our own connections to it. `arguments` are further ones of the device queues."""

    def __init__(self, uri: str, arguments: Mapping[str, Any] | None = None) -> None:
        self.uri = uri
        self._arguments = {"x-single-active-consumer": True, **(arguments or {})}
        self._connection: Connection | None = None
        self._channel: Channel | None = None
        self._gate: Channel | None = None
        self._held: list[Delivery] = []
        self._plugged = False

    @property
    def channel(self) -> Channel:
        assert self._channel is not None, "not open"
        return self._channel

    @property
    def port(self) -> int:
        """Ours, on the connection to the broker: by it the broker's list of connections has this one."""
        assert self._connection is not None, "not open"
        return int(self._connection.transport.getHost().port)

    async def connect(self) -> None:
        """Connect, and declare nothing."""
        self._connection = await connect_once(reactor, BrokerSettings(uri=self.uri), "benchmark")
        self._channel = await self._connection.open_channel()

    async def open(self) -> None:
        """Connect and declare everything."""
        await self.connect()
        channel = self.channel
        for exchange in (SOURCE_EXCHANGE, TARGET_EXCHANGE):
            await channel.exchange_declare(exchange=exchange, exchange_type="topic", durable=True)
        for device in DEVICES:
            queue = queue_of(device)
            await channel.queue_declare(queue=queue, durable=True, arguments=self._arguments)
            await channel.queue_bind(queue=queue, exchange=SOURCE_EXCHANGE, routing_key=f"{device}.up.#")
        await channel.queue_declare(queue=TARGET_QUEUE, durable=True)
        await channel.queue_bind(queue=TARGET_QUEUE, exchange=TARGET_EXCHANGE, routing_key="#")

    async def close(self) -> None:
        if self._connection is not None:
            await self._connection.shut()

    async def fill(self, messages: int, persistent: bool, secrets: dict[str, str]) -> None:
        """Publish this many messages, spread evenly over the devices, and wait until the broker has them."""

        def encode(channel: int, frame_max: int) -> Iterable[bytes]:
            block = publishes(channel, frame_max, secrets, BLOCK, persistent)
            return (b"".join(block[: messages - start]) for start in range(0, messages, len(block)))

        await self.send(encode, messages)

    async def send(self, encode: Callable[[int, int], Iterable[bytes]], messages: int) -> None:
        """Publish what `encode` makes for a channel and a frame size, and wait until the broker has all messages."""
        assert self._connection is not None
        channel = await self._connection.open_channel()
        await channel.confirm_select()
        confirmed: set[int] = set()
        floor = 0
        done: Deferred[None] = Deferred()

        def confirm(confirm: Confirm) -> None:
            nonlocal floor
            if confirm.multiple:
                confirmed.difference_update(range(floor + 1, confirm.delivery_tag + 1))
                floor = max(floor, confirm.delivery_tag)
            else:
                confirmed.add(confirm.delivery_tag)
            if floor + len(confirmed) == messages and not done.called:
                done.callback(None)

        channel.on_confirm = confirm
        for publishing in encode(channel.id, self._connection.frame_max):
            channel.write(publishing)
        await done
        await channel.shut()

    async def close_gate(self, plugged: bool = False) -> None:
        """Become every device queue's active consumer, which gets one message of each; with `plugged` a plug, now."""
        assert self._connection is not None
        self._plugged = plugged
        gate = await self._connection.open_channel()
        self._held.clear()
        gate.on_deliveries = self._held.extend
        await gate.basic_qos(prefetch_count=1)
        for queue in QUEUES:
            await gate.basic_consume(queue=queue, consumer_tag=f"gate-{queue}")
            if plugged:
                gate.write(encode_publish(gate.id, b"", queue.encode(), encode_properties(), b"plug", 131_072))
        self._gate = gate
        if plugged:
            await until(self._all_held, what="the gate holds a plug of every queue", timeout=20)

    async def open_gate(self) -> float:
        """Let the consumers behind us begin; the moment, on the monotonic clock."""
        assert self._gate is not None
        gate, self._gate = self._gate, None
        await until(self._all_held, what="the gate holds a message of every queue", timeout=20)
        began = time.monotonic()
        if self._plugged:
            cancels = [frame.marshal(commands.Basic.Cancel(f"gate-{queue}", True), gate.id) for queue in QUEUES]
            gate.write(b"".join([*cancels, encode_ack(gate.id, self._held[-1].delivery_tag, True)]))
        await gate.shut()
        return began

    async def _all_held(self) -> bool:
        return len(self._held) == len(QUEUES)

    async def consumers_are(self, count: int, timeout: float = 60.0) -> None:
        """Wait until every device queue has this many consumers."""

        async def so_many() -> bool:
            for queue in QUEUES:
                if (await self._look(queue)).consumer_count != count:
                    return False
            return True

        await until(so_many, what=f"every queue has {count} consumers", timeout=timeout)

    async def arrived(self, count: int, patience: float = 30.0) -> float:
        """Wait until the target queue holds this many messages; the moment, on the monotonic clock.

        :raises Stalled: fewer, and no more coming for `patience` seconds.
        """
        seen, since = 0, time.monotonic()
        while True:
            depth = int((await self._look(TARGET_QUEUE)).message_count)
            now = time.monotonic()
            if depth >= count:
                return now
            if depth > seen:
                seen, since = depth, now
            elif now - since > patience:
                raise Stalled(f"{seen} of {count} messages arrived, and no more for {patience:g} s")
            await deferLater(reactor, POLL_SECONDS)

    async def left_over(self) -> int:
        """Messages in the device queues: what a program did not acknowledge is there again once it is gone."""
        left = 0
        for queue in QUEUES:
            left += int((await self._look(queue)).message_count)
        return left

    async def at_target(self) -> int:
        return int((await self._look(TARGET_QUEUE)).message_count)

    async def purge(self) -> None:
        for queue in (TARGET_QUEUE, *QUEUES):
            await self.channel.queue_purge(queue=queue)

    async def _look(self, queue: str) -> Any:
        return await self.channel.queue_declare(queue=queue, passive=True)


async def octets_received(broker: PrivateRabbitMQ, bench: Workbench) -> int:
    """Bytes that the broker has received from everybody but us."""
    columns = "[{proplists:get_value(peer_port, C), proplists:get_value(recv_oct, C)}"
    told = await broker.eval(f"{columns} || C <- rabbit_networking:connection_info_all([peer_port, recv_oct])]")
    return sum(int(octets) for port, octets in _OCTETS.findall(told) if int(port) != bench.port)


async def quiet(broker: PrivateRabbitMQ, bench: Workbench) -> None:
    """Wait until nobody sends the broker anything: our daemon's prefetch grows with the first messages, and then all of
    its consumers move to another channel."""
    told = -1

    async def nothing_more() -> bool:
        nonlocal told
        before, told = told, await octets_received(broker, bench)
        await deferLater(reactor, QUIET)
        return told == before

    await until(nothing_more, what="the broker is left alone", timeout=60)


@asynccontextmanager
async def workbench(uri: str, arguments: Mapping[str, Any] | None = None) -> AsyncIterator[Workbench]:
    """``async with workbench(uri) as bench``: connected, with everything declared."""
    bench = Workbench(uri, arguments)
    try:
        await bench.open()
        yield bench
    finally:
        await bench.close()


_TICK = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """User and system time that a process and all its threads have used, in steps of 10 ms (proc(5), ``stat``)."""
    with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
        fields = stat.read().rpartition(")")[2].split()  # the name in front may hold anything
    return (int(fields[11]) + int(fields[12])) / _TICK


def peak_megabytes(pid: int) -> float:
    """The most memory that a process has had resident."""
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        for line in status:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return 0.0
