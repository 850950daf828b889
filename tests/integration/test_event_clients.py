"""Event streams with clients that know nothing of us: each gets every event once, through a gateway that is killed.

The clients of npm are used where they are installed: ``npm install`` them in some folder, and name that in the
environment variable ``AMQPROUTER_TEST_NPM``.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.web import static
from twisted.web.server import Site

from tests.integration.test_mercure import MERCURE, minted, publish
from tests.support.browser import with_browser
from tests.support.gateway import Fleet, Gateway
from tests.support.gateway_case import GatewayTestCase
from tests.support.mongo import TestDatabase
from tests.support.process import Child, free_ports, reactor, until
from tests.support.rabbitmq import missing
from tests.support.servers import Vhost
from tests.support.tokens import jwk, key_set

NPM = os.environ.get("AMQPROUTER_TEST_NPM", "")
NPM_CLIENTS = (
    "eventsource",
    "event-source-polyfill",
    "extended-eventsource",
    "launchdarkly-eventsource",
    "@microsoft/fetch-event-source",
)
PYTHON_CLIENTS = ("httpx-sse", "sseclient-py", "launchdarkly-eventsource")

# Follows a URL with one client as its documentation shows it, and prints what `event_clients.mjs` prints. The first two
# leave it to their users to connect again.
FOLLOW = """
import json, sys, time
client, url = sys.argv[1:]
last = ""
def tell(kind, data, id):
    print(json.dumps([client, "onmessage", kind, data, id]), flush=True)
def httpx_sse():
    import httpx, httpx_sse
    headers = {"Last-Event-ID": last} if last else {}
    with httpx.Client(timeout=30) as session, httpx_sse.connect_sse(session, "GET", url, headers=headers) as source:
        for event in source.iter_sse():
            yield event.event, event.data, event.id
def sseclient_py():
    import requests, sseclient
    response = requests.get(url, headers={"Last-Event-ID": last} if last else {}, stream=True, timeout=30)
    response.raise_for_status()
    for event in sseclient.SSEClient(response).events():
        yield event.event, event.data, event.id
if client == "launchdarkly-eventsource":
    from ld_eventsource import SSEClient
    from ld_eventsource.config import ErrorStrategy
    for event in SSEClient(url, error_strategy=ErrorStrategy.always_continue()).events:
        tell(event.event, event.data, event.last_event_id)
while True:
    try:
        for kind, data, id in {"httpx-sse": httpx_sse, "sseclient-py": sseclient_py}[client]():
            last = id or last
            tell(kind, data, id)
    except Exception as error:
        print(repr(error), file=sys.stderr)
    time.sleep(0.5)
"""

BROWSE = """
const source = window.source = new EventSource(arguments[0]);
window.told = [];
const tell = (where) => (event) => window.told.push(["chromium", where, event.type, event.data, event.lastEventId]);
source.onmessage = tell("onmessage");
source.addEventListener("place", tell("place"));
source.addEventListener("gap", tell("gap"));
"""

Told = Callable[[], Awaitable[list[list[str]]]]


def npm_problem() -> str:
    """Why the clients of npm cannot be tried; empty when they can."""
    if shutil.which("node") is None:
        return "node is not installed: apt-get install nodejs npm"
    if not NPM:
        return f"AMQPROUTER_TEST_NPM names no folder with the clients: npm install {' '.join(NPM_CLIENTS)}"
    gone = [name for name in NPM_CLIENTS if not (Path(NPM) / "node_modules" / name).is_dir()]
    return f"not in {NPM}/node_modules: npm install {' '.join(gone)}" if gone else ""


class EventClientTests(GatewayTestCase):
    skip = missing or None
    timeout = 150

    def setUp(self) -> None:
        [self.page_port] = free_ports(1)

    def with_gateways(self, test: Callable[[Gateway, Gateway, str], Awaitable[None]]) -> Deferred[None]:
        """Run ``test(gateway, other, url)``, the URL of a topic at the first one that was never published to."""
        mercure, events = {**MERCURE, "anonymous": "yes"}, {"heartbeat": "1"}
        http = {"allowed_origins": f"http://127.0.0.1:{self.page_port}"}

        async def around(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            folder = Path(self.mktemp())
            other = Gateway(folder, vhost.uri, database.uri, database.name, mercure=mercure, events=events)
            for each in (gateway, other):
                each.file("keys.json", key_set(jwk("HS256")))
                each.devices("dev1")
                await each.start()
            try:
                await self.tell(other, "something else", "other")
                await test(gateway, other, f"{gateway.url}/.well-known/mercure?topic=rare")
            finally:
                await other.stop()

        return self.run_with(around, start=False, mercure=mercure, events=events, http=http)

    async def tell(self, gateway: Gateway, topic: str, data: str) -> None:
        self.assertEqual((await publish(gateway, minted("app", publish=["*"]), topic=topic, data=data))[0], 200)

    async def through_a_crash(self, gateway: Gateway, other: Gateway, clients: tuple[str, ...], told: Told) -> None:
        """What each is told: nothing at first but its place; then what came while it was away; then what comes."""
        await gateway.metric_reaches("subscribers", len(clients))

        async def all_have(kind: str, data: str) -> None:
            async def they_have() -> bool:
                lines = await told()
                return all(any(c == name and t == kind and data in d for c, _, t, d, _ in lines) for name in clients)

            await until(they_have, what=f"{clients} have {kind} {data}", timeout=60)

        await all_have("place", "")
        await gateway.running.kill()
        await self.tell(other, "rare", '{"n": 1}')
        await gateway.start()
        await all_have("message", '{"n": 1}')
        for number in range(20):
            await self.tell(other, "something else", f"other {number}")
        await all_have("place", "")
        await self.tell(other, "rare", '{"n": 2}')
        await all_have("message", '{"n": 2}')
        lines = await told()
        for client in clients:
            mine = [line for line in lines if line[0] == client]
            # Whoever hands all types to one callback says the type; nobody gets an empty event, nor one twice.
            messages = [data for _, where, kind, data, _ in mine if where == "onmessage" and kind == "message"]
            self.assertEqual(messages, ['{"n": 1}', '{"n": 2}'], client)
            self.assertEqual({kind for _, _, kind, _, _ in mine} - {"message", "place"}, set(), client)
            for _, _, _, data, name in mine:
                json.loads(data)
                self.assertTrue(name, client)

    async def with_programs(
        self, gateway: Gateway, other: Gateway, clients: tuple[str, ...], *commands: list[str]
    ) -> None:
        folder = Path(self.mktemp())
        folder.mkdir()
        logs = [folder / f"{number}.log" for number in range(len(commands))]
        running = [Child(command, log=log) for command, log in zip(commands, logs, strict=True)]

        async def told() -> list[list[str]]:
            lines = [line for log in logs for line in log.read_text().splitlines() if line.startswith("[")]
            return [json.loads(line) for line in lines]

        try:
            await self.through_a_crash(gateway, other, clients, told)
        finally:
            for child in running:
                await child.kill()

    def test_of_python(self) -> Deferred[None]:
        async def test(gateway: Gateway, other: Gateway, url: str) -> None:
            commands = [[sys.executable, "-c", FOLLOW, client, url] for client in PYTHON_CLIENTS]
            await self.with_programs(gateway, other, PYTHON_CLIENTS, *commands)

        return self.with_gateways(test)

    def test_of_npm(self) -> Deferred[None]:
        async def test(gateway: Gateway, other: Gateway, url: str) -> None:
            script = Path(__file__).parent.parent / "support" / "event_clients.mjs"
            command = ["node", str(script), NPM, url, *NPM_CLIENTS]
            await self.with_programs(gateway, other, NPM_CLIENTS, command)

        return self.with_gateways(test)

    test_of_npm.skip = npm_problem() or None  # type: ignore[attr-defined]  # trial looks for it there

    def test_in_a_browser(self) -> Deferred[None]:
        async def test(gateway: Gateway, other: Gateway, url: str) -> None:
            document = static.Data(b"<title>App</title>", "text/html")
            document.isLeaf = True
            page = reactor.listenTCP(self.page_port, Site(document), interface="127.0.0.1")
            try:
                async with with_browser(Path(self.mktemp())) as browser:
                    await browser.open(f"http://127.0.0.1:{self.page_port}")
                    await browser.run(BROWSE, url)

                    async def told() -> list[list[str]]:
                        lines: Any = await browser.run("return window.told")
                        return list(lines)

                    await self.through_a_crash(gateway, other, ("chromium",), told)
            finally:
                await page.stopListening()

        return self.with_gateways(test)
