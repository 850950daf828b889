"""Mercure through whole gateways and a real broker: an application tells its user, and nobody else."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import urlencode

import treq
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers
from twisted.web.iweb import IResponse

from tests.support.gateway import Fleet, Gateway
from tests.support.gateway_case import GatewayTestCase
from tests.support.mongo import TestDatabase
from tests.support.process import answers, until
from tests.support.servers import Vhost
from tests.support.sse_client import without_places
from tests.support.tokens import jwk, key_set, token

MERCURE = {"enabled": "yes", "subscriber_keys": "keys.json", "publisher_keys": "keys.json"}
SUBSCRIPTIONS = "/.well-known/mercure/subscriptions"
ORDERS = "https://shop.example/users/{}/orders"


def minted(sub: str, seconds: float = 600, key: bytes | None = None, **mercure: object) -> str:
    """A token for this user; with a `key` of its own it names none."""
    claims = {"sub": sub, "exp": time.time() + seconds, "mercure": mercure}
    return token(claims, "HS256", header={"kid": None} if key else {}, key=key).decode()


class Stream(Protocol):
    """What a subscriber has received so far."""

    def __init__(self, response: IResponse) -> None:
        self.received = b""
        self.over = False
        self.last_event_id = response.headers.getRawHeaders(b"last-event-id")
        response.deliverBody(self)

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.over = True

    @property
    def data(self) -> list[str]:
        lines = without_places(self.received).decode().splitlines()
        return [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]

    async def has(self, count: int) -> list[str]:
        async def enough() -> bool:
            return len(self.data) >= count

        await until(enough, what=f"{count} events; there is {self.received!r}", timeout=15)
        return self.data

    async def ends(self, timeout: float) -> None:
        async def ended() -> bool:
            return self.over

        await until(ended, what="the stream ends", timeout=timeout)

    def close(self) -> None:
        if not self.over:
            self.transport.loseConnection()  # type: ignore[union-attr]  # it is connected


async def follow(gateway: Gateway, authorization: str, *topics: str, last: str = "") -> Stream:
    query = urlencode({"topic": topics}, doseq=True)
    headers = Headers({"Authorization": [f"Bearer {authorization}"], **({"Last-Event-ID": [last]} if last else {})})
    url = f"{gateway.url}/.well-known/mercure?{query}"
    response = await treq.get(url, headers=headers, unbuffered=True, persistent=False)
    assert response.code == 200, response.code
    return Stream(response)


async def publish_and_count(gateway: Gateway, authorization: str, **fields: str) -> str | None:
    """To how many subscriptions the gateway has written it."""
    url = f"{gateway.url}/.well-known/mercure"
    headers = Headers({"Authorization": [f"Bearer {authorization}"], "Prefer": ["wait=5"]})
    response = await treq.post(url, data=fields, headers=headers, persistent=False, timeout=20)
    assert response.code == 200, response.code
    count: str | None = response.headers.getRawHeaders("Amqprouter-Subscriptions", [None])[0]
    await response.content()
    return count


async def publish(gateway: Gateway, authorization: str, **fields: str) -> tuple[int, str]:
    url = f"{gateway.url}/.well-known/mercure"
    headers = Headers({"Authorization": [f"Bearer {authorization}"]})
    response = await treq.post(url, data=fields, headers=headers, persistent=False, timeout=20)
    return response.code, await response.text()


class MercureTests(GatewayTestCase):
    devices = ("dev1",)

    def with_gateways(
        self, test: Callable[[Gateway, Gateway, Fleet], Awaitable[None]], **options: str
    ) -> Deferred[None]:
        """Run ``test(gateway, other, fleet)``, both gateways running, with these options of Mercure's."""
        mercure = {**MERCURE, **options}

        async def around(gateway: Gateway, fleet: Fleet, vhost: Vhost, database: TestDatabase) -> None:
            other = Gateway(Path(self.mktemp()), vhost.uri, database.uri, database.name, mercure=mercure)
            for each in (gateway, other):
                each.file("keys.json", key_set(jwk("HS256")))
                each.devices("dev1")
                await each.start()
            await fleet.connect()
            try:
                await test(gateway, other, fleet)
            finally:
                await other.stop()

        return self.run_with(around, start=False, mercure=mercure)

    def test_a_publisher_is_told_how_many_its_gateway_wrote_to(self) -> Deferred[None]:
        async def test(gateway: Gateway, other: Gateway, fleet: Fleet) -> None:
            token = minted("ann", subscribe=["news"])
            streams = [await follow(each, token, "news") for each in (gateway, gateway, other)]
            app = minted("app", publish=["*"])
            for each, topic, count in ((gateway, "news", "2"), (other, "news", "1"), (gateway, "nothing", "0")):
                self.assertEqual(await publish_and_count(each, app, topic=topic, data="x"), count)
            for stream in streams:
                await stream.has(2)
                stream.close()

        return self.with_gateways(test)

    def test_an_application_tells_its_user_and_nobody_else(self) -> Deferred[None]:
        async def test(gateway: Gateway, other: Gateway, fleet: Fleet) -> None:
            app = minted("shop", publish=["*"])
            ann = await follow(other, minted("ann", subscribe=[ORDERS.format("ann")]), "*")
            bob = await follow(other, minted("bob", subscribe=[ORDERS.format("bob")]), "*")
            update = {"topic": ORDERS.format("ann"), "private": "on", "data": "for ann", "id": "orders/1"}
            self.assertEqual(await publish(gateway, app, **update), (200, "orders/1"))
            self.assertEqual((await publish(gateway, app, topic="news", data="for all"))[0], 200)
            # Ann may see everything by the users' ACL, and bob what dev1 sends.
            fleet.reading("dev1", 7)
            await fleet.all_confirmed()
            self.assertEqual((await ann.has(3))[:2], ["for ann", "for all"])
            news, reading = await bob.has(2)
            self.assertEqual((news, json.loads(reading)["body"]), ("for all", {"n": 7}))
            self.assertIn(b"id: orders/1\n", ann.received)
            ann.close()
            bob.close()

        return self.with_gateways(test)

    def test_alternate_topics_come_through_the_broker(self) -> Deferred[None]:
        async def test(gateway: Gateway, other: Gateway, fleet: Fleet) -> None:
            app = minted("shop", publish=["*"])
            by_name = await follow(other, minted("bob", subscribe=["second é"]), "second é")
            long = "x" * 1000
            by_template = await follow(gateway, minted("bob", subscribe=["*"]), "x{rest}")
            many = [("topic", "first"), ("topic", "second é"), *(("topic", f"{long}{n}") for n in range(60))]
            headers = Headers({"Authorization": [f"Bearer {app}"]})
            url = f"{gateway.url}/.well-known/mercure"
            for fields in (many[:2], many):
                form = [*fields, ("private", "on"), ("data", f"of {len(fields)} topics")]
                response = await treq.post(url, data=form, headers=headers, persistent=False, timeout=20)
                self.assertEqual(response.code, 200)
            self.assertEqual(await by_name.has(2), ["of 2 topics", "of 62 topics"])
            self.assertEqual(await by_template.has(1), ["of 62 topics"])
            by_name.close()
            by_template.close()

        return self.with_gateways(test)

    def test_resuming_at_another_gateway_with_the_publishers_id(self) -> Deferred[None]:
        async def test(gateway: Gateway, other: Gateway, fleet: Fleet) -> None:
            app, reader = minted("shop", publish=["*"]), minted("ann", subscribe=["*"])
            first = await follow(gateway, reader, "a")
            for number in range(3):
                await publish(gateway, app, topic="a", private="on", data=str(number), id=f"id-{number}")
            self.assertEqual(await first.has(3), ["0", "1", "2"])
            first.close()
            second = await follow(other, reader, "a", last="id-0")
            self.assertEqual(second.last_event_id, [b"id-0"])
            self.assertEqual(await second.has(2), ["1", "2"])
            await publish(gateway, app, topic="a", data="live")
            self.assertEqual(await second.has(3), ["1", "2", "live"])
            second.close()

        return self.with_gateways(test)

    def test_resuming_at_a_gateway_that_has_just_started(self) -> Deferred[None]:
        """Before it knows any id; one that is made up waits as well."""

        async def test(gateway: Gateway, other: Gateway, fleet: Fleet) -> None:
            app, reader = minted("shop", publish=["*"]), minted("ann", subscribe=["*"])
            names = [(await publish(gateway, app, topic="a", private="on", data=str(n)))[1] for n in range(3)]
            assert names[0].startswith("urn:uuid:")
            await gateway.stop()
            await gateway.start(ready=False)

            async def listens() -> bool:
                return await answers(gateway.port, b"GET /healthz HTTP/1.0\r\n\r\n")

            await until(listens, what="the gateway listens", timeout=15)
            lasts = (names[0], "urn:uuid:3fa85f64-5717-4562-b3fc-2c963f66afa6", names[2])
            streams = [Deferred.fromCoroutine(follow(gateway, reader, "a", last=last)) for last in lasts]
            known, made_up, latest = await gatherResults(streams)
            told = [each.last_event_id for each in (known, made_up, latest)]
            self.assertEqual(told, [[names[0].encode()], [b"earliest"], [names[2].encode()]])
            self.assertEqual(await known.has(2), ["1", "2"])
            self.assertIn('"unknown id"', (await made_up.has(1))[0])
            await publish(other, app, topic="a", data="live")
            self.assertEqual(await latest.has(1), ["live"])
            self.assertNotIn(b"event: gap", known.received + latest.received)
            for each in (known, made_up, latest):
                each.close()

        return self.with_gateways(test)

    def test_what_is_taken_away_from_streams_that_are_open(self) -> Deferred[None]:
        async def test(gateway: Gateway, other: Gateway, fleet: Fleet) -> None:
            begun = time.time()
            stream = await follow(gateway, minted("ann", 3, subscribe=["*"]), "*")
            await stream.ends(6)
            self.assertLess(time.time() - begun, 4)
            stream = await follow(gateway, minted("ann", subscribe=["*"]), "*")
            bob = await follow(gateway, minted("bob", subscribe=[]), "*")
            fleet.reading("dev1", 1)
            await fleet.all_confirmed()
            await bob.has(1)
            gateway.file("users.acl", "ann -> #\n")
            gateway.running.signal("HUP")
            await gateway.metric_reaches("reloads_total", 1)
            fleet.reading("dev1", 2)
            await fleet.all_confirmed()
            await stream.has(2)
            await publish(gateway, minted("shop", publish=["*"]), topic="news", data="for all")
            self.assertEqual((await bob.has(2))[1:], ["for all"])  # what the ACL had let him see is no longer his
            gateway.file("keys.json", key_set(jwk("HS256", 1)))
            gateway.running.signal("HUP")
            await stream.ends(5)
            await bob.ends(5)
            self.assertEqual((await publish(gateway, minted("shop", publish=["*"]), topic="a"))[0], 401)

        return self.with_gateways(test)

    def test_subscriptions_are_told_of_at_every_gateway(self) -> Deferred[None]:
        """And listed at their own; what ends with its gateway is told too."""

        async def test(gateway: Gateway, other: Gateway, fleet: Fleet) -> None:
            watcher = minted("watcher", subscribe=[f"{SUBSCRIPTIONS}{{/topic}}{{/subscriber}}", SUBSCRIPTIONS])
            watching = await follow(other, watcher, f"{SUBSCRIPTIONS}/news{{/subscriber}}")
            short = await follow(gateway, minted("ann", subscribe=[]), "news", "other")
            await watching.has(1)
            await follow(gateway, minted("bob", subscribe=[], payload={"name": "bob"}), "news")
            begun = [json.loads(data) for data in await watching.has(2)]
            for each in (gateway, other):
                response = await treq.get(
                    f"{each.url}{SUBSCRIPTIONS}/news",
                    headers=Headers({"Authorization": [f"Bearer {watcher}"]}),
                    persistent=False,
                )
                self.assertEqual(response.headers.getRawHeaders("content-type"), ["application/ld+json"])
                listed = (await response.json())["subscriptions"]
                expected = [{**each, "@context": None} for each in begun] if each is gateway else []
                self.assertEqual([{**each, "@context": None} for each in listed], expected)
            short.close()
            await watching.has(3)
            await gateway.stop()
            ended = [json.loads(data) for data in await watching.has(4)][2:]
            self.assertEqual(ended, [{**each, "active": False} for each in begun])
            self.assertEqual([each.get("payload") for each in begun], [None, {"name": "bob"}])
            watching.close()

        return self.with_gateways(test, subscriptions="yes")
