"""etc/nginx, etc/haproxy and etc/apache, with a browser behind them: streams live through what happens to gateways.

The gateways are sites in this process, with hubs that are told the same events: what is tried here is the proxies.
`test_front` has whole daemons behind them.
"""

from __future__ import annotations

import base64
import json
import os
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median
from typing import Any, ClassVar

from treq.client import HTTPClient
from twisted.internet.endpoints import serverFromString
from twisted.internet.ssl import Certificate, trustRootFromCertificates
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase
from twisted.web.client import Agent, BrowserLikePolicyForHTTPS
from twisted.web.http_headers import Headers

from amqprouter.settings import EventsSettings, HttpSettings
from tests.integration.test_event_clients import NPM, NPM_CLIENTS, npm_problem
from tests.integration.test_front import leave
from tests.integration.test_mercure import Stream
from tests.support.browser import Browser, with_browser
from tests.support.gateway import ROOT
from tests.support.process import Child, free_ports, reactor, until
from tests.support.proxies import Apache, Haproxy, Nginx, Proxy
from tests.support.site import LiveSite

ALICE = {"Authorization": "Basic " + base64.b64encode(b"alice:wonder").decode()}
FOLLOWS = {**ALICE, "Accept": "text/event-stream"}
LOCKSTEP = 15
"""Events of which each is published when the one before has arrived."""
LIFETIME = 2.0
"""Seconds that a stream lasts, where it does not last for ever."""
PROMPT = 0.1
"""Seconds for half of them: a proxy that waits for more to send takes 0.2 for each."""
FOLLOW = """
window.got = [];
window.errors = 0;
window.sources = [];
for (let number = 0; number < arguments[1]; number++) {
  const source = new EventSource(arguments[0]);
  source.onmessage = (message) => got.push(JSON.parse(message.data).body);
  source.onerror = () => window.errors++;
  sources.push(source);
}
"""
OPEN = "return sources.every((source) => source.readyState === EventSource.OPEN)"
LIVE = "return document.querySelector('#link')?.textContent === 'live'"
CLOSED = "return sources.some((source) => source.readyState === EventSource.CLOSED)"


class Gateways:
    """Those behind the proxy. Each knows all events, as from the stream, whenever it is started."""

    def __init__(self, count: int, events: EventsSettings) -> None:
        self.ports = free_ports(count)
        self.running: dict[int, LiveSite] = {}
        self._settings = events
        self._told: list[tuple[str, bytes]] = []

    def start(self, number: int) -> None:
        http = HttpSettings(trusted_proxies=("127.0.0.1",), anonymous=True)
        site = self.running[number] = LiveSite(self._settings, http, None, self.ports[number])
        for topic, body in self._told:
            site.publish("dev1", topic, body)

    async def kill(self, number: int) -> None:
        """As by SIGKILL: nothing is said, connections are reset."""
        site = self.running.pop(number)
        await site.stop_listening()
        site.abort_connections()

    def publish(self, body: object) -> None:
        told = "up.reading", json.dumps(body).encode()
        self._told.append(told)
        for site in self.running.values():
            site.publish("dev1", *told)

    @property
    def followed(self) -> list[int]:
        """The number of the gateway of each subscriber."""
        return [number for number, site in self.running.items() for _ in site.hub.subscribers]

    async def close(self) -> None:
        for site in list(self.running.values()):
            await site.close()
            site.abort_connections()


class ProxyTests:
    """What each of them has to do; a mix-in."""

    timeout = 120
    proxy: ClassVar[type[Proxy]]
    many = 16
    """Streams of one browser, besides the page's: HTTP/1.1 would allow six in all."""

    @asynccontextmanager
    async def behind(
        self: Any, count: int, events: EventsSettings | None = None
    ) -> AsyncIterator[tuple[Gateways, Proxy]]:
        gateways = Gateways(count, events or EventsSettings(heartbeat=1))
        proxy = self.proxy(Path(self.mktemp()), *gateways.ports)
        try:
            for number in range(count):
                gateways.start(number)
            await proxy.start()
            yield gateways, proxy
        finally:
            await proxy.stop()
            await gateways.close()

    @asynccontextmanager
    async def browser(self: Any, proxy: Proxy, path: str = "/") -> AsyncIterator[Browser]:
        async with with_browser(Path(self.mktemp()), any_certificate=True) as browser:
            await browser.resize(1280, 800)
            await browser.open(proxy.url.replace("//", "//alice:wonder@") + path)
            yield browser

    async def request(self, proxy: Proxy, method: str, path: str, at: str = "127.0.0.2", **options: Any) -> Any:
        """By a client at this address."""
        trusted = trustRootFromCertificates([Certificate.loadPEM(proxy.authority.pem)])
        agent = Agent(reactor, BrowserLikePolicyForHTTPS(trusted), bindAddress=(at, 0))
        options.setdefault("headers", ALICE)
        return await HTTPClient(agent).request(method, proxy.url + path, timeout=20, **options)

    async def status(self, proxy: Proxy, method: str, path: str, **headers: str) -> int:
        response = await self.request(proxy, method, path, headers={**ALICE, **headers})
        await response.content()
        return int(response.code)

    async def test_each_event_comes_as_it_is_published(self: Any) -> None:
        async with self.behind(2) as (gateways, proxy):
            stream = Stream(await self.request(proxy, "GET", "/events", headers=FOLLOWS, unbuffered=True))
            await self.check_lockstep(gateways, stream)
            self.assertIn("/events", proxy.access_log)

    async def check_lockstep(self: Any, gateways: Gateways, stream: Stream) -> None:
        """Each event comes before the next is published, and soon; and the gateway notices that its client leaves."""

        async def subscribed() -> bool:
            return bool(gateways.followed)

        await until(subscribed, what="it is subscribed", timeout=10)
        took = []
        for number in range(LOCKSTEP):
            began = time.monotonic()
            gateways.publish(number)
            while len(stream.data) <= number:
                await deferLater(reactor, 0.002)
                assert time.monotonic() - began < 10, f"event {number} does not come: {stream.received!r}"
            took.append(time.monotonic() - began)
        self.assertLess(median(took), PROMPT, took)
        leave(stream)

        async def gone() -> bool:
            return not gateways.followed

        await until(gone, what="the gateway is told that its client is gone", timeout=15)

    async def test_a_stream_lives_through_the_restart_of_the_only_gateway(self: Any) -> None:
        async with self.behind(1) as (gateways, proxy), self.browser(proxy) as browser:
            gateways.publish(0)
            await browser.run(FOLLOW, "/events?topic=dev1.up.reading", 1)
            await browser.until(OPEN, what="the stream is open")
            gateways.publish(1)
            await browser.until("return got.length === 1", what="the first event is there")
            await gateways.kill(0)
            gateways.publish(2)
            # Not only that the stream broke off: it was refused since, and did not give up.
            await browser.until("return window.errors >= 2", what="the browser has come back in vain", timeout=30)
            self.assertFalse(await browser.run(CLOSED))
            for method, path, accept in (
                ("HEAD", "/events", "text/event-stream"),
                ("GET", "/events", "*/*"),
                ("GET", "/status", "text/event-stream"),
            ):
                self.assertIn(await self.status(proxy, method, path, Accept=accept), (502, 503, 504), (method, path))
            away = await self.request(proxy, "GET", "/events", headers={**FOLLOWS, "Origin": "https://app.example"})
            self.assertEqual((away.code, await away.content()), (200, b":\n"))
            self.assertEqual(away.headers.getRawHeaders("content-type"), ["text/event-stream"])
            self.assertEqual(away.headers.getRawHeaders("access-control-allow-origin"), ["https://app.example"])
            self.assertEqual(away.headers.getRawHeaders("access-control-allow-credentials"), ["true"])
            gateways.start(0)
            await browser.until("return got.length === 2", what="it is connected again", timeout=30)
            gateways.publish(3)
            await browser.until("return got.length === 3", what="and live")
            self.assertEqual(await browser.run("return got"), [1, 2, 3])

    async def test_so_do_those_of_npm_s_clients(self: Any) -> None:
        async with self.behind(1) as (gateways, proxy):
            (proxy.folder / "authority.pem").write_bytes(proxy.authority.pem)
            log, script = proxy.folder / "clients.log", ROOT / "tests/support/event_clients.mjs"
            url = f"{proxy.url}/events?topic=dev1.up.reading"
            environment = {**os.environ, "NODE_EXTRA_CA_CERTS": str(proxy.folder / "authority.pem")}
            gateways.publish(0)
            clients = Child(["node", str(script), NPM, url, *NPM_CLIENTS], log=log, env=environment)

            def got() -> dict[str, list[int]]:
                lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("[")]
                found: dict[str, list[int]] = {client: [] for client in NPM_CLIENTS}
                for client, where, kind, data, _ in lines:
                    if where == "onmessage" and kind == "message":
                        found[client].append(json.loads(data)["body"])
                return found

            async def all_have(*bodies: int) -> None:
                async def they_have() -> bool:
                    return all(len(each) >= len(bodies) for each in got().values())

                await until(they_have, what=f"all have {bodies}: {got()}", timeout=60)
                self.assertEqual(got(), {client: list(bodies) for client in NPM_CLIENTS})

            try:

                async def all_follow() -> bool:
                    return len(gateways.followed) == len(NPM_CLIENTS)

                await until(all_follow, what="all are subscribed", timeout=30)
                gateways.publish(1)
                await all_have(1)
                before = len(proxy.access_log.splitlines())
                await gateways.kill(0)

                async def came_in_vain() -> bool:  # each broke off, and most have come back by now
                    return len(proxy.access_log.splitlines()) >= before + 2 * len(NPM_CLIENTS)

                await until(came_in_vain, what="they have come back in vain", timeout=30)
                gateways.publish(2)
                gateways.start(0)
                await all_have(1, 2)
            finally:
                await clients.kill()

    test_so_do_those_of_npm_s_clients.skip = npm_problem() or None  # type: ignore[attr-defined]  # trial looks there

    async def test_a_gateway_that_is_full_for_now(self: Any) -> None:
        """Its 503 does not end an EventSource either; others are told it as it is."""
        async with self.behind(1, EventsSettings(max_subscribers=2)) as (gateways, proxy):
            first = Stream(await self.request(proxy, "GET", "/events", headers=FOLLOWS, unbuffered=True))
            async with self.browser(proxy) as browser:
                await browser.until(LIVE, what="the page has the other place")
                await browser.run(FOLLOW, "/events?topic=dev1.up.reading", 1)
                await browser.until("return window.errors >= 2", what="it is refused", timeout=30)
                self.assertFalse(await browser.run(CLOSED))
                self.assertEqual(await self.status(proxy, "GET", "/events"), 503)
                leave(first)
                await browser.until(
                    "return sources[0].readyState === EventSource.OPEN", what="there is room", timeout=30
                )

                async def followed() -> bool:
                    return len(gateways.followed) == 2

                await until(followed, what="the browser has the place", timeout=15)

    async def test_streams_that_end_by_their_age_miss_nothing(self: Any) -> None:
        ages = EventsSettings(max_lifetime=LIFETIME)
        async with self.behind(2, ages) as (gateways, proxy), self.browser(proxy) as browser:
            gateways.publish(0)
            await browser.run(FOLLOW, "/events?topic=dev1.up.reading", 1)
            await browser.until(OPEN, what="the stream is open")
            published = 0
            while await browser.run("return window.errors") < 3:
                published += 1
                gateways.publish(published)
                await deferLater(reactor, 0.05)
                self.assertLess(published, 1000)
            await browser.until("return got.length >= arguments[0]", published, what="all has come")
            self.assertEqual(await browser.run("return got"), list(range(1, published + 1)))
            self.assertFalse(await browser.run(CLOSED))

    async def test_the_other_gateway_takes_over(self: Any) -> None:
        async with self.behind(2) as (gateways, proxy), self.browser(proxy) as browser:
            gateways.publish(0)
            await browser.run(FOLLOW, "/events?topic=dev1.up.reading", 1)
            await browser.until(OPEN, what="the stream is open")
            gateways.publish(1)
            await browser.until("return got.length === 1", what="the first event is there")
            for number in (2, 3):  # whichever it follows is killed, and comes back
                [victim] = await self._with_the_topic(gateways)
                await gateways.kill(victim)
                gateways.publish(number)
                await browser.until("return got.length === arguments[0]", number, what="the other one has it")
                gateways.start(victim)
            self.assertEqual(await browser.run("return got"), [1, 2, 3])
            self.assertFalse(await browser.run(CLOSED))

    async def test_the_page_under_a_path_beside_many_streams(self: Any) -> None:
        async with self.behind(2) as (gateways, proxy), self.browser(proxy, "/amqprouter/") as browser:
            await browser.until(LIVE, what="the page is connected")
            gateways.publish({"watts": 17})
            await browser.until(
                "return document.querySelector('#events').innerText.includes('watts')", what="the event is shown"
            )
            await browser.until("return document.querySelector('#about').innerText !== ''", what="the status is shown")
            icon = "return document.querySelector('h1 img').naturalWidth > 0"
            await browser.until(icon, what="the icon is there")
            await browser.run(FOLLOW, "events?topic=dev1.up.reading", self.many)
            await browser.until(OPEN, what="all streams are open", timeout=30)
            gateways.publish(1)
            await browser.until("return got.length === arguments[0]", self.many, what="all streams have the event")
            await browser.run(
                "fetch(location.origin + arguments[0]).then((answer) => window.answered = answer.status)", "/status"
            )
            await browser.until("return window.answered === 200", what="and there is room for a request")
            self.assertEqual(await browser.messages(), [])
            for path in ("/metrics", "/readyz", "/amqprouter/metrics", "/amqprouter/healthz"):
                self.assertEqual(await self.status(proxy, "GET", path), 404, path)
            self.assertEqual(await self.status(proxy, "GET", "/"), 200)
            slash = await self.request(proxy, "GET", "/amqprouter", allow_redirects=False)
            self.assertEqual(slash.code, 301)
            self.assertRegex(slash.headers.getRawHeaders("location")[0], f"^({proxy.url})?/amqprouter/$")
            plain = await HTTPClient(Agent(reactor)).get(f"{proxy.plain_url}/events?topic=a", allow_redirects=False)
            self.assertEqual(plain.code, 301)
            [location] = plain.headers.getRawHeaders("location")
            self.assertTrue(location.startswith("https://") and location.endswith("/events?topic=a"), location)

    async def test_the_gateway_knows_the_client_s_address(self: Any) -> None:
        async with self.behind(1) as (gateways, proxy):
            streams = []
            for at, forged in (("127.0.0.2", ""), ("127.0.0.3", "198.51.100.1"), ("127.0.0.4", "127.0.0.1")):
                headers = {**FOLLOWS, **({"X-Forwarded-For": forged} if forged else {})}
                streams.append(
                    Stream(await self.request(proxy, "GET", "/events", at, headers=headers, unbuffered=True))
                )
            found = [subscriber.address for subscriber in gateways.running[0].hub.subscribers]
            self.assertEqual(found, ["127.0.0.2", "127.0.0.3", "127.0.0.4"])
            for stream in streams:
                leave(stream)

    @staticmethod
    async def _with_the_topic(gateways: Gateways) -> list[int]:
        """Those with a subscriber of the test's own; the live page has one besides."""

        def found() -> list[int]:
            return [
                number
                for number, site in gateways.running.items()
                for subscriber in site.hub.subscribers
                if subscriber.interest.exact
            ]

        async def any_is() -> bool:
            return bool(found())

        await until(any_is, what="the browser is subscribed", timeout=15)
        return found()


class NginxTests(ProxyTests, TestCase):
    proxy, skip = Nginx, Nginx.missing()


class PlainHaproxy(Haproxy):
    """As behind something else that ends TLS: without TLS of its own it is that HAProxy waits for more to send."""

    def example(self, name: str, **changes: str) -> str:
        lines = super().example(name, **changes).splitlines(keepends=True)
        return "".join(line for line in lines if "redirect scheme https" not in line)


class AddressingHaproxy(Haproxy):
    """With the PROXY protocol in place of X-Forwarded-For."""

    def example(self, name: str, **changes: str) -> str:
        lines = super().example(name, **changes).splitlines(keepends=True)
        server = re.compile("( +server gateway-.*)$", re.MULTILINE)
        return "".join(server.sub(r"\1 send-proxy-v2", line) for line in lines if "forwardfor" not in line)


class HaproxyTests(ProxyTests, TestCase):
    proxy, skip = Haproxy, Haproxy.missing()

    async def test_each_event_comes_as_it_is_published_without_tls(self) -> None:
        self.proxy = PlainHaproxy  # type: ignore[misc]  # for this test
        async with self.behind(1) as (gateways, proxy):
            agent, headers = HTTPClient(Agent(reactor)), Headers({name: [value] for name, value in FOLLOWS.items()})
            response = await agent.get(f"{proxy.plain_url}/events", headers=headers, unbuffered=True)
            await self.check_lockstep(gateways, Stream(response))

    async def test_the_client_s_address_by_the_proxy_protocol(self) -> None:
        """Then X-Forwarded-For is the client's own, and does not count."""
        site = LiveSite(EventsSettings(), HttpSettings(trusted_proxies=("127.0.0.1",)), None)
        [port] = free_ports(1)
        endpoint = serverFromString(reactor, f"haproxy:tcp:{port}:interface=127.0.0.1")
        listening = await endpoint.listen(site.factory)
        proxy = AddressingHaproxy(Path(self.mktemp()), port)
        try:
            await proxy.start()
            headers = {**FOLLOWS, "X-Forwarded-For": "198.51.100.1"}
            response = await self.request(proxy, "GET", "/events", "127.0.0.3", headers=headers, unbuffered=True)
            stream = Stream(response)
            self.assertEqual([subscriber.address for subscriber in site.hub.subscribers], ["127.0.0.3"])
            for number in range(3):
                site.publish("dev1", "up", b"%d" % number)
                await stream.has(number + 1)
            leave(stream)

            async def gone() -> bool:
                return not site.hub.subscribers

            await until(gone, what="the gateway is told that its client is gone", timeout=15)
        finally:
            await proxy.stop()
            await listening.stopListening()
            await site.close()


class ApacheTests(ProxyTests, TestCase):
    proxy, skip = Apache, Apache.missing()
    many = 4  # a connection has six at a time at first, and more only as requests end
