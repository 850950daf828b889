"""The gate: order, windows, what is parked and when, and that every message is answered for exactly once."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from amqprouter.amqp.ack_ledger import AckLedger
from amqprouter.amqp.properties import Properties
from amqprouter.interfaces import IReadiness, ITarget
from amqprouter.pipeline.breaker import DOWN_AFTER, FIRST_PAUSE, LONGEST_PAUSE
from amqprouter.pipeline.gate import HANDOVER_REST, TargetGate
from amqprouter.pipeline.message import TURN_WORK, Message
from amqprouter.pipeline.ports import IGate, IGatedTarget, IGateFigures, IRequeues
from amqprouter.pipeline.settlement import Settlement
from amqprouter.testing.parking import MemoryParkingQueue

WINDOW, PATIENCE = 4, 1.0


@implementer(IGatedTarget)
class Target:
    """Takes messages and answers when the test says so."""

    gate: IGate

    def __init__(self) -> None:
        self.out: list[Settlement] = []
        self.taken: list[bytes] = []

    def use_gate(self, gate: IGate) -> None:
        self.gate = gate

    def deliver(self, message: Message, settlement: Settlement) -> None:
        self.out.append(settlement)

    def flush(self) -> None:
        pass

    def take(self, count: int = 1000) -> None:
        for settlement in self.out[:count]:
            self.taken.append(settlement.message.body)
            self.gate.delivered(settlement)
        del self.out[:count]

    def reject(self, count: int = 1000, reason: str = "nacked by the broker") -> None:
        for settlement in self.out[:count]:
            self.gate.troubled(settlement, reason)
        del self.out[:count]


@implementer(IRequeues)
class KeepingTarget(Target):
    """Tries again by itself."""

    def requeue(self) -> list[Settlement]:
        out, self.out = self.out, []
        return out


class GateTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.answers: dict[int, str] = {}
        self.ledger = AckLedger()
        self.sent = 0
        self.wakes = 0
        self.use(Target())

    def use(
        self,
        target: Target,
        parking_queue: MemoryParkingQueue | None = None,
        window: int = WINDOW,
        patience: float = PATIENCE,
        reluctant: bool = False,
        most: int | None = None,
    ) -> None:
        self.target = target
        self.parking_queue = parking_queue
        self.gate = TargetGate(
            "exchange:work",
            target,
            self.clock,
            window=window,
            patience=patience,
            random=lambda: 1.0,
            wake=self.wake,
            parking_queue=parking_queue,
            reluctant=reluctant,
            most=lambda: most,
        )

    def wake(self) -> None:
        self.wakes += 1

    def send(self, count: int, device: str = "") -> None:
        for _ in range(count):
            self.sent += 1
            message = Message(device or f"dev{self.sent}", "up", b"%d" % self.sent, Properties())
            self.gate.deliver(message, Settlement(message, self.sent, self.ledger, self.answered))
        self.gate.flush()

    def answered(self, settlement: Settlement) -> None:
        assert settlement.tag not in self.answers, "answered twice"
        self.answers[settlement.tag] = "; ".join(settlement.refusals) or "delivered"

    def out(self) -> list[int]:
        self.gate.flush()
        return [int(settlement.message.body) for settlement in self.target.out]

    def take_all(self) -> list[int]:
        """The target takes whatever comes, until nothing more does; what it took, all in all."""
        for _ in range(10 * self.sent + 100):
            if self.parking_queue:
                self.parking_queue.let_out(1000)
            if self.out():
                self.target.take()
            elif self.gate.waiting or self.gate.parked:
                self.clock.advance(LONGEST_PAUSE)
            else:
                break
        return [int(body) for body in self.target.taken]

    def fail_until_open(self) -> None:
        for _ in range(2 * DOWN_AFTER):
            if self.gate.is_down:
                return
            if self.parking_queue:
                self.parking_queue.let_out(1)
            self.out()
            self.target.reject()
            self.clock.advance(LONGEST_PAUSE)
        self.fail("it does not open")


class WindowTests(GateTestCase):
    def test_interfaces(self) -> None:
        for interface in (ITarget, IGate, IGateFigures, IReadiness):
            verifyObject(interface, self.gate)

    def test_large_messages_go_in_several_turns_of_the_reactor(self) -> None:
        self.use(Target(), window=8)
        self.send(8)
        for number in range(10, 18):
            message = Message("dev", "up", b"%d" % number + bytes(TURN_WORK // 2), Properties())
            self.gate.deliver(message, Settlement(message, number, self.ledger, self.answered))
        self.target.take()
        for first in (10, 12, 14, 16):
            self.wakes = 0
            self.gate.flush()
            self.assertEqual([s.message.body[:2] for s in self.target.out[-2:]], [b"%d" % first, b"%d" % (first + 1)])
            self.assertEqual(len(self.target.out), first - 8)
            self.assertEqual(self.wakes > 0, first < 16)

    def test_no_more_than_the_window_is_out(self) -> None:
        self.send(6)
        self.assertEqual((self.out(), self.gate.waiting), ([1, 2, 3, 4], 2))
        self.target.take(1)
        self.assertEqual(self.out(), [2, 3, 4, 5])
        self.send(1)
        self.assertEqual(self.take_all(), [1, 2, 3, 4, 5, 6, 7])
        self.assertEqual((self.gate.waiting, self.gate.outstanding), (0, 0))

    def test_several_answers_at_once(self) -> None:
        """They count as many, also while the gate is careful."""
        self.use(Target(), window=8)
        self.send(8)
        out, self.target.out = self.target.out, []
        self.gate.delivered_all(out[:3])
        self.assertEqual((sorted(self.answers), self.gate.outstanding), ([1, 2, 3], 5))
        self.gate.troubled(out[3], "nacked by the broker")
        self.gate.delivered_all(out[4:])
        self.assertEqual((len(self.answers), self.gate.outstanding), (7, 0))
        self.send(8)
        self.clock.advance(LONGEST_PAUSE)
        sizes = []
        while self.out():
            sizes.append(len(self.target.out))
            out, self.target.out = self.target.out, []
            self.gate.delivered_all(out)
        self.assertEqual((sizes, len(self.answers)), ([1, 2, 4, 2], 16))

    def test_a_refusal_is_the_messages_own_affair(self) -> None:
        self.send(1)
        self.target.gate.refused(self.target.out.pop(), "unroutable: NO_ROUTE")
        self.assertEqual(self.answers, {1: "unroutable: NO_ROUTE"})
        self.assertEqual((self.gate.problem(), self.gate.outstanding, self.gate.troubles), ("", 0, Counter()))

    def test_without_a_parking_queue_messages_wait_for_ever(self) -> None:
        self.send(6)
        self.clock.advance(1000)
        self.assertEqual((self.gate.waiting, self.gate.parked, self.clock.getDelayedCalls()), (2, 0, []))


class TroubleTests(GateTestCase):
    def test_nothing_goes_for_a_pause_and_then_one_message(self) -> None:
        self.send(3)
        self.target.reject()
        self.send(1)
        self.assertEqual(self.out(), [])
        self.clock.advance(FIRST_PAUSE)
        self.assertEqual(self.out(), [1])
        self.assertEqual(self.answers, {})

    def test_the_pauses_double_up_to_the_longest(self) -> None:
        self.send(1)
        pause = FIRST_PAUSE
        for _ in range(10):
            self.target.reject()
            self.clock.advance(pause - 0.01)
            self.assertEqual(self.out(), [])
            self.clock.advance(0.02)
            self.assertEqual(self.out(), [1])
            pause = min(LONGEST_PAUSE, 2 * pause)
        self.assertEqual(pause, LONGEST_PAUSE)

    def test_it_is_down_after_some_failures_in_a_row_and_up_after_one_success(self) -> None:
        self.send(2)
        for failure in range(DOWN_AFTER):
            self.assertEqual((self.gate.is_down, self.gate.problem()), (False, ""), failure)
            self.out()
            self.target.reject(reason="404 NOT_FOUND - no exchange 'work'")
            self.clock.advance(LONGEST_PAUSE)
        self.assertIn("takes no messages: 404 NOT_FOUND", self.gate.problem())
        self.assertEqual(self.gate.troubles, {"missing": DOWN_AFTER + 1})  # two were out at the first
        self.out()
        self.target.take(1)
        self.assertEqual((self.gate.is_down, self.gate.problem()), (False, ""))
        self.assertEqual(self.take_all(), [1, 2])

    def test_order_by_device_when_a_target_rejects_now_and_then(self) -> None:
        self.use(Target(), window=16)
        self.send(4)
        self.target.reject()
        for device in "abaabb":
            self.send(1, device)
        self.clock.advance(FIRST_PAUSE)
        self.assertEqual(self.out(), [1])
        self.target.take()
        self.assertEqual(self.out(), [2, 3])
        self.target.take()
        self.assertEqual(self.out(), [4, 5, 6])  # 7 is of the same device as 5
        self.target.take(1)
        self.assertEqual(self.out(), [5, 6])
        self.target.reject()
        self.clock.advance(FIRST_PAUSE)
        self.assertEqual(self.take_all(), list(range(1, 11)))

    def test_given_back_in_disorder(self) -> None:
        self.send(4)
        self.target.out.reverse()
        self.target.reject()
        self.clock.advance(FIRST_PAUSE)
        self.assertEqual(self.take_all(), [1, 2, 3, 4])

    def test_stale_messages_are_dropped(self) -> None:
        """Their channel is gone and they come again, on another one."""
        self.send(4)
        self.target.reject()
        self.ledger.close()
        self.ledger, old = AckLedger(), self.ledger
        self.send(1)
        self.assertTrue(old.closed)
        self.clock.advance(FIRST_PAUSE)
        self.assertEqual(self.take_all(), [5])
        self.assertEqual(set(self.answers), {1, 2, 3, 4, 5})

    def test_stop(self) -> None:
        self.use(Target(), MemoryParkingQueue())
        self.send(10)
        self.target.reject()
        self.gate.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.out(), [])


class KeepingTests(GateTestCase):
    """A target that tries again by itself, as the store does."""

    def setUp(self) -> None:
        super().setUp()
        self.use(KeepingTarget(), MemoryParkingQueue())

    def test_it_recovers_by_itself(self) -> None:
        self.send(2)
        self.target.gate.stumbled("the store is down")
        self.send(1)
        self.assertEqual(self.out(), [1, 2])
        self.target.take(1)
        self.assertEqual(self.gate.breaker.state, "closed")
        self.assertEqual(self.take_all(), [1, 2, 3])

    def test_when_it_is_down_it_gives_back_what_it_has(self) -> None:
        assert self.parking_queue is not None
        self.send(2)
        for _ in range(DOWN_AFTER):
            self.target.gate.stumbled("the store is down")
            self.clock.advance(LONGEST_PAUSE)
            self.send(1)
        self.gate.flush()
        self.assertEqual(self.target.out, [])
        self.assertEqual(self.answers, dict.fromkeys(range(1, self.sent + 1), "delivered"))
        self.assertEqual([int(m.body) for m in self.parking_queue.messages], list(range(1, self.sent + 1)))
        self.assertEqual(self.gate.outstanding, 0)
        self.assertEqual(self.gate.troubles, {"unavailable": DOWN_AFTER})
        self.assertEqual(self.take_all(), list(range(1, self.sent + 1)))

    def test_when_it_is_silent_it_gives_back_what_it_has(self) -> None:
        """Or what was behind it, and is parked, would be ahead of it."""
        assert self.parking_queue is not None
        self.send(6)
        self.clock.advance(PATIENCE)
        self.gate.flush()
        self.assertEqual([int(m.body) for m in self.parking_queue.messages], [1, 2, 3, 4, 5, 6])
        self.assertEqual((self.gate.outstanding, len(self.answers)), (0, 6))
        self.assertEqual(self.take_all(), [1, 2, 3, 4, 5, 6])


class ParkingTests(GateTestCase):
    parking_queue: MemoryParkingQueue

    def setUp(self) -> None:
        super().setUp()
        self.use(Target(), MemoryParkingQueue())

    def use_parking_queue(self, window: int = WINDOW, **options: int) -> None:
        self.use(Target(), MemoryParkingQueue(**options), window)

    def test_a_full_window_is_waited_for_with_patience(self) -> None:
        self.send(6)
        self.clock.advance(PATIENCE - 0.1)
        self.target.take(2)
        self.out()
        self.clock.advance(10)
        self.assertEqual((self.gate.parked, self.gate.waiting), (0, 0))

    def test_a_slow_targets_messages_are_parked(self) -> None:
        self.send(6)
        self.clock.advance(PATIENCE)
        self.send(1)
        self.assertEqual([int(message.body) for message in self.parking_queue.messages], [5, 6, 7])
        self.assertEqual(set(self.answers), {5, 6, 7})
        self.assertEqual(self.out(), [1, 2, 3, 4])
        self.assertEqual(self.take_all(), [1, 2, 3, 4, 5, 6, 7])
        self.send(1)
        self.assertEqual((self.out(), self.gate.parked), ([8], 0))

    def test_newer_messages_go_behind_those_parked(self) -> None:
        self.fail_and_park(3)
        self.parking_queue.let_out(2)
        self.send(2)
        self.clock.advance(LONGEST_PAUSE)
        self.assertEqual(self.out(), [1])
        self.assertEqual(self.take_all(), [1, 2, 3, 4, 5])

    def fail_and_park(self, count: int) -> None:
        self.send(count)
        self.fail_until_open()
        self.gate.flush()
        self.assertEqual(len(self.answers), count)
        self.assertEqual(self.gate.parked, count)

    def test_when_it_is_down_all_is_parked_in_order(self) -> None:
        self.send(3)
        self.fail_until_open()
        self.send(2)
        self.assertEqual([int(message.body) for message in self.parking_queue.messages], [1, 2, 3, 4, 5])
        self.assertIn("5 are parked", self.gate.problem())

    def test_what_was_waiting_in_memory_is_not_overtaken_by_what_was_parked_earlier(self) -> None:
        """Patience runs out before the breaker opens: what the target gave back is older, and goes in first."""
        self.send(6)
        self.target.reject()
        self.clock.advance(PATIENCE)
        self.gate.flush()
        self.fail_until_open()
        self.assertEqual(self.take_all(), [1, 2, 3, 4, 5, 6])

    def test_trouble_again_while_the_parking_queue_is_emptied(self) -> None:
        self.fail_and_park(8)
        self.parking_queue.let_out(4)
        self.clock.advance(LONGEST_PAUSE)
        self.assertEqual(self.out(), [1])
        self.target.take()
        self.assertEqual(self.out(), [2, 3])
        self.send(1)
        self.fail_until_open()
        self.assertEqual(self.gate.parked, 8)
        self.assertEqual(self.take_all(), list(range(1, 10)))

    def test_the_parking_queue_runs_empty_although_the_flow_goes_on(self) -> None:
        self.use_parking_queue(prefetch=4)
        self.fail_and_park(10)
        self.clock.advance(HANDOVER_REST * PATIENCE)
        self.parking_queue.let_out(4)
        for _ in range(100):
            self.out()
            self.target.take()
            self.parking_queue.let_out(4)
            self.send(1)  # always one more
        self.assertEqual(self.gate.parked, 0)
        self.assertEqual(self.take_all(), list(range(1, self.sent + 1)))

    def test_a_handover_that_takes_too_long_is_given_up_for_a_while(self) -> None:
        self.use_parking_queue(prefetch=100)
        self.send(6)
        self.clock.advance(PATIENCE)
        self.gate.flush()
        self.clock.advance(HANDOVER_REST * PATIENCE)
        self.send(1)
        self.assertEqual((self.gate.waiting, self.gate.parked), (1, 2))
        self.clock.advance(PATIENCE)
        self.send(1)
        self.assertEqual((self.gate.waiting, self.gate.parked), (0, 4))
        self.assertEqual(self.take_all(), list(range(1, 9)))

    def test_a_full_parking_queue_slows_the_source_down(self) -> None:
        self.use_parking_queue(room=2)
        self.send(3)
        self.fail_until_open()
        self.send(2)
        self.assertEqual((len(self.answers), len(self.parking_queue.messages)), (2, 2))
        self.assertEqual(self.take_all(), [1, 2, 3, 4, 5])
        self.assertEqual(len(self.answers), 5)

    def test_messages_of_an_earlier_run_come_first(self) -> None:
        old = [Message("old", "up", b"-1", Properties()), Message("old", "up", b"0", Properties())]
        self.parking_queue.find(*old)
        self.send(2)
        self.assertEqual(self.out(), [])
        self.assertEqual(self.take_all(), [-1, 0, 1, 2])

    def test_the_parking_queues_channel_is_gone(self) -> None:
        """What was out of it comes out again, on the next channel; what waited here is dropped."""
        self.fail_and_park(3)
        self.parking_queue.let_out(2)
        self.gate.flush()
        self.parking_queue.ledger.close()
        self.parking_queue.ledger = AckLedger()
        self.parking_queue.find()
        self.clock.advance(LONGEST_PAUSE)
        self.assertEqual(self.take_all(), [1, 3])  # 1 was out at the target already

    @settings(deadline=None, max_examples=300)
    @given(st.lists(st.sampled_from("sssstttrrlpPwxX"), max_size=80), st.integers(1, 5))
    def test_whatever_happens(self, steps: list[str], prefetch: int) -> None:
        """Each message arrives exactly once; order holds within a device but for those out together at a rejection."""
        self.setUp()
        self.use_parking_queue(window=1, prefetch=prefetch)  # one at a time: then order holds strictly
        for step in steps:
            if step == "s":
                self.send(1, "dev")
            elif step == "t":
                self.out()
                self.target.take(1)
            elif step == "r":
                self.out()
                self.target.reject(1)
            elif step == "l":
                self.parking_queue.let_out(1)
            elif step in "xX":
                if not self.parking_queue.confirmed:
                    self.parking_queue.refuse("no room" if step == "x" else "")
            else:
                self.clock.advance({"p": FIRST_PAUSE, "P": LONGEST_PAUSE, "w": PATIENCE}[step])
        self.take_all()
        self.assertEqual([int(body) for body in self.target.taken], list(range(1, self.sent + 1)))
        self.assertEqual(set(self.answers), set(range(1, self.sent + 1)))
        self.assertEqual((self.gate.outstanding, self.gate.waiting, self.gate.parked), (0, 0, 0))


class StrandedTests(GateTestCase):
    """There can be no parking queue: what would be parked waits, as far as that holds up nobody else."""

    parking_queue: MemoryParkingQueue
    MOST = 3

    def setUp(self) -> None:
        super().setUp()
        self.use_parking_queue(self.MOST)

    def use_parking_queue(self, most: int | None, room: int = 1_000_000) -> None:
        self.use(Target(), MemoryParkingQueue(room=room), most=most)

    def be_down(self, count: int) -> None:
        """So many are out, or wait, when the target is found to be down."""
        self.parking_queue.refuse("queue limit in vhost")
        self.send(count)
        for number in range(DOWN_AFTER):
            self.clock.advance(number and FIRST_PAUSE * number)
            self.out()
            self.target.reject()
        self.gate.flush()

    def given_up(self) -> list[int]:
        return sorted(tag for tag, answer in self.answers.items() if answer.startswith("cannot-park: "))

    def test_the_newest_are_given_up_once_they_have_waited(self) -> None:
        self.be_down(6)
        self.assertEqual((self.gate.waiting, self.gate.parked, self.answers), (6, 0, {}))
        self.clock.advance(PATIENCE)
        self.gate.flush()
        self.assertEqual((self.given_up(), self.gate.waiting, self.gate.outstanding), ([5, 6], self.MOST, 1))
        for words in ("exchange:work", "nacked by the broker", "queue limit in vhost"):
            self.assertIn(words, self.answers[5])
        self.send(2)
        self.assertEqual(self.given_up(), [5, 6, 7, 8])
        self.assertEqual(self.take_all(), [1, 2, 3, 4])

    def test_nobody_else_goes_on(self) -> None:
        """Then all wait, at their source."""
        self.use_parking_queue(None)
        self.be_down(6)
        self.clock.advance(10 * PATIENCE)
        self.send(2)
        self.assertEqual((self.given_up(), self.gate.waiting + self.gate.outstanding), ([], 8))
        self.assertEqual(self.take_all(), list(range(1, 9)))

    def test_the_target_is_back_first(self) -> None:
        self.be_down(3)
        self.assertEqual(self.take_all(), [1, 2, 3])
        self.send(WINDOW + 1)
        self.assertEqual(len(self.out()), WINDOW)
        self.assertEqual(self.take_all(), list(range(1, WINDOW + 5)))

    def test_the_parking_queue_is_back_first(self) -> None:
        self.be_down(6)
        self.clock.advance(PATIENCE)
        self.gate.flush()
        self.assertEqual(self.given_up(), [5, 6])
        self.target.reject()
        self.parking_queue.refuse("")
        self.gate.flush()
        self.assertEqual((self.gate.parked, self.gate.waiting), (4, 0))
        self.send(1)
        self.assertEqual(self.take_all(), [1, 2, 3, 4, 7])

    def test_a_target_that_is_too_slow(self) -> None:
        self.parking_queue.refuse("queue limit in vhost")
        self.send(WINDOW + 5)
        self.clock.advance(PATIENCE)
        self.gate.flush()
        self.assertEqual(self.given_up(), [])
        self.clock.advance(PATIENCE)
        self.gate.flush()
        self.assertEqual(self.given_up(), [WINDOW + 4, WINDOW + 5])
        self.assertIn("it is too slow", self.answers[WINDOW + 5])
        self.assertEqual(self.take_all(), list(range(1, WINDOW + 4)))
        self.send(WINDOW + 5)
        self.assertEqual(len(self.given_up()), 2, "it has its patience again")

    def test_a_target_that_tries_again_itself(self) -> None:
        self.use(KeepingTarget(), MemoryParkingQueue(), most=self.MOST)
        self.parking_queue.refuse("queue limit in vhost")
        self.send(6)
        for _ in range(DOWN_AFTER):
            self.gate.stumbled("the store is down")
            self.clock.advance(LONGEST_PAUSE)
            self.gate.flush()
        self.assertEqual((self.given_up(), len(self.target.out)), ([5, 6], 1))
        self.assertEqual(self.take_all(), [1, 2, 3, 4])

    def test_a_parking_queue_that_takes_fewer(self) -> None:
        self.use_parking_queue(self.MOST, room=2)
        self.send(8)
        self.fail_until_open()
        self.gate.flush()
        self.assertEqual(self.given_up(), [6, 7, 8])
        self.assertEqual(self.take_all(), [1, 2, 3, 4, 5])

    def test_stopped_meanwhile(self) -> None:
        self.be_down(6)
        self.gate.stop()
        self.clock.advance(100)
        self.assertEqual((self.clock.getDelayedCalls(), self.given_up()), ([], []))


class ReluctantTests(GateTestCase):
    """A single target: messages wait at their source, for as long as they may."""

    parking_queue: MemoryParkingQueue
    PATIENCE = 100 * LONGEST_PAUSE

    def setUp(self) -> None:
        super().setUp()
        self.use(KeepingTarget(), MemoryParkingQueue(), patience=self.PATIENCE, reluctant=True)

    def parked(self) -> list[int]:
        self.parking_queue.flush()
        return [int(message.body) for message in self.parking_queue.messages]

    def test_a_short_outage_parks_nothing(self) -> None:
        self.send(6)
        self.gate.stumbled("the store is down")
        self.clock.advance(self.PATIENCE - 0.1)
        self.send(1)
        self.assertEqual(self.take_all(), [1, 2, 3, 4, 5, 6, 7])
        self.clock.advance(self.PATIENCE)
        self.gate.flush()
        self.assertEqual((self.gate.parked, self.gate.waiting), (0, 0))

    def test_a_parking_queue_that_is_refused(self) -> None:
        """There is nobody whom it could hold up."""
        self.parking_queue.refuse("queue limit in vhost")
        self.send(6)
        self.fail_until_open()
        for _ in range(3):
            self.clock.advance(self.PATIENCE)
            self.gate.flush()
        self.assertEqual((self.answers, self.gate.waiting + self.gate.outstanding), ({}, 6))
        self.parking_queue.refuse("")
        self.gate.flush()
        self.clock.advance(self.PATIENCE)
        self.gate.flush()
        self.assertEqual(self.parked(), [1, 2, 3, 4, 5, 6])
        self.assertEqual(self.take_all(), [1, 2, 3, 4, 5, 6])

    def test_in_a_long_one_all_that_waited_for_long_is_parked(self) -> None:
        self.send(3)  # all of them out at the target
        self.fail_until_open()
        self.send(2)
        self.clock.advance(self.PATIENCE / 2)
        self.gate.flush()
        self.assertEqual(self.parked(), [])
        self.clock.advance(self.PATIENCE / 2)
        self.assertEqual(self.parked(), [1, 2, 3, 4, 5])
        self.send(2)  # wait at their source, behind those
        self.gate.flush()
        self.assertEqual((self.parked(), self.gate.waiting), ([1, 2, 3, 4, 5], 2))
        self.clock.advance(self.PATIENCE)
        self.assertEqual(self.parked(), [1, 2, 3, 4, 5, 6, 7])
        self.send(1)
        self.parking_queue.let_out(1)
        self.clock.advance(LONGEST_PAUSE)
        self.assertEqual(self.take_all(), list(range(1, 9)))
        self.assertEqual(set(self.answers.values()), {"delivered"})


class OverdueTests(GateTestCase):
    """What waits for a target that is down for as long as the broker waits for acks."""

    parking_queue: MemoryParkingQueue

    def setUp(self) -> None:
        super().setUp()
        self.use(Target(), MemoryParkingQueue())

    def grow_old(self, *ledgers: AckLedger) -> None:
        for ledger in ledgers:
            ledger.age(0.0, 10.0)
            self.assertTrue(ledger.age(10.0, 10.0))

    def test_what_came_out_of_the_parking_queue_goes_back(self) -> None:
        self.send(4)
        self.fail_until_open()
        self.gate.flush()
        self.parking_queue.let_out(3)
        self.gate.release_overdue()
        self.assertEqual(self.gate.waiting, 3)
        self.grow_old(self.parking_queue.ledger)
        self.gate.release_overdue()
        self.assertEqual([int(message.body) for message in self.parking_queue.messages], [1, 2, 3, 4])
        self.assertEqual((self.gate.waiting, self.gate.parked), (0, 4))
        self.parking_queue.let_out(4)
        self.clock.advance(LONGEST_PAUSE)
        self.assertEqual(self.take_all(), [1, 2, 3, 4])

    def test_what_the_target_gave_back_when_others_were_parked_is_parked(self) -> None:
        self.ledger.received(10)
        self.send(6)
        self.clock.advance(PATIENCE)
        self.gate.flush()
        self.assertEqual(set(self.answers), {5, 6})
        self.target.reject()
        self.fail_until_open()
        self.gate.flush()
        self.assertEqual(set(self.answers), {5, 6})
        self.grow_old(self.ledger)
        self.gate.release_overdue()
        self.target.reject()  # one that was tried meanwhile
        self.gate.release_overdue()
        self.gate.flush()
        self.assertEqual(set(self.answers), {1, 2, 3, 4, 5, 6})
        self.assertEqual(sorted(int(message.body) for message in self.parking_queue.messages), [1, 2, 3, 4, 5, 6])
