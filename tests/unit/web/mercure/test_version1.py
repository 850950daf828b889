"""Version 1.0 beside 0.x: by parameters, and by tokens."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote, urlencode

from amqprouter.web.mercure.claims import MAX_DETAILS, MAX_MATCHERS
from tests.support.tokens import jwk
from tests.unit.web.harness import Connection, Response
from tests.unit.web.mercure.harness import (
    HUB_URL,
    ISSUER,
    METADATA,
    NOW,
    ORIGIN,
    PATH,
    VERSION_1,
    MercureWorld,
    access_token,
    bearer,
    detail,
    minted,
)
from tests.unit.web.mercure.test_subscribe import MercureTestCase

BOOK = "https://example.com/books/1"
BOOKS = ("urlpattern", "https://example.com/books/:id")
EVERYTHING = detail("*", actions=["publish", "subscribe"])
SUBSCRIPTIONS = f"{PATH}/subscriptions"


class Version1TestCase(MercureTestCase):
    def world(self, **options: object) -> MercureWorld:
        return super().world(**{**VERSION_1, **options})

    def hub_of_0_x(self, **options: object) -> MercureWorld:
        return super().world(**options)

    def follow(self, world: MercureWorld, query: dict[str, Any], token: str = "") -> Connection:
        connection = world.connect()
        connection.get(f"{PATH}?{urlencode(query, doseq=True)}", bearer(token) if token else None)
        response = Response(connection.take())
        self.assertEqual(response.status, 200, response.body)
        return connection


class ParameterTests(Version1TestCase):
    def test_which_there_are(self) -> None:
        world = self.world(anonymous=True, max_topics=3)
        cases: tuple[tuple[dict[str, Any], int], ...] = (
            ({"match": "a"}, 200),
            ({"match_exact": "a"}, 200),
            ({"match_urlpattern": BOOKS[1]}, 200),
            ({"match": "*", "match_urlpattern": "*", "topic": "a"}, 200),
            ({"match": "a", "unrelated": "b", "Topic": "c"}, 200),
            ({"unrelated": "b"}, 400),
            ({"match": ""}, 400),
            ({"match": ["a", "b"], "topic": ["c", "d"]}, 400),
            *(({name: "a", "topic": "a"}, 400) for name in ("matches", "match_", "Match", "MATCH", "match_Exact")),
            *(({name: "a", "match": "a"}, 400) for name in ("match_urltemplate", "Match_exact", "match-exact")),
            ({"match": b"\xff"}, 400),
            *(({"match": f"a{character}b"}, 400) for character in "\0\n\x1f\x7f\x85\u200b\u202e\ufeff"),
            ({"match_urlpattern": "https://example.com/("}, 400),
            ({"match": "x" * 1025}, 400),
        )
        for query, status in cases:
            answer = world.ask(query)
            self.assertEqual(answer.status, status, query)
            self.assertNotIn("www-authenticate", answer.headers)

    def test_a_name_without_a_value_is_one_with_an_empty_value(self) -> None:
        """And only & is between pairs."""
        world = self.world(anonymous=True)
        for query, status in (("match&topic=a", 400), ("matchx&topic=a", 400), ("topic=a;match_x=b", 200)):
            self.assertEqual(world.get(f"{PATH}?{query}").status, status, query)
        connection = world.connect()
        connection.get(f"{PATH}?match=a+b;c%26&")
        connection.take()
        for topic in ("a b;c&", "a b", "c"):
            world.tell(topic, data=topic.encode())
        self.assertEqual(self.got(connection), ["a b;c&"])

    def test_where_there_is_no_1_0_they_are_none(self) -> None:
        world = self.hub_of_0_x(anonymous=True)
        self.assertEqual(world.ask({"match": "a"}).status, 400)
        self.assertEqual(world.ask({"match_x": "a", "topic": "a"}).status, 200)

    def test_what_they_select(self) -> None:
        world = self.world(anonymous=True)
        exact = self.follow(world, {"match": ["https://example.com/{id}", BOOK]})
        pattern = self.follow(world, {"match_urlpattern": BOOKS[1]})
        both = self.follow(world, {"topic": "https://example.com/{id}", "match_exact": "a"})
        for topic in ("https://example.com/{id}", "https://example.com/2", BOOK, "https://example.com/books/2", "a"):
            world.tell(topic, data=topic.encode())
        self.assertEqual(self.got(exact), ["https://example.com/{id}", BOOK])
        self.assertEqual(self.got(pattern), [BOOK, "https://example.com/books/2"])
        self.assertEqual(self.got(both), ["https://example.com/{id}", "https://example.com/2", "a"])

    def test_the_cursor(self) -> None:
        world = self.world(anonymous=True)
        for number in range(3):
            world.tell("a", data=b"%d" % number, id=f"urn:{number}")
        for query, headers, told in (
            ({"last_event_id": "urn:1"}, {}, "urn:1"),
            ({"last_event_id": "urn:1"}, {"Last-Event-ID": "urn:0"}, "urn:0"),
            ({"last_event_id": "urn:unknown"}, {}, "earliest"),
            ({"last_event_id": "earliest"}, {}, "earliest"),
        ):
            answer = world.ask({"match": "a", **query}, headers)
            self.assertEqual(answer.headers["mercure-last-event-id"], told)
        self.assertNotIn("mercure-last-event-id", world.ask({"match": "a"}).headers)
        exposed = world.ask({"match": "a"}, {"Origin": ORIGIN}).headers["access-control-expose-headers"]
        self.assertIn("Mercure-Last-Event-ID", exposed)


class TokenTests(Version1TestCase):
    def test_what_makes_a_good_one(self) -> None:
        world = self.world(require_expiry=False)
        for token in (
            access_token(),
            access_token(typ="application/AT+JWT"),
            access_token(aud=["https://other.example", HUB_URL]),
            access_token(authorization_details=None),
        ):
            self.assertEqual(world.ask({"match": "a"}, bearer(token)).status, 200)
        for token in (
            access_token(exp=None),
            access_token(exp=NOW - 1),
            access_token(nbf=NOW + 60),
            access_token(aud=None),
            access_token(aud="https://other.example"),
            access_token(iss=None),
            access_token(iss=ISSUER + "/"),
            access_token(number=7),
            access_token()[:-2] + "AA",
        ):
            answer = world.ask({"match": "a"}, bearer(token))
            self.assertEqual(answer.status, 401)
            challenge = f'Bearer realm="amqprouter", error="invalid_token", resource_metadata="{METADATA}"'
            self.assertEqual(answer.headers["www-authenticate"], challenge)

    def test_those_of_0_x_are_taken_as_ever(self) -> None:
        """What they say in the words of 1.0 counts for nothing, and the other way round."""
        world = self.world()
        old = minted(["a"], iss=ISSUER, authorization_details=[EVERYTHING])
        new = access_token(detail("b"), mercure={"subscribe": ["*"], "publish": ["*"]})
        streams = [self.follow(world, {"match": "*"}, token) for token in (old, new)]
        for topic in ("a", "b", "c"):
            world.tell(topic, data=topic.encode(), private=True)
        self.assertEqual([self.got(each) for each in streams], [["a"], ["b"]])
        for token in (old, new):
            self.assertEqual(world.post({"topic": "a"}, token).status, 403)

    def test_an_access_token_where_only_0_x_is_spoken(self) -> None:
        world = self.hub_of_0_x(issuer=ISSUER, audience=HUB_URL)
        stream = self.follow(world, {"topic": "*"}, access_token(EVERYTHING, mercure={"subscribe": ["a"]}))
        for topic in ("a", "b"):
            world.tell(topic, data=topic.encode(), private=True)
        self.assertEqual(self.got(stream), ["a"])

    def test_where_it_may_be(self) -> None:
        world = self.world()
        token = access_token()
        for name in ("__Secure-mercure_access_token", "mercureAuthorization"):
            self.assertEqual(world.ask({"match": "a"}, {"Cookie": f"{name}={token}"}).status, 200)
        ignored = {"Cookie": "__Secure-mercure_access_token=bad"}
        self.assertEqual(world.ask({"match": "a"}, {**bearer(token), **ignored}).status, 200)
        first = {"Cookie": f"mercureAuthorization=bad; __Secure-mercure_access_token={token}"}
        self.assertEqual(world.ask({"match": "a"}, first).status, 200)
        self.assertEqual(world.ask({"match": "a", "authorization": token}).status, 401)
        self.assertEqual(world.ask({"match": "a", "access_token": token}).status, 401)
        self.assertEqual(world.ask({"match": "a", "authorization": minted(iss=ISSUER)}).status, 200)

    def test_none_and_a_malformed_one(self) -> None:
        world = self.world()
        none = world.ask({"match": "a"})
        self.assertEqual(none.status, 401)
        challenge = f'Bearer realm="amqprouter", resource_metadata="{METADATA}"'
        self.assertEqual(none.headers["www-authenticate"], challenge)
        for header in ("Bearer", "Bearer ", "Basic YWxpY2U6d29uZGVy", "nonsense", ""):
            answer = world.ask({"match": "a"}, {"Authorization": header})
            self.assertEqual(answer.status, 400, header)
            self.assertIn('error="invalid_request"', answer.headers["www-authenticate"])

    def test_bad_details_make_a_bad_token(self) -> None:
        world = self.world()
        good = detail("a")
        for bad in (
            detail("a", actions=[]),
            detail("a", actions="subscribe"),
            detail("a", actions=["subscribe", 1]),
            detail(),
            {**good, "topics": {}},
            {**good, "topics": ["a"]},
            {**good, "topics": [None]},
            detail({}),
            detail({"match": 1}),
            detail({"match": "a", "match_type": None}),
            detail({"match": "a", "match_type": "Exact"}),
            detail({"match": "*", "match_type": "urltemplate"}),
            detail(("urlpattern", "https://example.com/(")),
            detail("a\n"),
            detail("x" * 1025),
            detail("a", payload="text"),
            detail("a", payload=None),
            {key: value for key, value in good.items() if key != "topics"},
            {key: value for key, value in good.items() if key != "actions"},
            detail(*("a" for _ in range(MAX_MATCHERS))),
        ):
            answer = world.ask({"match": "a"}, bearer(access_token(good, bad)))
            self.assertEqual(answer.status, 401, bad)
            self.assertIn('error="invalid_token"', answer.headers["www-authenticate"])
        lists: tuple[Any, ...] = ({}, "text", [1], [good] * (MAX_DETAILS + 1))
        for details in lists:
            self.assertEqual(world.ask({"match": "a"}, bearer(access_token(authorization_details=details))).status, 401)

    def test_what_is_not_known_grants_nothing(self) -> None:
        world = self.world()
        others: tuple[dict[str, Any], ...] = (
            {"type": "https://mercure.rocks/Authorization-Detail", "topics": "anything"},
            {"type": "payment_initiation", "actions": 1},
            {},
            detail("b", actions=["delete"]),
            detail("c", actions=["Subscribe"]),
            detail("d", actions=["delete", "subscribe"]),
        )
        stream = self.follow(world, {"match": "*"}, access_token(*others))
        for topic in "abcd":
            world.tell(topic, data=topic.encode(), private=True)
        world.tell("a", data=b"public")
        self.assertEqual(self.got(stream), ["d", "public"])

    def test_it_is_a_login_for_events_too(self) -> None:
        world = self.world()
        world.visible = {("ann", "dev1.up")}
        connection = world.connect()
        connection.get("/events", bearer(access_token(sub="ann")))
        connection.take()
        world.tell("dev1.up", data=b"1", private=True)
        self.assertEqual(self.got(connection), ["1"])
        self.assertEqual(world.get("/events", bearer(access_token(aud="https://other.example"))).status, 401)

    def test_the_stream_ends_with_it(self) -> None:
        world = self.world()
        stream = self.follow(world, {"match": "*"}, access_token(exp=NOW + 10))
        world.clock.advance(10)
        self.assertTrue(stream.take().endswith(b"0\r\n\r\n"))

    def test_what_it_lets_see(self) -> None:
        """One topic of the update is enough; what is asked for does not widen it."""
        world = self.world()
        mine = ("urlpattern", "https://example.com/users/42/*")
        stream = self.follow(world, {"match_urlpattern": BOOKS[1]}, access_token(detail(mine), detail("a")))
        world.tell(BOOK, "https://example.com/users/42/books/1", data=b"mine", private=True)
        world.tell(BOOK, "https://example.com/users/43/books/1", data=b"not mine", private=True)
        world.tell("https://example.com/users/42/books/1", data=b"not asked for", private=True)
        world.tell(BOOK, data=b"public")
        self.assertEqual(self.got(stream), ["mine", "public"])

    def test_what_resumes_is_held_to_it_too(self) -> None:
        world = self.world()
        for number in range(3):
            world.tell(BOOK, data=b"%d" % number, private=number == 1)
        for token, got in ((access_token(detail(BOOKS)), ["0", "1", "2"]), (access_token(), ["0", "2"])):
            connection = world.connect()
            connection.get(f"{PATH}?match_urlpattern={quote(BOOKS[1])}&last_event_id=earliest", bearer(token))
            found = [line[6:] for line in connection.take().decode().splitlines() if line.startswith("data: ")]
            self.assertEqual([each for each in found if len(each) == 1], got)

    def test_metadata(self) -> None:
        world = self.world(subscriptions=True, authorization_servers=("https://login.example",))
        answer = world.get(METADATA.removeprefix("https://gateway.example"))
        self.assertEqual((answer.status, answer.headers["content-type"]), (200, "application/json"))
        self.assertEqual(
            answer.json(),
            {
                "resource": HUB_URL,
                "authorization_servers": ["https://login.example"],
                "bearer_methods_supported": ["header"],
                "authorization_details_types_supported": ["https://mercure.rocks/authorization-detail"],
                "mercure_cookie": "__Secure-mercure_access_token",
                "mercure_matcher_types_supported": ["exact", "urlpattern"],
                "mercure_subscriptions": True,
            },
        )
        plain = self.world().get(METADATA.removeprefix("https://gateway.example")).json()
        self.assertFalse({"authorization_servers", "mercure_subscriptions"} & set(plain))
        without = self.hub_of_0_x().get(METADATA.removeprefix("https://gateway.example"))
        self.assertEqual(without.status, 404)


class PublishTests(Version1TestCase):
    def test_every_topic_must_be_granted(self) -> None:
        world = self.world()
        some = access_token(detail("a", actions=["publish"]), detail(BOOKS, actions=["publish", "subscribe"]))
        for topics, status in ((["a"], 200), (["a", BOOK], 200), (["b"], 403), (["a", "b"], 403)):
            for private in ({}, {"private": ""}):
                answer = world.post({"topic": topics, **private}, some)
                self.assertEqual(answer.status, status, topics)
                challenge = f'Bearer realm="amqprouter", error="insufficient_scope", resource_metadata="{METADATA}"'
                self.assertEqual(answer.headers.get("www-authenticate"), challenge if status == 403 else None)
        self.assertEqual(world.post({"topic": "a"}, access_token()).status, 403)
        self.assertEqual(world.post({"topic": "a"}).status, 401)

    def test_forms(self) -> None:
        world = self.world(max_topics=3, max_update_bytes=4096)
        token = access_token(EVERYTHING)
        for fields, status in (
            ({"topic": "a", "data": "x", "future": "y", "target": "z"}, 200),
            ({"topic": "a", "id": "urn:é", "type": "é"}, 200),
            ({}, 400),
            ({"topic": ["a", "*"]}, 400),
            *(({"topic": f"a{bad}b"}, 400) for bad in "\0\n\x85\u200b\u202e"),
            *(({"topic": "a", "id": f"a{bad}b"}, 400) for bad in "\0\n\x85\u200b"),
            *(({"topic": "a", "type": f"a{bad}b"}, 400) for bad in "\0\n\x85\u200b"),
            ({"topic": "a", "id": "#1"}, 400),
            ({"topic": "a", "id": "earliest"}, 400),
            ({"topic": "a", "type": "mercure"}, 400),
            *(({"topic": "a", "retry": bad}, 400) for bad in ("1.5", "-1", "+1", "٣", "1 ")),
            (b"topic=a&data=%FF", 400),
            ({"topic": ["a", "b", "c", "d"]}, 413),
            ({"topic": "x" * 1025}, 413),
            ({"topic": "a", "id": "x" * 256}, 413),
            (b"x=1&" * 40, 413),
            ({"topic": "a", "data": "x" * 5000}, 413),
        ):
            self.assertEqual(world.post(fields, token).status, status, fields)

    def test_reserved_topics(self) -> None:
        """However they are written; 400 to publishers of 1.0, and 403 as ever to those of 0.x."""
        world = self.world()
        new, old = access_token(EVERYTHING), minted(publish=["*"], iss=ISSUER)
        for topic in (
            PATH,
            f"{PATH}/a",
            f"{HUB_URL}/subscriptions/exact/a/b",
            f"https://elsewhere.example{PATH}/a",
            f"urn:{PATH}",
            "/.well-known/%6Dercure/a",
            "/.well-known/mercure/../mercure/a",
            "/x/../.well-known/mercure",
            "/%2ewell-known/mercure",
            "https:\\\\gateway.example\\.well-known\\mercure\\a",
            "mercure/subscriptions",
            " mercure ",
        ):
            self.assertEqual(world.post({"topic": ["a", topic]}, new).status, 400, topic)
            self.assertEqual(world.post({"topic": topic}, old).status, 403, topic)
        for topic in (f"{PATH}x", "/.well-known/mercure%2Fa", f"https://example.com/?q={PATH}/a", f"a#{PATH}"):
            self.assertEqual(world.post({"topic": topic}, new).status, 200, topic)
        self.assertEqual(world.post({"topic": f"https://[bad{PATH}"}, new).status, 200)

    def test_publishers_of_0_x_cannot_pass_for_the_hub(self) -> None:
        world = self.world()
        self.assertEqual(world.post({"topic": "a", "type": "mercure"}, minted(publish=["*"], iss=ISSUER)).status, 400)
        alone = self.hub_of_0_x()
        self.assertEqual(alone.post({"topic": "a", "type": "mercure"}, minted(publish=["*"])).status, 200)

    def test_with_a_cookie_it_must_come_from_a_page_that_may(self) -> None:
        world = self.world()
        cookie = {"Cookie": f"__Secure-mercure_access_token={access_token(EVERYTHING)}"}
        for headers, status in (
            ({}, 403),
            ({"Origin": "https://evil.example"}, 403),
            ({"Origin": ORIGIN}, 200),
            ({"Referer": f"{ORIGIN}/page"}, 200),
        ):
            self.assertEqual(world.post({"topic": "a"}, headers={**cookie, **headers}).status, status, headers)


class SubscriptionTests(Version1TestCase):
    def setUp(self) -> None:
        self.hub_world = self.world(subscriptions=True, anonymous=True)
        everywhere = ("urlpattern", f"{SUBSCRIPTIONS}*")
        self.watcher = access_token(detail(everywhere))

    def listed(self, path: str = SUBSCRIPTIONS, token: str = "") -> Response:
        connection = self.hub_world.connect()
        connection.get(path, bearer(token or self.watcher))
        self.hub_world.clock.pump([0] * 10)
        return Response(connection.take())

    def test_each_matcher_is_told_of(self) -> None:
        world = self.hub_world
        payloads = access_token(
            detail("https://example.com/foo", payload={"n": 1}),
            detail("https://example.com/silent"),
            detail(BOOKS, payload={"n": 2}),
            detail("*", payload={"n": 3}),
        )
        query = {"match": ["https://example.com/foo", "x", "https://example.com/silent"], "match_urlpattern": BOOKS[1]}
        stream = self.follow(world, query, payloads)
        told = [(event.topics, event.private, event.type, json.loads(event.data)) for event in world.announced]
        subscriber = told[0][3]["subscriber"]
        self.assertRegex(subscriber, "^urn:uuid:[0-9a-f-]{36}$")
        match = "https://example.com/foo"
        path = f"{SUBSCRIPTIONS}/exact/{quote(match, safe='')}/{quote(subscriber, safe='')}"
        document = {
            "id": path,
            "type": "subscription",
            "match_type": "exact",
            "match": match,
            "subscriber": subscriber,
            "active": True,
            "payload": {"n": 1},
        }
        self.assertEqual(told[0], ((path,), True, "mercure", document))
        self.assertEqual([each[3].get("payload", {}).get("n") for each in told], [1, 3, None, 2])
        self.assertIn(quote(BOOKS[1], safe=""), told[3][0][0])
        self.assertEqual(self.listed(path).json(), document)
        world.announced.clear()
        stream.lose()
        self.assertEqual([json.loads(event.data)["active"] for event in world.announced], [False] * 4)
        self.assertEqual(self.listed(path).status, 404)

    def test_they_come_to_those_whose_matchers_match(self) -> None:
        world = self.hub_world
        watching = self.follow(world, {"match_urlpattern": f"{SUBSCRIPTIONS}/exact/*"}, self.watcher)
        nosy = self.follow(world, {"match": "*"}, access_token(detail("a")))
        world.announced.clear()
        self.follow(world, {"match": "a"})
        [event] = world.announced
        world.tell(*event.topics, data=event.data, private=event.private, type=event.type)
        self.assertIn(b"\nevent: mercure\n", watching.take())
        self.assertNotIn(b"event: mercure", nosy.take())

    def test_lists(self) -> None:
        world = self.hub_world
        self.follow(world, {"match": ["a", "b"], "topic": "a"})
        self.follow(world, {"match_exact": "a", "match_urlpattern": "a"})
        everything = self.listed()
        self.assertEqual((everything.status, everything.headers["content-type"]), (200, "application/json"))
        found = everything.json()
        self.assertEqual((found["id"], found["type"]), (SUBSCRIPTIONS, "subscriptions"))
        kinds = [(each["match_type"], each["match"]) for each in found["subscriptions"]]
        self.assertEqual(kinds, [("exact", "a"), ("exact", "b"), ("exact", "a"), ("urlpattern", "a")])
        some = self.listed(f"{SUBSCRIPTIONS}/exact/a").json()
        self.assertEqual((some["id"], len(some["subscriptions"])), (f"{SUBSCRIPTIONS}/exact/a", 2))
        self.assertEqual(self.listed(f"{SUBSCRIPTIONS}/exact/c").json()["subscriptions"], [])
        for path, status in (("/exact", 404), ("/exact/a/nobody", 404), ("/exact/a/b/c", 404), ("/exact//a", 404)):
            self.assertEqual(self.listed(SUBSCRIPTIONS + path).status, status)

    def test_the_cursor_is_in_the_link(self) -> None:
        world = self.hub_world
        attributes = 'type="mercure"; content-type="application/json"'
        link = f'<{HUB_URL}>; rel="mercure"; last-event-id="earliest"; {attributes}'
        self.assertEqual(self.listed().headers["link"], link)
        world.tell("a", id="urn:secret", private=True)
        self.assertIn('last-event-id="0"', self.listed(f"{SUBSCRIPTIONS}/exact/a").headers["link"])
        self.follow(world, {"match": "a"})
        single = json.loads(world.announced[-1].data)["id"]
        self.assertIn('last-event-id="0"', self.listed(single).headers["link"])

    def test_each_version_has_its_own(self) -> None:
        world = self.hub_world
        self.follow(world, {"match": "new", "topic": "old"})
        old = minted([SUBSCRIPTIONS, SUBSCRIPTIONS + "{/topic}{/subscriber}"], iss=ISSUER)
        answer = self.listed(token=old)
        self.assertEqual(answer.headers["content-type"], "application/ld+json")
        self.assertEqual([each["topic"] for each in answer.json()["subscriptions"]], ["old"])
        self.assertEqual([each["match"] for each in self.listed().json()["subscriptions"]], ["new"])
        told = [(event.type, json.loads(event.data).get("@context")) for event in world.announced]
        self.assertEqual(sorted(told, key=str), [("", "https://mercure.rocks/"), ("mercure", None)])

    def test_who_may_see_them(self) -> None:
        for topics, path, status in (
            ([SUBSCRIPTIONS], "", 200),
            ([SUBSCRIPTIONS], "/exact/a", 403),
            ([f"{SUBSCRIPTIONS}/exact/a"], "/exact/a", 200),
            ([("urlpattern", f"{SUBSCRIPTIONS}/:type/:match")], "/exact/a", 200),
            ([("urlpattern", f"{HUB_URL}/subscriptions/exact/:match")], "/exact/a?x=y", 200),
            (["*"], "/exact/a", 200),
            (["a"], "", 403),
        ):
            answer = self.listed(SUBSCRIPTIONS + path, access_token(detail(*topics)))
            self.assertEqual(answer.status, status, (topics, path))
            self.assertEqual("insufficient_scope" in answer.headers.get("www-authenticate", ""), status == 403)
        publisher = access_token(detail("*", actions=["publish"]))
        self.assertEqual(self.listed(token=publisher).status, 403)
        self.assertEqual(self.hub_world.ask(path=SUBSCRIPTIONS).status, 401)

    def test_scripts_of_other_sites_can_read_the_link(self) -> None:
        answer = self.hub_world.ask(path=SUBSCRIPTIONS, headers={"Origin": ORIGIN})
        self.assertEqual(answer.headers["access-control-expose-headers"], "Link")


class KeyTests(Version1TestCase):
    def test_keys_are_of_their_file(self) -> None:
        """Whatever else a token's header says."""
        world = self.world()
        world.write_keys(jwk("HS256", 1))
        world.reload()
        self.assertEqual(world.ask({"match": "a"}, bearer(access_token(number=1))).status, 200)
        self.assertEqual(world.ask({"match": "a"}, bearer(access_token(number=0))).status, 401)
