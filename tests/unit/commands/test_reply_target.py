"""Answers as commands: whose they are, and how long they are tried."""

from __future__ import annotations

from uuid import UUID

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from amqprouter.amqp.ack_ledger import AckLedger
from amqprouter.amqp.properties import Properties, encode_properties
from amqprouter.broker.reply import ReplyAddress
from amqprouter.commands.command import Command, Fate, Outcome
from amqprouter.commands.reply_target import CommandReplies
from amqprouter.identity import Identity
from amqprouter.pipeline.message import Message
from amqprouter.pipeline.settlement import Settlement

UNIQUE = UUID(int=5)
ABOUT = ReplyAddress("queue images", "dev1.up.picture").correlation_id(UNIQUE)


class CommandRepliesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.outcomes = [Outcome(Fate.SENT)]
        self.sent: list[tuple[Identity, Command]] = []
        self.ended: list[list[str]] = []
        self.ledger = AckLedger()
        self.target = CommandReplies(self.clock, "down.result", self.submit, ttl=60.0)

    def submit(self, sender: Identity, command: Command) -> Deferred[Outcome]:
        self.sent.append((sender, command))
        return succeed(self.outcomes[min(len(self.sent), len(self.outcomes)) - 1])

    def deliver(self, correlation_id: str = ABOUT) -> None:
        raw = encode_properties(content_type="text/plain", correlation_id=correlation_id)
        message = Message("dev1", "up.picture.reply", b"done", Properties(raw), received_at=12.0)
        self.target.deliver(message, Settlement(message, 1, self.ledger, lambda s: self.ended.append(list(s.refusals))))
        self.target.flush()

    def test_the_section_sends_it(self) -> None:
        self.deliver()
        expected = Command("dev1", "down.result", UNIQUE.hex, "queue:images", b"done", "text/plain", 12.0)
        self.assertEqual(self.sent, [(Identity("queue:images"), expected)])
        self.assertEqual(self.ended, [[]])

    def test_refused(self) -> None:
        for fate, reason in (
            (Fate.FORBIDDEN, "not-authorised"),
            (Fate.UNDELIVERABLE, "no-queue"),
            (Fate.BAD, "bad-topic"),
        ):
            self.outcomes = [Outcome(fate, reason)]
            self.deliver()
            self.assertEqual(self.ended.pop(), [reason])
        self.deliver("not ours")
        self.assertEqual(self.ended.pop(), ["malformed-properties"])
        self.assertEqual(len(self.clock.getDelayedCalls()), 0)

    def test_tried_while_it_is_worth_something(self) -> None:
        self.outcomes = [Outcome(Fate.LIMITED, "rate-limited", 4.0), Outcome(Fate.FULL, "queue-full", 5.0)]
        self.outcomes.append(Outcome(Fate.SENT))
        self.deliver()
        self.clock.advance(4)
        self.assertEqual((len(self.sent), self.ended), (2, []))
        self.clock.advance(5)
        self.assertEqual((len(self.sent), self.ended), (3, [[]]))

        self.outcomes = [Outcome(Fate.FULL, "queue-full", 5.0)]
        self.deliver()
        self.clock.pump([5.0] * 12)
        self.assertEqual(self.ended, [[], ["queue-full"]])
        self.assertEqual(len(self.sent), 3 + 13)

    def test_the_brokers_trouble_is_waited_out(self) -> None:
        self.outcomes = [Outcome(Fate.UNAVAILABLE, "no connection", 5.0)] * 40 + [Outcome(Fate.SENT)]
        self.deliver()
        self.clock.pump([5.0] * 40)
        self.assertEqual((len(self.sent), self.ended), (41, [[]]))

    def test_what_the_broker_has_back_is_let_go(self) -> None:
        self.outcomes = [Outcome(Fate.LIMITED, "rate-limited", 1.0)]
        self.deliver()
        self.ledger.close()
        self.clock.advance(1)
        self.assertEqual((len(self.sent), self.ended, self.clock.getDelayedCalls()), (1, [], []))
