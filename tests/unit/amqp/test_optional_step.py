"""A step that the broker refuses: told of once, tried again, and no trouble of anybody else's."""

from __future__ import annotations

from twisted.logger import capturedLogs, formatEvent
from zope.interface.verify import verifyObject

from amqprouter.amqp.connection import Connection
from amqprouter.amqp.optional_step import FIRST_PAUSE, LONGEST_PAUSE, OptionalStep
from amqprouter.errors import BrokerRefused, BrokerUnavailable, TopologyClash
from amqprouter.interfaces import IReadiness
from tests.unit.amqp.harness import BrokerTestCase

REFUSAL = BrokerRefused(406, "PRECONDITION_FAILED - queue limit in vhost '/' (5) is reached")


class OptionalStepTests(BrokerTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.error: Exception | None = REFUSAL
        self.tries: list[Connection] = []
        self.step = OptionalStep(self.clock, "replies", "no answers are taken", self.prepare)
        self.connection = self.connected()

    async def prepare(self, connection: Connection) -> None:
        self.tries.append(connection)
        if self.error is not None:
            raise self.error

    def test_until_it_is_let(self) -> None:
        verifyObject(IReadiness, self.step)
        with capturedLogs() as logs:
            self.run_now(self.step.attach(self.connection))
            self.pass_time(60)
            self.assertIn("queue limit in vhost '/' (5) is reached (no answers are taken)", self.step.problem())
            self.assertEqual(len(self.tries), 1 + 3 + 10, "after 1, 3 and 7 s, and then every 5")
            self.error = None
            self.pass_time(LONGEST_PAUSE)
        self.assertEqual((self.step.problem(), self.connection.closed), ("", False))
        self.assertEqual([formatEvent(log).split(" ")[0] for log in logs], ["Cannot", "replies"])
        tried = len(self.tries)
        self.pass_time(60)
        self.assertEqual(len(self.tries), tried)

    def test_a_clash(self) -> None:
        self.error = TopologyClash("it exists with other properties")
        self.run_now(self.step.attach(self.connection))
        self.assertIn("other properties", self.step.problem())

    def test_a_new_connection(self) -> None:
        """The old one's tries end with it."""
        self.run_now(self.step.attach(self.connection))
        self.broker.hang_up(ConnectionError("reset"))
        self.turn()
        self.error = None
        self.run_now(self.step.attach(self.connected()))
        self.assertEqual(self.step.problem(), "")
        self.pass_time(2 * FIRST_PAUSE)
        self.assertEqual(len(self.tries), 2)

    def test_no_connection(self) -> None:
        self.error = BrokerUnavailable("lost")
        self.failed(self.step.attach(self.connection), BrokerUnavailable)
        self.error = REFUSAL
        self.run_now(self.step.attach(self.connection))
        self.error = BrokerUnavailable("all channels are in use")
        self.pass_time(FIRST_PAUSE)
        self.turn()
        self.assertTrue(self.connection.closed)
