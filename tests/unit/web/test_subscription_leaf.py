"""Who is subscribed, and the end of one user's streams, over HTTP and by rights."""

from __future__ import annotations

import base64
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from amqprouter.acl.acl import Acl
from amqprouter.events.interest import Interest
from amqprouter.identity import Identity
from amqprouter.net import TrustedProxies
from amqprouter.patterns import TopicPattern
from amqprouter.web.login import TokenLogin
from amqprouter.web.site import RouterSite
from amqprouter.web.subscription_leaf import PATH, SubscriptionLeaf
from tests.support.tokens import token
from tests.unit.web.harness import Connection, MemorySink, Response, World

OPERATORS = """
op -> #
reader -> *.events.ls
@group/desk -> bob.events.#
* -> %u.events.#
"""


class SubscriptionLeafTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.world = World()
        self.acl = Acl.parse(OPERATORS, "operators.acl", "%u", may_ask_registry=False)
        self.groups: tuple[str, ...] = ()
        leaf = SubscriptionLeaf(
            TokenLogin(self.authenticate, anonymous=False), self.world.hub, self.operates, ["https://desk.example"]
        )
        self.site = RouterSite(
            {PATH: leaf},
            self.world.hub,
            header_timeout=10.0,
            heartbeat=10.0,
            reactor=self.world.clock,
            proxies=TrustedProxies(),
        )
        self.site.startFactory()
        self.sinks = [self.subscribe(*each) for each in (("ann", "dev1.#"), ("bob", "dev1.#"), ("ann", "x", "dev2.up"))]

    async def authenticate(self, username: str, password: bytes, peer: str) -> Identity | None:
        return Identity(username, groups=self.groups) if password == b"right" or password.count(b".") == 2 else None

    def operates(self, user: Identity, what: str) -> bool:
        return self.acl.allows(user.name, what, user.groups)

    def subscribe(self, user: str, *patterns: str) -> MemorySink:
        sink = MemorySink()
        sink.subscriber = self.world.hub.subscribe(
            Identity(user),
            Interest(TopicPattern(text) for text in patterns),
            lambda topics, private: True,
            sink,
            address="192.0.2.1",
        )
        sink.subscriber.start()
        return sink

    def ask(self, user: str, query: str = "", method: str = "GET", password: str = "right", **headers: str) -> Response:
        login = {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()} if user else {}
        connection: Any = Connection(self.site)
        connection.get(f"/events/subscriptions{query}", {**login, **headers}, method)
        self.world.clock.pump([0, 0, 0])
        return Response(connection.take())

    def listed(self, user: str, query: str = "") -> list[str]:
        answer = self.ask(user, query)
        self.assertEqual((answer.status, answer.headers["cache-control"]), (200, "no-store"))
        return [one["user"] for one in answer.json()["subscriptions"]]

    def test_each_sees_what_the_operators_list_allows(self) -> None:
        self.assertEqual(self.listed("op"), ["ann", "bob", "ann"])
        self.assertEqual(self.listed("reader"), ["ann", "bob", "ann"])
        self.assertEqual(self.listed("ann"), ["ann", "ann"])
        self.assertEqual(self.listed("carol"), [])
        self.groups = ("desk",)
        self.assertEqual(self.listed("carol"), ["bob"])
        [one] = self.ask("bob").json()["subscriptions"]
        self.assertEqual((one["topics"], one["address"], one["live"]), (["dev1.#"], "192.0.2.1", True))

    def test_by_user_and_by_topic(self) -> None:
        self.assertEqual(self.listed("op", "?user=ann"), ["ann", "ann"])
        self.assertEqual(self.listed("op", "?topic=dev1.%23"), ["ann", "bob"])
        self.assertEqual(self.listed("op", "?topic=dev2.up&user=ann"), ["ann"])
        self.assertEqual(self.listed("op", "?user=nobody"), [])
        answer = self.ask("op", "?most=1").json()
        self.assertEqual((answer["count"], len(answer["subscriptions"])), (3, 1))
        self.assertEqual(self.ask("ann", "?user=bob").status, 403)
        for query in ("?most=1001", "?most=x", "?users=ann", "?user=a&user=b", "?user=%ff"):
            self.assertEqual(self.ask("op", query).status, 400, query)

    def test_one_users_streams_are_ended(self) -> None:
        answer = self.ask("op", "?user=ann", "DELETE")
        self.assertEqual((answer.status, answer.json()), (200, {"user": "ann", "ended": 2}))
        self.assertEqual([sink.state for sink in self.sinks], ["finished", "open", "finished"])

    def test_nobody_else_ends_them(self) -> None:
        for user in ("reader", "carol", "ann"):
            self.assertEqual(self.ask(user, "?user=bob", "DELETE").status, 403, user)
        for query in ("", "?user=", "?topic=dev1.%23", "?user=ann&topic=x"):  # never all, nor some, by mistake
            self.assertEqual(self.ask("op", query, "DELETE").status, 400, query)
        self.assertEqual(self.ask("", "?user=bob", "DELETE").status, 401)
        self.assertEqual(self.ask("op", "?user=bob", "DELETE", "wrong").status, 401)
        self.assertEqual(self.ask("op", "?user=bob", "DELETE", Origin="https://elsewhere.example").status, 403)
        self.assertEqual(self.ask("op", "?user=bob", "POST").status, 405)
        self.assertEqual([sink.state for sink in self.sinks], ["open"] * 3)

    def test_by_a_page_that_may(self) -> None:
        answer = self.ask("op", "?user=bob", "DELETE", Origin="https://desk.example")
        self.assertEqual((answer.status, answer.json()["ended"]), (200, 1))
        self.assertEqual(answer.headers["access-control-allow-origin"], "https://desk.example")
        asked = self.ask("", "", "OPTIONS", Origin="https://desk.example")
        self.assertIn("DELETE", asked.headers["access-control-allow-methods"])

    def test_ones_own(self) -> None:
        self.assertEqual(self.ask("ann", "?user=ann", "DELETE").json()["ended"], 2)

    def test_with_a_token_that_is_a_password(self) -> None:
        connection: Any = Connection(self.site)
        signed = token({"sub": "op"}, "HS256").decode()
        connection.get("/events/subscriptions?user=ann", {"Authorization": f"Bearer {signed}"})
        self.assertEqual(Response(connection.take()).json()["count"], 2)

    def test_a_name_with_dots_is_no_other_users(self) -> None:
        self.subscribe("bob.events", "x")
        self.assertEqual(self.listed("bob.events"), [])  # %u gives nothing to such a name
        self.assertEqual(self.listed("reader", "?user=bob"), ["bob"])
        self.assertEqual(self.ask("reader", "?user=bob.events").status, 403)
