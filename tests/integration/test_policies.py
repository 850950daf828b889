"""What classes and tenants say happens, on a running daemon: dropped, rejected, counted only, by bytes, together."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

from pymongo import MongoClient
from twisted.internet.defer import Deferred

from amqprouter.auth.password_hash import Cost, hash_secret
from tests.integration.test_control import ControlTestCase
from tests.support.gateway import SECRET, Fleet, Gateway, drain_queue, reason_of
from tests.support.mongo import TestDatabase
from tests.support.servers import Vhost

COUNT = 6
"""Messages of each device."""
BODY = b'{"text": "' + b"x" * 288 + b'"}'  # 300 bytes
SECTIONS: dict[str, dict[str, object]] = {
    "class cameras": {"devices": "cam-*", "limits": "3/h", "over": "drop"},
    "class strangers": {"devices": "new-*", "limits": "3/h", "over": "reject"},
    "class careful": {"groups": "on-trial", "limits": "3/h", "shadow": "yes"},
    "class pictures": {"limits": "1kB/h"},
    "tenant acme": {"limits": "5/h"},
}
DOCUMENTS: tuple[dict[str, Any], ...] = (
    {"_id": "cam-1"},
    {"_id": "new-1"},
    {"_id": "meter-1", "groups": ["on-trial"]},
    {"_id": "photo-1", "class": "pictures"},
    {"_id": "pump-1", "tenant": "acme"},
    {"_id": "pump-2", "tenant": "acme"},
)


class PoliciesTests(ControlTestCase):
    devices: tuple[str, ...] = ()

    def register(self, database: TestDatabase) -> None:
        hashed = hash_secret(SECRET.encode(), Cost.RANDOM)
        client: MongoClient[dict[str, Any]]
        with MongoClient(database.uri) as client:
            devices: Any = client[database.name]["devices"]
            devices.insert_many([{**document, "secret": hashed} for document in DOCUMENTS])

    async def explained(self, device: str) -> str:
        return await self.says("limits", "explain", "--socket", self.socket, device)

    def test_each_is_dealt_with_as_its_class_and_tenant_say(self) -> Deferred[None]:
        async def test(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            self.register(database)
            for _ in range(COUNT):
                for document in DOCUMENTS:
                    fleet.send(document["_id"], "up.x", BODY)
            await fleet.all_confirmed()
            # 3 of the camera's and the stranger's, all of the meter's, 900 bytes of pictures, 5 of the tenant's.
            await gateway.metric_reaches("stored_total", 3 + 3 + COUNT + 3 + 5)
            await gateway.metric_reaches("waiting", 3 + 2 * COUNT - 5)
            stored = Counter(document["device"] for document in database.documents("readings"))
            self.assertEqual((stored["cam-1"], stored["new-1"], stored["meter-1"], stored["photo-1"]), (3, 3, COUNT, 3))
            self.assertEqual(stored["pump-1"] + stored["pump-2"], 5)

            self.assertEqual(await gateway.metric("dropped_total"), 3)
            rejected = await drain_queue(vhost.uri, "amqprouter.rejected", 3)
            for delivery in rejected:
                self.assertRegex(str(reason_of(delivery)), r"^rate-limited: 3/h of device new-1, retry in \d+")
            counted = {
                'scheduled_total{class="careful",decision="shadow"}': 3,
                'scheduled_total{class="cameras",decision="drop"}': 3,
                'scheduled_total{class="strangers",decision="refused"}': 3,
                'limited_total{class="default",limit="tenant"}': 2 * COUNT - 5,
                'limited_total{class="pictures",limit="device"}': 3,
            }
            for name, value in counted.items():
                self.assertEqual(await gateway.metric(name), value, name)

            self.assertIn("3/h", await self.explained("meter-1"))
            self.assertIn("(only counts)", await self.explained("meter-1"))
            self.assertIn("held up by 1kB/h of device photo-1", await self.explained("photo-1"))
            for pump in ("pump-1", "pump-2"):
                self.assertIn("held up by 5/h of tenant acme", await self.explained(pump))

            # Another limit, without a restart: what waits goes, and what was used stays used.
            gateway.sections["tenant acme"]["limits"] = "1000/s"
            gateway.sections["class pictures"]["limits"] = "1500B/h"
            gateway.write_config()
            await self.says("reload", "--socket", self.socket)
            await gateway.metric_reaches("stored_total", 3 + 3 + COUNT + 5 + 2 * COUNT)
            self.assertIn("1 message waits", re.sub(r"\s+", " ", await self.explained("photo-1")))

        options: dict[str, Any] = {**SECTIONS, "auth": {"device_checker": "mongodb:devices"}}
        return self.run_with(test, control=self.control, route_all={"targets": "store:readings"}, **options)
