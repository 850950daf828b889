"""A message's whole way on real servers: broker, gateway process, store, quarantine, exchanges, subscribers."""

from __future__ import annotations

import json
import re
import signal
import time
from typing import Any

import treq
from twisted.internet.defer import Deferred

from amqprouter.amqp.connection import PREFERRED_FRAME_MAX
from amqprouter.amqp.link import connect_once
from amqprouter.amqp.properties import Properties, encode_properties
from amqprouter.amqp.wire import encode_publish
from amqprouter.settings import BrokerSettings
from tests.support.fault_bed import declare_copies
from tests.support.gateway import SECRET, Fleet, Gateway, drain_queue, reason_of
from tests.support.gateway_case import GatewayTestCase
from tests.support.mongo import TestDatabase
from tests.support.process import reactor, until
from tests.support.servers import Vhost
from tests.support.sse_client import without_places

OVER = "rate-limited: 4/s burst 10 of device dev1"


class MessageWayTests(GatewayTestCase):
    def test_good_messages_are_stored_and_bad_ones_kept_with_a_reason(self) -> Deferred[None]:
        async def test(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            good = fleet.send("dev1", "up.temp", b'{"celsius": 21.5}')
            also_good = fleet.send("dev2", "up.raw", b"\x00\xff", content_type="application/octet-stream")
            by_id = fleet.send("dev1", "", b"[1, 2]", exchange="devices.by-id", key="dev1", headers={})
            expected = {
                fleet.send("dev1", "up.temp", b"{}", secret="wrong"): "bad-secret",
                fleet.send("dev1", "up.temp", b"{}", secret=None): "no-credential",
                fleet.send("dev3", "up.temp", b"{}"): "unknown-name",
                fleet.send("dev1", "down.temp", b"{}"): "not-authorised",
                fleet.send("de v", "up.temp", b"{}"): "bad-device-id",
                by_id: "no-topic",
                fleet.send("dev1", "", b"{}", exchange="devices.by-id", key="dev1.x", kind="x"): "bad-device-id",
                fleet.send(
                    "d" * 250, "", b"{}", exchange="devices.by-id", key="d" * 250, kind="up.xyz"
                ): "topic-too-long",
                fleet.send("dev1", "up.x", b"x" * 70_000): "body-too-large",
                fleet.send("dev1", "up.x", b"{}", headers={f"h{n}": n for n in range(64)}): "too-many-headers",
                fleet.send("dev1", "up.x", b"{}", timestamp=5): "bad-timestamp",
                fleet.send("dev1", "up.x", b"{}", timestamp=2**63): "bad-timestamp",
            }
            for bad in ("de#v", "*", "a/b", "a\\b", "", "a\x01", "a\u202eb"):
                expected[fleet.send(bad, "up.temp", b"{}")] = "bad-device-id"
            good_time = fleet.send("dev1", "up.temp", b"{}", timestamp=int(time.time()) - 60)
            unfit = {
                fleet.send("dev1", "up.temp", b'{"celsius": '): "bad-json",
                fleet.send("dev1", "up.temp", b'{"a": 1, "a": 2}'): "bad-json",
                fleet.send("dev1", "up.temp", b"[NaN]"): "bad-json",
                fleet.send("dev1", "up.temp", b'"\xff"'): "bad-json",
                fleet.send("dev1", "up.temp", b"9" * 5000): "bad-json",
                fleet.send("dev1", "up.temp", b"9" * 20): "integer-too-large",
                fleet.send("dev1", "up.temp", b'"\\ud800"'): "bad-text",
                fleet.send("dev1", "up.temp", b"[" * 65 + b"]" * 65): "json-too-deep",
            }
            await fleet.all_confirmed()
            await gateway.metric_reaches("settled_total", 3 + len(expected) + len(unfit))
            stored = {document["message_id"]: document for document in database.documents("readings")}
            self.assertEqual(set(stored), {good, also_good, good_time})
            self.assertEqual(stored[good]["body"], {"celsius": 21.5})
            self.assertEqual((stored[good]["device"], stored[good]["topic"]), ("dev1", "up.temp"))
            self.assertEqual(stored[also_good]["body"], b"\x00\xff")
            self.assertNotIn(SECRET, repr(stored))
            rejected = await drain_queue(vhost.uri, "amqprouter.rejected", len(expected))
            self.assertEqual({Properties(d.properties).message_id: reason_of(d) for d in rejected}, expected)
            self.assertNotIn(SECRET, repr([d.properties for d in rejected]))
            dead = await drain_queue(vhost.uri, "amqprouter.dead-letters", len(unfit))
            for each in dead:
                self.assertIn(unfit.pop(str(Properties(each.properties).message_id)), str(reason_of(each)))
            unacked = await vhost.list_queues("messages_unacknowledged")
            self.assertEqual(sum(unacked.values()), 0, unacked)

        return self.run_with(test, limits={"max_body_bytes": "64KiB", "clock_tolerance": "1h"})

    def test_the_by_id_exchange_takes_the_topic_from_the_type_property(self) -> Deferred[None]:
        async def test(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            connection = await connect_once(reactor, BrokerSettings(uri=vhost.uri), "test")
            channel = await connection.open_channel()
            await channel.queue_declare(queue="workers", durable=True)
            await channel.exchange_declare(exchange="work", exchange_type="topic", durable=True)
            await channel.queue_bind(queue="workers", exchange="work", routing_key="#")
            properties = encode_properties(type="up.temp", headers={"x-device-secret": SECRET, "unit": "C"})
            channel.write(encode_publish(channel.id, b"devices.by-id", b"dev1", properties, b"21", 4096))
            (passed_on,) = await drain_queue(vhost.uri, "workers", 1)
            await connection.shut()
            self.assertEqual((passed_on.routing_key, passed_on.body), (b"dev1.up.temp", b"21"))
            headers = Properties(passed_on.properties).headers
            self.assertEqual(headers, {"unit": "C", "x-amqprouter-device": "dev1"})

        return self.run_with(test, route_work={"targets": "exchange:work"})

    def test_the_broker_validated_user_is_a_proof(self) -> Deferred[None]:
        async def test(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            connection = await connect_once(reactor, BrokerSettings(uri=vhost.uri), "test")  # as guest
            channel = await connection.open_channel()
            for device in (b"guest", b"dev1"):
                properties = encode_properties(user_id="guest", message_id=device.decode())
                channel.write(encode_publish(channel.id, b"devices", device + b".up.x", properties, b"1", 4096))
            await gateway.metric_reaches("settled_total", 2)
            await connection.shut()
            self.assertEqual([d["message_id"] for d in database.documents("readings")], ["guest"])
            (rejected,) = await drain_queue(vhost.uri, "amqprouter.rejected", 1)
            self.assertEqual(Properties(rejected.properties).message_id, "dev1")

        return self.run_with(test)

    def test_what_matches_no_binding_and_no_route_is_kept(self) -> Deferred[None]:
        async def test(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            unrouted = fleet.send("dev1", "", b"1", key="dev1")
            no_route = fleet.send("dev1", "up.other", b"1")
            await fleet.all_confirmed()
            (first,) = await drain_queue(vhost.uri, "amqprouter.unrouted", 1)
            (second,) = await drain_queue(vhost.uri, "amqprouter.dead-letters", 1)
            self.assertEqual(Properties(first.properties).message_id, unrouted)
            self.assertEqual((Properties(second.properties).message_id, reason_of(second)), (no_route, "no-route"))

        return self.run_with(test, route_temp={"topic": "up.temp", "targets": "store:readings"})

    def test_a_device_over_its_rate_is_refused_where_its_class_says_so(self) -> Deferred[None]:
        async def test(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            for number in range(60):
                fleet.reading("dev1", number)
            quiet = fleet.reading("dev2", 0)
            await fleet.all_confirmed()
            await gateway.metric_reaches("settled_total", 61)
            rejected = int(await gateway.metric("rejected_total"))
            # What the rate gives while they arrive, a second or two, lets some more through.
            self.assertIn(rejected, range(60 - 10 - 8, 60 - 10 + 1))
            refused = await drain_queue(vhost.uri, "amqprouter.rejected", rejected)
            self.assertEqual({str(reason_of(d)).partition(",")[0] for d in refused}, {OVER})
            stored = database.documents("readings")
            self.assertEqual(len(stored), 61 - rejected)
            self.assertIn(quiet, {d["message_id"] for d in stored})
            mine = [d["body"]["n"] for d in sorted(stored, key=lambda d: d["received_at"]) if d["device"] == "dev1"]
            self.assertEqual((mine[:10], mine), (list(range(10)), sorted(mine)))
            self.assertEqual(await gateway.metric("throttled_total"), 0)

        refusing: Any = {"class default": {"over": "reject"}}
        return self.run_with(test, scheduler={"rate": 4, "burst": 10}, **refusing)

    async def resumed_from_the_stream(self, gateway: Gateway) -> list[bytes]:
        """The ids that ann gets who had the first event, from a daemon that has none of them in its window."""
        await gateway.stop()
        gateway.sections.setdefault("events", {})["window"] = 1
        gateway.write_config()
        await gateway.start()
        headers: dict[bytes | str, bytes | str] = {"Last-Event-ID": "0"}
        seen = bytearray()
        response = await treq.get(f"{gateway.url}/events", headers, auth=("ann", "ann's"), persistent=False)
        stream = treq.collect(response, seen.extend)

        async def arrived() -> bool:
            return without_places(bytes(seen)).count(b"data: ") == 2

        await until(arrived, what="what was missed has arrived", timeout=20, child=gateway.running)
        await gateway.stop()
        await stream
        await gateway.start()
        return re.findall(rb"^id: (.*)$", without_places(bytes(seen)), re.M)

    def test_subscribers_get_the_events_that_they_may_see(self) -> Deferred[None]:
        async def test(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            seen: dict[str, bytes] = {"ann": b"", "bob": b""}
            streams = []
            for user in seen:
                response = await treq.get(f"{gateway.url}/events", auth=(user, f"{user}'s"), persistent=False)
                self.assertEqual(response.code, 200)

                def collect(data: bytes, user: str = user) -> None:
                    seen[user] += data

                streams.append(treq.collect(response, collect))
            refused = await treq.get(f"{gateway.url}/events", auth=("bob", "wrong"), persistent=False)
            self.assertEqual((refused.code, await refused.content() != b""), (401, True))
            fleet.send("dev1", "up.temp", b'{"n": 1}')
            fleet.send("dev2", "up.temp", b'{"n": 2}')
            fleet.send("dev1", "up.temp", b'{"n": 3}')
            await fleet.all_confirmed()

            async def arrived() -> bool:
                counts = [without_places(seen[user]).count(b"data: ") for user in ("ann", "bob")]
                return counts == [3, 2]

            await until(arrived, what="the events have arrived", timeout=20, child=gateway.running)
            events = [
                json.loads(line[6:]) for line in without_places(seen["bob"]).splitlines() if line.startswith(b"data: ")
            ]
            self.assertEqual([event["body"] for event in events], [{"n": 1}, {"n": 3}])
            self.assertEqual(await self.resumed_from_the_stream(gateway), [b"1", b"2"])
            await gateway.stop()
            for stream in streams:
                await stream
            # twistd ends itself by the signal once everything is closed, so that its parent knows.
            self.assertEqual((gateway.running.status, "Stopped" in gateway.running.tail()), (-signal.SIGTERM, True))

        return self.run_with(test)


class TooLargeToPassOnTests(GatewayTestCase):
    """Properties that fill a frame: with what the gateway adds they fit in none, and no broker would take them."""

    name = "d" * 150  # which is longer than the secret that is taken out
    devices: tuple[str, ...] = ("dev1", name)

    def test_only_that_message_goes_astray(self) -> Deferred[None]:
        async def test(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            spare = len(encode_properties(headers={"x-device-secret": SECRET, "x": ""}, message_id="0" * 36))
            spare += len(encode_properties(content_type="application/json", type="")) + 22
            for number in range(20):
                fleet.reading("dev1", number)
            headers = {"x": "x" * (PREFERRED_FRAME_MAX - spare)}
            large = fleet.send(self.name, "up.x", b"{}", headers=headers)
            for number in range(20, 40):
                fleet.reading("dev1", number)
            await fleet.all_confirmed()
            await gateway.metric_reaches("dead_lettered_total", 1)
            await gateway.metric_reaches("stored_total", 41)
            copies = await drain_queue(vhost.uri, "copies", 40)
            self.assertEqual([json.loads(copy.body)["n"] for copy in copies], list(range(40)))
            [dead] = await drain_queue(vhost.uri, "amqprouter.dead-letters", 1)
            self.assertIn("unencodable: message properties of ", str(reason_of(dead)))
            self.assertEqual((dead.body, Properties(dead.properties).header(b"x")), (b"{}", None))
            self.assertEqual({document["message_id"] for document in database.documents("readings")} & {large}, {large})
            self.assertEqual((await gateway.metric("reconnects_total"), await gateway.is_ready()), (0, True))

        async def around(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            connection = await connect_once(reactor, BrokerSettings(uri=vhost.uri), "test")
            await declare_copies(await connection.open_channel())
            await connection.shut()
            await test(gateway, fleet, vhost, database)

        limits = {"max_header_bytes": "128KiB"}
        return self.run_with(around, route_all={"targets": "store:readings, exchange:copies"}, limits=limits)
