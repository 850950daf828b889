"""Active subscriptions (Mercure): told of as they begin and end, and listed."""

from __future__ import annotations

import json
from unittest.mock import patch
from urllib.parse import quote

from amqprouter.web.mercure.subscriptions import TOLD_AT_ONCE, TOLD_EACH_SECOND
from tests.unit.web.harness import Connection, Response
from tests.unit.web.mercure.harness import ORIGIN, bearer, minted
from tests.unit.web.mercure.test_subscribe import MercureTestCase

ALL = "/.well-known/mercure/subscriptions"
WATCH = ALL + "{/topic}{/subscriber}"
TOPIC = "https://shop.example/users/{user}"


class SubscriptionsTestCase(MercureTestCase):
    def setUp(self) -> None:
        self.hub_world = self.world(subscriptions=True, anonymous=True)
        self.watcher = minted([ALL, WATCH])

    def listed(self, path: str = ALL, token: str | None = None) -> Response:
        connection = self.hub_world.connect()
        connection.get(path, bearer(self.watcher if token is None else token))
        self.hub_world.clock.pump([0] * 100)
        return Response(connection.take())

    def follow(self, *topics: str, payload: object = None) -> Connection:
        mercure = {"subscribe": [], **({"payload": payload} if payload is not None else {})}
        return self.hub_world.follow(list(topics), minted(mercure=mercure))


class EventTests(SubscriptionsTestCase):
    def test_each_selector_is_told_of_as_it_begins_and_ends(self) -> None:
        connection = self.follow(TOPIC, "b", "b", payload={"name": "ann"})
        connection.lose()
        told = [(event.topics, event.private, json.loads(event.data)) for event in self.hub_world.announced]
        subscriber = told[0][2]["subscriber"]
        self.assertRegex(subscriber, "^urn:uuid:[0-9a-f-]{36}$")
        path = f"{ALL}/https%3A%2F%2Fshop.example%2Fusers%2F%7Buser%7D/{quote(subscriber, safe='')}"
        document = {
            "@context": "https://mercure.rocks/",
            "id": path,
            "type": "Subscription",
            "topic": TOPIC,
            "subscriber": subscriber,
            "active": True,
            "payload": {"name": "ann"},
        }
        self.assertEqual(told[0], ((path,), True, document))
        self.assertEqual([each[2]["topic"] for each in told], [TOPIC, "b", TOPIC, "b"])
        self.assertEqual([each[2]["active"] for each in told], [True, True, False, False])
        self.assertEqual({each[2]["subscriber"] for each in told}, {subscriber})

    def test_they_come_to_those_whose_selectors_match(self) -> None:
        world = self.hub_world
        watching, nosy = world.follow([WATCH], minted([WATCH])), world.follow(["*"], minted([TOPIC]))
        world.announced.clear()
        self.follow(TOPIC)
        [event] = world.announced
        world.tell(*event.topics, data=event.data, private=event.private)
        self.assertEqual([json.loads(data)["topic"] for data in self.got(watching)], [TOPIC])
        self.assertEqual(self.got(nosy), [])

    def test_not_unless_it_is_turned_on(self) -> None:
        world = self.world()
        world.follow(["a"], minted(["*"]))
        self.assertEqual(world.announced, [])
        self.assertEqual(world.ask(path=ALL, headers=bearer(minted(["*"]))).status, 404)

    def test_who_comes_and_goes_all_the_time_makes_no_flood(self) -> None:
        """Of what is over before it could be told, nothing is; of the rest everything, in order."""
        world, told = self.hub_world, self.hub_world.announced
        topics = [f"t{number}" for number in range(100)]
        for _ in range(50):
            self.follow(*topics).lose()
        self.assertEqual(len(told), TOLD_AT_ONCE)
        staying = self.follow(*topics)
        world.clock.pump([0.1] * 10)
        self.assertLessEqual(len(told), TOLD_AT_ONCE + TOLD_EACH_SECOND)
        staying.lose()
        world.clock.pump([0.1] * 100)
        documents = [json.loads(event.data) for event in told]
        begun = [each["id"] for each in documents if each["active"]]
        ended = [each["id"] for each in documents if not each["active"]]
        self.assertEqual(begun, ended)
        self.assertEqual(len(self.listed().json()["subscriptions"]), 0)
        before = len(told)
        world.clock.advance(TOLD_AT_ONCE / TOLD_EACH_SECOND)
        self.follow("a")
        self.assertEqual(len(told), before + 1)

    def test_another_user_s_are_told_meanwhile(self) -> None:
        for _ in range(5):
            self.follow(*(f"t{number}" for number in range(100)))
        self.hub_world.announced.clear()
        self.hub_world.follow(["b"], minted([], sub="ben"))
        self.assertEqual([json.loads(event.data)["topic"] for event in self.hub_world.announced], ["b"])

    def test_at_a_stop_all_are_told(self) -> None:
        for _ in range(5):
            self.follow(*(f"t{number}" for number in range(100)))
        self.hub_world.hub.close()
        self.hub_world.clock.pump([0.1] * 50)
        told = [json.loads(event.data) for event in self.hub_world.announced]
        self.assertEqual(
            {each["id"] for each in told if each["active"]}, {each["id"] for each in told if not each["active"]}
        )

    def test_a_request_without_a_stream_is_none(self) -> None:
        self.assertEqual(self.hub_world.ask({"topic": "a"}, method="HEAD").status, 200)
        self.assertEqual(self.hub_world.announced, [])


class ListTests(SubscriptionsTestCase):
    def test_all(self) -> None:
        self.follow("a", payload=1)
        gone = self.follow("b")
        self.follow(TOPIC, "a")
        gone.lose()
        response = self.listed()
        self.assertEqual(response.headers["content-type"], "application/ld+json")
        self.assertEqual(response.headers["cache-control"], "private, no-cache")
        self.assertEqual(response.headers["link"], '</.well-known/mercure>; rel="mercure"')
        document = response.json()
        found = document.pop("subscriptions")
        self.assertEqual(
            document,
            {"@context": "https://mercure.rocks/", "id": ALL, "type": "Subscriptions", "lastEventID": "earliest"},
        )
        self.assertEqual([each["topic"] for each in found], ["a", TOPIC, "a"])
        self.assertEqual([each.get("payload") for each in found], [1, None, None])
        self.assertEqual(len({each["id"] for each in found}), 3)

    def test_of_one_topic_and_of_one_subscriber(self) -> None:
        self.follow("a", TOPIC)
        self.follow("b")
        path = f"{ALL}/{quote(TOPIC, safe='')}"
        document = self.listed(path).json()
        self.assertEqual(document["id"], path)
        [found] = document["subscriptions"]
        self.assertEqual(found["topic"], TOPIC)
        self.hub_world.tell("x", id="of the publisher's own")
        single = self.listed(found["id"]).json()
        self.assertEqual(single, {"@context": "https://mercure.rocks/", **found, "lastEventID": "0"})
        self.assertEqual(self.listed(f"{ALL}/nobody-asked-for-it").json()["subscriptions"], [])
        for missing in ("b/" + quote(found["subscriber"], safe=""), "a/nobody", "a/b/c", "", "a/", "%ff"):
            self.assertEqual(self.listed(f"{ALL}/{missing}").status, 404, missing)

    def test_what_happens_behind_its_last_event_comes_to_who_follows_from_there(self) -> None:
        world = self.hub_world
        world.tell("before", data=b"before")
        last = self.listed().json()["lastEventID"]
        self.follow("a")
        [event] = world.announced
        world.tell(*event.topics, data=event.data, private=True)
        stream = world.connect()
        stream.get(f"/.well-known/mercure?topic={quote(WATCH)}", {**bearer(self.watcher), "Last-Event-ID": last})
        response = Response(stream.take())
        self.assertEqual(response.headers["last-event-id"], last)
        self.assertIn(event.data, response.body)

    def test_who_may(self) -> None:
        self.follow("a")
        self.assertEqual(self.listed(token="nonsense").status, 401)
        self.assertEqual(self.hub_world.ask(path=ALL).status, 401)
        self.assertEqual(self.listed(token=minted([TOPIC])).status, 403)
        only_a = minted([ALL + "/a{/subscriber}"])
        self.assertEqual([self.listed(path, only_a).status for path in (ALL, ALL + "/a", ALL + "/b")], [403, 200, 403])
        self.hub_world.visible.add(("app", ALL))
        self.assertEqual(self.listed(token=minted([])).status, 200)

    def test_a_list_that_would_be_too_long(self) -> None:
        with patch("amqprouter.web.mercure.subscriptions.MOST_LISTED", 3):
            for number in range(4):
                self.follow("a", f"t{number}")
            refused = self.listed()
            self.assertEqual(refused.status, 503)
            self.assertIn("of one topic", refused.json()["error"])
            self.assertEqual(len(self.listed(ALL + "/t1").json()["subscriptions"]), 1)

    def test_a_list_that_would_be_too_large(self) -> None:
        with patch("amqprouter.web.mercure.subscriptions.MOST_LISTED_BYTES", 10_000):
            for number in range(4):
                self.follow(f"t{number}", payload="x" * 3000)
            self.assertEqual(self.listed().status, 503)
            self.assertEqual(len(self.listed(ALL + "/t1").json()["subscriptions"]), 1)

    def test_long_lists_let_others_have_their_turn(self) -> None:
        with patch("amqprouter.web.mercure.subscriptions.AT_ONCE", 2):
            for _ in range(5):
                self.follow("a")
            connection = self.hub_world.connect()
            connection.get(ALL, bearer(self.watcher))
            self.assertEqual(connection.take(), b"")
            self.hub_world.clock.pump([0] * 5)
            self.assertEqual(len(Response(connection.take()).json()["subscriptions"]), 5)
            leaving = self.hub_world.connect()
            leaving.get(ALL, bearer(self.watcher))
            leaving.lose()
            self.hub_world.clock.pump([0] * 5)

    def test_methods_and_types(self) -> None:
        world = self.hub_world
        head = world.get(ALL, bearer(self.watcher), "HEAD")
        self.assertEqual(head.body, b"")
        self.assertEqual(world.get(ALL, bearer(self.watcher), "DELETE").status, 405)
        preflight = world.get(ALL, {"Origin": ORIGIN}, "OPTIONS")
        self.assertEqual((preflight.status, preflight.headers["access-control-allow-origin"]), (204, ORIGIN))
        for accept, status in (("text/html", 406), ("application/json", 200), ("application/ld+json, */*;q=0", 200)):
            connection = world.connect()
            connection.get(ALL, {**bearer(self.watcher), "Accept": accept})
            world.clock.pump([0] * 3)
            self.assertEqual(Response(connection.take()).status, status, accept)
