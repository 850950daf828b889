"""Things to do later are done once, and what fails ends the connection that was used."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from amqprouter.amqp.connection import Connection
from amqprouter.amqp.delayed_calls import DelayedCalls
from amqprouter.errors import BrokerRefused


class Link:
    """What delayed need of a connection."""

    closed = False

    def __init__(self) -> None:
        self.failures: list[Exception] = []

    def fail(self, error: Exception) -> None:
        self.failures.append(error)


class PlansTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.link = Link()
        self.told: list[Exception] = []
        self.delayed = DelayedCalls(self.clock, lambda: cast(Connection, self.link), self.told.append)
        self.done: list[Any] = []

    async def note(self, *what: object) -> None:
        self.done.append(what)

    async def refuse(self) -> None:
        raise BrokerRefused(403, "no")

    def test_once_with_the_same_arguments(self) -> None:
        for queue in ("a", "a", "b"):
            self.delayed.later(2, self.note, queue)
        self.clock.advance(1.9)
        self.assertEqual((self.done, len(self.delayed)), ([], 2))
        self.clock.advance(0.1)
        self.assertEqual((self.done, len(self.delayed)), ([("a",), ("b",)], 0))
        self.delayed.later(0, self.note, "a")
        self.clock.advance(0)
        self.assertEqual(self.done[2:], [("a",)], "what was done may be planned again")

    def test_a_failure_ends_the_connection(self) -> None:
        self.delayed.later(0, self.refuse)
        self.clock.advance(0)
        self.assertEqual([error.args for error in self.link.failures], [error.args for error in self.told])
        self.assertEqual(len(self.told), 1)
        self.link.closed = True
        self.delayed.later(0, self.refuse)
        self.clock.advance(0)
        self.assertEqual(len(self.told), 1, "it ended for another reason")

    def test_forgotten(self) -> None:
        self.delayed.later(1, self.note)
        self.delayed.forget()
        self.delayed.later(2, self.note)
        self.delayed.stop()
        self.delayed.later(0, self.note)
        self.clock.advance(9)
        self.assertEqual((self.done, self.clock.getDelayedCalls()), ([], []))
