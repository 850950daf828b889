"""The service: who may command what, how much of it, and how much at once."""

from __future__ import annotations

from dataclasses import replace

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from amqprouter.commands.command import Command, Fate, Outcome
from amqprouter.commands.service import MOST_UNDER_WAY, CommandService
from amqprouter.counters import Counters
from amqprouter.identity import Identity
from amqprouter.patterns import TopicPattern
from amqprouter.scheduling.limit import DeviceRates, Limit

ANN = Identity("ann", groups=("staff",))
REBOOT = Command("dev1", "down.reboot", "id-1", "ann", b"{}", "", 0.0)


class Outbox:
    under_way = 0

    def __init__(self) -> None:
        self.sent: list[Command] = []

    def send(self, command: Command) -> Deferred[Outcome]:
        self.sent.append(command)
        return succeed(Outcome(Fate.SENT))


class DeskTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.counters = Counters()
        self.outbox = Outbox()
        self.asked: list[tuple[Identity, str]] = []
        self.service = CommandService(
            self.clock,
            topics=TopicPattern("down.#"),
            may_command=self.may_command,
            rates=DeviceRates(Limit.parse("1/s burst 2")),
            max_bytes=10,
            outbox=self.outbox,
            counters=self.counters,
        )

    def may_command(self, sender: Identity, key: str) -> bool:
        self.asked.append((sender, key))
        return sender.groups == ("staff",) and not key.startswith("dev9")

    def submit(self, command: Command = REBOOT, sender: Identity = ANN) -> Outcome:
        outcome: Outcome = self.successResultOf(self.service.submit(sender, command))
        return outcome

    def test_a_good_one(self) -> None:
        self.assertEqual(self.submit(), Outcome(Fate.SENT))
        self.assertEqual((self.outbox.sent, self.asked), ([REBOOT], [(ANN, "dev1.down.reboot")]))
        self.assertEqual(self.counters.commands, {"sent": 1})

    def test_bad_ones(self) -> None:
        for command, sender, fate, reason in (
            (replace(REBOOT, device="a b"), ANN, Fate.BAD, "bad-device-id"),
            (replace(REBOOT, body=b"x" * 11), ANN, Fate.BAD, "body-too-large"),
            (replace(REBOOT, topic="up.reboot"), ANN, Fate.FORBIDDEN, "not-authorised"),
            (replace(REBOOT, device="dev9"), ANN, Fate.FORBIDDEN, "not-authorised"),
            (REBOOT, Identity("bob"), Fate.FORBIDDEN, "not-authorised"),
        ):
            self.assertEqual(self.submit(command, sender), Outcome(fate, reason))
        self.assertEqual((self.outbox.sent, self.counters.commands), ([], {"bad": 2, "forbidden": 3}))

    def test_whoever_may_not_uses_up_nobodys_limit(self) -> None:
        for _ in range(5):
            self.submit(sender=Identity("bob"))
        self.assertEqual([self.submit().fate for _ in range(3)], [Fate.SENT, Fate.SENT, Fate.LIMITED])
        self.assertEqual(self.submit(), Outcome(Fate.LIMITED, "rate-limited", 1.0))
        self.clock.advance(1)
        self.assertEqual(self.submit().fate, Fate.SENT)

    def test_no_more_than_so_many_are_under_way(self) -> None:
        self.outbox.under_way = MOST_UNDER_WAY
        self.assertEqual(self.submit().fate, Fate.UNAVAILABLE)
        self.outbox.under_way -= 1
        self.assertEqual(self.submit().fate, Fate.SENT)
