"""RabbitMQ asks the daemon about devices: who gets in and publishes, by AMQP and MQTT, and who does not."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pika
from pika.exceptions import AMQPError
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from amqprouter.web.broker_auth import LOGIN_DENIED
from tests.support.asking_broker import URL_SECRET, AskingBroker, amqp, gateway_of, publish, shared_broker
from tests.support.certificates import Authority
from tests.support.gateway import SECRET, Gateway
from tests.support.mongo import TestDatabase
from tests.support.mqtt import MqttDevice
from tests.support.process import free_ports, reactor, until
from tests.support.rabbitmq import VERSION, missing


class BrokerAuthTests(TestCase):
    skip = missing or None
    timeout = 120

    def run_with(
        self, test: Callable[[AskingBroker, Gateway, TestDatabase], Awaitable[None]], **options: Any
    ) -> Deferred[None]:
        async def around() -> None:
            broker = await shared_broker()
            async with gateway_of(self, broker, **options) as (gateway, database):
                await gateway.start()
                await test(broker, gateway, database)

        return Deferred.fromCoroutine(around())

    def uri(self, broker: AskingBroker, device: str = "dev1", password: str = SECRET, vhost: str = "/") -> str:
        return broker.node.uri_for(vhost, device, password)

    def mqtt(self, broker: AskingBroker, device: str = "dev1", password: str = SECRET, **options: Any) -> MqttDevice:
        client = MqttDevice(broker.mqtt_port, device, password, **options)
        self.addCleanup(lambda: Deferred.fromCoroutine(client.close()))
        return client

    def test_devices_get_in_and_their_messages_arrive(self) -> Deferred[None]:
        async def test(broker: AskingBroker, gateway: Gateway, database: TestDatabase) -> None:
            said = await deferToThread(
                amqp,
                self.uri(broker),
                publish("devices", "dev1.up.temp", b"amqp", user_id="dev1"),
                publish("devices.by-id", "dev1", b"by-id", user_id="dev1", type="up.temp"),
            )
            self.assertEqual(said, "")
            client = self.mqtt(broker, "dev2")
            self.assertEqual(await client.connect(), "")
            self.assertTrue(await client.publish("dev2/up/temp", b"mqtt"))
            self.assertTrue(await client.publish("dev2/up/raw/x", b"mqtt 0", qos=0))
            await gateway.metric_reaches("stored_total", 4)
            stored = {(d["device"], d["topic"], bytes(d["body"])) for d in database.documents("readings")}
            expected = {("dev1", "up.temp", b"amqp"), ("dev1", "up.temp", b"by-id")}
            expected |= {("dev2", "up.temp", b"mqtt"), ("dev2", "up.raw.x", b"mqtt 0")}
            self.assertEqual(stored, expected)
            self.assertEqual(await gateway.metric("rejected_total"), 0)

        return self.run_with(test)

    def test_whoever_cannot_prove_it_does_not_get_in(self) -> Deferred[None]:
        async def test(broker: AskingBroker, gateway: Gateway, database: TestDatabase) -> None:
            for device, password in (("dev1", "wrong"), ("dev1", ""), ("dev9", SECRET), ("backend", SECRET)):
                said = await deferToThread(amqp, self.uri(broker, device, password))
                self.assertIn("ACCESS_REFUSED", said, device)
                self.assertNotEqual(await self.mqtt(broker, device, password).connect(), "", device)
            other = await broker.node.add_vhost("other")
            self.assertEqual(await deferToThread(amqp, other), "", "guest may go there")
            said = await deferToThread(amqp, self.uri(broker, vhost="other"))
            self.assertIn("NOT_ALLOWED - access to vhost 'other' refused", said)
            self.assertNotEqual(await self.mqtt(broker, client_id="dev2").connect(), "", "would end dev2's connection")
            self.assertEqual(await self.mqtt(broker, client_id="dev1/2").connect(), "")
            self.assertIn("is denied to log in on the broker", gateway.running.tail())
            broker_log = (broker.node.folder / "rabbitmq.log").read_text()
            for secret in (SECRET, URL_SECRET, "wrong"):
                self.assertNotIn(secret, (gateway.folder / "daemon.log").read_text())
                self.assertNotIn(secret, broker_log)
            told = f"HTTP authentication denied for user 'dev1': {LOGIN_DENIED.decode().partition(' ')[2]}"
            self.assertEqual(told in broker_log, VERSION >= (4, 3))

        return self.run_with(test)

    def test_a_device_does_nothing_but_publish_its_own(self) -> Deferred[None]:
        async def test(broker: AskingBroker, gateway: Gateway, database: TestDatabase) -> None:
            for what, step in {
                "access to topic 'dev2.up.temp' in exchange": publish("devices", "dev2.up.temp", user_id="dev1"),
                "access to topic 'dev1.down.temp' in exchange": publish("devices", "dev1.down.temp"),
                "access to exchange 'amq.topic'": publish("amq.topic", "dev1.up.temp"),
                "access to exchange 'amq.default'": publish("", "amqprouter.ingress"),
                "access to queue 'mine'": lambda channel: channel.queue_declare("mine"),
                "access to queue 'mqtt-subscription-dev1qos1'": lambda channel: channel.queue_declare(
                    "mqtt-subscription-dev1qos1"
                ),
                "access to queue 'amqprouter.ingress'": lambda channel: channel.basic_get("amqprouter.ingress"),
                "access to exchange 'devices'": lambda channel: channel.exchange_delete("devices"),
                "user_id property set to 'dev2'": publish("devices", "dev1.up.temp", user_id="dev2"),
            }.items():
                self.assertIn(what, await deferToThread(amqp, self.uri(broker), step))
            client = self.mqtt(broker)
            self.assertEqual(await client.connect(), "")
            self.assertFalse(await client.publish("dev2/up/temp", b"not mine"))
            self.assertEqual(await gateway.metric("received_total"), 0)
            self.assertGreater(await gateway.metric('broker_auth_total{answer="deny",question="topic"}'), 0)

        return self.run_with(test)

    def test_mqtt_devices_read_what_is_under_their_own_id(self) -> Deferred[None]:
        async def test(broker: AskingBroker, gateway: Gateway, database: TestDatabase) -> None:
            for pattern in ("#", "dev2/#", "+/down/#", "dev2/down"):
                client = self.mqtt(broker)
                self.assertEqual(await client.connect(), "")
                self.assertFalse(await client.subscribe(pattern), pattern)
            client = self.mqtt(broker)
            self.assertEqual(await client.connect(), "")
            self.assertTrue(await client.subscribe("dev1/down/#"))
            await deferToThread(amqp, broker.node.uri, publish("amq.topic", "dev1.down.reboot", b"now"))

            async def received() -> bool:
                return client.received == [("dev1/down/reboot", b"now")]

            await until(received, what="the command arrives", timeout=20)

        return self.run_with(test, ingress={"bind": "*.up.#"})

    def test_mqtt_devices_read_nothing_unless_they_may(self) -> Deferred[None]:
        async def test(broker: AskingBroker, gateway: Gateway, database: TestDatabase) -> None:
            client = self.mqtt(broker)
            self.assertEqual(await client.connect(), "")
            self.assertFalse(await client.subscribe("dev1/down/#"))
            again = self.mqtt(broker)
            self.assertEqual(await again.connect(), "")
            self.assertTrue(await again.publish("dev1/up/x", b"still welcome"))

        return self.run_with(test, broker_auth={"subscribe": "no"})

    def test_copies_and_dead_letters_prove_nothing(self) -> Deferred[None]:
        """Where a device's CC header routes without a question, what arrives carries the key that was asked about."""

        async def test(broker: AskingBroker, gateway: Gateway, database: TestDatabase) -> None:
            for header in ("CC", "BCC"):
                copy = publish(
                    "devices", "dev1.up.temp", b"copy", headers={header: ["dev2.up.temp"]}, message_id=header
                )
                said = await deferToThread(amqp, self.uri(broker), copy)
                if VERSION < (4,):
                    self.assertEqual(said, "")
                else:
                    self.assertIn("access to topic 'dev2.up.temp' in exchange 'devices'", said)
            copy = publish("devices", "dev1.up.temp", b"own", headers={"CC": ["dev1.up.else"]}, message_id="own")
            self.assertEqual(await deferToThread(amqp, self.uri(broker), copy), "")
            arrived = (
                [("dev1", b"own")] if VERSION >= (4,) else [("dev1", b"copy"), ("dev1", b"copy"), ("dev1", b"own")]
            )

            def dead_letter(channel: Any) -> None:
                """As guest, for no device can make such a queue."""
                channel.queue_declare(
                    "trap",
                    arguments={"x-dead-letter-exchange": "amq.topic", "x-dead-letter-routing-key": "dev2.up.temp"},
                )
                channel.basic_publish("", "trap", b"dead", pika.BasicProperties(expiration="0", message_id="dead"))

            self.assertEqual(await deferToThread(amqp, broker.node.uri, dead_letter), "")
            await gateway.metric_reaches("settled_total", len(arrived) + 1)
            stored = sorted((d["device"], bytes(d["body"])) for d in database.documents("readings"))
            self.assertEqual(stored, arrived)
            self.assertEqual(await gateway.metric('rejected_total{reason="identity-mismatch"}'), 1)

        checked = {"accept": "user-id, broker-topic", "broker_checked_exchanges": "devices, amq.topic"}
        return self.run_with(test, auth=checked)

    def test_without_the_daemon_devices_stay_out_and_others_get_in(self) -> Deferred[None]:
        async def test(broker: AskingBroker, gateway: Gateway, database: TestDatabase) -> None:
            client = self.mqtt(broker, "dev2")
            self.assertEqual(await client.connect(), "")
            self.assertEqual(await deferToThread(amqp, self.uri(broker)), "")
            await gateway.stop()
            self.assertIn("ACCESS_REFUSED", await deferToThread(amqp, self.uri(broker)))
            self.assertNotEqual(await self.mqtt(broker).connect(), "")
            self.assertFalse(await client.publish("dev2/up/temp", b"nobody to ask"))
            self.assertEqual(await deferToThread(amqp, broker.node.uri, publish("devices", "dev1.up.temp")), "")
            await gateway.start()
            self.assertEqual(await deferToThread(amqp, self.uri(broker)), "")
            await gateway.metric_reaches("settled_total", 1)  # the queue is the next test's too

        return self.run_with(test)

    def certificate_of(self, broker: AskingBroker, name: str) -> ssl.SSLContext:
        """TLS with a certificate for this name."""
        pair = Path(self.mktemp())
        pair.write_bytes(b"".join(broker.authority.issue(name)))
        context = ssl.create_default_context(cadata=broker.authority.pem.decode())
        context.load_cert_chain(str(pair))
        return context

    def test_a_certificate_is_enough_where_that_is_configured(self) -> Deferred[None]:
        def by_certificate(broker: AskingBroker, name: str, *steps: Callable[[Any], object]) -> str:
            context = self.certificate_of(broker, name)
            parameters = pika.ConnectionParameters(
                "localhost",
                broker.tls_port,
                credentials=pika.credentials.ExternalCredentials(),
                ssl_options=pika.SSLOptions(context, "localhost"),
            )
            try:
                connection = pika.BlockingConnection(parameters)
            except AMQPError as error:
                return f"connection: {error}"
            for step in steps:
                step(connection.channel())
            connection.close()
            return ""

        async def test(broker: AskingBroker, gateway: Gateway, database: TestDatabase) -> None:
            send = publish("devices", "cam-7.up.temp", b"{}", user_id="cam-7")
            self.assertEqual(await deferToThread(by_certificate, broker, "cam-7", send), "")
            await gateway.metric_reaches("stored_total", 1)
            self.assertEqual([d["device"] for d in database.documents("readings")], ["cam-7"])
            self.assertIn("ACCESS_REFUSED", await deferToThread(by_certificate, broker, "cam.7"))
            self.assertIn("ACCESS_REFUSED", await deferToThread(amqp, self.uri(broker, "cam-7", "")))
            await gateway.stop()
            gateway.sections["broker_auth"]["external"] = "no"
            gateway.write_config()
            await gateway.start()
            self.assertIn("ACCESS_REFUSED", await deferToThread(by_certificate, broker, "cam-7"))

        return self.run_with(test, broker_auth={"external": "yes"})

    def test_a_certificate_is_enough_by_mqtt(self) -> Deferred[None]:
        async def test(broker: AskingBroker, gateway: Gateway, database: TestDatabase) -> None:
            def client(client_id: str) -> MqttDevice:
                context = self.certificate_of(broker, "cam-7")
                device = MqttDevice(broker.mqtts_port, "cam-7", None, client_id=client_id, tls=context)
                self.addCleanup(lambda: Deferred.fromCoroutine(device.close()))
                return device

            good = client("cam-7")
            if (3, 12) <= VERSION < (4, 1):
                # Of a client without a password the broker then says that it is "none", which others could say, too.
                self.assertNotEqual(await good.connect(), "")
                self.assertIn("RabbitMQ 3.12 to 4.0", gateway.running.tail())
                return
            self.assertEqual(await good.connect(), "")
            self.assertTrue(await good.publish("cam-7/up/temp", b"{}"))
            await gateway.metric_reaches("stored_total", 1)
            self.assertEqual([d["device"] for d in database.documents("readings")], ["cam-7"])
            self.assertNotEqual(await client("dev1").connect(), "", "would end dev1's connection")

        return self.run_with(test, broker_auth={"external": "yes"})

    def test_a_checker_that_cannot_say_lets_nobody_in(self) -> Deferred[None]:
        async def test(broker: AskingBroker, gateway: Gateway, database: TestDatabase) -> None:
            self.assertIn("ACCESS_REFUSED", await deferToThread(amqp, self.uri(broker)))
            self.assertNotEqual(await self.mqtt(broker).connect(), "")
            self.assertEqual(await deferToThread(amqp, broker.node.uri), "")
            self.assertGreater(await gateway.metric('broker_auth_total{answer="error",question="user"}'), 0)

        (closed,) = free_ports(1)
        return self.run_with(test, auth={"device_checker": f"http://127.0.0.1:{closed}/user"})

    def test_groups_that_a_checker_tells_at_the_login_count(self) -> Deferred[None]:
        class Registry(Resource):
            isLeaf = True

            def render_POST(self, request: Request) -> bytes:
                assert request.content is not None
                return b"allow plant-7" if b"username=dev1" in request.content.read() else b"allow"

        async def test(broker: AskingBroker, gateway: Gateway, database: TestDatabase) -> None:
            gateway.file("devices.acl", "@group/plant-7 -> %d.up.#\n")
            await gateway.start()
            member, other = self.mqtt(broker), self.mqtt(broker, "dev2")
            self.assertEqual((await member.connect(), await other.connect()), ("", ""))
            self.assertTrue(await member.publish("dev1/up/temp", b"{}"))
            self.assertFalse(await other.publish("dev2/up/temp", b"{}"))
            await gateway.metric_reaches("stored_total", 1)
            self.assertEqual([d["device"] for d in database.documents("readings")], ["dev1"])

        async def around() -> None:
            broker = await shared_broker()
            registry = reactor.listenTCP(0, Site(Registry()), interface="127.0.0.1")
            checker = f"http://127.0.0.1:{registry.getHost().port}/user"
            try:
                async with gateway_of(self, broker, auth={"device_checker": checker}) as (gateway, database):
                    await test(broker, gateway, database)
            finally:
                await registry.stopListening()

        return Deferred.fromCoroutine(around())

    def test_a_cache_in_the_broker_answers_without_the_daemon(self) -> Deferred[None]:
        """That is the price of it: what is revoked counts later."""

        async def test(broker: AskingBroker, gateway: Gateway, database: TestDatabase) -> None:
            backends = (
                "application:set_env(rabbit, auth_backends, [rabbit_auth_backend_internal, rabbit_auth_backend_{}])."
            )
            cached = "application:set_env(rabbitmq_auth_backend_cache, cached_backend, rabbit_auth_backend_http)."
            await broker.node.eval(cached)
            await broker.node.eval(backends.format("cache"))
            send = publish("devices", "dev1.up.temp", user_id="dev1")
            try:
                self.assertEqual(await deferToThread(amqp, self.uri(broker), send), "")
                await gateway.metric_reaches("stored_total", 1)
                await gateway.stop()
                self.assertEqual(await deferToThread(amqp, self.uri(broker)), "")
                self.assertIn("ACCESS_REFUSED", await deferToThread(amqp, self.uri(broker, "dev2")))
                self.assertEqual(await deferToThread(amqp, broker.node.uri), "")
            finally:
                await broker.node.eval(backends.format("http"))

        return self.run_with(test)

    def test_the_broker_shows_a_certificate(self) -> Deferred[None]:
        """The plugin's TLS, as it is set in advanced.config, here while the node runs."""

        async def test(broker: AskingBroker, gateway: Gateway, database: TestDatabase) -> None:
            folder = gateway.folder
            urls = {name: f"https://localhost:{broker.backend_port}/{name}" for name in ("user", "vhost")}

            async def ask_with(certificate: str) -> str:
                options = f'{{cacertfile, "{folder}/ca.pem"}}, {{verify, verify_peer}}'
                if certificate:
                    options += (
                        f', {{certfile, "{folder}/{certificate}.pem"}}, {{keyfile, "{folder}/{certificate}.key"}}'
                    )
                await broker.node.eval(f"application:set_env(rabbitmq_auth_backend_http, ssl_options, [{options}]).")
                return await deferToThread(amqp, self.uri(broker))

            before = await broker.node.eval("application:get_all_env(rabbitmq_auth_backend_http).")
            disclose = "application:set_env(rabbitmq_auth_backend_http, authorization_failure_disclosure, true)."
            await broker.node.eval(disclose)
            for name, url in urls.items():
                await broker.node.eval(f'application:set_env(rabbitmq_auth_backend_http, {name}_path, "{url}").')
            try:
                self.assertEqual(await ask_with("broker"), "")
                await broker.node.add_vhost("third")
                refused = await deferToThread(amqp, self.uri(broker, vhost="third"))
                self.assertIn("access to vhost 'third' refused for user 'dev1'", refused)
                self.assertEqual("it is another virtual host" in refused, VERSION >= (4, 3), refused)
                self.assertIn("ACCESS_REFUSED", await ask_with(""))
                self.assertIn("ACCESS_REFUSED", await ask_with("stranger"))
            finally:
                env = before.strip()
                await broker.node.eval(
                    f"[application:set_env(rabbitmq_auth_backend_http, K, V) || {{K, V}} <- {env}], "
                    "application:unset_env(rabbitmq_auth_backend_http, ssl_options), "
                    "application:unset_env(rabbitmq_auth_backend_http, authorization_failure_disclosure)."
                )

        async def around() -> None:
            broker = await shared_broker()
            tls = {"tls_certificate": "own.pem", "tls_key": "own.key", "tls_client_ca": "ca.pem", "secret_file": ""}
            async with gateway_of(self, broker, broker_auth=tls) as (gateway, database):
                authority, strangers = Authority("Brokers"), Authority("Strangers")
                gateway.file("ca.pem", authority.pem.decode())
                for name, issued in {
                    "own": authority.issue("localhost"),
                    "broker": authority.issue("broker"),
                    "stranger": strangers.issue("broker"),
                }.items():
                    gateway.file(f"{name}.pem", issued[0].decode())
                    gateway.file(f"{name}.key", issued[1].decode())
                await gateway.start()
                await test(broker, gateway, database)

        return Deferred.fromCoroutine(around())
