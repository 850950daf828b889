"""Whichever process is asked answers for all of them: health, readiness, metrics, status and tickets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from amqprouter.errors import ControlUnavailable
from amqprouter.web.siblings import AllAnswers
from tests.unit.web.harness import ALICE, World


class PlayedSiblings:
    """Of two processes; what the other one answers is the test's, by command."""

    number = 1

    def __init__(self) -> None:
        self.provided: dict[str, Callable[..., Any]] = {"alive": lambda: None, "ready": dict}
        self.others: dict[str, Callable[..., Any]] = {"alive": lambda: None}
        self.problems: dict[str, str] = {}
        self.lost = False
        self.told: list[tuple[str, dict[str, Any]]] = []

    def provide(self, command: str, answer: Callable[..., Any]) -> None:
        self.provided[command] = answer

    def tell(self, command: str) -> None:
        raise AssertionError(command)

    def tell_others(self, command: str, arguments: Mapping[str, Any]) -> None:
        self.told.append((command, dict(arguments)))

    async def all(self, command: str, arguments: Mapping[str, Any] | None = None, within: float = 5.0) -> AllAnswers:
        if self.lost:
            raise ControlUnavailable("the supervisor is gone")
        given = dict(arguments or {})
        answers = {"1": self.provided[command](**given)}
        if command in self.others:
            answers["2"] = self.others[command](**given)
        processes = tuple({"process": n, "state": "running", "starts": n} for n in (1, 2))
        return AllAnswers(answers, self.problems, processes)


class SiblingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.siblings = PlayedSiblings()
        self.world = World(siblings=self.siblings)

    def test_health(self) -> None:
        self.assertEqual(self.world.get("/healthz").status, 200)
        self.siblings.problems = {"2": "process 2 has not answered within 3 s"}
        answer = self.world.get("/healthz")
        self.assertEqual((answer.status, answer.json()["status"]), (503, "no answer from process 2"))
        self.siblings.lost = True
        self.assertEqual(self.world.get("/healthz").json()["status"], "the supervisor is gone")

    def test_readiness(self) -> None:
        self.siblings.others["ready"] = lambda: {"ingress": ""}
        self.siblings.provided["ready"] = lambda: {"ingress": ""}
        answer = self.world.get("/readyz")
        self.assertEqual((answer.status, answer.json()["parts"]), (200, {"ingress": "", "processes": ""}))
        self.siblings.others["ready"] = lambda: {"ingress": "not consuming"}
        answer = self.world.get("/readyz")
        self.assertEqual(answer.status, 503)
        self.assertEqual(answer.json()["parts"]["ingress"], "process 2: not consuming")
        self.siblings.problems = {"2": "process 2 was ended by SIGKILL; is started again in 0.4 s"}
        answer = self.world.get("/readyz")
        self.assertEqual(answer.json()["parts"]["processes"], self.siblings.problems["2"])
        self.siblings.lost = True
        self.assertEqual(self.world.get("/readyz").status, 503)

    def test_metrics(self) -> None:
        self.world.counters.settled = 3
        own = self.siblings.provided["metrics"]
        self.siblings.others["metrics"] = own
        text = self.world.get("/metrics").body.decode()
        self.assertIn("\namqprouter_settled_total 6.0\n", text)
        self.assertIn('\namqprouter_process_settled_total{process="2"} 3.0\n', text)
        self.assertIn('\namqprouter_process_up{process="2"} 1.0\n', text)
        self.assertIn('\namqprouter_process_starts_total{process="2"} 2.0\n', text)
        self.siblings.lost = True
        self.assertEqual(self.world.get("/metrics").status, 503, "half of the sums would look like a drop")

    def test_a_ticket_is_good_at_the_other_one(self) -> None:
        theirs = PlayedSiblings()
        other = World(siblings=theirs)
        kept: list[dict[str, Any]] = []
        self.siblings.others["ticket"] = lambda **told: kept.append(told)
        ticket = self.world.get("/events/ticket", ALICE, "POST").json()["ticket"]
        theirs.provided["ticket"](**kept[0])
        self.assertEqual(kept[0]["user"]["name"], "alice")
        connection = other.connect()
        connection.get(f"/events?ticket={ticket}")
        self.assertIn(b" 200 ", connection.take())
        self.assertEqual(theirs.told, [("ticket/used", {"text": ticket})])
        self.siblings.provided["ticket/used"](text=ticket)
        self.assertEqual(self.world.get(f"/events?ticket={ticket}").status, 401)
