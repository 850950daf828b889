"""Mercure with clients that know nothing of us: a library from PyPI publishes, Chromium's EventSource subscribes."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.web import static
from twisted.web.server import Site

from tests.integration.test_mercure import MERCURE, ORDERS, follow, minted, publish
from tests.integration.test_mercure_contract import HUB_URL, ISSUER, KEY
from tests.support.browser import Browser, with_browser
from tests.support.gateway import Fleet, Gateway
from tests.support.gateway_case import GatewayTestCase
from tests.support.mercure_contract import Client, grant
from tests.support.mongo import TestDatabase
from tests.support.process import free_ports, reactor, run
from tests.support.servers import Vhost
from tests.support.tokens import key_set, segment

PUBLISH = """
import sys
from mercure_publisher import MercureConfig, MercurePublisher
url, key, user = sys.argv[1:]
with MercurePublisher(MercureConfig(hub_url=url, publisher_jwt_key=key, publish_topics=["*"])) as hub:
    for other in ("somebody else", user):
        topic = f"https://shop.example/users/{other}/orders"
        print(hub.publish(topic, {"order": 7}, private=True, id=f"order-7-of-{other}", type="order"))
    print(hub.publish(["news", "everything"], "for all"))
"""

SUBSCRIBE = """
const [hub, token, topics] = arguments;
document.cookie = `mercureAuthorization=${token}; path=/.well-known/mercure; SameSite=Strict`;
const url = new URL(hub);
topics.forEach((topic) => url.searchParams.append("topic", topic));
window.got = [];
window.updates = new EventSource(url, {withCredentials: true});
const keep = (event) => window.got.push([event.type, event.lastEventId, event.data]);
updates.addEventListener("order", keep);
updates.onmessage = keep;
"""

WATCH = """
const [hub, token] = arguments;
document.cookie = `mercureAuthorization=${token}; path=/.well-known/mercure; SameSite=Strict`;
window.here = null;
(async () => {
  const response = await fetch(hub + "/subscriptions", {credentials: "include"});
  const list = await response.json();
  const here = new Map(list.subscriptions.map((each) => [each.id, each]));
  const url = new URL(hub);
  url.searchParams.append("topic", "/.well-known/mercure/subscriptions{/topic}{/subscriber}");
  url.searchParams.append("lastEventID", list.lastEventID);
  const updates = new EventSource(url, {withCredentials: true});
  updates.onmessage = (event) => {
    const told = JSON.parse(event.data);
    if (told.active) here.set(told.id, told);
    else here.delete(told.id);
  };
  updates.onopen = () => window.here = () => [...here.values()].map((each) => each.payload?.name).sort();
})();
"""

VERSION_1 = """
const [hub, token, pattern] = arguments;
document.cookie = `mercureAuthorization=${token}; path=/.well-known/mercure; SameSite=Strict`;
window.got = [];
(async () => {
  const lists = `${hub}/subscriptions`;
  const listed = await fetch(lists, {credentials: "include"});
  const cursor = listed.headers.get("Link").match(/last-event-id="([^"]*)"/)[1];
  const url = new URL(hub);
  url.searchParams.append("match_urlpattern", pattern);
  url.searchParams.append("match", "news");
  url.searchParams.append("match_urlpattern", "/.well-known/mercure/subscriptions/:type/:match/:subscriber");
  url.searchParams.append("last_event_id", cursor);
  window.updates = new EventSource(url, {withCredentials: true});
  updates.addEventListener("mercure", (event) => window.got.push([event.type, JSON.parse(event.data).match]));
  updates.onmessage = (event) => window.got.push([event.type, event.data]);
})();
"""

ClientTest = Callable[[Gateway, Browser], Awaitable[None]]


class MercureClientTests(GatewayTestCase):
    """The application's page comes from another origin than the gateway, on the same host."""

    timeout = 150

    def with_browser(self, test: ClientTest, **options: str) -> Deferred[None]:
        [port] = free_ports(1)
        origin = f"http://127.0.0.1:{port}"

        async def around(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            gateway.file("keys.json", key_set({"kty": "oct", "alg": "HS256", "k": segment(KEY.encode()).decode()}))
            await gateway.start()
            document = static.Data(b"<title>App</title>", "text/html")
            document.isLeaf = True
            page = reactor.listenTCP(port, Site(document), interface="127.0.0.1")
            try:
                async with with_browser(Path(self.mktemp())) as browser:
                    await browser.open(origin)
                    await test(gateway, browser)
            finally:
                await page.stopListening()

        mercure = {**MERCURE, "subscriptions": "yes", **options}
        return self.run_with(around, start=False, mercure=mercure, http={"allowed_origins": origin})

    def hub(self, gateway: Gateway) -> str:
        return f"{gateway.url}/.well-known/mercure"

    def test_a_library_publishes_and_a_browser_sees_what_is_its_users(self) -> Deferred[None]:
        async def test(gateway: Gateway, browser: Browser) -> None:
            token = minted("zoe", key=KEY.encode(), subscribe=[ORDERS.format("zoe")])
            await browser.run(SUBSCRIBE, self.hub(gateway), token, [ORDERS.format("{user}"), "news"])
            await browser.until("return window.updates.readyState === 1", what="the browser is subscribed")
            published = await run(sys.executable, "-c", PUBLISH, self.hub(gateway), KEY, "zoe")
            *ids, last = published.stdout.split("\n")[:3]
            self.assertEqual(ids, ["order-7-of-somebody else", "order-7-of-zoe"])
            await browser.until("return window.got.length >= 2", what="the updates are there")
            self.assertEqual(
                await browser.run("return window.got"),
                [["order", "order-7-of-zoe", '{"order": 7}'], ["message", last, "for all"]],
            )

        return self.with_browser(test)

    def test_a_browser_speaks_1_0(self) -> Deferred[None]:
        async def test(gateway: Gateway, browser: Browser) -> None:
            client = Client(gateway.url, KEY, HUB_URL, ISSUER)
            whose = "https://shop.example/users/:user/orders"
            lists = {"match": "/.well-known/mercure/subscriptions{/*}?", "match_type": "urlpattern"}
            mine = client.new(grant(ORDERS.format("zoe"), lists))
            await browser.run(VERSION_1, self.hub(gateway), mine, whose)
            await browser.until("return window.updates?.readyState === 1", what="the browser is subscribed")
            app = client.new(grant("*", actions=["publish"]))
            for topic, data in (
                (ORDERS.format("zoe"), "mine"),
                (ORDERS.format("ann"), "not mine"),
                ("news", "for all"),
            ):
                private = {} if topic == "news" else {"private": "on"}
                self.assertEqual((await publish(gateway, app, topic=topic, data=data, **private))[0], 200)
            await browser.until("return window.got.length >= 5", what="the updates are there")
            got = sorted(await browser.run("return window.got"))
            told = ["/.well-known/mercure/subscriptions/:type/:match/:subscriber", whose, "news"]
            self.assertEqual(
                got, [*(["mercure", match] for match in told), ["message", "for all"], ["message", "mine"]]
            )

        return self.with_browser(test, hub_url=HUB_URL, issuer=ISSUER, user_claim="")

    def test_a_browser_whose_token_expires(self) -> Deferred[None]:
        async def test(gateway: Gateway, browser: Browser) -> None:
            begun = time.time()
            await browser.run(SUBSCRIBE, self.hub(gateway), minted("zoe", 5, key=KEY.encode(), subscribe=["*"]), ["*"])
            await browser.until("return window.updates.readyState === 1", what="the browser is subscribed")
            # It comes back, by itself, and is told that it may not: for an EventSource that is final.
            await browser.until("return window.updates.readyState === 2", what="the browser gives up", timeout=30)
            self.assertGreater(time.time() - begun, 4)

        return self.with_browser(test)

    def test_a_page_that_shows_who_is_there(self) -> Deferred[None]:
        """It reads the list, and keeps it with the updates from there on."""

        async def test(gateway: Gateway, browser: Browser) -> None:
            def named(name: str) -> str:
                return minted(name, key=KEY.encode(), subscribe=[], payload={"name": name})

            async def here(*names: str) -> None:
                shown = "return window.here && JSON.stringify(window.here()) === arguments[0]"
                await browser.until(shown, json.dumps(names, separators=(",", ":")), what=f"{names} are shown")

            ann = await follow(gateway, named("ann"), "chat")
            selectors = ["/.well-known/mercure/subscriptions", "/.well-known/mercure/subscriptions/chat{/subscriber}"]
            await browser.run(WATCH, self.hub(gateway), minted("page", key=KEY.encode(), subscribe=selectors))
            await here("ann")
            bob = await follow(gateway, named("bob"), "chat")
            await here("ann", "bob")
            ann.close()
            await here("bob")
            bob.close()
            await here()

        return self.with_browser(test)
