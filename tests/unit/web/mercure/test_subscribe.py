"""Subscribing by the Mercure protocol: who may, what they get, and when it ends."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from amqprouter.identity import Identity
from amqprouter.web.mercure.resource import KNOWN_WITHIN
from tests.support.tokens import jwk
from tests.unit.web.harness import ALICE, Connection, Response, unchunk
from tests.unit.web.mercure.harness import NOW, ORIGIN, PATH, MercureWorld, bearer, data_in, minted

TOPIC = "https://plant.example/boilers/1"


class MercureTestCase(SynchronousTestCase):
    def world(self, **options: object) -> MercureWorld:
        return MercureWorld(self.mktemp(), **options)

    def got(self, connection: Connection) -> list[str]:
        """The data of the events that came since the last look."""
        return data_in(connection.take())


class RequestTests(MercureTestCase):
    def test_what_is_asked_for(self) -> None:
        world = self.world(anonymous=True, max_topics=2)
        for query, status in (
            ({}, 400),
            ({"topic": ""}, 400),
            ({"topic": "x" * 1025}, 400),
            ({"topic": ["a", "b", "c"]}, 400),
            ({"topic": b"\xff"}, 400),
            ({"topic": ["a", "*"]}, 200),
            ({"topic": "{half"}, 200),
        ):
            self.assertEqual(world.ask(query).status, status, query)

    def test_other_methods(self) -> None:
        world = self.world(anonymous=True)
        self.assertEqual(world.ask({"topic": "a"}, method="HEAD").status, 200)
        self.assertEqual(len(world.hub.subscribers), 0)
        refused = world.ask({"topic": "a"}, method="DELETE")
        self.assertEqual((refused.status, refused.headers["allow"]), (405, "GET, HEAD, POST, OPTIONS"))

    def test_the_response(self) -> None:
        world = self.world(anonymous=True)
        world.follow(["a"])
        headers = world.response.headers
        self.assertEqual(headers["content-type"], "text/event-stream; charset=utf-8")
        self.assertEqual(headers["cache-control"], "private, no-cache, no-store, must-revalidate, max-age=0")
        self.assertEqual(headers["x-accel-buffering"], "no")
        self.assertEqual(headers["link"], '</.well-known/mercure>; rel="mercure"')
        self.assertNotIn("last-event-id", headers)

    def test_too_many(self) -> None:
        world = self.world(anonymous=True)
        world.hub.close()
        self.assertEqual(world.ask({"topic": "a"}).status, 503)

    def test_our_page_tells_of_it(self) -> None:
        world = self.world(anonymous=True)
        self.assertEqual(world.get("/", ALICE).headers["link"], '</.well-known/mercure>; rel="mercure"')

    def test_cors(self) -> None:
        world = self.world(anonymous=True)
        allowed = world.ask({"topic": "a"}, {"Origin": ORIGIN})
        self.assertEqual(allowed.headers["access-control-allow-origin"], ORIGIN)
        self.assertEqual(allowed.headers["access-control-allow-credentials"], "true")
        self.assertIn("Last-Event-ID", allowed.headers["access-control-expose-headers"])
        other = world.ask({"topic": "a"}, {"Origin": ORIGIN + ".evil.example"})
        self.assertNotIn("access-control-allow-origin", other.headers)
        preflight = world.ask(method="OPTIONS", headers={"Origin": ORIGIN})
        self.assertEqual(preflight.status, 204)
        self.assertEqual(preflight.headers["access-control-allow-methods"], "GET, HEAD, POST, OPTIONS")
        for header in ("authorization", "cache-control", "last-event-id"):
            self.assertIn(header, preflight.headers["access-control-allow-headers"])


class TokenTests(MercureTestCase):
    def test_where_it_may_be(self) -> None:
        world = self.world()
        good = minted(["*"])
        self.assertEqual(world.ask({"topic": "a"}, bearer(good)).status, 200)
        self.assertEqual(world.ask({"topic": "a"}, {"Authorization": f"bearer {good}"}).status, 200)
        self.assertEqual(world.ask({"topic": "a", "authorization": good}).status, 200)
        self.assertEqual(world.ask({"topic": "a"}, {"Cookie": f"x=y; mercureAuthorization={good}"}).status, 200)
        self.assertEqual(world.ask({"topic": "a"}).status, 401)

    def test_the_first_place_counts_even_if_it_is_bad_there(self) -> None:
        world = self.world(anonymous=True)
        good = minted(["*"])
        for header in ("Bearer", "Bearer x.y.z", "Basic YWxpY2U6d29uZGVy", ""):
            query, cookie = {"topic": "a", "authorization": good}, f"mercureAuthorization={good}"
            self.assertEqual(world.ask(query, {"Authorization": header, "Cookie": cookie}).status, 401, header)
        self.assertEqual(
            world.ask({"topic": "a", "authorization": "bad"}, {"Cookie": f"mercureAuthorization={good}"}).status, 401
        )
        self.assertEqual(world.ask({"topic": "a", "authorization": [good, good]}).status, 401)

    def test_one_answer_for_all_that_is_wrong(self) -> None:
        """And another one for none, in which nothing is called wrong (RFC 6750, section 3.1)."""
        world = self.world()
        world.write_keys(jwk("HS256", 0), jwk("HS256", 1))
        answers = {
            (response.status, response.body, response.headers["www-authenticate"])
            for response in (
                world.ask({"topic": "a"}, bearer("nonsense")),
                world.ask({"topic": "a"}, bearer(minted(["*"], exp=NOW))),
                world.ask({"topic": "a"}, bearer(minted(["*"], exp=None))),
                world.ask({"topic": "a"}, bearer(minted(["*"], number=7))),
                world.ask({"topic": "a"}, bearer(minted(["*"])[:-2] + "AA")),
                world.ask({"topic": "a"}, bearer(minted(["*"], aud="somebody else"))),
                world.ask({"topic": "a"}, bearer(minted(mercure="*"))),
                world.ask({"topic": "a"}, bearer(minted(mercure={"subscribe": "*"}))),
                world.ask({"topic": "a"}, bearer(minted(mercure={"subscribe": [1]}))),
            )
        }
        [(status, _, challenge)] = answers
        self.assertEqual((status, challenge), (401, 'Bearer realm="amqprouter", error="invalid_token"'))
        none = world.ask({"topic": "a"})
        self.assertEqual((none.status, none.headers["www-authenticate"]), (401, 'Bearer realm="amqprouter"'))

    def test_another_cookie_and_tokens_that_never_expire(self) -> None:
        world = self.world(cookie_name="ours", require_expiry=False)
        self.assertEqual(world.ask({"topic": "a"}, {"Cookie": f"ours={minted(['*'], exp=None)}"}).status, 200)
        self.assertEqual(world.ask({"topic": "a"}, {"Cookie": f"mercureAuthorization={minted(['*'])}"}).status, 401)

    def test_without_keys_no_token_is_good(self) -> None:
        world = self.world(subscriber_keys="", anonymous=True)
        self.assertEqual(world.ask({"topic": "a"}, bearer(minted(["*"]))).status, 401)
        self.assertEqual(world.ask({"topic": "a"}).status, 200)


class DeliveryTests(MercureTestCase):
    def test_anonymous_subscribers_get_public_updates(self) -> None:
        world = self.world(anonymous=True)
        stream = world.follow([TOPIC])
        world.tell(TOPIC, data=b"public")
        world.tell(TOPIC, data=b"private", private=True)
        world.tell("other", data=b"other")
        self.assertEqual(self.got(stream), ["public"])

    def test_a_token_without_selectors_sees_public_updates(self) -> None:
        world = self.world()
        streams = [world.follow(["*"], minted(None)), world.follow(["*"], minted([], mercure=None))]
        world.tell(TOPIC, data=b"public")
        world.tell(TOPIC, data=b"private", private=True)
        self.assertEqual([self.got(stream) for stream in streams], [["public"]] * 2)

    def test_selectors_of_request_and_token(self) -> None:
        world = self.world()
        stream = world.follow(["https://plant.example/{kind}/{id}"], minted(["https://plant.example/boilers/{id}"]))
        world.tell(TOPIC, data=b"1", private=True)
        world.tell("https://plant.example/doors/1", data=b"2", private=True)
        world.tell("https://plant.example/doors/1", data=b"3")
        world.tell("https://other.example/boilers/1", data=b"4")
        self.assertEqual(self.got(stream), ["1", "3"])

    def test_alternate_topics_count_for_both(self) -> None:
        world = self.world()
        stream = world.follow(["canonical"], minted(["users/7"]))
        world.tell("canonical", "users/7", data=b"mine", private=True)
        world.tell("canonical", "users/8", data=b"not mine", private=True)
        world.tell("x", "canonical", "users/7", data=b"both", private=True)
        self.assertEqual(self.got(stream), ["mine", "both"])

    def test_the_namespaced_claim_overrides(self) -> None:
        world = self.world()
        claims: dict[str, Any] = {"https://mercure.rocks/": {"subscribe": ["a"]}}
        stream = world.follow(["*"], minted(["b"], **claims))
        world.tell("a", data=b"a", private=True)
        world.tell("b", data=b"b", private=True)
        self.assertEqual(self.got(stream), ["a"])

    def test_the_acl_grants_as_well_by_the_subject(self) -> None:
        world = self.world()
        world.visible = {("ann", "boiler-1.up")}
        ann, bob = (world.follow(["*"], minted(["a"], sub=name)) for name in ("ann", "bob"))
        world.tell("boiler-1.up", data=b"device", private=True)
        world.tell("a", data=b"a", private=True)
        self.assertEqual([self.got(ann), self.got(bob)], [["device", "a"], ["a"]])
        world.visible = {("bob", "boiler-1.up")}
        world.reload()
        world.tell("boiler-1.up", data=b"device", private=True)
        self.assertEqual([self.got(ann), self.got(bob)], [[], ["device"]])

    def test_groups_and_tenant_reach_the_acl(self) -> None:
        world = self.world(groups_claim="roles", tenant_claim="org")
        asked = []

        def allows(user: Identity, key: str) -> bool:
            asked.append(user)
            return False

        world.allows = allows
        world.follow(["*"], minted(sub="ann", roles=["staff", 3], org="acme"))
        world.follow(["*"], minted(sub="bob", roles="staff", org=["acme"]))
        world.follow(["*"], minted(sub=["ann"]))
        world.tell("a", private=True)
        told = sorted((user.name, user.groups, user.tenant) for user in asked)
        self.assertEqual(told, [("ann", ("staff",), "acme"), ("bob", ("staff",), "")])

    def test_without_a_user_claim_the_acl_is_not_asked(self) -> None:
        world = self.world(user_claim="")
        world.visible = {("ann", "boiler-1.up")}
        stream = world.follow(["*"], minted(sub="ann"))
        world.tell("boiler-1.up", private=True)
        self.assertEqual(self.got(stream), [])

    def test_the_fields_of_an_event(self) -> None:
        world = self.world(anonymous=True)
        stream = world.follow(["a"])
        world.tell("a", data=b"one\r\ntwo\rthree\n", type="alarm", retry=1500, id="urn:x:1")
        self.assertEqual(
            unchunk(stream.take()),
            b"id: urn:x:1\nevent: alarm\nretry: 1500\ndata: one\ndata: two\ndata: three\ndata: \n\n",
        )


class ResumeTests(MercureTestCase):
    def test_by_header_before_query(self) -> None:
        world = self.world(anonymous=True)
        for number in range(3):
            world.tell("a", data=b"%d" % number, id=f"id-{number}")
        answer = world.ask({"topic": "a", "lastEventID": "id-0"}, {"Last-Event-ID": "id-1"})
        self.assertEqual((answer.headers["last-event-id"], data_in(answer.body)), ("id-1", ["2"]))
        answer = world.ask({"topic": "a", "lastEventID": "id-0"})
        self.assertEqual((answer.headers["last-event-id"], data_in(answer.body)), ("id-0", ["1", "2"]))

    def test_by_offset(self) -> None:
        world = self.world(anonymous=True)
        world.tell("a", data=b"0")
        world.tell("a", data=b"1")
        answer = world.ask({"topic": "a", "lastEventID": "0"})
        self.assertEqual((answer.headers["last-event-id"], data_in(answer.body)), ("0", ["1"]))

    def test_earliest(self) -> None:
        world = self.world(anonymous=True)
        answer = world.ask({"topic": "a", "lastEventID": "earliest"})
        self.assertEqual((answer.headers["last-event-id"], data_in(answer.body)), ("earliest", []))
        world.tell("a", data=b"0")
        world.tell("a", data=b"secret", private=True)
        answer = world.ask({"topic": "a", "lastEventID": "earliest"})
        self.assertEqual((answer.headers["last-event-id"], data_in(answer.body)), ("earliest", ["0"]))

    def test_an_unknown_id(self) -> None:
        world = self.world(anonymous=True)
        world.tell("a", data=b"0", id="known")
        answer = world.ask({"topic": "a", "lastEventID": "unknown\r\nSet-Cookie: x=y"})
        self.assertEqual(answer.headers["last-event-id"], "earliest")
        self.assertNotIn("set-cookie", answer.headers)
        self.assertIn(b"event: gap\n", answer.body)

    def test_the_answer_waits_until_it_is_known_whether_anything_is_missing(self) -> None:
        """A gateway that has just started does not know the ids yet."""
        world = self.world(anonymous=True)
        world.hub.fell_behind()
        ask = f"GET {PATH}?topic=a HTTP/1.1\r\nHost: test\r\nLast-Event-ID: {{}}\r\n\r\n"
        known, unknown, impatient, leaving = (world.connect() for _ in range(4))
        for connection, last in ((known, "known"), (unknown, "unknown"), (leaving, "known")):
            connection.send(ask.format(last).encode())
        world.clock.advance(1)
        impatient.send(ask.format("known").encode())
        world.tell("a", data=b"0", id="known")
        world.tell("a", data=b"1")
        world.clock.advance(KNOWN_WITHIN - 2)
        leaving.lose()
        self.assertEqual([each.take() for each in (known, unknown, impatient)], [b"", b"", b""])
        self.assertEqual(len(world.hub.subscribers), 3)
        world.hub.caught_up(1)
        answers = [Response(each.take()) for each in (known, unknown, impatient)]
        self.assertEqual([each.headers["last-event-id"] for each in answers], ["known", "earliest", "known"])
        self.assertEqual([data_in(answers[place].body) for place in (0, 2)], [["1"], ["1"]])
        self.assertIn(b"event: gap\n", answers[1].body)

    def test_the_answer_does_not_wait_for_ever(self) -> None:
        world = self.world(anonymous=True)
        world.hub.fell_behind()
        connection = world.connect()
        connection.send(f"GET {PATH}?topic=a HTTP/1.1\r\nHost: test\r\nLast-Event-ID: x\r\n\r\n".encode())
        world.clock.advance(KNOWN_WITHIN)
        answer = Response(connection.take())
        self.assertEqual((answer.status, answer.headers["last-event-id"], data_in(answer.body)), (200, "earliest", []))
        world.tell("a", data=b"0", id="x")
        world.tell("a", data=b"1")
        world.hub.caught_up(1)
        self.assertEqual(data_in(unchunk(connection.take())), ["1"])

    def test_an_id_ahead_is_not_echoed(self) -> None:
        world = self.world(anonymous=True)
        world.tell("a", data=b"0")
        connection = world.connect()
        connection.send(f"GET {PATH}?topic=a HTTP/1.1\r\nHost: test\r\nLast-Event-ID: 500\r\n\r\n".encode())
        world.clock.pump([0.1] * 19)
        self.assertEqual(connection.take(), b"")
        world.clock.pump([0.1] * 2)
        answer = Response(connection.take())
        self.assertEqual(answer.headers["last-event-id"], "earliest")
        self.assertIn(b"id: 0\nevent: gap\n", answer.body)

    def test_the_hub_stops_while_an_answer_waits(self) -> None:
        world = self.world(anonymous=True)
        world.hub.fell_behind()
        connection = world.connect()
        connection.send(f"GET {PATH}?topic=a HTTP/1.1\r\nHost: test\r\nLast-Event-ID: x\r\n\r\n".encode())
        world.hub.close()
        self.assertEqual(Response(connection.take()).status, 503)

    def test_ids_of_private_updates_cannot_be_found_out(self) -> None:
        world = self.world()
        world.tell("a", id="secret", private=True)
        tried = {"topic": "a", "lastEventID": "secret"}
        self.assertEqual(world.ask(tried, bearer(minted(["b"]))).headers["last-event-id"], "earliest")
        self.assertNotIn(b"secret", world.ask(tried, bearer(minted(["b"]))).body)
        self.assertEqual(world.ask(tried, bearer(minted(["a"]))).headers["last-event-id"], "secret")

    def test_an_id_that_cannot_be_guessed_is_good_for_whoever_has_it(self) -> None:
        """A page's publisher tells the latest that it has made, for whomever that update was (Mercure, "Discovery")."""
        world = self.world()
        told = world.post({"topic": "a", "data": "0", "private": "on"}, minted(publish=["*"])).body.decode()
        world.tell("b", data=b"1")
        answer = world.ask({"topic": ["a", "b"], "lastEventID": told}, bearer(minted(["b"])))
        self.assertEqual((answer.headers["last-event-id"], data_in(answer.body)), (told, ["1"]))

    def test_permissions_hold_for_history(self) -> None:
        world = self.world()
        world.tell("a", data=b"0", id="first")
        world.tell("b", data=b"1", private=True)
        answer = world.ask({"topic": "*", "lastEventID": "first"}, bearer(minted(["a"])))
        self.assertEqual(data_in(answer.body), [])


class EndTests(MercureTestCase):
    def test_a_stream_ends_as_its_token_expires(self) -> None:
        world = self.world()
        stream = world.follow(["*"], minted(["*"], exp=NOW + 100))
        world.clock.advance(79)
        self.assertEqual(len(world.hub.subscribers), 1)
        world.clock.advance(21)
        self.assertEqual(len(world.hub.subscribers), 0)
        self.assertTrue(stream.take().endswith(b"0\r\n\r\n"))
        self.assertEqual(world.ask({"topic": "a"}, bearer(minted(["*"], exp=NOW + 100))).status, 401)

    def test_a_clock_that_is_ahead(self) -> None:
        world = self.world()
        for ahead, status in ((29, 200), (31, 401)):
            self.assertEqual(world.ask({"topic": "a"}, bearer(minted(["*"], iat=NOW + ahead))).status, status)

    def test_a_long_life_is_not_cut_short_by_much(self) -> None:
        world = self.world()
        for _ in range(20):
            world.follow(["*"], minted(["*"], exp=NOW + 86_400))
        world.clock.advance(86_400 - 31)
        self.assertEqual(len(world.hub.subscribers), 20)
        world.clock.advance(16)
        self.assertIn(len(world.hub.subscribers), range(1, 20))
        world.clock.advance(16)
        self.assertEqual(len(world.hub.subscribers), 0)

    def test_a_stream_ends_when_its_key_is_taken_away(self) -> None:
        world = self.world()
        world.write_keys(jwk("HS256", 0), jwk("HS256", 1))
        world.reload()
        for number in (0, 1, 0):
            world.follow(["*"], minted(["*"], number=number))
        world.write_keys(jwk("HS256", 1))
        world.reload()
        self.assertEqual(len(world.hub.subscribers), 1)

    def test_many_are_verified_again_over_several_turns(self) -> None:
        world = self.world()
        for _ in range(50):
            world.follow(["*"], minted(["*"]))
        world.write_keys(jwk("HS256", 1))
        for part in world.mercure.reloadable:
            part.reload()
        self.assertIn(len(world.hub.subscribers), range(1, 50))
        world.clock.advance(0)
        self.assertEqual(len(world.hub.subscribers), 0)

    def test_those_who_leave_leave_nothing(self) -> None:
        world = self.world()
        stream = world.follow(["*"], minted(["*"]))
        before = len(world.clock.getDelayedCalls())
        stream.lose()
        self.assertEqual(len(world.hub.subscribers), 0)
        self.assertLess(len(world.clock.getDelayedCalls()), before)
