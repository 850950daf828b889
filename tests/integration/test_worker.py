"""``amqprouter worker`` on a real broker: results, retries, failures, crashes and stops."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from twisted.trial.unittest import TestCase

from amqprouter.amqp.field_table import FieldValue
from amqprouter.amqp.link import connect_once
from amqprouter.amqp.properties import Properties, encode_properties, with_values
from amqprouter.amqp.publisher import Publisher
from amqprouter.counters import Counters
from amqprouter.settings import BrokerSettings
from tests.support.gateway import ROOT, drain_queue
from tests.support.process import Child, reactor, until
from tests.support.rabbitmq import missing
from tests.support.servers import Vhost, with_vhost


class Bench:
    """A queue called ``work``, a publisher to it, and workers."""

    def __init__(self, folder: Path, vhost: Vhost, publisher: Publisher) -> None:
        self.folder, self.vhost, self._publisher = folder, vhost, publisher
        self.workers: list[Child] = []

    @property
    def notes(self) -> list[str]:
        """What `tests.support.jobs.count` wrote: a line for every try."""
        path = self.folder / "notes"
        return path.read_text().splitlines() if path.exists() else []

    async def send(self, body: dict[str, Any] | bytes, **properties: Any) -> None:
        data = body if isinstance(body, bytes) else json.dumps({"file": str(self.folder / "notes"), **body}).encode()
        await self._publisher.send("", "work", encode_properties(**properties), data)

    async def send_raw(self, body: bytes, properties: bytes) -> None:
        await self._publisher.send("", "work", properties, body)

    def start(self, function: str, *options: str) -> Child:
        command = [sys.executable, "-m", "amqprouter.cli.main", "worker", "--uri", self.vhost.uri]
        log = self.folder / f"worker{len(self.workers)}.log"
        command += [*options, "--queue-type", "classic", "work", f"tests.support.jobs:{function}"]
        worker = Child(command, log=log, env=dict(os.environ), cwd=ROOT)
        self.workers.append(worker)
        return worker

    async def quiet(self, queue: str = "work", count: int = 0, timeout: float = 30) -> None:
        """Wait until a queue holds so many messages, ready and unacknowledged."""

        async def so_many() -> bool:
            return (await self.vhost.list_queues()).get(queue) == count

        await until(so_many, what=f"{queue} holds {count}", timeout=timeout, child=self.workers[-1])

    async def noted(self, count: int) -> None:
        async def so_many() -> bool:
            return len(self.notes) >= count

        await until(so_many, what=f"{count} tries", timeout=30, child=self.workers[-1])


class WorkerTests(TestCase):
    skip = missing or None
    timeout = 120

    @asynccontextmanager
    async def bench(self) -> AsyncIterator[Bench]:
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        async with with_vhost() as vhost:
            connection = await connect_once(reactor, BrokerSettings(uri=vhost.uri), "test")
            channel = await connection.open_channel()
            await channel.queue_declare(queue="work", durable=True)
            await channel.queue_declare(queue="replies", durable=True)
            publisher = Publisher(reactor, Counters(), max_attempts=3, random=lambda: 0.5)
            await publisher.attach(connection)
            bench = Bench(folder, vhost, publisher)
            try:
                yield bench
            finally:
                publisher.stop()
                await connection.shut()
                for worker in bench.workers:
                    if worker.running:
                        await worker.stop()

    async def test_results(self) -> None:
        async with self.bench() as bench:
            for n in range(20):
                await bench.send({"n": n}, reply_to="replies", correlation_id=f"c{n}", message_id=f"m{n}")
            await bench.send({"n": 5})  # nobody waits for its result
            await bench.send({"n": 6}, reply_to="nobody.there")
            bench.start("double", "--processes", "2")
            replies = await drain_queue(bench.vhost.uri, "replies", 20)
            await bench.quiet()
            answers = {Properties(one.properties).text("correlation_id"): json.loads(one.body) for one in replies}
            self.assertEqual(
                {name: answer["twice"] for name, answer in answers.items()}, {f"c{n}": 2 * n for n in range(20)}
            )
            pids = {answer["pid"] for answer in answers.values()}
            self.assertNotIn(bench.workers[0].pid, pids)
            self.assertIn("Nobody takes the answer", bench.workers[0].tail(100))

    async def test_tried_again_and_given_up(self) -> None:
        async with self.bench() as bench:
            await bench.send({"fails": 1}, message_id="once", headers={"kept": 1})
            await bench.send({"fails": 9}, message_id="always", headers={"kept": 2})
            bench.start("count", "--processes", "1", "--attempts", "2")
            await bench.quiet("work.failed", 1)
            (failed,) = await drain_queue(bench.vhost.uri, "work.failed", 1)
            await bench.quiet()
            self.assertEqual(
                sorted(line.split()[:2] for line in bench.notes),
                [["always", "1"], ["always", "2"], ["once", "1"], ["once", "2"]],
            )
            headers = Properties(failed.properties).headers
            self.assertEqual(Properties(failed.properties).message_id, "always")
            self.assertEqual(headers["kept"], 2)
            self.assertEqual(headers["x-amqprouter-reason"], "raised RuntimeError")
            self.assertEqual(headers["x-amqprouter-attempt"], 2)
            self.assertEqual(json.loads(failed.body)["fails"], 9)

    async def test_poison(self) -> None:
        """Whatever is in a message, its job is done or given up, and the next one has its turn."""
        text = b"\xff" * 80
        story: dict[str, FieldValue] = {"x-amqprouter-device": "dev1", "x-amqprouter-key": "dev1.up.a"}
        many: dict[str, FieldValue] = {"x-amqprouter-attempt": 2**64 - 1}
        async with self.bench() as bench:
            for number in range(4):
                value = bytes((len(text),)) + text
                odd = with_values(encode_properties(headers=story), {"message_id": value, "reply_to": value})
                await bench.send_raw(json.dumps({"n": number}).encode(), odd)
                await bench.send(b"no json", headers=many)
                await bench.send(b"no json", headers={**story, "big": "x" * 100_000})
            await bench.send({"n": 1}, reply_to="replies", correlation_id="last")
            worker = bench.start("double", "--processes", "2", "--events")
            (reply,) = await drain_queue(bench.vhost.uri, "replies", 1)
            self.assertEqual(json.loads(reply.body)["twice"], 2)
            await bench.quiet()
            await bench.quiet("work.failed", 8)
            self.assertTrue(worker.running)
            self.assertNotIn("this is a bug", worker.tail(1000))

    async def test_refused_at_once(self) -> None:
        async with self.bench() as bench:
            await bench.send(b"no json")
            bench.start("double")
            await bench.quiet("work.failed", 1)
            (failed,) = await drain_queue(bench.vhost.uri, "work.failed", 1)
            reason = str(Properties(failed.properties).headers["x-amqprouter-reason"])
            self.assertTrue(reason.startswith("refused: the body is not JSON"), reason)

    async def test_killed_and_stopped(self) -> None:
        """A killed worker's jobs are done again; a stopped one's come to their end first."""
        async with self.bench() as bench:
            go = bench.folder / "go"
            for n in range(4):
                job = {"n": n, "until": str(go)}
                await bench.send(job, message_id=f"m{n}", reply_to="replies", correlation_id=f"m{n}")
            first = bench.start("count", "--processes", "2")
            await bench.noted(2)
            self.assertEqual(
                (await bench.vhost.list_queues("messages_unacknowledged"))["work"], 2
            )  # no more than it can do
            await first.kill()
            second = bench.start("count", "--processes", "2")
            await bench.noted(4)
            second.signal("TERM")

            async def stopping() -> bool:
                return "Stopping: 2 jobs are being done" in second.tail(100)

            await until(stopping, what="the worker takes no more", timeout=30, child=second)
            go.touch()
            self.assertEqual(await second.wait(30), 0)
            replies = await drain_queue(bench.vhost.uri, "replies", 2)
            self.assertEqual(len(replies), 2)
            self.assertEqual((await bench.vhost.list_queues())["work"], 2)
            bench.start("count", "--processes", "2")
            await bench.quiet()
            done = {Properties(one.properties).text("correlation_id") for one in replies}
            done |= {
                Properties(one.properties).text("correlation_id")
                for one in await drain_queue(bench.vhost.uri, "replies", 2)
            }
            self.assertEqual(done, {f"m{n}" for n in range(4)})

    async def test_events(self) -> None:
        """Progress and results, under the key of the message that the router passed on."""
        async with self.bench() as bench:
            connection = await connect_once(reactor, BrokerSettings(uri=bench.vhost.uri), "test")
            channel = await connection.open_channel()
            await channel.queue_declare(queue="amqprouter.events", durable=True)
            await connection.shut()
            headers: dict[str, FieldValue] = {"x-amqprouter-device": "dev1", "x-amqprouter-key": "dev1.up.picture"}
            await bench.send(b"", message_id="m1", headers=headers)
            bench.start("report", "--processes", "1", "--events")
            events = await drain_queue(bench.vhost.uri, "amqprouter.events", 3)
            told = [json.loads(event.body) for event in events]
            self.assertEqual(
                [(one["device"], one["topic"], one["message_id"], one["body"]) for one in told],
                [
                    ("dev1", "up.picture.progress", "m1", 0.5),
                    ("dev1", "up.picture.progress", "m1", 1),
                    ("dev1", "up.picture.done", "m1", "done"),
                ],
            )
            self.assertEqual(Properties(events[0].properties).headers["x-amqprouter-key"], "dev1.up.picture.progress")

    async def test_bad_command_lines(self) -> None:
        async with self.bench() as bench:
            worker = bench.start("nothing")
            self.assertEqual(await worker.wait(20), 1)
            self.assertIn("tests.support.jobs has no function 'nothing'", worker.tail())
