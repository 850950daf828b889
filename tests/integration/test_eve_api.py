"""examples/eve-api: what a gateway has stored, read through Eve."""

from __future__ import annotations

import base64
import json
import os
import sys
from importlib.util import find_spec
from typing import Any

import treq
from twisted.internet.defer import Deferred

from tests.support.gateway import ROOT, Fleet, Gateway
from tests.support.gateway_case import GatewayTestCase
from tests.support.mongo import TestDatabase
from tests.support.process import Child, free_ports, until
from tests.support.rabbitmq import missing
from tests.support.servers import Vhost

READERS: dict[str, Any] = {
    "ann": {"password": "ann's", "devices": ["dev1"]},
    "root": {"password": "root's", "devices": ["*"]},
}
lacking = [name for name in ("eve", "waitress") if not find_spec(name)]


class EveTests(GatewayTestCase):
    skip = missing or (f"not installed: {', '.join(lacking)}; pip install amqprouter[examples]" if lacking else None)

    async def ask(self, user: str, path: str = "", **query: object) -> tuple[int, Any]:
        """A request for messages; the status and the answer."""
        texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in query.items()}
        password = READERS[user]["password"] if user in READERS else "guessed"
        url = f"{self.url}/messages{path}"
        response = await treq.get(url, params=texts, auth=(user, password), persistent=False, timeout=20)
        return response.code, await response.json()

    async def bodies(self, user: str, **query: object) -> list[Any]:
        code, answer = await self.ask(user, "", **query)
        self.assertEqual(code, 200, answer)
        return [item["body"] for item in answer["_items"]]

    def test_what_is_stored_is_read(self) -> Deferred[None]:
        async def test(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            for number in range(7):
                fleet.send("dev1", "up.alarm" if number == 3 else "up.reading", json.dumps({"n": number}).encode())
                fleet.flush()
                await gateway.metric_reaches("stored_total", number + 1)  # each later than the one before
            fleet.send("dev2", "up.reading", b"\xff\x00", content_type="application/octet-stream")
            fleet.flush()
            await gateway.metric_reaches("stored_total", 8)
            readers = gateway.folder / "readers.json"
            readers.write_text(json.dumps(READERS))
            (port,) = free_ports(1)
            self.url = f"http://127.0.0.1:{port}"
            child = Child(
                [sys.executable, "-m", "waitress", f"--listen=127.0.0.1:{port}", "app:app"],
                log=gateway.folder / "eve.log",
                cwd=ROOT / "examples/eve-api",
                env={
                    **os.environ,
                    "PYTHONPATH": str(ROOT / "examples/eve-api"),
                    "READERS": str(readers),
                    "STORE_URI": f"{database.uri}{database.name}",
                    "COLLECTION": "readings",
                },
            )
            try:
                await until(self.is_up, what="the API answers", timeout=30, child=child)
                await self.check()
            finally:
                await child.stop()

        return self.run_with(test)

    async def is_up(self) -> bool:
        try:
            return (await self.ask("root"))[0] == 200
        except Exception:
            return False

    async def check(self) -> None:
        self.assertEqual([body.get("n") for body in await self.bodies("root")], [None, 6, 5, 4, 3, 2, 1, 0])
        # Pages.
        seen, path = [], "?max_results=3"
        while path:
            _, answer = await self.ask("ann", path)
            seen += [item["body"]["n"] for item in answer["_items"]]
            following = answer["_links"].get("next") if answer["_items"] else None
            path = following["href"].removeprefix("messages") if following else ""
        self.assertEqual(seen, [6, 5, 4, 3, 2, 1, 0])
        # Filters.
        self.assertEqual(await self.bodies("root", where={"device": "dev1", "topic": "up.alarm"}), [{"n": 3}])
        _, answer = await self.ask("ann", where={"topic": "up.reading"}, max_results=2)
        newest, second = answer["_items"]
        self.assertEqual((newest["device"], newest["topic"], newest["body"]), ("dev1", "up.reading", {"n": 6}))
        since = {"received_at": {"$gte": second["received_at"]}}
        self.assertEqual([body["n"] for body in await self.bodies("ann", where=since)], [6, 5])
        before = {"received_at": {"$lt": second["received_at"]}}
        self.assertEqual([body["n"] for body in await self.bodies("ann", where=before, max_results=1)], [4])
        code, one = await self.ask("ann", f"/{newest['_id']}")
        self.assertEqual((code, one["body"], one["message_id"]), (200, {"n": 6}, newest["message_id"]))
        # What is not hers, nobody's, or not to be searched.
        (binary,) = (await self.ask("root", where={"device": "dev2"}))[1]["_items"]
        self.assertEqual(base64.b64decode(binary["body"]["base64"]), b"\xff\x00")
        self.assertEqual(await self.bodies("ann", where={"device": "dev2"}), [])
        self.assertEqual(await self.bodies("ann", where={"$or": [{"device": "dev2"}]}), [])
        self.assertEqual((await self.ask("ann", f"/{binary['_id']}"))[0], 404)
        self.assertEqual((await self.ask("bob"))[0], 401)
        for where in ({"body.n": 1}, {"$where": "true"}, {"topic": {"$regex": "^up"}}):
            self.assertEqual((await self.ask("ann", where=where))[0], 400, where)
        response = await treq.delete(f"{self.url}/messages", auth=("root", "root's"), persistent=False)
        self.assertEqual(response.code, 405)
