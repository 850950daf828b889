"""Work that routes hand out: to queues that ``amqprouter worker`` is behind, and to an unmodified Celery worker."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest import SkipTest

import treq
from twisted.internet.defer import Deferred

from amqprouter.amqp.link import connect_once
from amqprouter.amqp.properties import Properties
from amqprouter.settings import BrokerSettings
from tests.support.gateway import ROOT, Fleet, Gateway, drain_queue, reason_of
from tests.support.gateway_case import GatewayTestCase
from tests.support.mongo import TestDatabase
from tests.support.process import Child, reactor, until
from tests.support.servers import Vhost

DEAD = "amqprouter.dead-letters"


class WorkTests(GatewayTestCase):
    async def answers(self, database: TestDatabase, count: int, child: Child) -> list[dict[str, Any]]:
        """The documents of so many answers."""

        async def so_many() -> bool:
            return database.count("answers") >= count

        await until(so_many, what=f"{count} answers", timeout=40, child=child)
        return database.documents("answers")

    def test_a_worker_behind_queues_that_messages_name(self) -> Deferred[None]:
        """What it answers is stored and told as the device's own, one topic word further; what it can't do is kept."""

        async def test(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            folder = Path(self.mktemp()).absolute()
            folder.mkdir()
            gateway.file("commands.acl", "queue:work -> dev1.down.#\n")
            await gateway.start()
            await fleet.connect()
            sent = [fleet.send("dev1", "up.double", b'{"n": %d}' % n) for n in range(5)]
            broken = fleet.send("dev2", "up.double", b"no json", content_type="text/plain")
            nowhere = fleet.send("dev2", "up", b"1")
            await fleet.all_confirmed()
            command = [sys.executable, "-m", "amqprouter.cli.main", "worker", "--uri", vhost.uri, "--processes", "2"]
            command += ["--queue-type", "classic", "work.double", "tests.support.jobs:double"]
            worker = Child(command, log=folder / "worker.log", env=dict(os.environ), cwd=ROOT)
            try:
                documents = await self.answers(database, 5, worker)

                async def failed() -> bool:
                    return (await vhost.list_queues()).get("work.double.failed") == 1

                await until(failed, what="the broken one has failed", timeout=20, child=worker)
            finally:
                await worker.stop()
            self.assertEqual({document["topic"] for document in documents}, {"up.double.reply"})
            self.assertEqual({document["device"] for document in documents}, {"dev1"})
            self.assertEqual(sorted(document["body"]["twice"] for document in documents), [0, 2, 4, 6, 8])
            answers = await drain_queue(vhost.uri, "commands.dev1", 5)
            self.assertEqual(sorted(json.loads(answer.body)["twice"] for answer in answers), [0, 2, 4, 6, 8])
            for answer in answers:
                self.assertEqual(answer.routing_key, b"dev1.down.result")
                self.assertEqual(Properties(answer.properties).headers, {"x-amqprouter-from": "queue:work"})
            self.assertEqual(await gateway.metric('commands_total{outcome="sent"}'), 5)
            (kept,) = await drain_queue(vhost.uri, "work.double.failed", 1)
            headers = Properties(kept.properties).headers
            self.assertEqual((Properties(kept.properties).message_id, kept.body), (broken, b"no json"))
            self.assertEqual(headers["x-amqprouter-key"], "dev2.up.double")
            (dead,) = await drain_queue(vhost.uri, "amqprouter.dead-letters", 1)
            self.assertEqual(Properties(dead.properties).message_id, nowhere)
            self.assertEqual(reason_of(dead), "no-such-field: no {topic[1]} in the message")
            self.assertEqual(len(sent), 5)
            self.assertEqual((await vhost.list_queues())["amqprouter.replies"], 0)

        work: dict[str, Any] = {"queue": "work.{topic[1]}", "max_queues": 5}
        work["reply"] = "store:answers, events:, command:down.result"
        commands: dict[str, Any] = {"acl": {"commands": "commands.acl"}, "commands": {"enabled": "yes"}}
        return self.run_with(test, start=False, queue_work=work, route_all={"targets": "queue:work"}, **commands)

    def test_queues_as_their_sections_say(self) -> Deferred[None]:
        """On a real broker: kinds, bindings, priorities, what is too much, what expires, and how many there may be."""

        async def test(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            fleet.send("dev1", "up.jobs.a", b'{"urgent": 7}')
            for urgent in (1, 8):
                fleet.send("dev1", "up.jobs.b", b'{"urgent": %d}' % urgent)
            one_too_many = fleet.send("dev1", "up.jobs.c", b'{"urgent": 1}')
            brief = fleet.send("dev1", "up.brief", b"")
            small = [fleet.send("dev1", "up.small", b"") for _ in range(2)]
            await fleet.all_confirmed()

            async def there() -> bool:
                counts = await vhost.list_queues()
                return [counts.get(name) for name in ("jobs.a", "jobs.b", "small")] == [1, 2, 1]

            await until(there, what="all that fits is in the queues", timeout=30)
            quorum = await vhost.broker.quorum_queues(vhost.name)
            found = {name: name in quorum for name in ("jobs.a", "jobs.b", "brief", "small")}
            self.assertEqual(found, {"jobs.a": False, "jobs.b": False, "brief": True, "small": False})
            (job,) = await drain_queue(vhost.uri, "jobs.a", 1)
            self.assertEqual((job.exchange, job.routing_key), (b"jobs", b"a.dev1"))
            jobs = [json.loads(one.body)["urgent"] for one in await drain_queue(vhost.uri, "jobs.b", 2)]
            self.assertEqual(jobs, [8, 1])
            dead = {Properties(one.properties).message_id: one for one in await drain_queue(vhost.uri, DEAD, 2)}
            self.assertEqual(reason_of(dead.pop(one_too_many)), "too-many-queues")
            self.assertEqual(Properties(dead[brief].properties).headers["x-first-death-reason"], "expired")
            # What a full queue rejects waits here, and comes when there is room.
            self.assertEqual(
                [Properties(one.properties).message_id for one in await drain_queue(vhost.uri, "small", 2)], small
            )

        classic: dict[str, Any] = {"queue_type": "classic"}
        jobs: dict[str, Any] = {
            "queue": "jobs.{topic[2]}",
            "exchange": "jobs",
            "exchange_type": "topic",
            "max_queues": 2,
        }
        jobs |= {"routing_key": "{topic[2]}.{device}", "max_priority": 9, "priority": "{body[urgent]}", "idle": "1h"}
        return self.run_with(
            test,
            route_jobs={"topic": "up.jobs.*", "targets": "queue:jobs"},
            queue_jobs=jobs | classic,
            route_brief={"topic": "up.brief", "targets": "queue:brief"},
            queue_brief={"ttl": "500ms", "delivery_limit": 3, "queue_type": "quorum", "max_bytes": "1MB"},
            route_small={"topic": "up.small", "targets": "queue:small"},
            queue_small={"max_length": 1, "dead_letter": "no"} | classic,
        )

    def test_a_name_that_is_taken(self) -> Deferred[None]:
        """What devices send there is dead-lettered, though it is the gateway's only target, and all else goes on."""

        async def test(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            connection = await connect_once(reactor, BrokerSettings(uri=vhost.uri), "test")
            channel = await connection.open_channel()
            await channel.queue_declare(queue="w.failed", durable=True, arguments={"x-max-length": 7})
            await connection.shut()
            for _ in range(600):
                fleet.send("dev1", "up.failed", b"{}")
            for number in range(12):
                fleet.send("dev1", f"up.many{number}", b"{}")
            fleet.send("dev2", "up.ok", b"{}")
            await fleet.all_confirmed()

            async def there() -> bool:
                counts = await vhost.list_queues()
                return (counts.get("w.ok"), counts.get(DEAD)) == (1, 603)

            await until(there, what="the other device's message is in its queue", timeout=40, child=gateway.running)
            reasons = Counter(str(reason_of(one)).partition(":")[0] for one in await drain_queue(vhost.uri, DEAD, 603))
            self.assertEqual(reasons, {"bad-queue": 600, "too-many-queues": 3})
            response = await treq.get(f"{gateway.url}/readyz", persistent=False)
            parts = (await response.json())["parts"]
            self.assertIn("queue 'w.failed': cannot declare", parts["queue work"])
            log = gateway.running.log.read_text()
            self.assertEqual(log.count("Cannot declare queue 'w.failed'"), 1)

        work = {"queue": "w.{topic[1]}", "max_queues": 11, "idle": "1h"}
        return self.run_with(test, queue_work=work, route_all={"targets": "queue:work"})

    def test_an_unmodified_celery_worker(self) -> Deferred[None]:
        if not find_spec("celery"):
            raise SkipTest("celery is not installed")

        async def test(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            folder = Path(self.mktemp()).absolute()
            folder.mkdir()
            headers = {"unit": "C"}
            fleet.send("dev1", "up.x", b'{"n": 4}', headers=headers)
            fleet.send("dev2", "up.x", b'{"n": -1}', headers=headers)
            lacking = fleet.send("dev1", "up.x", b'{"n": 4}')
            await fleet.all_confirmed()
            environment = {
                **os.environ,
                "CELERY_BROKER": vhost.uri.replace("amqp://", "pyamqp://"),
                "PYTHONPATH": str(ROOT),
            }
            command = [sys.executable, "-m", "celery", "-A", "tests.support.celery_tasks", "worker", "-P", "solo"]
            command += ["-Q", "pictures", "--without-gossip", "--without-mingle", "--without-heartbeat"]
            worker = Child(command, log=folder / "celery.log", env=environment, cwd=folder)
            try:
                documents = await self.answers(database, 2, worker)
            finally:
                await worker.stop()
            by_device = {document["device"]: document for document in documents}
            good, bad = by_device["dev1"]["body"], by_device["dev2"]["body"]
            self.assertEqual(by_device["dev1"]["topic"], "up.x.reply")
            self.assertEqual(good["status"], "SUCCESS")
            self.assertEqual(good["result"], {"device": "dev1", "twice": 8, "unit": "C", "id": good["task_id"]})
            self.assertEqual((bad["status"], bad["result"]["exc_type"]), ("FAILURE", "ValueError"))
            (dead,) = await drain_queue(vhost.uri, "amqprouter.dead-letters", 1)
            self.assertEqual(Properties(dead.properties).message_id, lacking)
            self.assertEqual(reason_of(dead), "no-such-field: no {header[unit]} in the message")

        resize = {
            "task": "shop.resize",
            "queue": "pictures",
            "args": "{device}, {body}",
            "kwargs": "unit={header[unit]}",
            "expires": "1h",
            "reply": "store:answers",
        }
        return self.run_with(test, celery_resize=resize, route_all={"targets": "celery:resize"})

    def test_answers_that_nobody_understands_are_kept(self) -> Deferred[None]:
        async def test(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            fleet.send("dev1", "x", b"from nowhere", exchange="", key="amqprouter.replies")
            await fleet.all_confirmed()
            (dead,) = await drain_queue(vhost.uri, "amqprouter.dead-letters", 1)
            self.assertEqual((dead.body, reason_of(dead)), (b"from nowhere", "unknown-reply"))

        return self.run_with(test, queue_work={"reply": "events:"}, route_all={"targets": "queue:work"})
