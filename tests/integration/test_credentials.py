"""Devices that prove themselves by signed tokens and signed messages, on real servers."""

from __future__ import annotations

import base64
import time
from typing import Any

from twisted.internet.defer import Deferred

from amqprouter.amqp.link import connect_once
from amqprouter.amqp.properties import Properties
from amqprouter.auth.hmac_file import set_random_key
from amqprouter.auth.hmac_proof import sign
from amqprouter.settings import BrokerSettings
from tests.support.gateway import SECRET, Fleet, Gateway, drain_queue, reason_of
from tests.support.gateway_case import GatewayTestCase
from tests.support.mongo import TestDatabase
from tests.support.process import reactor
from tests.support.servers import Vhost
from tests.support.tokens import jwk, key_set, token

ISSUER = "https://id.example:8443/realms/plant"


class TokenTests(GatewayTestCase):
    def test_tokens_and_behind_them_passwords(self) -> Deferred[None]:
        async def test(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            gateway.file("keys.json", key_set(jwk("RS256"), jwk("ES256")))
            await gateway.start()
            await fleet.connect()

            def send(device: str, algorithm: str = "RS256", number: int = 0, **changed: Any) -> str:
                header = changed.pop("header", {})
                claims = {"sub": "dev1", "iss": ISSUER, "aud": ["plant"], "exp": time.time() + 60, **changed}
                secret = token(claims, algorithm, number, header=header).decode()
                return fleet.send(device, "up.temp", b"{}", secret=secret)

            good = {
                send("dev1"),
                send("dev1", "ES256"),
                send("dev9", sub="dev9"),
                fleet.send("dev2", "up.temp", b"{}"),  # with its password, which the checker behind knows
            }
            bad = {
                send("dev2"): "identity-mismatch",
                send("dev1", exp=time.time() - 60): "bad-secret",
                send("dev1", iss="https://evil.example"): "bad-secret",
                send("dev1", aud="others"): "bad-secret",
                send("dev1", "RS256", 1, header={"kid": "RS256-0"}): "bad-secret",
                send("dev1", "HS256", header={"kid": "RS256-0"}): "bad-secret",
                send("dev1", "ES256", 1): "bad-secret",  # left to the file, where it is no secret of dev1 either
                fleet.send("dev1", "up.temp", b"{}", secret="x" * 9000): "bad-secret",
            }
            await fleet.all_confirmed()
            await gateway.metric_reaches("settled_total", len(good) + len(bad))
            rejected = await drain_queue(vhost.uri, "amqprouter.rejected", len(bad))
            self.assertEqual({Properties(d.properties).message_id: reason_of(d) for d in rejected}, bad)
            self.assertEqual({document["message_id"] for document in database.documents("readings")}, good)
            for where in (repr(rejected), repr(database.documents("readings")), gateway.running.tail(10_000)):
                self.assertNotIn("eyJ", where)  # what every token begins with

        checkers = f"jwt:keys.json issuer={ISSUER} audience=plant, file:devices.passwd"
        return self.run_with(test, start=False, auth={"device_checker": checkers})


class SignatureTests(GatewayTestCase):
    async def begin(self, gateway: Gateway, fleet: Fleet) -> None:
        path = str(gateway.folder / "devices.keys")
        self.keys = {device: base64.b64decode(set_random_key(path, device)) for device in ("dev1", "dev2")}
        await gateway.start()
        await fleet.connect()
        self.fleet = fleet

    def send(
        self, message_id: str, *, device: str = "dev1", key: str = "dev1", late: int = 0, body: bytes = b"{}"
    ) -> str:
        """A message whose body at signing was ``{}``."""
        now = int(time.time()) - late
        signature = sign(self.keys[key], f"{device}.up.temp".encode(), now, message_id.encode(), b"{}")
        return self.fleet.send(
            device,
            "up.temp",
            body,
            secret=None,
            headers={"x-device-signature": signature},
            message_id=message_id,
            timestamp=now,
        )

    def test_good_and_bad_ones(self) -> Deferred[None]:
        async def test(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            await self.begin(gateway, fleet)
            good = {self.send("m1"), self.send("m2", late=250), self.send("m3", device="dev2", key="dev2")}
            bad = {
                self.send("forged", key="dev2"): "bad-signature",
                self.send("changed", body=b'{"n": 1}'): "bad-signature",
                self.send("stranger", device="dev3"): "bad-signature",
                self.send("late", late=400): "stale-timestamp",
                self.send("early", late=-400): "stale-timestamp",
                fleet.send("dev1", "up.temp", b"{}", message_id="secret"): "no-credential",
            }
            await fleet.all_confirmed()
            bad[self.send("m1", late=1)] = "replayed"
            fleet.flush()
            await gateway.metric_reaches("settled_total", len(good) + len(bad))
            rejected = await drain_queue(vhost.uri, "amqprouter.rejected", len(bad))
            replayed = bad.pop("m1")
            reasons = [(Properties(d.properties).message_id, reason_of(d)) for d in rejected]
            self.assertCountEqual(reasons, [*bad.items(), ("m1", replayed)])
            documents = database.documents("readings")
            self.assertEqual({document["message_id"] for document in documents}, good)
            self.assertNotIn("v1=", repr((rejected, documents)))
            self.assertNotIn(SECRET, repr(rejected))

        return self.run_with(test, start=False, auth={"accept": "hmac", "hmac_keys": "devices.keys"})

    def test_what_the_broker_delivers_again_passes_and_what_the_device_sends_again_does_not(self) -> Deferred[None]:
        async def test(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            connection = await connect_once(reactor, BrokerSettings(uri=vhost.uri), "test")
            channel = await connection.open_channel()
            await channel.exchange_declare(exchange="work", exchange_type="topic", durable=True)
            await connection.shut()
            await self.begin(gateway, fleet)
            self.send("m1")
            await fleet.all_confirmed()
            # Nothing is bound to the target, so the message stays unacknowledged.
            await gateway.metric_reaches("authenticated_total", 1)
            await vhost.broker.ctl("close_all_connections", "-p", vhost.name, "--", "test")
            await gateway.metric_reaches("redelivered_total", 1)
            await gateway.metric_reaches("authenticated_total", 2)
            self.assertEqual(await gateway.metric("rejected_total"), 0)

            connection = await connect_once(reactor, BrokerSettings(uri=vhost.uri), "test")
            channel = await connection.open_channel()
            await channel.queue_declare(queue="workers", durable=True)
            await channel.queue_bind(queue="workers", exchange="work", routing_key="#")
            await connection.shut()
            (worked, *_) = await drain_queue(vhost.uri, "workers", 1)
            self.assertEqual(Properties(worked.properties).message_id, "m1")

            await fleet.reconnected()
            self.send("m1")
            fleet.flush()
            (rejected,) = await drain_queue(vhost.uri, "amqprouter.rejected", 1)
            self.assertEqual((Properties(rejected.properties).message_id, reason_of(rejected)), ("m1", "replayed"))

        return self.run_with(
            test,
            start=False,
            auth={"accept": "hmac", "hmac_keys": "devices.keys"},
            route_work={"targets": "exchange:work"},
            limits={"max_attempts": 1000},
        )
