"""Bodies of every kind through a real broker: in the store, to subscribers, and by what is in them to exchanges."""

from __future__ import annotations

import gzip
from typing import Any

import cbor2
from twisted.internet.defer import Deferred

from amqprouter.amqp.properties import Properties
from tests.fleets import messages
from tests.integration.test_commands import Listener
from tests.support.asking_broker import amqp
from tests.support.gateway import Fleet, Gateway, drain_queue, reason_of
from tests.support.gateway_case import GatewayTestCase
from tests.support.mongo import TestDatabase
from tests.support.process import until
from tests.support.rabbitmq import missing
from tests.support.servers import Vhost

READINGS = "store:readings, events:"
ROUTES: dict[str, Any] = {
    "route_hot": {"topic": "up.cbor", "where": "body.t > 80", "targets": "exchange:copies"},
    "route_cbor": {"topic": "up.cbor", "decode": "cbor", "targets": READINGS},
    "route_number": {"topic": "up.number", "decode": "number", "undecodable": "keep", "targets": READINGS},
    "route_strict": {"topic": "up.strict", "decode": "number", "targets": READINGS},
    "route_plain": {"topic": "up.plain", "targets": READINGS},
}
DECLARED = (
    lambda channel: channel.exchange_declare("copies", "topic", durable=True),
    lambda channel: channel.queue_declare("copies", durable=True),
    lambda channel: channel.queue_bind("copies", "copies", "#"),
)


class DecodingTests(GatewayTestCase):
    skip = missing or None
    devices = ("dev1", "press-5", "edge-9")

    async def seen(self, listener: Listener, count: int) -> dict[str, dict[str, Any]]:
        """Events by message id."""

        async def came() -> bool:
            return len(listener.seen) >= count

        await until(came, what=f"{count} events came", timeout=30)
        return {event["message_id"]: event for event in listener.seen}

    def test_stored_seen_and_routed_as_what_they_are(self) -> Deferred[None]:
        async def test(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            amqp(vhost.uri, *DECLARED)
            listener = Listener()
            await listener.connect(gateway)
            hot, cold = cbor2.dumps({"t": 81.5, "raw": b"\xff"}), cbor2.dumps({"t": 20})
            packed = gzip.compress(b'{"a.b":1}')
            expected: dict[str, tuple[object, object, str]] = {
                fleet.send("dev1", "up.cbor", hot): (
                    {"t": 81.5, "raw": b"\xff"},
                    {"t": 81.5, "raw": {"base64": "/w=="}},
                    "",
                ),
                fleet.send("dev1", "up.cbor", cold): ({"t": 20}, {"t": 20}, ""),
                fleet.send("dev1", "up.number", b"23.50"): (23.5, 23.5, ""),
                fleet.send("dev1", "up.number", b"n/a"): ("n/a", "n/a", "not-a-number"),
                fleet.send("dev1", "up.plain", packed, content_encoding="gzip"): ({"a%2Eb": 1}, {"a.b": 1}, ""),
            }
            refused = {
                fleet.send("dev1", "up.strict", b"n/a"): "not-a-number",
                fleet.send("dev1", "up.cbor", b"\xff"): "bad-cbor: ",
                fleet.send("dev1", "up.plain", packed[:-1], content_encoding="gzip"): "bad-packing: ",
            }
            await fleet.all_confirmed()
            await gateway.metric_reaches("settled_total", len(expected) + len(refused))
            stored = {
                document["message_id"]: (document["body"], document.get("body_problem", ""))
                for document in database.documents("readings")
            }
            self.assertEqual(stored, {key: (value, problem) for key, (value, _, problem) in expected.items()})
            events = await self.seen(listener, len(expected) + len(refused))
            for key, (_, value, problem) in expected.items():
                self.assertEqual((events[key]["body"], events[key].get("body_problem", "")), (value, problem))
            for key, reason in refused.items():
                self.assertTrue(events[key]["body_problem"].startswith(reason.strip()), events[key])
            for dead in await drain_queue(vhost.uri, "amqprouter.dead-letters", len(refused)):
                self.assertIn(refused.pop(str(Properties(dead.properties).message_id)), str(reason_of(dead)))
            (copy,) = await drain_queue(vhost.uri, "copies", 1)
            self.assertEqual(copy.body, hot)

        return self.run_with(test, **ROUTES)

    def test_what_was_parked_is_decoded_as_what_was_not(self) -> Deferred[None]:
        async def test(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            for number in range(20):
                fleet.send("dev1", "up.number", b"%d.5" % number)
            await fleet.all_confirmed()
            await gateway.metric_reaches("parked_total", 1)
            await gateway.metric_reaches("stored_total", 20)
            found = sorted(document["body"] for document in database.documents("readings"))
            self.assertEqual(found, [number + 0.5 for number in range(20)])

        limits = {"rate": 10, "burst": 2, "max_waiting_per_device": 2, "max_hold": "1s"}
        return self.run_with(test, scheduler=limits, **ROUTES)

    def test_sparkplug_names_survive_a_restart(self) -> Deferred[None]:
        """As Eclipse Tahu's Python code sends it: names in births, and numbers in what follows."""
        births = [one for one in messages("sparkplug-b") if "Tahu" in one.system and "BIRTH" in one.topic]
        (data,) = [one for one in messages("sparkplug-b") if "by alias alone" in one.about]

        async def test(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            gateway.file("devices.acl", "* -> %d.#\n")
            await gateway.start()
            await fleet.connect()
            for one in births:
                fleet.send("", "", one.payload, exchange="amq.topic", key=one.routing_key, content_type="")
            await fleet.all_confirmed()
            await gateway.metric_reaches("stored_total", len(births))
            await gateway.stop()
            self.assertIn("temp", (gateway.folder / "sparkplug.json").read_text())
            await gateway.start()
            fleet.send("", "", data.payload, exchange="amq.topic", key=data.routing_key, content_type="")
            fleet.send("", "", data.payload, exchange="amq.topic", key=data.routing_key, content_type="")
            await fleet.all_confirmed()
            await gateway.metric_reaches("stored_total", 2)
            self.assertEqual(await gateway.metric("sparkplug_gaps_total"), 1)
            found = [one for one in database.documents("readings") if one["topic"] == "DDATA"]
            self.assertEqual([one["body"]["values"] for one in found], [{"temp": 71.5, "running": False}] * 2)
            self.assertEqual(sorted(len(one.get("body_notes", ())) for one in found), [0, 1])
            self.assertEqual({one["device"] for one in found}, {"press-5"})

        return self.run_with(
            test,
            start=False,
            ingress={"exchanges": "amq.topic", "layouts": "sparkplug-b"},
            layout_plant={"use": "sparkplug-b", "decode": "sparkplug-b"},
            decoding={"sparkplug_names": "sparkplug.json"},
        )
