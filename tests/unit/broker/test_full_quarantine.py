"""What becomes of messages that their queue in quarantine does not take: bounded, by a policy, and counted."""

from __future__ import annotations

from functools import partial

from pamqp import commands
from twisted.logger import LogLevel, capturedLogs

from amqprouter.amqp.ack_ledger import AckLedger
from amqprouter.amqp.properties import Properties
from amqprouter.amqp.publisher import CONFIRM_TIMEOUT, RETRY_MAX, Publisher
from amqprouter.broker.outgoing import Outgoing
from amqprouter.broker.quarantine import BrokerQuarantine
from amqprouter.broker.topology import Names
from amqprouter.counters import Counters
from amqprouter.pipeline.breaker import LONGEST_PAUSE
from amqprouter.pipeline.message import Message
from amqprouter.pipeline.pipeline import _Quarantined
from amqprouter.pipeline.quarantine_gate import CHECKS, FORGET, MOST_BYTES, SHARE, WINDOW, QuarantineGate
from amqprouter.pipeline.settlement import Settlement
from amqprouter.settings import IngressSettings, LimitsSettings, TopologySettings
from tests.unit.amqp.harness import BrokerTestCase

PREFETCH = 40
ROOM = PREFETCH // SHARE
PATIENCE = 2.0
REJECTED, DEAD = "amqprouter.rejected", "amqprouter.dead-letter"


class FullTestCase(BrokerTestCase):
    policy = "drop-oldest"

    def setUp(self) -> None:
        super().setUp()
        self.counters = Counters()
        self.publisher = Publisher(self.clock, self.counters, max_attempts=2, random=lambda: 1.0)
        self.connection = self.connected()
        self.quarantine = BrokerQuarantine(
            Names.of(TopologySettings(), IngressSettings()),
            Outgoing("x-secret"),
            lambda: 0.0,
            clock=self.clock,
            counters=self.counters,
            prefetch=PREFETCH,
            limits=LimitsSettings(when_quarantine_is_full=self.policy, target_patience=PATIENCE),
            random=lambda: 1.0,
            wake=self.wake,
        )
        self.run_now(self.quarantine.attach(self.connection))
        self.run_now(self.publisher.attach(self.connection))
        self.ledger = self.new_ledger()
        self.tag = 0
        self.delivered: list[int] = []
        self.refused: list[int] = []
        self.withdrawn: list[int] = []

    def wake(self) -> None:
        self.clock.callLater(0, self.quarantine.flush)

    def new_ledger(self, window: int = PREFETCH) -> AckLedger:
        ledger = AckLedger()
        ledger.window = window
        return ledger

    @property
    def rejected(self) -> QuarantineGate:
        return self.quarantine.gates[0]

    @property
    def dead_letters(self) -> QuarantineGate:
        return self.quarantine.gates[1]

    @property
    def held(self) -> int:
        return self.tag - len(self.delivered) - len(self.refused) - len(self.withdrawn)

    @property
    def dropped(self) -> dict[str, int]:
        return dict(self.counters.quarantine_dropped)

    def arrived(self, exchange: str = REJECTED) -> list[int]:
        """Numbers of the messages that the broker was sent last, each once, in the order of its last try."""
        return [int(one.body) for one in self.broker.published if one.exchange == exchange]

    def bad(self, count: int = 1, *, dead: bool = False, body: bytes = b"", replayed: bool = False) -> None:
        """So many more messages, each with its number for a body, are refused; one device's."""
        for _ in range(count):
            self.tag += 1
            self.ledger.received()
            text = body or str(self.tag).encode()
            message = Message("dev1", "up", text, Properties(b"\x00\x00"), exchange=b"devices", routing_key=b"dev1.up")
            message.is_replayed = replayed
            outer = Settlement(message, self.tag, self.ledger, self.finished)
            settlement = _Quarantined(outer, self.finished, partial(self.withdrawn.append, self.tag))
            if dead:
                self.quarantine.dead_letter(message, "no-route: none", settlement)
            else:
                self.quarantine.reject(message, "bad-secret", settlement)
        self.quarantine.flush()

    def finished(self, settlement: Settlement) -> None:
        (self.refused if settlement.refusals else self.delivered).append(settlement.tag)
        settlement.ledger.settle(settlement.tag)


class DropOldestTests(FullTestCase):
    def fill(self) -> None:
        """The rejected queue takes 5 of 30, and they have waited for long enough."""
        self.broker.room[REJECTED] = 5
        self.bad(30)
        self.pass_time(PATIENCE + 1, step=0.1)

    def test_no_more_than_a_share_waits(self) -> None:
        self.broker.room[REJECTED] = 5
        self.bad(30)
        self.assertEqual((self.delivered, self.refused), ([1, 2, 3, 4, 5], []))
        self.pass_time(PATIENCE - 0.2, step=0.1)
        self.assertEqual(self.refused, [], "they may wait for so long")
        self.pass_time(1, step=0.1)
        self.assertEqual((self.held, self.refused), (ROOM, list(range(6, 21))))
        self.assertEqual(self.dropped, {"rejected bad-secret": 15})

    def test_then_what_is_too_much_goes_at_once(self) -> None:
        self.fill()
        self.bad(3)
        self.assertEqual((self.held, self.refused[-3:]), (ROOM, [21, 22, 23]))

    def test_it_recovers_in_order(self) -> None:
        self.fill()
        del self.broker.room[REJECTED]
        self.pass_time(LONGEST_PAUSE + PATIENCE, step=0.1)
        self.assertEqual(self.delivered[5:], list(range(21, 31)))
        self.assertEqual((self.rejected.problem(), self.rejected.is_down), ("", False))
        self.bad(100)
        self.pass_time(PATIENCE)
        self.assertEqual((self.held, self.refused), (0, list(range(6, 21))))

    def test_a_channel_that_believes_the_queue_full(self) -> None:
        """As one of RabbitMQ 3.10 does, whatever becomes of the queue's limit: each trial gets a new one."""
        self.fill()
        self.pass_time(60)
        opened = len(self.broker.sent("Channel.Open"))
        self.pass_time(60)
        renewed = len(self.broker.sent("Channel.Open")) - opened
        self.assertGreaterEqual(renewed, 60 / LONGEST_PAUSE - 1)
        self.assertEqual(renewed + opened - len(self.broker.sent("Channel.Close")), 3, "the old ones are closed")

    def test_it_is_told_once(self) -> None:
        with capturedLogs() as logs:
            self.fill()
            self.bad(50)
            self.pass_time(60)
        (line,) = [one for one in logs if one["log_level"] >= LogLevel.warn]
        self.assertEqual((line["queue"], line["reason"][:6]), ("quarantine:rejected", "nacked"))
        self.assertRegex(self.rejected.problem(), "^takes no messages: nacked .*; 10 wait, 65 were let go of$")
        with capturedLogs() as logs:
            del self.broker.room[REJECTED]
            self.pass_time(60)
        (line,) = [one for one in logs if one["log_level"] >= LogLevel.info]
        self.assertEqual((line["log_level"], line["count"]), (LogLevel.info, 65))

    def test_a_long_outage_is_told_of_now_and_then(self) -> None:
        self.fill()
        with capturedLogs() as logs:
            for _ in range(25):
                self.bad()
                self.pass_time(60)
        lines = [one for one in logs if one["log_level"] >= LogLevel.warn]
        self.assertEqual(len(lines), 2)

    def test_the_queues_do_not_affect_each_other(self) -> None:
        self.fill()
        self.bad(20, dead=True)
        self.assertEqual((self.delivered[5:], self.dead_letters.problem()), (list(range(31, 51)), ""))
        self.broker.room[DEAD] = 0
        self.bad(20, dead=True)
        self.pass_time(PATIENCE + 1, step=0.1)
        self.assertEqual(self.dropped, {"rejected bad-secret": 15, "dead-letters no-route": 10})
        self.assertEqual(self.held, 2 * ROOM)

    def test_a_stumble_is_no_matter(self) -> None:
        self.broker.room[REJECTED] = 0
        self.bad(30)
        del self.broker.room[REJECTED]
        with capturedLogs() as logs:
            self.pass_time(PATIENCE, step=0.1)
        self.assertEqual((self.delivered, self.refused), (list(range(1, 31)), []))
        self.assertEqual([one for one in logs if one["log_level"] >= LogLevel.info], [])

    def test_a_flood_that_the_queue_keeps_up_with(self) -> None:
        """Each is confirmed after half the patience, and many more than a share are under way all the time."""
        self.broker.confirming = False
        for second in range(60):
            self.bad(PREFETCH)
            self.pass_time(PATIENCE / 2)
            self.broker.ack((second + 1) * PREFETCH, multiple=True)
        self.assertEqual((len(self.delivered), self.refused, self.rejected.problem()), (60 * PREFETCH, [], ""))

    def test_a_flood_after_the_queue_works_again(self) -> None:
        self.fill()
        del self.broker.room[REJECTED]
        self.pass_time(LONGEST_PAUSE + PATIENCE, step=0.1)
        lost = len(self.refused)
        self.broker.confirming = False
        before = len(self.broker.published)
        self.bad(4 * WINDOW)
        self.assertEqual(len(self.broker.published), before + 4 * WINDOW)
        self.pass_time(PATIENCE / 2)
        self.broker.ack(len(self.broker.published), multiple=True)
        self.assertEqual((self.held, len(self.refused)), (0, lost))

    def test_bytes_are_bounded(self) -> None:
        self.broker.room[REJECTED] = 0
        self.bad(4, body=b"x" * (MOST_BYTES // 2))
        self.pass_time(PATIENCE + 1, step=0.1)
        self.assertEqual(self.refused, [1, 2])
        self.bad(body=b"x" * 2 * MOST_BYTES)
        self.assertEqual(self.refused, [1, 2, 3, 4], "the last one alone may be larger")

    def test_a_channel_has_a_share_of_its_own(self) -> None:
        """Of answers, commands and parked messages fewer may be out than of the ingress queues."""
        self.broker.room[DEAD] = 0
        self.bad(6, dead=True)
        self.ledger = self.new_ledger(8)
        self.bad(4, dead=True)
        self.pass_time(PATIENCE + 1, step=0.1)
        self.assertEqual((self.held, self.refused), (6 + 8 // SHARE, [7, 8]))

    def test_a_prefetch_of_one(self) -> None:
        """As at the start: there is no room to wait, but each is tried."""
        self.ledger = self.new_ledger(1)
        self.broker.room[REJECTED] = 0
        self.bad()
        self.pass_time(PATIENCE + 1, step=0.1)
        self.assertEqual((self.held, self.refused), (0, [1]))
        for number in range(2, 20):
            self.bad()
            self.pass_time(1, step=0.1)
            self.assertEqual(self.refused, list(range(1, number + 1)))
        del self.broker.room[REJECTED]
        for _ in range(10):
            self.bad()
            self.pass_time(1, step=0.1)
        self.assertIn(29, self.delivered)
        self.assertEqual((self.held, self.rejected.problem()), (0, ""))
        self.assertEqual(self.dropped, {"rejected bad-secret": len(self.refused)})

    def test_a_prefetch_that_is_to_grow(self) -> None:
        """It is asked to, and bounds nothing before it has."""
        asked: list[float] = []
        self.ledger = self.new_ledger(1)
        self.ledger.widen = lambda: asked.append(self.clock.seconds())
        self.broker.confirming = False
        self.bad()
        self.pass_time(PATIENCE / CHECKS, step=0.1)
        self.assertEqual(len(asked), 1, "there is no confirm yet")
        self.broker.confirming = True
        self.broker.room[REJECTED] = 0
        self.broker.ack(1, nack=True)
        self.assertEqual(len(asked), 2)
        self.bad()
        self.assertEqual(len(asked), 3)
        self.pass_time(60)
        self.assertEqual((self.held, self.refused), (2, []))

    def test_nothing_comes_any_more(self) -> None:
        """Nobody knows whether the queue works: it is not called down for ever."""
        self.ledger = self.new_ledger(1)
        self.broker.room[REJECTED] = 0
        self.bad()
        self.pass_time(PATIENCE + 1, step=0.1)
        self.assertNotEqual(self.rejected.problem(), "")
        self.pass_time(PATIENCE * (FORGET + 1), step=0.1)
        self.assertEqual(self.rejected.problem(), "")
        self.bad()
        self.assertNotEqual(self.rejected.problem(), "")

    def test_replays_are_kept(self) -> None:
        """They had been safe, and come from a queue of their own."""
        self.broker.room[REJECTED] = 0
        self.bad(20, replayed=True)
        self.bad(30)
        self.pass_time(60)
        self.assertEqual((self.held, self.refused), (20 + ROOM, list(range(21, 41))))
        del self.broker.room[REJECTED]
        self.pass_time(2 * LONGEST_PAUSE, step=0.1)
        self.assertEqual(self.delivered, [*range(1, 21), *range(41, 51)])

    def test_those_whose_channel_is_gone_come_again(self) -> None:
        self.fill()
        self.ledger.close()
        self.ledger = self.new_ledger()
        self.bad(5)
        self.assertEqual(len(self.refused), 15, "the others made room")
        self.pass_time(1)
        self.assertEqual((sorted(self.withdrawn), self.held), (list(range(21, 31)), 5))
        self.assertEqual(self.dropped, {"rejected bad-secret": 15})

    def test_overdue_ones_go_back(self) -> None:
        put_back: list[int] = []
        self.ledger.put_back = put_back.append
        self.fill()
        self.ledger.age(0, 100)
        self.ledger.age(101, 100)
        self.rejected.release_overdue()
        self.assertEqual(put_back, list(range(21, 31)))
        self.assertEqual((self.withdrawn, self.held), (put_back, 0))

    def test_none_are_overdue_where_they_cannot_go_back(self) -> None:
        self.fill()
        self.ledger.age(0, 100)
        self.ledger.age(101, 100)
        self.rejected.release_overdue()
        self.assertEqual(self.held, ROOM)

    def test_a_stop(self) -> None:
        self.fill()
        self.quarantine.stop()
        self.assertEqual((self.withdrawn, self.held), (list(range(21, 31)), 0))
        self.bad()
        self.assertEqual((self.withdrawn[-1], self.held), (31, 0))
        self.pass_time(60)
        calls = [str(call) for call in self.clock.getDelayedCalls()]
        self.assertEqual([call for call in calls if "Quarantine" in call or "Machine" in call], [])

    def test_a_stop_with_one_out(self) -> None:
        self.broker.confirming = False
        self.bad(2)
        self.quarantine.stop()
        self.broker.ack(1)
        self.broker.ack(2, nack=True)
        self.assertEqual((self.delivered, self.withdrawn), ([1], [2]))


class DropNewestTests(FullTestCase):
    policy = "drop-newest"

    def test_the_first_are_kept(self) -> None:
        self.broker.room[REJECTED] = 5
        self.bad(30)
        self.pass_time(PATIENCE + 1, step=0.1)
        self.assertEqual((self.held, sorted(self.refused)), (ROOM, list(range(16, 31))))
        self.bad(3)
        self.assertEqual(self.refused[-3:], [31, 32, 33])
        del self.broker.room[REJECTED]
        self.pass_time(LONGEST_PAUSE + PATIENCE, step=0.1)
        self.assertEqual(self.delivered, list(range(1, 16)))
        self.assertEqual(self.dropped, {"rejected bad-secret": 18})


class WaitTests(FullTestCase):
    policy = "wait"

    def test_all_wait(self) -> None:
        self.broker.room[REJECTED] = 5
        self.bad(PREFETCH)
        self.pass_time(60)
        self.assertEqual((self.held, self.refused), (PREFETCH - 5, []))
        self.assertRegex(self.rejected.problem(), "^takes no messages: nacked .*; 35 wait, 0 were let go of$")
        del self.broker.room[REJECTED]
        self.pass_time(2 * LONGEST_PAUSE, step=0.1)
        self.assertEqual((self.delivered, self.rejected.problem()), (list(range(1, PREFETCH + 1)), ""))


class UnconfirmedTests(FullTestCase):
    """The queue's node is down, or slow: there is no answer."""

    def others(self, seconds: float) -> None:
        """Time goes by, and others' publishes are confirmed."""
        for _ in range(int(seconds)):
            self.run_now(self.publisher.send("other", "key", b"\x00\x00", b"0"))
            self.pass_time(1, step=0.1)

    def test_confirms_never_come(self) -> None:
        self.broker.mute_exchanges.add(REJECTED)
        self.bad(30)
        self.others(PATIENCE + 1)
        self.assertEqual((self.held, self.refused), (ROOM, list(range(1, 21))))
        self.assertRegex(self.rejected.problem(), "are not confirmed")
        self.assertEqual(self.dropped, {}, "they may arrive yet")
        self.bad(5)
        self.assertEqual((self.held, self.arrived()), (ROOM, list(range(1, 31))), "no more are sent, and few held")
        self.others(2 * CONFIRM_TIMEOUT)
        self.assertRegex(self.rejected.problem(), "not confirmed within 15 s")
        self.assertEqual(self.dropped, {"rejected bad-secret": 25})
        self.assertFalse(self.connection.closed)
        self.broker.mute_exchanges.clear()
        self.others(LONGEST_PAUSE + CONFIRM_TIMEOUT + 5)
        self.assertEqual((self.held, len(self.delivered), self.rejected.problem()), (0, ROOM, ""))
        self.assertEqual(self.dropped, {"rejected bad-secret": 25})

    def test_confirms_come_late(self) -> None:
        """What was let go of and is there is counted as there."""
        self.broker.mute_exchanges.add(REJECTED)
        self.bad(30)
        self.others(PATIENCE + 1)
        for one in self.broker.published:
            if one.exchange == REJECTED:
                self.broker.ack(one.sequence)
        self.assertEqual((self.held, len(self.refused), self.dropped), (0, 20, {}))
        self.assertEqual(self.counters.rejected, {"bad-secret": 20}, "the others are counted by who is told")
        self.others(PATIENCE + 1)
        self.assertEqual(self.rejected.problem(), "")

    def test_a_slow_queue(self) -> None:
        """It takes one a second, and ten a second come."""
        self.broker.mute_exchanges.add(REJECTED)
        most = taken = 0
        for _ in range(120):
            self.bad(10)
            self.pass_time(1, step=0.25)
            slow = [one for one in self.broker.published if one.exchange == REJECTED]
            if taken < len(slow):
                self.broker.ack(slow[taken].sequence)
                taken += 1
            most = max(most, self.held)
        self.assertLessEqual(most, PREFETCH)
        self.assertLessEqual(self.held, ROOM)
        self.assertNotEqual(self.rejected.problem(), "")

    def test_nothing_is_let_go_of_while_the_broker_takes_no_publishes(self) -> None:
        self.broker.confirming = False
        self.bad(30)
        self.broker.send(0, commands.Connection.Blocked("low on disk"))
        self.pass_time(20)  # longer, and the connection would be dead: here is nobody who sends heartbeats
        self.assertEqual((self.held, self.refused), (30, []))
        self.broker.send(0, commands.Connection.Unblocked())
        self.broker.ack(30, multiple=True)
        self.pass_time(PATIENCE)
        self.assertEqual((self.held, self.refused, self.rejected.problem()), (0, [], ""))

    def test_nothing_is_let_go_of_without_a_connection(self) -> None:
        self.broker.confirming = False
        self.bad(30)
        self.connection.fail(ZeroDivisionError("lost"))
        self.pass_time(600)
        self.bad(30)
        self.assertEqual((self.held, self.refused), (60, []))
        self.broker.confirming = True
        self.run_now(self.quarantine.attach(self.connected()))
        self.assertEqual((self.held, self.delivered), (0, list(range(1, 61))))


class OwnFaultTests(FullTestCase):
    def test_no_queue_is_bound(self) -> None:
        self.broker.unbound_exchanges.add(REJECTED)
        self.bad(ROOM)
        self.pass_time(60)
        self.assertEqual((self.held, self.refused), (ROOM, []))
        self.assertRegex(self.rejected.problem(), "^takes no messages: unroutable: NO_ROUTE")
        self.broker.unbound_exchanges.clear()
        self.pass_time(RETRY_MAX + PATIENCE + 1)
        self.assertEqual((sorted(self.delivered), self.rejected.problem()), (list(range(1, ROOM + 1)), ""))

    def test_no_queue_is_bound_and_too_many_wait(self) -> None:
        self.broker.unbound_exchanges.add(REJECTED)
        self.bad(30)
        self.pass_time(60)
        self.assertEqual((self.held, self.refused), (ROOM, list(range(1, 21))))
        self.broker.unbound_exchanges.clear()
        self.pass_time(RETRY_MAX + 2 * PATIENCE + 1)
        self.assertEqual((sorted(self.delivered), self.rejected.problem()), (list(range(21, 31)), ""))

    def test_one_that_the_broker_will_not_have_goes_without_its_properties(self) -> None:
        """It holds up no other."""
        self.broker.confirming = False
        self.bad()
        for _ in range(3):
            self.broker.close_channel(self.broker.published[-1].channel, 406, "PRECONDITION_FAILED - odd")
            self.pass_time(2, step=0.1)
        self.assertEqual([one.routing_key for one in self.broker.published], ["dev1.up"] * 3 + [""])
        self.assertEqual(self.rejected.problem(), "")
        self.broker.confirming = True
        self.bad(3)
        self.assertEqual(self.delivered, [2, 3, 4])
        self.broker.ack(1)
        self.assertEqual((self.held, self.refused), (0, []))

    def test_the_broker_will_have_none(self) -> None:
        """As where it knows the account by another name: what it says is told."""
        self.broker.confirming = False
        self.bad(ROOM + 1)
        for _ in range(30):
            channel = self.broker.published[-1].channel
            if channel in self.connection.channels:
                self.broker.close_channel(channel, 406, "PRECONDITION_FAILED - user_id")
            self.pass_time(0.5, step=0.1)
        self.assertEqual((self.held, self.refused), (ROOM, [1]))
        self.assertRegex(self.rejected.problem(), "takes no messages: 406 PRECONDITION_FAILED - user_id")

    def test_a_missing_exchange(self) -> None:
        self.broker.missing_exchanges.add(REJECTED)
        self.bad(30)
        self.pass_time(60)
        self.assertEqual((self.held, len(self.refused)), (ROOM, 20))
        self.assertRegex(self.rejected.problem(), "404")
        self.bad(dead=True)
        self.pass_time(1)
        self.assertIn(31, self.delivered)
        self.broker.missing_exchanges.clear()
        self.pass_time(LONGEST_PAUSE + PATIENCE + 1, step=0.1)
        self.assertEqual((self.held, self.rejected.problem()), (0, ""))
        self.assertEqual(self.delivered, [31, *range(21, 31)])
