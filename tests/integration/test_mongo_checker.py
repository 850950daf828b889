"""A gateway that looks its devices up in a collection of a real store."""

from __future__ import annotations

import json
from typing import Any

from pymongo import MongoClient
from twisted.internet.defer import Deferred

from amqprouter.amqp.properties import Properties
from amqprouter.auth.password_hash import Cost, hash_secret
from tests.integration.test_cli import amqprouter
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

    def test_limits_are_what_the_registry_says(self) -> Deferred[None]:
        """Several windows, in force with the answer that brings them; for what waits already, too."""

        async def test(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            hashed = hash_secret(SECRET.encode(), Cost.RANDOM)
            client: MongoClient[dict[str, Any]]
            with MongoClient(database.uri) as client:
                devices: Any = client[database.name]["devices"]
                devices.insert_one({"_id": "dev1", "secret": hashed, "limits": "100/s, 3/h burst 3"})
                devices.insert_one({"_id": "dev2", "secret": hashed, "class": "slow"})
                for number in range(5):
                    fleet.reading("dev1", number)
                    fleet.reading("dev2", number)
                await fleet.all_confirmed()
                await gateway.metric_reaches("stored_total", 3 + 2)
                await gateway.metric_reaches("waiting", 2 + 3)
                devices.update_many({}, {"$set": {"limits": "1000/s"}, "$unset": {"class": ""}})
                gateway.running.signal("HUP")  # what is remembered is forgotten
                await gateway.metric_reaches("reloads_total", 1)
                self.assertEqual(await gateway.metric("stored_total"), 5)
                fleet.reading("dev1", 5)
                fleet.reading("dev2", 5)
                await fleet.all_confirmed()
                await gateway.metric_reaches("stored_total", 12)
                self.assertEqual(await gateway.metric("rejected_total"), 0)

        return self.run_with(
            test,
            auth={"device_checker": "mongodb:devices"},
            class_slow={"limits": "2/h burst 2"},
            route_all={"targets": "store:readings"},
        )

    def test_topics_are_what_the_registry_says(self) -> Deferred[None]:
        """Of devices and of users; a change counts once the answer is forgotten."""

        async def test(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            hashed = hash_secret(SECRET.encode(), Cost.RANDOM)
            client: MongoClient[dict[str, Any]]
            with MongoClient(database.uri) as client:
                devices: Any = client[database.name]["devices"]
                devices.insert_many(
                    [
                        {"_id": "dev1", "secret": hashed, "acl": ["deny %d.up.secret", "%d.up.#", "%d.firmware.x"]},
                        {"_id": "dev2", "secret": hashed, "acl": []},
                        {"_id": "dev3", "secret": hashed},
                        {"_id": "dev4", "secret": hashed, "acl": ["not a pattern"]},
                    ]
                )
                users: Any = client[database.name]["users"]
                users.insert_one({"_id": "ann", "secret": hashed, "acl": ["dev1.up.#"]})
                gateway.file("devices.acl", "deny * -> *.firmware.#\nregistry\n* -> %d.#\n")
                gateway.file("ann.password", SECRET)
                await gateway.start()
                await fleet.connect()
                seen = Deferred.fromCoroutine(
                    amqprouter(
                        "tail", "--url", f"{gateway.url}/events", "--user", "ann", "--json", "--count", "1",
                        "--password-file", str(gateway.folder / "ann.password"),
                    )
                )  # fmt: skip
                await gateway.metric_reaches("subscribers", 1)
                good = {fleet.send("dev3", "down.x", b"1"), fleet.send("dev1", "up.temp", b"1")}
                bad = {
                    fleet.send("dev1", "up.secret", b"1"),
                    fleet.send("dev1", "down.x", b"1"),
                    fleet.send("dev1", "firmware.x", b"1"),  # which the file denies, above
                    fleet.send("dev2", "up.temp", b"1"),
                }
                held = fleet.send("dev4", "up.temp", b"1")
                await fleet.all_confirmed()
                await gateway.metric_reaches("settled_total", len(good) + len(bad))
                rejected = await drain_queue(vhost.uri, "amqprouter.rejected", len(bad))
                self.assertEqual({Properties(d.properties).message_id for d in rejected}, bad)
                self.assertEqual({reason_of(d) for d in rejected}, {"not-authorised"})
                self.assertEqual({one["message_id"] for one in database.documents("readings")}, good)
                event = json.loads((await seen).stdout)["event"]
                self.assertEqual((event["device"], event["topic"]), ("dev1", "up.temp"))
                # What makes no sense lets nobody in; mended, it counts.
                self.assertEqual(await gateway.metric("authenticated_total"), len(good) + len(bad))
                devices.update_one({"_id": "dev4"}, {"$set": {"acl": ["%d.up.temp"]}})
                devices.update_one({"_id": "dev2"}, {"$set": {"acl": ["#"]}})
                gateway.running.signal("HUP")
                await gateway.metric_reaches("reloads_total", 1)
                more = {held, fleet.send("dev2", "up.temp", b"2")}
                fleet.flush()
                await gateway.metric_reaches("stored_total", len(good) + len(more))
                self.assertEqual({one["message_id"] for one in database.documents("readings")}, good | more)

        return self.run_with(
            test,
            start=False,
            auth={"device_checker": "mongodb:devices", "user_checker": "mongodb:users"},
            acl={"users": ""},
            route_all={"targets": "store:readings, events:"},
        )
