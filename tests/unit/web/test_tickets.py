"""``/events`` with signed tokens, and with one-use tickets."""

from __future__ import annotations

import base64

from twisted.trial.unittest import SynchronousTestCase

from amqprouter.identity import Identity
from amqprouter.web.tickets import GOOD_FOR, MAX_TICKETS, Tickets
from tests.support.tokens import jwk
from tests.unit.web.harness import ALICE, World
from tests.unit.web.mercure.harness import NOW, ORIGIN, MercureWorld, bearer, data_in, minted


class TicketTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.world = MercureWorld(self.mktemp())
        self.world.visible = {("alice", "dev1.up"), ("ann", "dev2.up")}

    def ticket(self, headers: dict[str, str]) -> str:
        answer = self.world.get("/events/ticket", headers, "POST")
        self.assertEqual((answer.status, answer.headers["cache-control"]), (200, "no-store"))
        self.assertEqual(answer.json()["seconds"], GOOD_FOR)
        return str(answer.json()["ticket"])

    def test_a_ticket_stands_for_its_user_once(self) -> None:
        ticket = self.ticket(ALICE)
        connection = self.world.connect()
        connection.get(f"/events?ticket={ticket}")
        self.world.tell("dev1.up", data=b"1", private=True)
        self.world.tell("dev2.up", data=b"2", private=True)
        self.assertEqual(data_in(connection.take()), ["1"])
        self.assertEqual(self.world.get(f"/events?ticket={ticket}").status, 401)

    def test_a_ticket_that_is_none(self) -> None:
        for query in ("ticket=", "ticket=%FF", "ticket=guess"):
            self.assertEqual(self.world.get(f"/events?{query}", ALICE).status, 401, query)
        first, second = self.ticket(ALICE), self.ticket(ALICE)
        self.assertEqual(self.world.get(f"/events?ticket={first}&ticket={second}").status, 401)
        self.world.clock.advance(GOOD_FOR)
        self.assertEqual(self.world.get(f"/events?ticket={second}").status, 401)

    def test_who_gets_one(self) -> None:
        self.assertEqual(self.world.get("/events/ticket", method="POST").status, 401)
        self.assertEqual(self.world.get("/events/ticket", ALICE).status, 405)
        preflight = self.world.get("/events/ticket", {"Origin": ORIGIN}, "OPTIONS")
        self.assertEqual(preflight.headers["access-control-allow-methods"], "POST, OPTIONS")

    def test_tokens(self) -> None:
        connection = self.world.connect()
        connection.get("/events", bearer(minted(sub="ann")))
        self.world.tell("dev1.up", data=b"1", private=True)
        self.world.tell("dev2.up", data=b"2", private=True)
        self.assertEqual(data_in(connection.take()), ["2"])
        for bad in (minted(sub="ann", exp=NOW), minted(sub=None), minted(sub="ann", number=1), "x"):
            self.assertEqual(self.world.get("/events", bearer(bad)).status, 401)
        self.assertEqual(World().get("/events", bearer(minted(sub="ann"))).status, 401)

    def test_a_token_cannot_name_a_sender_that_is_no_user(self) -> None:
        for name in ("queue:images", "amqp:backend", "celery:thumbs"):
            self.world.visible.add((name, "dev1.up"))
            self.assertEqual(self.world.get("/events", bearer(minted(sub=name))).status, 401, name)

    def test_streams_end_with_the_token_also_by_a_ticket(self) -> None:
        token = bearer(minted(sub="ann", exp=NOW + 100))
        ticket = self.ticket(token)
        self.world.connect().get("/events", token)
        self.world.connect().get(f"/events?ticket={ticket}")
        self.assertEqual(len(self.world.hub.subscribers), 2)
        self.world.clock.advance(100)
        self.assertEqual(len(self.world.hub.subscribers), 0)

    def test_streams_end_when_the_key_is_taken_away(self) -> None:
        self.world.connect().get("/events", bearer(minted(sub="ann")))
        self.world.connect().get("/events", ALICE)
        self.world.write_keys(jwk("HS256", 1))
        self.world.reload()
        self.assertEqual([each.user for each in self.world.hub.subscribers], ["alice"])

    def test_a_ticket_begets_no_ticket(self) -> None:
        for headers in (ALICE, bearer(minted(sub="ann"))):
            ticket = self.ticket(headers)
            for more in ({}, headers):
                self.assertEqual(self.world.get(f"/events/ticket?ticket={ticket}", more, "POST").status, 401)
            connection = self.world.connect()
            connection.get(f"/events?ticket={ticket}")
            self.assertIn(b" 200 OK", connection.take())

    def test_a_reload_ends_tickets_for_passwords(self) -> None:
        ticket = self.ticket(ALICE)
        del self.world.passwords["alice"]
        self.world.reload()
        self.assertEqual(self.world.get(f"/events?ticket={ticket}").status, 401)

    def test_a_reload_ends_streams_of_passwords_that_are_others(self) -> None:
        self.world.passwords["bob"] = self.world.passwords["carol"] = b"wonder"
        self.world.versions = {"alice": "1", "bob": "1", "carol": "1"}
        for name in self.world.passwords:
            headers = {"Authorization": "Basic " + base64.b64encode(f"{name}:wonder".encode()).decode()}
            self.world.connect().get("/events", headers)
            self.world.connect().get(f"/events?ticket={self.ticket(headers)}")
        self.world.connect().get("/events", bearer(minted(sub="bob")))
        self.assertEqual(len(self.world.hub.subscribers), 7)
        del self.world.versions["alice"]
        self.world.versions["bob"] = "2"
        self.assertEqual(len(self.world.hub.subscribers), 7)
        self.world.reload()
        self.assertEqual([each.user for each in self.world.hub.subscribers], ["carol", "carol", "bob"])

    def test_a_user_who_is_taken_away_meanwhile(self) -> None:
        self.world.versions = {}
        self.assertEqual(self.world.get("/events", ALICE).status, 401)
        self.assertEqual(self.world.get("/events/ticket", ALICE, "POST").status, 401)

    def test_a_ticket_ends_with_its_token(self) -> None:
        by_token = bearer(minted(sub="ann", exp=NOW + 10))
        expiring, revoked = self.ticket(by_token), self.ticket(bearer(minted(sub="ann")))
        kept = self.ticket(bearer(minted(sub="ann")))
        self.world.reload()
        self.world.connect().get(f"/events?ticket={kept}")
        self.assertEqual(len(self.world.hub.subscribers), 1)
        self.world.clock.advance(10)
        self.assertEqual(self.world.get(f"/events?ticket={expiring}").status, 401)
        self.world.write_keys(jwk("HS256", 1))
        self.world.reload()
        self.assertEqual(self.world.get(f"/events?ticket={revoked}").status, 401)

    def test_a_ticket_ends_when_a_checker_said(self) -> None:
        self.world.valid_for = 10.0
        late, good = self.ticket(ALICE), self.ticket(ALICE)
        self.world.clock.advance(8)
        self.world.connect().get(f"/events?ticket={good}")
        self.assertEqual(len(self.world.hub.subscribers), 1)
        self.world.clock.advance(2)
        self.assertEqual(len(self.world.hub.subscribers), 0)
        self.assertEqual(self.world.get(f"/events?ticket={late}").status, 401)

    def test_they_are_bounded(self) -> None:
        names = iter(range(MAX_TICKETS + 2))
        tickets = Tickets(lambda: 0.0, lambda: str(next(names)))
        for _ in range(MAX_TICKETS + 1):
            tickets.issue(Identity("ann"), None)
        self.assertEqual(len(tickets), MAX_TICKETS)
        self.assertIsNone(tickets.redeem("0"))
        self.assertIsNotNone(tickets.redeem("1"))
