"""With the settings that docs/mercure.rst has for it, a client that knows 0.x and nothing else gets updates and nothing
else."""

from __future__ import annotations

from tests.unit.web.harness import Response, unchunk
from tests.unit.web.mercure.harness import PATH, MercureWorld, bearer, minted
from tests.unit.web.mercure.test_subscribe import MercureTestCase

STRICT = {"notices": False, "require_expiry": False, "anonymous": True, "user_claim": "", "max_topics": 1000}


def lines(raw: bytes) -> list[str]:
    """All lines of a stream but comments, what says how long to wait, and blank ones."""
    return [line for line in raw.decode().splitlines() if line and not line.startswith((":", "retry:"))]


class StrictTests(MercureTestCase):
    def setUp(self) -> None:
        self.hub_world: MercureWorld = self.world(**STRICT)

    def test_a_stream_has_updates_alone(self) -> None:
        world = self.hub_world
        world.tell("other", data=b"before")
        stream = world.follow(["a"])
        world.tell("other", data=b"not asked for")
        for _ in range(200):
            world.hub.heartbeat()
        world.tell("a", data=b"1\n2", id="urn:1", type="t")
        self.assertEqual(lines(unchunk(stream.take())), ["id: urn:1", "event: t", "data: 1", "data: 2"])

    def test_a_head_tells_what_may_be_missing(self) -> None:
        world = self.hub_world
        for number in range(3):
            world.tell("a", data=b"%d" % number, id=f"urn:{number}")
        for last, told, got in (
            ("urn:0", "urn:0", ["id: urn:1", "data: 1", "id: urn:2", "data: 2"]),
            ("urn:2", "urn:2", []),
            ("urn:unknown", "earliest", []),
            ("earliest", "earliest", [line for n in range(3) for line in (f"id: urn:{n}", f"data: {n}")]),
        ):
            answer = world.ask({"topic": "a", "lastEventID": last})
            self.assertEqual((answer.headers["last-event-id"], lines(answer.body)), (told, got), last)

    def test_a_stream_made_anew_ends_all_others(self) -> None:
        world = self.hub_world
        world.tell("a", id="urn:0")
        stream = world.follow(["a"])
        world.hub.restart()
        world.clock.advance(0)
        self.assertEqual(lines(unchunk(stream.take())), [])
        self.assertEqual(len(world.hub.subscribers), 0)
        self.assertEqual(world.ask({"topic": "a", "lastEventID": "urn:0"}).headers["last-event-id"], "earliest")

    def test_tokens_need_no_expiry_and_anybody_may_listen(self) -> None:
        world = self.hub_world
        self.assertEqual(world.ask({"topic": "a"}).status, 200)
        self.assertEqual(world.ask({"topic": "a"}, bearer(minted(["a"], exp=None))).status, 200)
        world.allows = lambda user, key: True
        stream = world.follow(["*"], minted(["a"], exp=None))
        for topic in ("a", "dev1.up"):
            world.tell(topic, data=topic.encode(), private=True)
        self.assertEqual(lines(unchunk(stream.take())), ["id: 0", "data: a"])

    def test_a_matrix_parameter_needs_no_escape(self) -> None:
        world = self.hub_world
        connection = world.connect()
        connection.get(f"{PATH}?topic=https://example.com/a;v=1&topic=b")
        Response(connection.take())
        world.tell("https://example.com/a;v=1", data=b"1")
        self.assertEqual(lines(unchunk(connection.take())), ["id: 0", "data: 1"])
