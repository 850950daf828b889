"""A gateway that looks its devices up in a collection of a real store."""

from __future__ import annotations

from typing import Any

from pymongo import MongoClient
from twisted.internet.defer import Deferred

from amqprouter.auth.password_hash import Cost, hash_secret
from tests.support.gateway import SECRET, Fleet, Gateway, drain_queue, reason_of
from tests.support.gateway_case import GatewayTestCase
from tests.support.mongo import TestDatabase
from tests.support.servers import Vhost


class RegistryTests(GatewayTestCase):
    def test_who_is_registered_gets_in(self) -> Deferred[None]:
        async def test(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            hashed = hash_secret(SECRET.encode(), Cost.RANDOM)
            documents: list[dict[str, Any]] = [
                {"_id": "dev1", "secret": hashed},
                {"_id": "dev2", "secret": hashed, "disabled": True},
            ]
            client: MongoClient[dict[str, Any]]
            with MongoClient(database.uri) as client:
                collection: Any = client[database.name]["devices"]
                collection.insert_many(documents)
            for device in ("dev1", "dev2", "dev3"):
                fleet.reading(device, 1)
            await fleet.all_confirmed()
            await gateway.metric_reaches("settled_total", 3)
            self.assertEqual([document["device"] for document in database.documents("readings")], ["dev1"])
            rejected = await drain_queue(vhost.uri, "amqprouter.rejected", 2)
            self.assertEqual([reason_of(delivery) for delivery in rejected], ["bad-secret", "unknown-name"])

        return self.run_with(test, auth={"device_checker": "mongodb:devices"})
