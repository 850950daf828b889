"""Commands: from users over HTTP and services over AMQP, to devices over AMQP and MQTT, and what is told of them."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import pika
import treq
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from amqprouter.amqp.properties import Properties
from amqprouter.cli.sse_reader import SseReader
from tests.integration.test_documented_permissions import _documented as documented
from tests.support.asking_broker import AskingBroker, amqp, gateway_of, publish, shared_broker
from tests.support.gateway import SECRET, Fleet, Gateway, drain_queue, reason_of
from tests.support.gateway_case import GatewayTestCase
from tests.support.mongo import TestDatabase
from tests.support.mqtt import MqttDevice
from tests.support.process import run, until
from tests.support.rabbitmq import missing
from tests.support.servers import Vhost
from tests.support.tokens import jwk, key_set, token

ANN, BOB = ("ann", "ann's"), ("bob", "bob's")
ENABLED = {"enabled": "yes", "topics": "down.#"}
ACL = "ann -> *.down.#\nbob -> dev1.down.#\namqp:guest -> *.down.#\n"


async def post(gateway: Gateway, path: str, body: bytes = b"{}", login: Any = ANN, origin: str = "") -> Any:
    """The response to a command, and what it says."""
    headers: dict[str | bytes, str | bytes] = {"Content-Type": "application/json"}
    if isinstance(login, bytes):
        headers["Authorization"], login = b"Bearer " + login, None
    if origin:
        headers["Origin"] = origin
    response = await treq.post(
        f"{gateway.url}/commands/{path}", data=body, auth=login, headers=headers, persistent=False
    )
    return response, await response.json()


class Listener:
    """The events that a user sees from now on, as a list that grows."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []
        self._reader = SseReader()

    async def connect(self, gateway: Gateway, login: tuple[str, str] = ANN) -> None:
        response = await treq.get(f"{gateway.url}/events", auth=login, unbuffered=True, persistent=False)
        assert response.code == 200, response.code
        response.collect(self._take).addErrback(lambda _: None)

    def _take(self, chunk: bytes) -> None:
        self.seen += [json.loads(event.data) for event in self._reader.feed(chunk) if event.type != "place"]

    async def told(self, topic: str, about: str) -> dict[str, Any]:
        """The event about this command with this topic."""
        found: list[dict[str, Any]] = []

        async def came() -> bool:
            found[:] = [e for e in self.seen if e["topic"] == topic and e.get("correlation_id") == about]
            return bool(found)

        await until(came, what=f"{topic} is told", timeout=30)
        return found[0]


class CommandTests(GatewayTestCase):
    def run_commands(self, test: Any, acl: str = ACL, **commands: object) -> Deferred[None]:
        async def around(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            gateway.file("commands.acl", acl)
            gateway.file("keys.json", key_set(jwk("HS256")))
            (gateway.folder / "keys.json").chmod(0o600)
            await gateway.start()
            await fleet.connect()
            await test(gateway, fleet, vhost, database)

        users = {"user_checker": "jwt:keys.json issuer=us, file:users.passwd"}
        options = {"commands": ENABLED | commands, "acl": {"commands": "commands.acl"}, "auth": users}
        return self.run_with(around, start=False, **options)

    def test_there_and_back(self) -> Deferred[None]:
        """A user's command is in the device's queue, says who sent it, and the device's answer finds the user."""

        async def test(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            listener = Listener()
            await listener.connect(gateway)
            response, told = await post(gateway, "dev1/down/reboot", b'{"in": 5}')
            self.assertEqual((response.code, told["device"], told["topic"]), (202, "dev1", "down.reboot"))
            (command,) = await drain_queue(vhost.uri, "commands.dev1", 1)
            properties = Properties(command.properties)
            self.assertEqual((command.routing_key, command.body), (b"dev1.down.reboot", b'{"in": 5}'))
            self.assertEqual(
                (properties.message_id, properties.text("correlation_id"), properties.text("expiration")),
                (told["id"], told["id"], "60000"),
            )
            self.assertEqual(
                (properties.headers, properties.content_type), ({"x-amqprouter-from": "ann"}, "application/json")
            )
            sent = await listener.told("down.reboot.sent", told["id"])
            self.assertEqual((sent["device"], sent["body"]), ("dev1", {"from": "ann"}))

            def answer() -> None:
                connection = pika.BlockingConnection(pika.URLParameters(vhost.uri))
                as_device = pika.BasicProperties(correlation_id=told["id"], headers={"x-device-secret": SECRET})
                connection.channel().basic_publish("devices", "dev1.up.ack.reboot", b'"done"', as_device)
                connection.close()

            await deferToThread(answer)
            acknowledged = await listener.told("up.ack.reboot", told["id"])
            self.assertEqual((acknowledged["device"], acknowledged["body"]), ("dev1", "done"))
            self.assertEqual(await gateway.metric('commands_total{outcome="sent"}'), 1)

        return self.run_commands(test)

    def test_what_is_refused(self) -> Deferred[None]:
        async def test(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            good_until = int(time.time()) + 600

            def for_bob(number: int = 0, **claims: object) -> bytes:
                """Only the first key is the gateway's."""
                return token({"sub": "bob", "iss": "us", "exp": good_until, **claims}, "HS256", number)

            for path, login, origin, expected in (
                ("dev2/down/x", for_bob(), "", (403, "not-authorised")),
                ("dev1/down/x", for_bob(number=1), "", (401, "login needed")),
                ("dev1/down/x", for_bob(exp=1), "", (401, "login needed")),
                ("dev1/down/x", for_bob(sub=None), "", (401, "login needed")),
                ("dev1/down/x", b"bob's", "", (401, "login needed")),
                ("dev1/down/x", None, "", (401, "login needed")),
                ("dev1/down/x", ("ann", "wrong"), "", (401, "login needed")),
                ("dev2/down/x", BOB, "", (403, "not-authorised")),
                ("dev1/up/x", ANN, "", (403, "not-authorised")),
                ("dev1/down/x", ANN, "https://elsewhere.example", (403, "not from a page of this origin")),
                ("dev1/down/x", ANN, "null", (403, "not from a page of this origin")),
                ("dev1", ANN, "", (400, "no-topic")),
                ("dev1/down//x", ANN, "", (400, "bad-topic")),
                ("dev1/down/%23", ANN, "", (400, "bad-topic")),
                ("dev1/down/" + "x" * 250, ANN, "", (400, "topic-too-long")),
                ("dev%231/down/x", ANN, "", (400, "bad-device-id")),
                ("dev1/down/%ff", ANN, "", (400, "the path and the content type must be UTF-8")),
            ):
                response, told = await post(gateway, path, login=login, origin=origin)
                self.assertEqual((response.code, told["error"]), expected, path)
            response, told = await post(gateway, "dev1/down/x", b"x" * 1001)
            self.assertEqual(response.code, 413)
            response = await treq.get(f"{gateway.url}/commands/dev1/down/x", auth=ANN, persistent=False)
            self.assertEqual((response.code, await response.json()), (405, {"error": "method not allowed"}))
            own = await post(gateway, "dev1/down/x", origin=gateway.url)
            self.assertEqual(own[0].code, 202)
            self.assertEqual((await post(gateway, "dev1/down/x", login=for_bob()))[0].code, 202)
            commands = await drain_queue(vhost.uri, "commands.dev1", 2)
            senders = [Properties(command.properties).headers["x-amqprouter-from"] for command in commands]
            self.assertEqual(senders, ["ann", "bob"])

        return self.run_commands(test, max_bytes=1000)

    def test_limits_and_full_queues(self) -> Deferred[None]:
        async def test(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            codes = [(await post(gateway, "dev1/down/x"))[0].code for _ in range(3)]
            self.assertEqual(codes, [202, 202, 429], "the queue holds two")
            codes = [(await post(gateway, "dev1/down/x"))[0].code for _ in range(2)]
            self.assertEqual(codes, [429, 429])
            response, told = await post(gateway, "dev1/down/x")
            self.assertEqual((response.code, told["error"]), (429, "rate-limited"))
            self.assertGreater(int(response.headers.getRawHeaders("retry-after")[0]), 1)
            other = await post(gateway, "dev2/down/x")
            self.assertEqual(other[0].code, 202)

        return self.run_commands(test, max_length=2, limits="5/h burst 5")

    def test_services_send_over_amqp(self) -> Deferred[None]:
        """With the identity that the broker vouches for; what they may not is rejected with the reason."""

        async def test(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            listener = Listener()
            await listener.connect(gateway)
            said = await deferToThread(
                amqp,
                vhost.uri,
                publish("amqprouter.commands", "dev1.down.x", b"1", user_id="guest", message_id="one"),
                publish("amqprouter.commands", "dev1.down.x", b"2", message_id="anonymous"),
                publish("amqprouter.commands", "dev1.up.x", b"3", user_id="guest", message_id="forbidden"),
                publish("amqprouter.commands", "dev1", b"4", user_id="guest", message_id="nowhere"),
            )
            self.assertEqual(said, "")
            await listener.told("down.x.sent", "one")
            (command,) = await drain_queue(vhost.uri, "commands.dev1", 1)
            properties = Properties(command.properties)
            self.assertEqual((properties.message_id, properties.headers), ("one", {"x-amqprouter-from": "amqp:guest"}))
            rejected = await drain_queue(vhost.uri, "amqprouter.rejected", 3)
            reasons = {Properties(each.properties).message_id: reason_of(each) for each in rejected}
            expected = {"anonymous": "no-identity", "forbidden": "not-authorised", "nowhere": "no-topic"}
            self.assertEqual(reasons, expected)

            async def empty() -> bool:
                return (await vhost.list_queues())["amqprouter.commands"] == 0

            await until(empty, what="all are acknowledged", timeout=20)

        return self.run_commands(test)

    def test_commands_that_no_device_takes(self) -> Deferred[None]:
        """One expires, one is rejected by its device: both are told, and nothing is left over."""

        async def test(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            listener = Listener()
            await listener.connect(gateway)
            _, late = await post(gateway, "dev1/down/late")
            expired = await listener.told("down.late.expired", late["id"])
            self.assertEqual(expired["body"], {"from": "ann", "reason": "expired"})

            def refuse() -> None:
                connection = pika.BlockingConnection(pika.URLParameters(vhost.uri))
                channel = connection.channel()
                for method, _, _ in channel.consume("commands.dev2"):
                    channel.basic_reject(method.delivery_tag, requeue=False)
                    break
                connection.close()

            _, first = await post(gateway, "dev2/down/first")
            await listener.told("down.first.expired", first["id"])  # so that the queue is there
            refusing = deferToThread(refuse)
            _, bad = await post(gateway, "dev2/down/bad")
            await refusing
            undeliverable = await listener.told("down.bad.undeliverable", bad["id"])
            self.assertEqual(undeliverable["body"], {"from": "ann", "reason": "rejected"})

            async def empty() -> bool:
                return (await vhost.list_queues())["amqprouter.commands-expired"] == 0

            await until(empty, what="all are acknowledged", timeout=20)

        return self.run_commands(test, ttl=1)

    def test_a_device_without_a_queue(self) -> Deferred[None]:
        async def test(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            listener = Listener()
            await listener.connect(gateway)
            response, told = await post(gateway, "dev1/down/x")
            self.assertEqual((response.code, told), (404, {"error": "no-queue"}))
            said = await deferToThread(
                amqp,
                vhost.uri,
                publish("amqprouter.commands", "dev1.down.x", b"1", user_id="guest", message_id="one"),
            )
            self.assertEqual(said, "")
            undeliverable = await listener.told("down.x.undeliverable", "one")
            self.assertEqual(undeliverable["body"], {"from": "amqp:guest", "reason": "no-queue"})
            (dead,) = await drain_queue(vhost.uri, "amqprouter.dead-letters", 1)
            self.assertEqual((Properties(dead.properties).message_id, reason_of(dead)), ("one", "no-queue"))

        return self.run_commands(test, queue="")

    def test_the_command_line(self) -> Deferred[None]:
        """It waits for the device's answer, over HTTP; over AMQP it is the broker's account that sends."""

        async def test(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            gateway.file("ann.password", "ann's\n")
            over_http = ["--url", gateway.url, "--user", "ann", "--password-file", str(gateway.folder / "ann.password")]

            async def command(*arguments: str) -> Any:
                return await run(sys.executable, "-m", "amqprouter.cli.main", "command", *arguments, check=False)

            def device() -> None:
                """Answers the first command, and leaves the others where they are."""
                connection = pika.BlockingConnection(pika.URLParameters(vhost.uri))
                channel = connection.channel()
                for method, properties, body in channel.consume("commands.dev1"):
                    answer = pika.BasicProperties(
                        correlation_id=properties.correlation_id, headers={"x-device-secret": SECRET}
                    )
                    channel.basic_publish("devices", "dev1.up.ack", body, answer)
                    channel.basic_ack(method.delivery_tag)
                    break
                channel.cancel()
                connection.close()

            ended = await command("--uri", vhost.uri, "dev1", "down.first", "1")
            self.assertEqual((ended.status, ended.stdout[:11]), (0, "confirmed: "), ended)
            (first,) = await drain_queue(vhost.uri, "commands.dev1", 1)
            self.assertEqual(Properties(first.properties).headers, {"x-amqprouter-from": "amqp:guest"})

            answering = deferToThread(device)
            ended = await command(*over_http, "--wait", "30", "dev1", "down.x", '"hello"')
            await answering
            self.assertEqual((ended.status, ended.stderr), (0, ""), ended)
            lines = [line.split("  ", 1)[-1] for line in ended.stdout.splitlines()]
            self.assertEqual(lines[1:], ['dev1  down.x.sent  {"from":"ann"}', "dev1  up.ack  hello"])

            ended = await command(*over_http, "--wait", "30", "dev1", "down.x", "1")
            self.assertEqual((ended.status, ended.stderr), (1, ""), ended)
            self.assertIn('down.x.expired  {"from":"ann","reason":"expired"}', ended.stdout)
            ended = await command(*over_http, "--wait", "30", "dev1", "up.x", "1")
            self.assertEqual((ended.status, ended.stdout), (1, ""), ended)
            self.assertIn('(status 403): {"error": "not-authorised"}', ended.stderr)
            ended = await command(*over_http, "--wait", "0.1", "dev1", "down.x", "1")
            self.assertEqual(ended.status, 1)
            self.assertIn("nothing more was told within 0.1 s", ended.stderr)
            ended = await command("--url", "http://127.0.0.1:1", *over_http[2:], "dev1", "down.x", "1")
            self.assertEqual(ended.status, 1)
            self.assertIn("does not answer", ended.stderr)

        return self.run_commands(test, ttl=3)

    def test_a_changed_list_counts_after_a_reload(self) -> Deferred[None]:
        async def test(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            self.assertEqual((await post(gateway, "dev1/down/x"))[0].code, 403)
            gateway.file("commands.acl", ACL)
            gateway.running.signal("HUP")
            await gateway.metric_reaches("reloads_total", 1)
            self.assertEqual((await post(gateway, "dev1/down/x"))[0].code, 202)

        return self.run_commands(test, acl="")


class AccountTests(GatewayTestCase):
    def test_with_the_documented_rights_and_quorum_queues(self) -> Deferred[None]:
        async def test(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            await vhost.broker.add_user("commander", "secret")
            configure, write, read = (f"{rights[:-2]}|commands\\..+)$" for rights in documented("gateway"))
            await vhost.broker.set_permissions("commander", vhost.name, configure=configure, write=write, read=read)
            gateway.sections["broker"]["uri"] = vhost.broker.uri_for(vhost.name, "commander", "secret")
            gateway.write_config()
            gateway.file("commands.acl", ACL)
            await gateway.start()
            listener = Listener()
            await listener.connect(gateway)
            response, told = await post(gateway, "dev1/down/x")
            self.assertEqual(response.code, 202, told)
            await listener.told("down.x.expired", told["id"])

        options = {"commands": ENABLED | {"ttl": 1}, "acl": {"commands": "commands.acl"}}
        return self.run_with(test, start=False, topology={"queue_type": "quorum"}, **options)


class DeviceTests(GatewayTestCase):
    """Devices whose logins the daemon answers for."""

    skip = missing or None
    timeout = 120

    def test_over_amqp_a_device_reads_its_own_queue_only(self) -> Deferred[None]:
        async def test() -> None:
            broker = await shared_broker()
            async with gateway_of(
                self, broker, commands=ENABLED, acl={"commands": "commands.acl"}, ingress={"bind": "*.up.#"}
            ) as (gateway, _):
                gateway.file("commands.acl", ACL)
                await gateway.start()
                for device in ("dev1", "dev2"):
                    self.assertEqual((await post(gateway, f"{device}/down/x"))[0].code, 202)
                uri = broker.node.uri_for("/", "dev1", SECRET)
                got: list[bytes] = []
                read = lambda channel: got.append(channel.basic_get("commands.dev1", auto_ack=True)[2])  # noqa: E731
                self.assertEqual(await deferToThread(amqp, uri, read), "")
                self.assertEqual(got, [b"{}"])
                for what, step in {
                    "access to queue 'commands.dev2'": lambda channel: channel.basic_get("commands.dev2"),
                    "access to queue 'commands.dev1'": lambda channel: channel.queue_delete("commands.dev1"),
                    "access to exchange 'amqprouter.commands'": publish("amqprouter.commands", "dev1.down.x"),
                    "access to exchange 'amqprouter.to-devices'": publish("amqprouter.to-devices", "dev1.down.x"),
                }.items():
                    self.assertIn(what, await deferToThread(amqp, uri, step))

        return Deferred.fromCoroutine(test())

    def test_over_mqtt_a_command_is_a_topic(self) -> Deferred[None]:
        async def test() -> None:
            broker: AskingBroker = await shared_broker()
            async with gateway_of(
                self,
                broker,
                commands=ENABLED | {"exchange": "amq.topic", "queue": ""},
                acl={"commands": "commands.acl"},
                ingress={"bind": "*.up.#"},
            ) as (gateway, _):
                gateway.file("commands.acl", ACL)
                await gateway.start()
                client = MqttDevice(broker.mqtt_port, "dev1", SECRET)
                self.addCleanup(lambda: Deferred.fromCoroutine(client.close()))
                self.assertEqual(await client.connect(), "")
                self.assertEqual((await post(gateway, "dev1/down/reboot", b"now"))[0].code, 404, "it does not listen")
                self.assertTrue(await client.subscribe("dev1/down/#"))
                self.assertEqual((await post(gateway, "dev1/down/reboot", b"now"))[0].code, 202)

                async def received() -> bool:
                    return client.received == [("dev1/down/reboot", b"now")]

                await until(received, what="the command arrives", timeout=20)
                self.assertEqual(await gateway.metric("received_total"), 0, "none came back as the device's")

        return Deferred.fromCoroutine(test())
