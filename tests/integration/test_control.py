"""Commands to a running daemon over its control socket."""

from __future__ import annotations

import base64
import json
import os
import shutil
import socket
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from treq.client import HTTPClient
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.web.client import Agent
from twisted.web.http_headers import Headers

from tests.integration.test_cli import amqprouter
from tests.support.gateway import Fleet, Gateway
from tests.support.gateway_case import GatewayTestCase
from tests.support.mongo import TestDatabase
from tests.support.process import Finished, reactor, until
from tests.support.servers import Vhost
from tests.support.sse_client import close_all, connect_all, request


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


class ControlTestCase(GatewayTestCase):
    devices: tuple[str, ...] = ("dev1",)

    def setUp(self) -> None:
        self.folder = Path(mkdtemp(prefix="amqprouter-"))  # trial's own is too long a name for a socket
        self.addCleanup(shutil.rmtree, self.folder)
        self.socket = str(self.folder / "control.sock")
        self.control = {"socket": self.socket}

    async def says(self, *arguments: str) -> str:
        """What a command prints."""
        return (await amqprouter(*arguments)).stdout

    async def fails(self, *arguments: str) -> Finished:
        finished = await amqprouter(*arguments, check=False)
        self.assertEqual(finished.status, 1, finished)
        self.assertNotIn("Traceback", finished.stderr)
        return finished


class CommandTests(ControlTestCase):
    def test_who_follows_events_and_the_end_of_one_users_streams(self) -> Deferred[None]:
        async def test(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            ann, bob = (basic(user, f"{user}'s") for user in ("ann", "bob"))
            requests = [request(path, login) for path, login in (("/events?topic=dev1.%23", ann), ("/events", bob))]
            clients = await connect_all(gateway.port, requests)
            try:
                ls = "events", "ls", "--socket", self.socket
                told = sorted((await self.says(*ls)).splitlines())  # who was first is chance
                self.assertEqual(told, ["ann  127.0.0.1  dev1.#", "bob  127.0.0.1  #"])
                self.assertEqual(await self.says(*ls, "--topic", "#"), "bob  127.0.0.1  #\n")
                self.assertEqual(json.loads(await self.says(*ls, "--user", "ann", "--json"))["count"], 1)
                kick = "events", "kick", "--socket", self.socket
                self.assertEqual(await self.says(*kick, "ann"), "1 stream ended\n")

                async def ended() -> bool:
                    return clients[0].over

                await until(ended, what="ann's stream ends", timeout=15)
                self.assertFalse(clients[1].over)
                self.assertEqual(await self.says(*kick, "ann"), "0 streams ended\n")
            finally:
                close_all(clients)

        return self.run_with(test, control=self.control)

    def test_the_same_over_http_for_operators(self) -> Deferred[None]:
        """By the operators' list, which a reload reads again."""

        async def test(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            gateway.file("operators.acl", "ann -> *.events.ls\n")
            await gateway.start()
            client, headers = HTTPClient(Agent(reactor)), Headers({"Authorization": [basic("ann", "ann's")]})
            url = f"{gateway.url}/events/subscriptions"
            clients = await connect_all(gateway.port, [request("/events?topic=dev1.%23", basic("bob", "bob's"))])
            try:
                listed = await (await client.get(url, headers=headers)).json()
                self.assertEqual(
                    [(one["user"], one["topics"]) for one in listed["subscriptions"]], [("bob", ["dev1.#"])]
                )
                refused = await client.delete(f"{url}?user=bob", headers=headers)
                self.assertEqual(refused.code, 403)
                gateway.file("operators.acl", "ann -> #\n")
                await self.says("reload", "--socket", self.socket)
                ended = await client.delete(f"{url}?user=bob", headers=headers)
                self.assertEqual((ended.code, (await ended.json())["ended"]), (200, 1))

                async def over() -> bool:
                    return clients[0].over

                await until(over, what="bob's stream ends", timeout=15)
            finally:
                close_all(clients)

        return self.run_with(test, start=False, control=self.control, acl={"operators": "operators.acl"})

    def test_what_is_remembered_can_be_forgotten(self) -> Deferred[None]:
        async def test(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            auth = "auth", "explain", "--socket", self.socket, "dev1"
            self.assertIn("device dev1: nothing is remembered", await self.says(*auth))
            fleet.reading("dev1", 1)
            await fleet.all_confirmed()
            await gateway.metric_reaches("stored_total", 1)
            self.assertIn("device dev1: yes (by secret, ", await self.says(*auth))
            # Its secret is another now. The daemon goes by what it remembers until it is told.
            gateway.devices("dev1", secret="a new one")
            fleet.reading("dev1", 2)
            await fleet.all_confirmed()
            await gateway.metric_reaches("stored_total", 2)
            told = await self.says("reload", "-c", str(gateway.folder / "config.ini"))
            self.assertEqual(told, "the configuration was read again and is in force\n")
            fleet.reading("dev1", 3)
            await fleet.all_confirmed()
            await gateway.metric_reaches("rejected_total", 1)
            flush = "auth", "flush", "--socket", self.socket
            self.assertIn("device dev1: no, bad-secret", await self.says(*auth))
            self.assertEqual(await self.says(*flush, "dev2"), "0 answers forgotten\n")
            self.assertEqual(await self.says(*flush, "dev1"), "1 answer forgotten\n")
            self.assertEqual(await self.says(*flush), "0 answers forgotten\n")
            log = (gateway.folder / "daemon.log").read_text()
            self.assertIn("POST /auth/flush 200", log)

        return self.run_with(test, control=self.control)

    def test_reload_tells_the_problems(self) -> Deferred[None]:
        async def test(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            gateway.sections["scheduler"]["rate"] = -1
            gateway.write_config()
            failed = await self.fails("reload", "--socket", self.socket)
            self.assertIn("rate = -1", failed.stderr)
            self.assertEqual(await gateway.metric("failed_reloads_total"), 1)
            gateway.sections["scheduler"]["rate"] = 1
            gateway.sections["http"]["header_timeout"] = 3
            gateway.write_config()
            told = await self.says("reload", "--socket", self.socket)
            self.assertIn("[http] has changed; that needs a restart", told)
            self.assertIn("in force", told)

        return self.run_with(test, control=self.control)

    def test_status(self) -> Deferred[None]:
        async def test(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            fleet.reading("dev1", 1)
            fleet.send("dev2", "up.x", b"1")
            await fleet.all_confirmed()
            await gateway.metric_reaches("settled_total", 2)
            text = await self.says("status", "--socket", self.socket)
            for pattern in (r"broker-consume +ok", r"received +2", r"rejected +1, unknown-name 1", r"dev1 +1 +0 +0"):
                self.assertRegex(text, pattern)
            status: dict[str, Any] = json.loads(await self.says("status", "--json", "--socket", self.socket))
            self.assertEqual((status["counters"]["stored"], status["gauges"]["subscribers"]), (1, 0))
            confirmed = {row["target"]: row for row in status["latency"] if row["step"] == "confirmed"}
            self.assertEqual(
                {target: row["samples"] for target, row in confirmed.items()}, {"events:": 1, "store:readings": 1}
            )
            self.assertIn("confirmed at store:readings", text)
            count = await gateway.metric('target_latency_seconds_count{class="default",target="store:readings"}')
            self.assertEqual(count, 1)

        return self.run_with(test, control=self.control)


class LifeTests(ControlTestCase):
    def test_a_killed_daemons_socket_is_replaced(self) -> Deferred[None]:
        async def test(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            await gateway.running.kill()
            self.assertIn("the daemon that did is gone", (await self.fails("status", "--socket", self.socket)).stderr)
            await gateway.start()
            self.assertRegex(await self.says("status", "--socket", self.socket), r"^amqprouter \S+ \(\w+\), up \d+ s\n")
            await gateway.stop()
            self.assertFalse(os.path.exists(self.socket))
            self.assertIn("there is no socket", (await self.fails("status", "--socket", self.socket)).stderr)

        return self.run_with(test, control=self.control)

    def test_the_daemon_starts_without(self) -> Deferred[None]:
        async def test(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            self.assertIn("No control socket", (gateway.folder / "daemon.log").read_text())
            fleet.reading("dev1", 1)
            await fleet.all_confirmed()
            await gateway.metric_reaches("stored_total", 1)

        return self.run_with(test, control={"socket": str(self.folder / "missing" / "control.sock")})

    async def test_what_is_no_daemon(self) -> None:
        config = self.folder / "config.ini"
        config.write_text("[control]\nsocket =\n[broker]\npassword_file = ${CREDENTIALS_DIRECTORY}/broker\n")
        self.assertIn("[control] socket is empty", (await self.fails("status", "-c", str(config))).stderr)
        config.write_text(f"[control]\nsocket = {'x' * 200}\n")
        self.assertIn("more than the name of a socket", (await self.fails("reload", "-c", str(config))).stderr)
        with socket.socket(socket.AF_UNIX) as deaf:
            deaf.bind(self.socket)
            self.assertIn("is gone", (await self.fails("auth", "flush", "--socket", self.socket)).stderr)

    async def test_what_speaks_something_else(self) -> None:
        head = b"HTTP/1.1 200 OK\r\nServer: amqprouter/0\r\nContent-Length: "
        old = head.replace(b"200 OK", b"404 Not Found") + b'22\r\n\r\n{"error": "not found"}'
        for number, (said, expected) in enumerate(
            (
                (b"220 mail.example ESMTP\r\n", "does not answer: "),
                (head + b"100\r\n\r\n{", "does not answer: "),
                (head + b"5\r\n\r\nhello", "does not speak as amqprouter's control socket does"),
                (old, "the daemon says: not found (the daemon is of version 0 and this command of"),
            )
        ):
            path = f"{self.socket}{number}"
            port = reactor.listenUNIX(path, _Says.saying(said))
            try:
                self.assertIn(expected, (await self.fails("status", "--socket", path)).stderr)
            finally:
                await port.stopListening()


class _Says(Protocol):
    """Says one thing to whatever is said to it, and hangs up."""

    @classmethod
    def saying(cls, said: bytes) -> Any:
        factory: Any = Factory.forProtocol(cls)
        factory.said = said
        return factory

    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(self.factory.said)
        self.transport.loseConnection()
