"""The two ends of a channel, over memory transports."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from amqprouter.errors import ControlRefused, ControlUnavailable
from amqprouter.processes.channel import Answering, ProcessChannel


class ChannelTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.lost: list[str] = []
        self.later: Deferred[str] = Deferred()
        self.told: list[str] = []
        answers: dict[str, Answering] = {
            "double": lambda text: text * 2,
            "later": lambda: self.later,
            "refuse": self.refuse,
            "fail": lambda: 1 / 0,
            "hear": self.hear,
        }
        self.near = ProcessChannel(self.clock, {}, peer="process 1", lost=lambda: self.lost.append("near"))
        self.far = ProcessChannel(self.clock, answers, peer="the supervisor", lost=lambda: self.lost.append("far"))
        self.wires = StringTransport(), StringTransport()
        for end, wire in zip((self.near, self.far), self.wires, strict=True):
            end.makeConnection(wire)

    def hear(self, text: str) -> None:
        self.told.append(text)

    async def refuse(self) -> None:
        raise ControlRefused(409, "not now")

    def pump(self) -> None:
        """Carry what was written, in pieces."""
        for wire, to in zip(self.wires, (self.far, self.near), strict=True):
            written, _ = wire.value(), wire.clear()
            for at in range(0, len(written), 997):
                to.dataReceived(written[at : at + 997])

    def ask(self, command: str, **arguments: Any) -> Deferred[Any]:
        asked = Deferred.fromCoroutine(self.near.ask(command, arguments, 5.0))
        self.pump()
        return asked

    def test_answers(self) -> None:
        self.assertEqual(self.successResultOf(self.ask("double", text="ä" * 50_000)), "ä" * 100_000)
        late = self.ask("later")
        self.assertEqual(self.successResultOf(self.ask("double", text="x")), "xx")
        self.assertNoResult(late)
        self.later.callback("in the end")
        self.pump()
        self.assertEqual(self.successResultOf(late), "in the end")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_refusals(self) -> None:
        refused = self.failureResultOf(self.ask("refuse"), ControlRefused).value
        self.assertEqual((refused.status, str(refused)), (409, "not now"))
        unknown = self.failureResultOf(self.ask("nonsense"), ControlRefused).value
        self.assertIn("different versions", str(unknown))
        failed = self.failureResultOf(self.ask("fail"), ControlRefused).value
        self.assertEqual((failed.status, str(failed)), (500, "ZeroDivisionError: see the log"))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_patience(self) -> None:
        asked = self.ask("later")
        self.clock.advance(5)
        self.failureResultOf(asked, ControlUnavailable)
        self.later.callback("too late")
        self.pump()  # and nobody minds

    def test_what_is_told(self) -> None:
        self.near.tell("hear", {"text": "news"})
        self.near.tell("nonsense")
        self.pump()
        self.assertEqual(self.told, ["news"])
        self.assertEqual(self.wires[1].value(), b"", "there is no answer to that")

    def test_the_end(self) -> None:
        asked = self.ask("later")
        for end in (self.near, self.far):
            end.connectionLost(Failure(ConnectionError()))
        self.failureResultOf(asked, ControlUnavailable)
        self.assertEqual(self.lost, ["near", "far"])
        self.failureResultOf(self.ask("double", text="x"), ControlUnavailable)
        self.near.tell("hear", {"text": "news"})
        self.assertEqual(self.clock.getDelayedCalls(), [])
