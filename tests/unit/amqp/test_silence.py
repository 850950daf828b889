"""A broker that hangs: it is asked, and told of, and nothing else is done."""

from __future__ import annotations

from pamqp import commands
from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs, formatEvent

from amqprouter.amqp.silence import LOOK_EVERY, PATIENCE, SILENT
from tests.unit.amqp.test_link import LinkTestCase


class SilenceTests(LinkTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.link.startService()
        self.accept()

    def looks(self, count: int) -> None:
        self.reactor.pump([LOOK_EVERY] * count)

    def questions(self) -> int:
        return sum(isinstance(command, commands.Channel.Flow) for _, command in self.broker.received)

    def test_one_that_answers(self) -> None:
        """It is asked every other look, and the answer is nobody else's."""
        self.looks(100)
        self.assertEqual((self.link.problem(), self.questions()), ("", 50))
        self.assertIsNotNone(self.successResultOf(self.declared()))

    def declared(self) -> Deferred[object]:
        return Deferred.fromCoroutine(self.prepared[0].channels[1].queue_declare(queue="q"))

    def test_one_that_hangs(self) -> None:
        self.looks(20)
        self.broker.silent = True
        asked = self.questions()
        with capturedLogs() as logs:
            self.looks(PATIENCE - 1)
            self.assertEqual(self.link.problem(), "")
            self.looks(20)
        self.assertEqual((self.link.problem(), self.questions()), (SILENT, asked + 1))
        self.assertEqual(
            [formatEvent(log) for log in logs if "does not answer" in formatEvent(log)],
            ["Connected, but the broker does not answer (publish)"],
        )
        self.assertIsNotNone(self.link.connection)
        self.broker.silent = False
        self.broker.send(1, commands.Channel.FlowOk(True))
        self.looks(1)
        self.assertEqual(self.link.problem(), "")
        self.looks(20)
        self.assertEqual(self.link.problem(), "")

    def test_it_is_told_within_eight_seconds(self) -> None:
        self.assertLess((PATIENCE + 1) * LOOK_EVERY, 8)

    def test_one_that_speaks_is_not_asked(self) -> None:
        self.reactor.advance(0.1)
        for _ in range(50):
            self.broker.send(0, commands.Connection.Unblocked())
            self.looks(1)
        self.assertEqual((self.link.problem(), self.questions()), ("", 0))

    def test_what_is_not_read_is_not_missed(self) -> None:
        self.broker.silent = True
        self.prepared[0].pause_reading(True)
        self.looks(20)
        self.assertEqual(self.link.problem(), "")
        self.prepared[0].pause_reading(False)
        self.looks(20)
        self.assertEqual(self.link.problem(), SILENT)

    def test_one_that_takes_no_publishes_has_said_so(self) -> None:
        self.broker.silent = True
        self.broker.send(0, commands.Connection.Blocked("low on disk"))
        self.looks(20)
        self.assertEqual(self.link.problem(), "the broker takes no publishes: low on disk")
        self.broker.send(0, commands.Connection.Unblocked())
        self.assertEqual(self.link.problem(), "")

    def test_a_channel_that_is_being_closed_is_not_used(self) -> None:
        """RabbitMQ ends the connection over a method on a channel that it has closed."""
        self.broker.silent = True
        Deferred.fromCoroutine(self.prepared[0].channels[1].shut())
        self.looks(20)
        self.assertEqual((self.link.problem(), self.questions()), ("", 0))

    def test_a_connection_that_is_lost_is_watched_no_more(self) -> None:
        self.broker.silent = True
        self.looks(20)
        self.lose()
        self.assertIn("reset by peer", self.link.problem())
        self.broker.silent = False
        self.delay()
        self.accept()
        self.looks(20)
        self.assertEqual(self.link.problem(), "")
