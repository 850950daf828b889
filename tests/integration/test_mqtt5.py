"""MQTT 5 devices that prove themselves by user properties, which RabbitMQ 4 makes headers; 3.10 knows no MQTT 5."""

from __future__ import annotations

import base64
import re
import textwrap
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from amqprouter.amqp.properties import Properties
from amqprouter.auth.hmac_file import set_random_key
from amqprouter.auth.hmac_proof import sign
from tests.support.asking_broker import AskingBroker, amqp, gateway_of, shared_broker
from tests.support.gateway import SECRET, Gateway, drain_queue, reason_of
from tests.support.mongo import TestDatabase
from tests.support.mqtt import MqttDevice
from tests.support.rabbitmq import VERSION, missing
from tests.support.tokens import jwk, key_set, token

DOCS = Path(__file__).parents[2] / "docs/authentication.rst"
SECRET_HEADER, SIGNATURE_HEADER = "x-device-secret", "x-device-signature"


class Mqtt5Tests(TestCase):
    """One account (guest) publishes for all devices, so each message has to carry its own proof."""

    skip = missing or None
    timeout = 120

    def run_with(self, test: Callable[[MqttDevice, Gateway], Awaitable[None]], **auth: object) -> Deferred[None]:
        async def around() -> None:
            broker = await shared_broker()
            # As devices of MQTT 3.1.1 have no proof of their own, the broker's word for them is not taken here.
            options = {"accept": "hmac" if "hmac_keys" in auth else "secret", "broker_checked_exchanges": ""} | auth
            routes = {"targets": "exchange:copies, store:readings"}
            await deferToThread(amqp, broker.node.uri, *COPIES)
            async with gateway_of(self, broker, auth=options, route_all=routes) as (gateway, database):
                client = MqttDevice(broker.mqtt_port, "guest", "guest", client_id="bridge", version5=True)
                self.addCleanup(lambda: Deferred.fromCoroutine(client.close()))
                said = await client.connect()
                if VERSION < (3, 13):
                    self.assertEqual(said, "the broker hung up")
                    return
                self.assertEqual(said, "")
                self.broker, self.database = broker, database
                await test(client, gateway)

        return Deferred.fromCoroutine(around())

    broker: AskingBroker
    database: TestDatabase

    async def judged(self, gateway: Gateway, good: set[bytes], bad: dict[bytes, str]) -> None:
        """Check that these bodies, and no others, were accepted, and what the others were rejected for."""
        await gateway.metric_reaches("settled_total", len(good) + len(bad))
        rejected = await drain_queue(self.broker.node.uri, "amqprouter.rejected", len(bad))
        self.assertEqual({delivery.body: reason_of(delivery) for delivery in rejected}, bad)
        documents = self.database.documents("readings")
        self.assertEqual({bytes(document["body"]) for document in documents}, good)
        copies = await drain_queue(self.broker.node.uri, "copies", len(good))
        self.assertEqual({delivery.body for delivery in copies}, good)
        for copy in copies:
            headers = Properties(copy.properties).headers
            self.assertEqual((headers.get("unit"), SECRET_HEADER in headers, SIGNATURE_HEADER in headers), ("°C", 0, 0))
        for where in (repr(rejected), repr(documents), repr(copies)):
            for proof in (SECRET, "v1=", "eyJ"):
                self.assertNotIn(proof, where)

    async def send(self, client: MqttDevice, body: bytes, *proof: tuple[str, str], expiry: int | None = None) -> bytes:
        properties = (("unit", "°C"), *proof)
        sent = await client.publish("dev1/up/temp", body, user_properties=properties, expiry=expiry)
        self.assertTrue(sent, body)
        return body

    def test_secrets_and_tokens(self) -> Deferred[None]:
        async def test(client: MqttDevice, gateway: Gateway) -> None:
            gateway.file("keys.json", key_set(jwk("ES256")))
            await gateway.start()

            def signed(device: str) -> tuple[str, str]:
                claims = {"sub": device, "iss": "us", "aud": "plant", "exp": time.time() + 60}
                return SECRET_HEADER, token(claims, "ES256").decode()

            right, wrong = (SECRET_HEADER, SECRET), (SECRET_HEADER, "wrong")
            good = {
                await self.send(client, b"secret", right),
                await self.send(client, b"token", signed("dev1")),
                await self.send(client, b"first", right, wrong),
            }
            bad = {
                await self.send(client, b"no proof"): "no-credential",
                await self.send(client, b"wrong", wrong): "bad-secret",
                await self.send(client, b"another's", signed("dev2")): "identity-mismatch",
                await self.send(client, b"the first counts", wrong, right): "bad-secret",
            }
            await self.judged(gateway, good, bad)

        return self.run_with(test, device_checker="jwt:keys.json issuer=us audience=plant, file:devices.passwd")

    def test_signatures(self) -> Deferred[None]:
        async def test(client: MqttDevice, gateway: Gateway) -> None:
            path = str(gateway.folder / "devices.keys")
            key, other = (base64.b64decode(set_random_key(path, device)) for device in ("dev1", "dev2"))
            await gateway.start()

            def signed(message_id: str, body: bytes, *, key: bytes = key, late: int = 0) -> tuple[str, str]:
                now = int(time.time()) - late
                signature = sign(key, b"dev1.up.temp", now, message_id.encode(), body)
                return SIGNATURE_HEADER, f"{signature},t={now},id={message_id}"

            once = signed("m1", b"once")
            good = {
                await self.send(client, b"once", once),
                # With an expiry the broker adds a timestamp, by its own clock.
                await self.send(client, b"kept a while", signed("m2", b"kept a while", late=200), expiry=3600),
            }
            bare = (SIGNATURE_HEADER, signed("m4", b"bare")[1].partition(",")[0])
            bad = {
                await self.send(client, b"bare", bare): "no-message-id",
                await self.send(client, b"changed", signed("m5", b"else")): "bad-signature",
                await self.send(client, b"another's", signed("m6", b"another's", key=other)): "bad-signature",
                await self.send(client, b"late", signed("m7", b"late", late=400)): "stale-timestamp",
                await self.send(client, b"forged, with an expiry", FORGED, expiry=3600): "bad-signature",
                await self.send(client, b"m1 again", signed("m1", b"m1 again")): "replayed",
            }
            await self.judged(gateway, good, bad)

        return self.run_with(test, hmac_keys="devices.keys")

    def test_the_documented_client(self) -> Deferred[None]:
        async def test(client: MqttDevice, gateway: Gateway) -> None:
            gateway.devices("meter-17")
            gateway.file("devices.acl", "* -> %d.#\n")
            await gateway.start()
            _, _, block = DOCS.read_text("utf-8").partition("\nMQTT 5: proofs")[2].partition(".. code-block:: python\n")
            code = textwrap.dedent(block[: re.search(r"\n(?=\S)", block).start()])  # type: ignore[union-attr]
            for documented, ours in {
                '"broker.example"': f'"127.0.0.1", {self.broker.mqtt_port}',
                '"bridge", "the password of the bridge"': '"guest", "guest"',
                "the secret of meter-17": SECRET,
            }.items():
                self.assertIn(documented, code)
                code = code.replace(documented, ours)
            names: dict[str, Any] = {}
            await deferToThread(exec, code, names)
            self.addCleanup(deferToThread, names["client"].loop_stop)
            self.addCleanup(names["client"].disconnect)
            await gateway.metric_reaches("stored_total", 1)
            (document,) = self.database.documents("readings")
            self.assertEqual((document["device"], document["topic"]), ("meter-17", "reading.temp"))

        return self.run_with(test)


COPIES = (
    lambda channel: channel.exchange_declare("copies", "topic", durable=True),
    lambda channel: channel.queue_declare("copies", durable=True),
    lambda channel: channel.queue_bind("copies", "copies", "#"),
)
FORGED = SIGNATURE_HEADER, f"v1={'0' * 64},t=1,id=x"
