"""examples/flask-jobs with everything that belongs to it: application, gateway, worker and the user's event stream."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from configparser import ConfigParser
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import treq
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase
from twisted.web.http_headers import Headers

from tests.support.gateway import ROOT, SECRET, Gateway
from tests.support.mongo import mongo_for_tests
from tests.support.process import Child, free_ports, until
from tests.support.rabbitmq import missing
from tests.support.servers import with_vhost
from tests.support.sse_client import without_places

FOLDER = ROOT / "examples/flask-jobs"
LIMIT = 120_000
"""Half a second's work for a worker."""
lacking = [name for name in ("flask", "waitress", "pika", "pebble") if not find_spec(name)]


def gateway_of_the_example(folder: Path, broker_uri: str, store_uri: str, database: str) -> Gateway:
    """The example's own configuration, but for the addresses of the test's servers, in a folder."""
    example = ConfigParser(interpolation=None)
    example.read(FOLDER / "amqprouter.ini")
    sections: dict[str, Any] = {name.replace(" ", "_"): dict(example[name]) for name in example.sections()}
    del sections["broker"]["uri"]
    gateway = Gateway(folder, broker_uri, store_uri, database, **sections)
    for name in ("devices.acl", "users.acl"):
        shutil.copy(FOLDER / name, folder)
    gateway.devices("shop")
    return gateway


class FlaskJobsTests(TestCase):
    measures = True
    skip = missing or (f"not installed: {', '.join(lacking)}; pip install amqprouter[examples]" if lacking else None)
    timeout = 90

    async def test_a_job_is_done_elsewhere_and_its_user_is_told(self) -> None:
        folder = Path(self.mktemp()).absolute()
        (port,) = free_ports(1)
        site = f"http://127.0.0.1:{port}"
        children: list[Child] = []

        def start(name: str, *command: str, **environment: str) -> Child:
            environment = {**os.environ, "PYTHONPATH": f"{FOLDER}:{ROOT}", **environment}
            child = Child([sys.executable, "-m", *command], log=folder / f"{name}.log", env=environment, cwd=FOLDER)
            children.append(child)
            return child

        async def get(path: str, **options: Any) -> Any:
            return await treq.get(f"{site}{path}", headers=Headers({"X-User": ["ann"]}), persistent=False, **options)

        async def post(limit: object, user: str = "ann") -> tuple[int, bytes]:
            response = await treq.post(
                f"{site}/jobs", json={"limit": limit}, headers=Headers({"X-User": [user]}), persistent=False
            )
            return response.code, await response.content()

        with mongo_for_tests(Path(self.mktemp())) as database:
            async with with_vhost() as vhost:
                gateway = gateway_of_the_example(folder, vhost.uri, database.uri, database.name)
                streams: list[Deferred[None]] = []
                try:
                    await gateway.start()
                    start("worker", "amqprouter.cli.main", "worker", "--uri", vhost.uri, "primes", "jobs:count_primes")
                    web = start(
                        "web", "waitress", f"--listen=127.0.0.1:{port}", "app:app",
                        BROKER_URI=vhost.uri, SHOP_SECRET=SECRET,
                    )  # fmt: skip

                    async def answers() -> bool:
                        try:
                            return bool((await get("/")).code == 200)
                        except Exception:
                            return False

                    await until(answers, what="the application answers", timeout=30, child=web)
                    told: dict[str, bytes] = {"ann": b"", "bob": b""}
                    for user in told:
                        topics = f"topic=shop.jobs.{user}.*.reply" if user == "ann" else "topic=%23"
                        url = f"{gateway.url}/events?{topics}"
                        response = await treq.get(url, auth=(user, f"{user}'s"), persistent=False)
                        self.assertEqual(response.code, 200)

                        def collect(data: bytes, user: str = user) -> None:
                            told[user] += data

                        streams.append(treq.collect(response, collect))

                    self.assertEqual((await post("many"))[0], 400)
                    self.assertEqual((await post(1, user="a.b"))[0], 401)
                    jobs = set()
                    began, posts, pages = time.monotonic(), [], []
                    for _ in range(4):
                        asked = time.monotonic()
                        code, answer = await post(LIMIT)
                        posts.append(time.monotonic() - asked)
                        self.assertEqual(code, 202)
                        jobs.add(json.loads(answer)["job"])

                    def done() -> list[dict[str, Any]]:
                        lines = without_places(told["ann"]).decode().split("\n")[:-1]
                        return [json.loads(line[6:]) for line in lines if line.startswith("data: ")]

                    async def all_done() -> bool:
                        asked = time.monotonic()
                        self.assertEqual((await get("/")).code, 200)
                        pages.append(time.monotonic() - asked)
                        return len(done()) == len(jobs)

                    await until(all_done, what="all jobs are done", timeout=45, child=children[0])
                    took = time.monotonic() - began
                    self.assertEqual({event["body"]["job"] for event in done()}, jobs)
                    self.assertEqual({event["body"]["primes"] for event in done()}, {11301})
                    self.assertEqual({event["device"] for event in done()}, {"shop"})
                    self.assertNotIn(b"data:", told["bob"])
                    # By the work's own measure, for machines of any speed: a job is a quarter of it.
                    self.assertLess(median(posts), took / 8, "a job was waited for")
                    self.assertLess(median(pages), took / 20, "the page waited for the work")
                finally:
                    for child in children:
                        await child.stop()
                    await gateway.stop()
                    for stream in streams:
                        stream.addErrback(lambda _: None)
                        await stream
