"""Publishing by the Mercure protocol: forms good and bad, who may, and what the broker says to it."""

from __future__ import annotations

from typing import ClassVar

from twisted.internet.defer import Deferred

from amqprouter.errors import BrokerUnavailable
from amqprouter.events.receipts import MOST_EXPECTED
from amqprouter.web.channel import MAX_UNDER_WAY
from amqprouter.web.mercure.resource import CONFIRM_WITHIN, MAX_UNCONFIRMED
from amqprouter.web.preference import MOST_SECONDS
from tests.support.tokens import jwk
from tests.unit.web.harness import Response, World
from tests.unit.web.mercure.harness import ORIGIN, PATH, minted
from tests.unit.web.mercure.test_subscribe import MercureTestCase

EVERYTHING = minted(publish=["*"])


class PublishTests(MercureTestCase):
    def test_an_update_reaches_its_subscriber(self) -> None:
        world = self.world()
        stream = world.follow(["a"], minted(["a"]))
        answer = world.post({"topic": "a", "data": "hällo", "private": "on"}, EVERYTHING)
        self.assertEqual((answer.status, answer.headers["content-type"]), (200, "text/plain; charset=utf-8"))
        self.assertRegex(answer.body, b"^urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$")
        written = stream.take()
        self.assertIn(b"id: " + answer.body + b"\n", written)
        self.assertIn("data: hällo\n".encode(), written)

    def test_its_own_id_comes_back_and_resumes(self) -> None:
        world = self.world(anonymous=True)
        for number in range(3):
            fields = {"topic": "a", "data": number, "id": f"orders/{number}", "type": "order", "retry": "2000"}
            self.assertEqual(world.post(fields, EVERYTHING).body, b"orders/%d" % number)
        answer = world.ask({"topic": "a", "lastEventID": "orders/1"})
        self.assertEqual(answer.headers["last-event-id"], "orders/1")
        self.assertIn(b"id: orders/2\nevent: order\nretry: 2000\ndata: 2\n\n", answer.body)
        self.assertNotIn(b"data: 1\n", answer.body)

    def test_alternates_and_what_is_left_out(self) -> None:
        world = self.world()
        world.post({"topic": ["a", "b", "a"], "target": "old clients"}, EVERYTHING)
        [update] = world.published
        self.assertEqual((update.topics, update.data, update.private), (("a", "b"), b"", False))
        self.assertEqual((update.type, update.retry), ("", None))

    def test_bad_forms(self) -> None:
        world = self.world(max_topics=3)
        for fields in (
            b"",
            {"data": "no topic"},
            {"topic": ""},
            {"topic": "a\nb"},
            {"topic": "x" * 1025},
            {"topic": ["a", "b", "c", "d"]},
            b"topic=%FF",
            b"topic=\xff",
            b"topic=a&" * 40,
            {"topic": "a", "id": "#1"},
            {"topic": "a", "id": "2"},
            {"topic": "a", "id": "-1"},
            {"topic": "a", "id": "earliest"},
            {"topic": "a", "type": "gap"},
            {"topic": "a", "type": "place"},
            {"topic": ["a", "*"]},
            {"topic": "a", "id": "1\r\ndata: forged"},
            {"topic": "a", "id": "1\0"},
            {"topic": "a", "id": "x" * 256},
            {"topic": "a", "type": "x\ny"},
            {"topic": "a", "retry": "soon"},
            {"topic": "a", "retry": "-1"},
            {"topic": "a", "retry": "1.5"},
            {"topic": "a", "retry": "86400001"},
            {"topic": "a", "data": ["once", "twice"]},
        ):
            self.assertEqual(world.post(fields, EVERYTHING).status, 400, fields)
        self.assertEqual(world.published, [])

    def test_reserved_topics(self) -> None:
        world = self.world()
        for topic in ("/.well-known/mercure", "https://gateway.example/.well-known/mercure/subscriptions/a/b"):
            self.assertEqual(world.post({"topic": topic}, EVERYTHING).status, 403)
            self.assertEqual(world.post({"topic": ["a", topic]}, EVERYTHING).status, 403)

    def test_bodies(self) -> None:
        world = self.world(max_update_bytes=1024)
        answer = world.post({"topic": "a", "data": "x" * 1024}, EVERYTHING)
        self.assertEqual(answer.status, 413)
        answer = world.post({"topic": "a"}, EVERYTHING, {"Content-Type": "application/json"})
        self.assertEqual(answer.status, 415)
        answer = world.post({"topic": "a"}, EVERYTHING, {"Content-Length": "", "Transfer-Encoding": "chunked"})
        self.assertEqual(answer.status, 411)
        self.assertEqual(world.post({"topic": "a"}, EVERYTHING, path="/events").status, 405)
        typed = {"Content-Type": "Application/X-WWW-Form-Urlencoded; charset=utf-8"}
        self.assertEqual(world.post({"topic": "a"}, EVERYTHING, typed).status, 200)

    def test_large_bodies_stay_in_memory_and_are_bounded_together(self) -> None:
        world = self.world(max_update_bytes=1_048_576)
        self.assertEqual(world.post({"topic": "a", "data": "x" * 500_000}, EVERYTHING).status, 200)
        self.assertEqual(world.site.bodies_under_way, 0)
        begun = []
        for _ in range(MAX_UNDER_WAY // 1_000_000):
            begun.append(world.connect())
            begun[-1].send(world.form({}, headers={"Content-Length": "1000000"}))
        self.assertEqual(world.post({"topic": "a", "data": "x" * 1_000_000}, EVERYTHING).status, 503)
        begun[0].lose()
        self.assertEqual(world.post({"topic": "a", "data": "x" * 500_000}, EVERYTHING).status, 200)

    def test_without_mercure_there_is_nothing(self) -> None:
        world = World()
        self.assertEqual(world.get(PATH + "?topic=a").status, 404)
        self.assertEqual(world.get(PATH, method="POST").status, 404)


class PublisherTests(MercureTestCase):
    def test_every_topic_must_be_allowed(self) -> None:
        world = self.world()
        some = minted(["*"], publish=["a", "users/{id}"])
        for topics, status in ((["a"], 200), (["a", "users/7"], 200), (["b"], 403), (["a", "b"], 403)):
            for private in ({}, {"private": "on"}):
                self.assertEqual(world.post({"topic": topics, **private}, some).status, status, topics)

    def test_a_token_that_says_nothing_of_publishing(self) -> None:
        world = self.world()
        for bad in ("", "x", minted(["*"])[:-1]):
            self.assertEqual(world.post({"topic": "a"}, bad).status, 401)
        for powerless in (minted(["*"]), minted(publish=[]), minted(mercure=None)):
            self.assertEqual(world.post({"topic": "a"}, powerless).status, 403)

    def test_publishers_have_keys_of_their_own(self) -> None:
        world = self.world(subscriber_keys="", anonymous=True)
        self.assertEqual(world.post({"topic": "a"}, EVERYTHING).status, 200)
        self.assertEqual(self.world(publisher_keys="").post({"topic": "a"}, EVERYTHING).status, 401)
        world.write_keys(jwk("HS256", 1))
        world.reload()
        self.assertEqual(world.post({"topic": "a"}, EVERYTHING).status, 401)

    def test_a_cookie_needs_a_page_that_may(self) -> None:
        world = self.world()
        for headers, status in (
            ({}, 403),
            ({"Origin": ORIGIN}, 200),
            ({"Origin": "https://evil.example"}, 403),
            ({"Origin": "null"}, 403),
            ({"Origin": "https://evil.example", "Referer": f"{ORIGIN}/page"}, 403),
            ({"Referer": f"{ORIGIN}/page?x"}, 200),
            ({"Referer": f"{ORIGIN}.evil.example/"}, 403),
            ({"Referer": ORIGIN.replace("//", "//x@")}, 403),
            ({"Origin": "https://gateway.example"}, 200),
            ({"Referer": "http://gateway.example/login"}, 200),
        ):
            sent = {"Cookie": f"mercureAuthorization={EVERYTHING}", **headers}
            self.assertEqual(world.post({"topic": "a"}, headers=sent).status, status, headers)


class BrokerTests(MercureTestCase):
    def test_the_broker_is_away(self) -> None:
        world = self.world()
        world.failure = BrokerUnavailable("there is no connection to the broker")
        answer = world.post({"topic": "a"}, EVERYTHING)
        self.assertEqual((answer.status, answer.json()), (503, {"error": "the broker is away"}))
        self.assertIn("retry-after", answer.headers)

    def test_the_answer_waits_for_the_confirm(self) -> None:
        world = self.world()
        confirmed = world.confirmed = Deferred()
        connection = world.connect()
        connection.send(world.form({"topic": "a", "id": "id-1"}, EVERYTHING))
        self.assertEqual(connection.take(), b"")
        confirmed.callback(None)
        self.assertEqual(Response(connection.take()).body, b"id-1")

    def test_no_confirm(self) -> None:
        world = self.world()
        confirmed = world.confirmed = Deferred()
        connection = world.connect()
        connection.send(world.form({"topic": "a", "id": "id-1"}, EVERYTHING))
        world.clock.advance(CONFIRM_WITHIN)
        answer = Response(connection.take())
        self.assertEqual(answer.status, 503)
        self.assertIn("may still be published", answer.json()["error"])
        confirmed.callback(None)  # late, and nothing breaks

    def test_a_publisher_that_has_gone(self) -> None:
        world = self.world()
        confirmed = world.confirmed = Deferred()
        connection = world.connect()
        connection.send(world.form({"topic": "a", "id": "id-1"}, EVERYTHING))
        connection.lose()
        confirmed.callback(None)
        self.assertEqual(len(world.published), 1)

    def test_too_many_at_once(self) -> None:
        world = self.world()
        confirmed = world.confirmed = Deferred()
        for _ in range(MAX_UNCONFIRMED):
            world.connect().send(world.form({"topic": "a"}, EVERYTHING))
        self.assertEqual(world.post({"topic": "a"}, EVERYTHING).status, 503)
        confirmed.callback(None)
        self.assertEqual(world.post({"topic": "a"}, EVERYTHING).status, 200)


class SubscriptionCountTests(MercureTestCase):
    """``Prefer: wait=…``: the answer says how many subscriptions of this gateway were written to."""

    WAIT: ClassVar[dict[str, str]] = {"Prefer": "respond-async, wait=2"}

    def test_who_had_it_is_counted(self) -> None:
        world = self.world(anonymous=True)
        world.follow(["a"])
        world.follow(["a", "b"])
        gone = world.follow(["a"])
        world.follow(["c"])
        world.tell("a")  # they are remembered for this topic
        gone.lose()
        behind = world.follow(["a"])
        [*_, subscriber] = world.hub.subscribers
        behind.block()
        subscriber.cursor = world.hub.window.first  # as one that resumes
        for topics, count in ((["a"], b"2"), (["b", "c"], b"2"), (["d"], b"0")):
            answer = world.post({"topic": topics, "data": "x"}, EVERYTHING, self.WAIT)
            self.assertEqual((answer.status, answer.headers["amqprouter-subscriptions"].encode()), (200, count), topics)
            self.assertEqual(answer.headers["preference-applied"], "wait")
            self.assertRegex(answer.body, b"^urn:uuid:")
        self.assertEqual(len(world.hub.receipts), 0)

    def test_whom_it_is_not_for_is_not_counted(self) -> None:
        world = self.world()
        for name in ("a", "b"):
            world.follow(["*"], minted([name]))
        answer = world.post({"topic": "a", "data": "x", "private": "on"}, EVERYTHING, self.WAIT)
        self.assertEqual(answer.headers["amqprouter-subscriptions"], "1")

    def test_nobody_waits_who_did_not_ask(self) -> None:
        world = self.world()
        for headers in ({}, {"Prefer": "return=minimal"}, {"Prefer": "wait=x"}, {"Prefer": "wait=0"}):
            answer = world.post({"topic": "a"}, EVERYTHING, headers)
            self.assertEqual((answer.status, "amqprouter-subscriptions" in answer.headers), (200, False), headers)

    def test_it_waits_for_its_time_and_no_longer(self) -> None:
        """The update is in the stream, but does not come back: the gateway is cut off."""
        world = self.world()
        world.echo = False
        for asked, seconds in ((b"2", 2), (b"9999", MOST_SECONDS)):
            connection = world.connect()
            connection.send(world.form({"topic": "a"}, EVERYTHING, {"Prefer": f"wait={asked.decode()}"}))
            world.clock.advance(seconds - 0.1)
            self.assertEqual(connection.take(), b"")
            world.clock.advance(0.1)
            answer = Response(connection.take())
            self.assertEqual((answer.status, "amqprouter-subscriptions" in answer.headers), (200, False))
            self.assertEqual(len(world.hub.receipts), 0)

    def test_it_comes_back_after_the_confirm(self) -> None:
        world = self.world()
        world.echo = False
        connection = world.connect()
        connection.send(world.form({"topic": "a", "id": "x"}, EVERYTHING, self.WAIT))
        self.assertEqual(connection.take(), b"")
        world.tell("a", id="another")
        self.assertEqual(connection.take(), b"")
        world.tell("a", id="x")
        answer = Response(connection.take())
        self.assertEqual((answer.body, answer.headers["amqprouter-subscriptions"]), (b"x", "0"))

    def test_one_that_failed_waits_for_nothing(self) -> None:
        world = self.world()
        world.failure = BrokerUnavailable("gone")
        answer = world.post({"topic": "a"}, EVERYTHING, self.WAIT)
        self.assertEqual((answer.status, "amqprouter-subscriptions" in answer.headers), (503, False))
        self.assertEqual(len(world.hub.receipts), 0)

    def test_who_hangs_up(self) -> None:
        world = self.world()
        world.echo = False
        connection = world.connect()
        connection.send(world.form({"topic": "a"}, EVERYTHING, self.WAIT))
        connection.lose()
        world.clock.advance(2)
        self.assertEqual(len(world.hub.receipts), 0)

    def test_more_than_may_wait(self) -> None:
        world = self.world()
        held = [world.hub.receipts.expect("x") for _ in range(MOST_EXPECTED)]
        answer = world.post({"topic": "a"}, EVERYTHING, self.WAIT)
        self.assertEqual((answer.status, "amqprouter-subscriptions" in answer.headers), (200, False))
        world.hub.receipts.tell("x", 3)
        self.assertEqual({self.successResultOf(each) for each in held}, {3})

    def test_pages_of_other_sites_may_read_it(self) -> None:
        world = self.world()
        asked = world.get(PATH, {"Origin": ORIGIN}, "OPTIONS")
        self.assertIn("prefer", asked.headers["access-control-allow-headers"])
        self.assertIn("Amqprouter-Subscriptions", asked.headers["access-control-expose-headers"])
