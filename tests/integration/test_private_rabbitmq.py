"""The test support's own node: it starts, forgets nothing, gets in nobody's way and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pika
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.support.process import Child, CommandFailed, answers, reactor, run, until
from tests.support.rabbitmq import GREETING, PrivateRabbitMQ, missing
from tests.support.servers import shared_rabbitmq, with_vhost

ROOT = Path(__file__).parents[2]


def _publish(uri: str, queue: str, bodies: list[bytes]) -> None:
    """Confirmed, persistent messages into a durable queue; blocking."""
    connection = pika.BlockingConnection(pika.URLParameters(uri))
    channel = connection.channel()
    channel.confirm_delivery()
    channel.queue_declare(queue, durable=True)
    for body in bodies:
        channel.basic_publish("", queue, body, pika.BasicProperties(delivery_mode=2))
    connection.close()


def _alive(pid: int) -> bool:
    """Whether the process runs; a zombie that its new parent never asks about has ended too."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in "ZX"


def _mentions(folder: Path) -> list[int]:
    """Running processes that have this folder in their environment."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/environ"):
        try:
            if os.fsencode(folder) in entry.read_bytes():
                found.append(int(entry.parent.name))
        except OSError:
            continue
    return found


class PrivateRabbitMQTests(TestCase):
    skip = missing or None
    timeout = 120

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()

    async def test_life(self) -> None:
        """Messages survive a crash; in the end nothing runs and nothing listens."""
        async with PrivateRabbitMQ(self.folder) as broker:
            await deferToThread(_publish, broker.uri, "kept", [b"one", b"two"])
            self.assertEqual(await broker.list_queues(), {"kept": 2})

            first = broker.pid
            await broker.kill()
            self.assertFalse(_alive(first))
            self.assertFalse(await answers(broker.port, GREETING))
            await broker.start()
            self.assertNotEqual(broker.pid, first)
            self.assertEqual(await broker.list_queues(), {"kept": 2})
        self.assertEqual(_mentions(self.folder), [])
        self.assertFalse(await answers(broker.port, GREETING))

    async def test_users_and_listeners(self) -> None:
        """Two nodes run side by side; users are the node's own; plugins can be chosen; only the loopback is used."""
        plugins = ("rabbitmq_stream", "rabbitmq_shovel", "rabbitmq_management_agent")
        plain = await shared_rabbitmq()
        async with PrivateRabbitMQ(self.folder, plugins=plugins) as broker:
            uri = await broker.add_vhost("a b")
            await deferToThread(_publish, uri, "q", [b""])
            self.assertEqual(await broker.list_queues("a b"), {"q": 1})
            await broker.add_user("ann", "se/cret", "monitoring")
            await broker.set_permissions("ann", configure="^own$", write=".*", read="^$")
            ann = broker.uri_for("/", "ann", "se/cret")
            await deferToThread(_publish, ann, "own", [b"x"])
            with self.assertRaises(pika.exceptions.ChannelClosedByBroker):
                await deferToThread(_publish, ann, "other", [b"x"])
            with self.assertRaises(CommandFailed) as caught:
                await plain.set_permissions("guest", "a b")
            self.assertIn("a b", str(caught.exception))
            self.assertTrue(await answers(broker.plugin_ports["rabbitmq_stream"], _PEER_PROPERTIES))
            there = {place.name.partition("-")[0] for place in (self.folder / "program" / "plugins").iterdir()}
            self.assertLess({"rabbit", "ra", "osiris", "amqp_client", *plugins}, there)
            self.assertNotIn("rabbitmq_mqtt", there)  # what slows the start down and nobody asked for
            for pid in (plain.pid, broker.pid):
                self.assertEqual(await _foreign_listeners(pid), [])

    async def test_dies_with_its_parent(self) -> None:
        """When the process that started a node is killed, the node and its epmd end too."""
        self.folder.mkdir()
        log = self.folder / "parent.log"
        parent = Child([sys.executable, "-c", _PARENT, str(self.folder / "node")], log=log, cwd=ROOT)
        self.addCleanup(parent.kill)

        async def started() -> bool:
            return "started" in log.read_text()

        await until(started, what="the node's parent says so", timeout=60, child=parent)
        self.assertGreaterEqual(len(_mentions(self.folder / "node")), 2)
        os.kill(parent.pid, signal.SIGKILL)
        await parent.wait(10)

        async def gone() -> bool:
            return not _mentions(self.folder / "node")

        await until(gone, what="the node has ended", timeout=10)

    async def test_a_node_that_cannot_start(self) -> None:
        """The reason is in the error, and nothing is left running."""
        broker = PrivateRabbitMQ(self.folder, config={"listeners.nonsense": "7"})
        with self.assertRaises(CommandFailed) as caught:
            async with broker:
                pass
        self.assertIn("listeners.nonsense", str(caught.exception))
        self.assertEqual(_mentions(self.folder), [])


_PARENT = """
import sys
from pathlib import Path
from twisted.internet import defer, task
from tests.support.rabbitmq import PrivateRabbitMQ

async def main(reactor):
    await PrivateRabbitMQ(Path(sys.argv[1])).start()
    print("started", flush=True)
    await defer.Deferred()

task.react(lambda reactor: defer.Deferred.fromCoroutine(main(reactor)))
"""
_PEER_PROPERTIES = bytes.fromhex("0000000c 0011 0001 00000001 00000000")
"""The stream protocol's first command: key 17, version 1, correlation 1, no properties."""


async def _foreign_listeners(pid: int) -> list[str]:
    """Addresses beyond the loopback at which the process listens."""
    table = (await run("ss", "-Hltnp")).stdout
    addresses = [line.split()[3] for line in table.splitlines() if f"pid={pid}," in line]
    return [address for address in addresses if not address.startswith(("127.0.0.1:", "[::1]:"))]


class SharedRabbitMQTests(TestCase):
    skip = missing or None
    timeout = 60

    async def test_vhosts_are_apart(self) -> None:
        async with with_vhost() as one, with_vhost() as two:
            self.assertNotEqual(one.name, two.name)
            await deferToThread(_publish, one.uri, "q", [b"1"])
            self.assertEqual(await one.list_queues(), {"q": 1})
            self.assertEqual(await two.list_queues(), {})
            self.assertIs(await shared_rabbitmq(), one.broker)

    async def test_used_ones_go(self) -> None:
        """Nobody gets a used virtual host, and used ones are deleted when new ones are made."""
        async with with_vhost() as first:
            pass
        for _ in range(9):
            async with with_vhost() as vhost:
                self.assertNotEqual(vhost.name, first.name)
        names = (await first.broker.ctl("list_vhosts", "name")).split()
        self.assertNotIn(first.name, names)


class _Mute(Protocol):
    """Takes a greeting and hangs up."""

    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.loseConnection()


class ProcessTests(TestCase):
    """Commands and children."""

    timeout = 30

    async def test_status_and_output(self) -> None:
        finished = await run("sh", "-c", "echo out; echo err >&2; exit 3", check=False)
        self.assertEqual((finished.status, finished.stdout, finished.stderr), (3, "out\n", "err\n"))
        with self.assertRaisesRegex(CommandFailed, "status 3"):
            await run("sh", "-c", "exit 3")
        with self.assertRaisesRegex(CommandFailed, r"killed after 0\.2 s"):
            await run("sleep", "60", timeout=0.2, check=False)

    async def test_stop_is_patient_but_firm(self) -> None:
        log = Path(self.mktemp())
        polite = Child(["sleep", "60"], log=log)
        self.assertEqual(await polite.stop(), -signal.SIGTERM)
        deaf = Child(["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done"], log=log)

        async def ready() -> bool:
            return "ready" in log.read_text()

        await until(ready, what="the trap is set", timeout=10, child=deaf)
        self.assertEqual(await deaf.stop(0.2), -signal.SIGKILL)

    async def test_until_gives_up(self) -> None:
        async def never() -> bool:
            return False

        with self.assertRaisesRegex(TimeoutError, "not within 0.1 s: pigs fly"):
            await until(never, what="pigs fly", timeout=0.1)
        child = Child(["sh", "-c", "echo no fuel; exit 4"], log=Path(self.mktemp()))
        with self.assertRaisesRegex(CommandFailed, "status 4 before pigs fly.*\nno fuel"):
            await until(never, what="pigs fly", timeout=10, child=child)

    async def test_answers_needs_a_talker(self) -> None:
        """A server that takes the connection and hangs up has not answered."""
        port = reactor.listenTCP(0, Factory.forProtocol(_Mute), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        self.assertFalse(await answers(port.getHost().port, GREETING))
