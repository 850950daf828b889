"""Two gateways behind one address with TLS, by each proxy of etc/, and what users notice when one of them dies."""

from __future__ import annotations

import base64
import json
import re
import time
from pathlib import Path
from typing import Any, ClassVar

from treq.client import HTTPClient
from twisted.internet.defer import Deferred
from twisted.internet.ssl import Certificate, trustRootFromCertificates
from twisted.internet.task import deferLater
from twisted.web.client import Agent, BrowserLikePolicyForHTTPS
from twisted.web.http_headers import Headers

from tests.integration.test_mercure import MERCURE, ORDERS, Stream, minted
from tests.support.gateway import Fleet, Gateway
from tests.support.gateway_case import GatewayTestCase
from tests.support.mongo import TestDatabase
from tests.support.process import reactor, until
from tests.support.proxies import Apache, Haproxy, Nginx, Proxy
from tests.support.rabbitmq import missing
from tests.support.servers import Vhost
from tests.support.tokens import jwk, key_set

UPDATES = 60
"""Published at intervals of 20 ms, with the gateway killed among them."""
ANN = {"Authorization": "Basic " + base64.b64encode(b"ann:ann's").decode()}
HUB = "/.well-known/mercure"


class Front:
    """The proxy, and clients of it."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy

    async def request(self, method: str, path: str, *, at: str = "127.0.0.2", **options: Any) -> Any:
        """A request over TLS by a client at this address of the loopback network."""
        trusted = trustRootFromCertificates([Certificate.loadPEM(self.proxy.authority.pem)])
        agent = Agent(reactor, BrowserLikePolicyForHTTPS(trusted), bindAddress=(at, 0))
        return await HTTPClient(agent).request(method, f"{self.proxy.url}{path}", **options)

    async def stream(self, path: str, *, at: str, **headers: str) -> Stream:
        response = await self.request("GET", path, at=at, headers=headers, unbuffered=True, timeout=20)
        assert response.code == 200, response.code
        return Stream(response)

    async def publish(self, **fields: str) -> tuple[int, str]:
        token = minted("shop", publish=["*"])
        answer = await self.request("POST", HUB, data=fields, headers={"Authorization": f"Bearer {token}"})
        return answer.code, await answer.text()


def leave(stream: Stream) -> None:
    """Close the connection as a browser does; Twisted would wait for the proxy to end TLS, which nginx does not."""
    if not stream.over:
        stream.transport._producer.abortConnection()  # type: ignore[union-attr]  # Twisted's proxy of it has no abort


class Browser:
    """Follows everything as an EventSource does: when a stream ends it connects again, behind the last id it has."""

    def __init__(self, front: Front, at: str) -> None:
        self._front, self._at = front, at
        self._token = minted("ann", subscribe=[ORDERS.format("ann")])
        self._stream: Stream | None = None
        self.came: list[tuple[str, str]] = []
        """Id and data of each event, those apart that tell a place."""
        self._last = ""
        self.connected = 0
        self.closed = False

    async def follow(self) -> None:
        while not self.closed:
            last = {"Last-Event-ID": self._last} if self._last else {}
            path = f"{HUB}?topic=*&authorization={self._token}"
            response = await self._front.request("GET", path, at=self._at, headers=last, unbuffered=True, timeout=20)
            if response.code != 200:
                await deferLater(reactor, 0.1)
                continue
            self.connected += 1
            before, self._stream = self.came, Stream(response)
            while not (self._stream.over or self.closed):
                self.came = before + self._events(self._stream)
                await deferLater(reactor, 0.02)
            self.came = before + self._events(self._stream)
            leave(self._stream)

    def _events(self, stream: Stream) -> list[tuple[str, str]]:
        """What has come whole; the last may have broken off."""
        whole = stream.received.decode().rpartition("\n\n")[0]
        fields = [dict(re.findall("^(id|event|data): (.*)$", text, re.M)) for text in whole.split("\n\n")]
        assert not any(event.get("event") == "gap" for event in fields), "told that something is missing"
        self._last = next((event["id"] for event in reversed(fields) if "id" in event), self._last)
        return [(event["id"], event["data"]) for event in fields if "id" in event and event.get("event") != "place"]


class FrontTests:
    """What each of them has to do; a mix-in."""

    timeout = 150
    devices: tuple[str, ...] = ("dev1",)
    proxy: ClassVar[type[Proxy]]

    def test_two_gateways(self: Any) -> Deferred[None]:
        options: dict[str, Any] = {
            "mercure": MERCURE,
            "http": {"trusted_proxies": "127.0.0.1"},
            "events": {"max_subscribers_per_address": 1},
        }

        async def test(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            other = Gateway(Path(self.mktemp()), vhost.uri, database.uri, database.name, **options)
            front = Front(self.proxy(Path(self.mktemp()), gateway.port, other.port))
            try:
                for each in (gateway, other):
                    each.file("keys.json", key_set(jwk("HS256")))
                    each.devices("dev1")
                    await each.start()
                await fleet.connect()
                await front.proxy.start()
                await self.check_addresses(front, gateway, other)
                await self.check_tickets(front)
                await self.check_publishing(front)
                await self.check_a_death(front, fleet, gateway, other)
                log = front.proxy.access_log
                self.assertIn(HUB, log)
                self.assertNotIn("authorization", log)
            finally:
                await front.proxy.stop()
                await other.stop()

        ran: Deferred[None] = self.run_with(test, start=False, **options)
        return ran

    async def check_addresses(self: Any, front: Front, *gateways: Gateway) -> None:
        """One subscription for an address at each gateway, whatever the client says of its address."""
        streams = []
        for forged in ("198.51.100.1", "127.0.0.1"):
            streams.append(await front.stream("/events", at="127.0.0.2", **ANN, **{"X-Forwarded-For": forged}))
        refused = await front.request(
            "GET", "/events", at="127.0.0.2", headers={**ANN, "X-Forwarded-For": "198.51.100.2"}
        )
        self.assertEqual(refused.code, 429)
        streams.append(await front.stream("/events", at="127.0.0.3", **ANN))
        for stream in streams:
            leave(stream)

        async def gone() -> bool:
            return sum([await gateway.metric("subscribers") for gateway in gateways]) == 0

        await until(gone, what="the gateways notice that the proxy's clients have gone", timeout=15)
        log = "".join((gateway.folder / "daemon.log").read_text() for gateway in gateways)
        self.assertEqual(len(re.findall(r" 127\.0\.0\.2 ann GET /events 200 ", log)), 2)
        self.assertEqual(len(re.findall(r" 127\.0\.0\.3 ann GET /events 200 ", log)), 1)

    async def check_tickets(self: Any, front: Front) -> None:
        """A ticket is for the gateway that made it."""
        for _ in range(3):
            answer = await front.request("POST", "/events/ticket", headers=ANN, data=b"")
            ticket = (await answer.json())["ticket"]
            self.assertEqual((await front.request("HEAD", f"/events?ticket={ticket}")).code, 200)

    async def check_publishing(self: Any, front: Front) -> None:
        ann, bob = [
            await front.stream(
                f"{HUB}?topic=*",
                at=at,
                Authorization=f"Bearer {minted(f'x-{name}', subscribe=[ORDERS.format(name)])}",
            )
            for name, at in (("ann", "127.0.0.4"), ("bob", "127.0.0.5"))
        ]
        for number in range(3):  # one at a time, and no more than fits a buffer
            data, topic = f"for ann {number}", ORDERS.format("ann")
            code, _ = await front.publish(topic=topic, private="on", data=data)
            self.assertEqual(code, 200)
            self.assertEqual((await ann.has(number + 1))[-1], data)
        self.assertEqual((await front.publish(topic="news", data="for all"))[0], 200)
        self.assertEqual(await bob.has(1), ["for all"])
        leave(ann)
        leave(bob)

    async def check_a_death(self: Any, front: Front, fleet: Fleet, *gateways: Gateway) -> None:
        """A gateway is killed that a subscriber follows, while the other publishes and a device sends."""
        browser = Browser(front, "127.0.0.6")
        following = Deferred.fromCoroutine(browser.follow())

        async def followed() -> bool:
            return sum([await gateway.metric("subscribers") for gateway in gateways]) == 1

        await until(followed, what="the subscriber is at one of the gateways", timeout=15)
        victim, survivor = gateways
        if await survivor.metric("subscribers"):
            victim, survivor = survivor, victim
        direct = HTTPClient(Agent(reactor))
        headers = Headers({"Authorization": [f"Bearer {minted('shop', publish=['*'])}"]})
        for number in range(UPDATES):
            if number == UPDATES // 3:
                await victim.running.kill()
            if number % 4 == 0:
                fleet.reading("dev1", number)
                fleet.flush()
            update = {"topic": ORDERS.format("ann"), "private": "on", "data": f"n{number}", "id": f"order-{number}"}
            answer = await direct.post(f"{survivor.url}{HUB}", data=update, headers=headers, timeout=20)
            self.assertEqual((answer.code, await answer.text()), (200, f"order-{number}"))
            await deferLater(reactor, 0.02)
        await fleet.all_confirmed()

        def updates() -> list[str]:
            return [data for _, data in browser.came if data.startswith("n")]

        def readings() -> set[int]:
            return {json.loads(data)["body"]["n"] for _, data in browser.came if data.startswith("{")}

        async def complete() -> bool:
            return len(updates()) >= UPDATES and len(readings()) == UPDATES // 4

        began = time.monotonic()
        try:
            await until(complete, what=f"everything has come; {browser.came}", timeout=30)
        finally:
            browser.closed = True
            await following
        self.assertEqual(updates(), [f"n{number}" for number in range(UPDATES)])
        ids = [event_id for event_id, _ in browser.came]
        self.assertEqual(len(set(ids)), len(ids), "an event came twice")
        self.assertEqual(browser.connected, 2)
        self.assertLess(time.monotonic() - began, 30)


class NginxTests(FrontTests, GatewayTestCase):
    proxy, skip = Nginx, missing or Nginx.missing()


class HaproxyTests(FrontTests, GatewayTestCase):
    proxy, skip = Haproxy, missing or Haproxy.missing()


class ApacheTests(FrontTests, GatewayTestCase):
    proxy, skip = Apache, missing or Apache.missing()
