"""What may be acknowledged, and how."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given, strategies
from twisted.trial.unittest import SynchronousTestCase

from amqprouter.amqp.ack_ledger import FEW, HOLD, HOLD_SINGLES, LONGEST, MOST_HELD, PATIENCE, SHARE, AckLedger
from amqprouter.amqp.properties import Properties
from amqprouter.pipeline.message import Message
from amqprouter.pipeline.settlement import Settlement, deliver_all


class AckLedgerTests(SynchronousTestCase):
    def test_a_run_is_acknowledged_with_one_multiple(self) -> None:
        ledger = AckLedger()
        ledger.received(5)
        for tag in (2, 1, 3):
            ledger.settle(tag)
        self.assertEqual(ledger.acks(), [(3, True)])
        self.assertEqual((ledger.acks(), ledger.unacked), ([], 2))

    def test_what_is_beyond_a_gap_is_acknowledged_singly(self) -> None:
        ledger = AckLedger()
        ledger.received(4)
        ledger.settle(2)
        ledger.settle(4)
        self.assertEqual(ledger.acks(), [(2, False), (4, False)])
        ledger.settle(1)
        # Not (2, True): the broker no longer knows tag 2, and would close the channel.
        self.assertEqual(ledger.acks(), [(1, True)])
        ledger.settle(3)
        self.assertEqual((ledger.acks(), ledger.unacked), ([(3, True)], 0))

    def test_what_is_acknowledged(self) -> None:
        ledger = AckLedger()
        ledger.received(4)
        for tag in (1, 3):
            ledger.settle(tag)
        self.assertEqual((ledger.floor, ledger.acknowledged(1)), (0, False))
        ledger.acks()
        self.assertEqual(ledger.floor, 1)
        self.assertEqual([ledger.acknowledged(tag) for tag in (1, 2, 3, 4)], [True, False, True, False])
        ledger.settle(2)
        ledger.acks()
        self.assertEqual((ledger.floor, ledger.acknowledged(3)), (3, True))

    def test_a_closed_ledger_acknowledges_nothing(self) -> None:
        written: list[list[tuple[int, bool]]] = []
        ledger = AckLedger(written.append)
        ledger.received(2)
        ledger.settle(1)
        ledger.close()
        self.assertFalse(ledger.settle(2))
        ledger.flush()
        self.assertEqual((written, ledger.acks(), ledger.unacked), ([], [], 0))

    def test_settled_twice(self) -> None:
        """It is acknowledged once, or the broker would close the channel."""
        ledger = AckLedger()
        ledger.received(3)
        for tag in (1, 1, 3, 3):
            ledger.settle(tag)
        self.assertEqual(ledger.acks(), [(1, True), (3, False)])
        ledger.settle(1)
        self.assertEqual((ledger.acks(), ledger.unacked), ([], 1))

    @given(
        strategies.permutations(range(1, 30)),
        strategies.lists(strategies.integers(1, 8)),
        strategies.sets(strategies.integers(1, 29), max_size=8),
    )
    def test_every_tag_once_and_only_when_settled(self, order: list[int], batches: list[int], back: set[int]) -> None:
        """A model of the broker: an ack names an outstanding tag, and covers only settled ones. Some are given back."""
        ledger = AckLedger()
        ledger.received(len(order))
        outstanding, settled = set(order), set()
        remaining = list(order)
        for size in [*batches, len(order)]:
            for tag in remaining[:size]:
                if tag in back:
                    ledger.requeued(tag)
                    outstanding.discard(tag)
                else:
                    ledger.settle(tag)
                    settled.add(tag)
            remaining = remaining[size:]
            for tag, multiple in ledger.acks():
                self.assertIn(tag, outstanding)
                covered = {t for t in outstanding if t <= tag} if multiple else {tag}
                self.assertLessEqual(covered, settled)
                outstanding -= covered
            self.assertEqual(outstanding, set(remaining))
            self.assertEqual(ledger.unacked, len(outstanding))
            last = min(outstanding, default=len(order) + 1) - 1
            self.assertEqual((ledger.floor, [tag for tag in order if not ledger.acknowledged(tag)]), (last, remaining))

    @given(
        strategies.permutations(range(1, 30)),
        strategies.lists(strategies.integers(1, 8)),
        strategies.sets(strategies.integers(1, 29), max_size=3),
    )
    def test_several_at_once_are_as_one_by_one(self, order: list[int], batches: list[int], back: set[int]) -> None:
        one_by_one, at_once = AckLedger(), AckLedger()
        for ledger in (one_by_one, at_once):
            ledger.received(len(order))
            for tag in back:
                ledger.orphan(tag)
        for size in [*batches, len(order)]:
            batch, order = order[:size], order[size:]
            for tag in batch:
                one_by_one.settle(tag)
            self.assertTrue(at_once.settle_all(batch))
            self.assertEqual(at_once.acks(), one_by_one.acks())
            self.assertEqual(at_once.unacked, one_by_one.unacked)
        at_once.close()
        self.assertFalse(at_once.settle_all([30]))

    def test_several_at_once_settled_twice(self) -> None:
        ledger = AckLedger()
        ledger.received(4)
        ledger.settle_all([3, 1, 1])
        self.assertEqual(ledger.acks(), [(1, True), (3, False)])


class OrphanTests(SynchronousTestCase):
    """What went back into its queue while it was being worked on."""

    def setUp(self) -> None:
        self.ledger = AckLedger()
        self.ledger.received(3)

    def acks_of(self, *tags: int) -> list[tuple[int, bool]]:
        for tag in tags:
            self.assertTrue(self.ledger.settle(tag))
        return self.ledger.acks()

    def test_the_heir_is_acknowledged_instead(self) -> None:
        self.assertTrue(self.ledger.orphan(2))
        self.assertEqual((self.ledger.unacked, self.ledger.is_orphan(2), self.ledger.is_orphan(1)), (2, True, False))
        self.ledger.received()
        self.ledger.adopt(2, 4)
        self.assertEqual((self.ledger.unacked, self.acks_of(1, 3)), (3, [(3, True)]))
        self.assertEqual((self.acks_of(2), self.ledger.unacked), ([(4, True)], 0))

    def test_settled_before_it_comes_again(self) -> None:
        self.ledger.orphan(1)
        self.assertEqual(self.acks_of(1), [])
        self.ledger.received()
        self.ledger.adopt(1, 4)
        self.assertEqual(self.ledger.acks(), [(4, False)])

    def test_settled_and_not_yet_acknowledged(self) -> None:
        """Its ack would come too late."""
        for tag in (1, 2):
            self.ledger.settle(tag)
        self.assertTrue(self.ledger.orphan(1))
        self.assertEqual(self.ledger.acks(), [(2, True)])
        self.assertFalse(self.ledger.orphan(2))
        self.ledger.received()
        self.ledger.adopt(1, 4)
        self.assertEqual(self.ledger.acks(), [(4, False)])

    def test_over_and_over(self) -> None:
        self.ledger.orphan(1)
        self.ledger.received()
        self.ledger.adopt(1, 4)
        self.ledger.orphan(4)
        self.assertEqual(self.acks_of(1), [])
        self.ledger.received()
        self.ledger.adopt(4, 5)
        self.assertEqual(self.ledger.acks(), [(5, False)])

    def test_not_waited_for(self) -> None:
        """Whatever becomes of the work on it, no tag is acknowledged that the broker does not know."""
        for tag in (1, 3):
            self.ledger.orphan(tag)
        self.ledger.settle(3)
        for tag in (1, 3):
            self.ledger.abandon(tag)
        self.assertEqual((self.ledger.is_orphan(1), self.ledger.is_orphan(3)), (False, False))
        self.assertEqual((self.acks_of(1, 2), self.ledger.unacked, self.ledger.floor), ([(2, True)], 0, 3))

    def test_given_back_meanwhile(self) -> None:
        """The heir is what can be given back; an orphan is there already."""
        for tag in (1, 2):
            self.ledger.orphan(tag)
        self.ledger.received()
        self.ledger.adopt(1, 4)
        self.assertEqual([self.ledger.requeued(tag) for tag in (1, 2, 3)], [4, 0, 3])
        self.assertEqual((self.ledger.unacked, self.ledger.floor), (0, 4))
        self.assertFalse(self.ledger.is_orphan(2))

    def test_the_age_is_the_heirs(self) -> None:
        self.ledger.age(0.0, 10.0)
        self.ledger.orphan(1)
        self.ledger.age(9.0, 10.0)
        self.ledger.received()
        self.ledger.adopt(1, 4)
        self.ledger.age(10.0, 10.0)
        self.assertEqual((self.ledger.is_overdue(1), self.ledger.is_overdue(2)), (False, True))

    @given(strategies.lists(strategies.tuples(strategies.integers(0, 3), strategies.integers(0, 40)), max_size=60))
    def test_every_message_is_answered_for_once(self, steps: list[tuple[int, int]]) -> None:
        """A model of broker and work, whatever happens in which order: a message is with the broker under one tag at
        most, an ack never names another, and none is acknowledged that is not settled."""
        ledger, tags, out = AckLedger(), 0, {}  # out: message by the tag under which the broker has it out
        first: dict[int, int] = {}  # by message: the tag that the work on it knows
        done: set[int] = set()
        waiting: list[tuple[int, int]] = []  # messages back in the queue, and the orphan's tag
        for kind, which in steps:
            if kind == 0:
                tags += 1
                ledger.received()
                out[tags] = first[tags] = tags
            elif kind == 1 and set(first) - done:
                message = sorted(set(first) - done)[which % len(set(first) - done)]
                done.add(message)
                ledger.settle(first[message])
            elif kind == 2 and out:
                tag = sorted(out)[which % len(out)]
                if ledger.orphan(tag):
                    waiting.append((out.pop(tag), tag))
            elif kind == 3 and waiting:
                message, orphan = waiting.pop(which % len(waiting))
                tags += 1
                ledger.received()
                out[tags] = message
                ledger.adopt(orphan, tags)
            for tag, multiple in ledger.acks(singles=which % 2 == 0):
                self.assertIn(tag, out)
                for one in [one for one in out if one == tag or (multiple and one <= tag)]:
                    self.assertIn(out.pop(one), done)
            self.assertEqual(ledger.unacked, len(out))
        for message in set(first) - done:
            ledger.settle(first[message])
        while waiting:
            message, orphan = waiting.pop()
            tags += 1
            ledger.received()
            out[tags] = message
            ledger.adopt(orphan, tags)
        for tag, multiple in ledger.acks():
            self.assertIn(tag, out)
            for one in [one for one in out if one == tag or (multiple and one <= tag)]:
                del out[one]
        self.assertEqual((out, ledger.unacked), ({}, 0))


class AgeTests(SynchronousTestCase):
    """A delivery is overdue after 10 seconds."""

    def setUp(self) -> None:
        self.ledger = AckLedger()

    def age(self, now: float) -> bool:
        return self.ledger.age(now, 10.0)

    def settle(self, *tags: int) -> None:
        for tag in tags:
            self.ledger.settle(tag)
        self.ledger.acks()

    def test_what_has_been_out_for_too_long(self) -> None:
        self.ledger.received(3)
        self.assertFalse(self.age(0.0))
        self.ledger.received(2)
        self.assertFalse(self.age(5.0))
        self.settle(1, 3)
        self.assertEqual(self.ledger.oldest, 0.0)
        self.assertFalse(self.age(9.9))
        self.assertTrue(self.age(10.0))
        self.assertEqual([tag for tag in range(1, 6) if self.ledger.is_overdue(tag)], [1, 2, 3])
        self.settle(2)
        self.assertEqual(self.ledger.oldest, 5.0)
        self.assertFalse(self.age(14.0))
        self.assertTrue(self.age(15.0))
        self.settle(4, 5)
        self.assertFalse(self.age(16.0))
        self.assertIsNone(self.ledger.oldest)

    def test_what_is_given_back_is_not_out(self) -> None:
        self.ledger.received(3)
        self.age(0.0)
        self.ledger.requeued(2)
        self.ledger.requeued(1)
        self.assertEqual((self.ledger.unacked, self.ledger.floor), (1, 2))
        self.assertTrue(self.age(10.0))
        self.ledger.requeued(3)
        self.assertFalse(self.age(11.0))
        self.ledger.received(1)
        self.ledger.settle(4)
        self.assertEqual(self.ledger.acks(), [(4, True)])

    def test_a_closed_one_has_nothing_out(self) -> None:
        self.ledger.received(3)
        self.age(0.0)
        self.ledger.close()
        self.assertFalse(self.age(20.0))


class HoldingTests(SynchronousTestCase):
    """Acks wait a moment for more, while that holds nothing up."""

    def setUp(self) -> None:
        self.written: list[tuple[int, bool]] = []
        self.ledger = AckLedger(self.written.extend)
        self.ledger.received(1000)

    def flush(self, now: float) -> float | None:
        self.written.clear()
        return self.ledger.flush(now)

    def settle(self, *tags: int) -> None:
        for tag in tags:
            self.ledger.settle(tag)

    def test_few_of_many_wait(self) -> None:
        self.settle(1)
        self.assertEqual((self.flush(10.0), self.written), (10.0 + HOLD, []))
        self.settle(2)
        self.assertEqual((self.flush(10.0 + HOLD / 2), self.written), (10.0 + HOLD, []))
        self.assertEqual((self.flush(10.0 + HOLD), self.written), (None, [(2, True)]))
        self.settle(3)
        self.assertEqual((self.flush(11.0), self.written), (11.0 + HOLD, []))

    def test_many_do_not(self) -> None:
        self.settle(*range(1, 1000 // SHARE + 1))
        self.assertEqual((self.flush(10.0), self.written), (None, [(1000 // SHARE, True)]))

    def test_where_few_are_out_none_waits(self) -> None:
        """A consumer with a small prefetch is given its next delivery for the ack of this one."""
        self.ledger.settle(1)
        ledger = AckLedger(self.written.extend)
        ledger.received(SHARE)
        ledger.settle(1)
        self.assertIsNone(ledger.flush(10.0))
        self.assertEqual(self.written, [(1, True)])

    def test_those_behind_a_gap_wait_for_it_to_close(self) -> None:
        self.settle(1, 3, 4)
        self.flush(10.0)
        self.assertEqual((self.flush(10.0 + HOLD), self.written), (10.0 + HOLD + PATIENCE, [(1, True)]))
        self.settle(2)
        self.assertEqual((self.flush(10.1), self.written), (None, [(4, True)]))
        self.assertEqual(self.ledger.unacked, 996)

    def test_however_many_they_are(self) -> None:
        """Half of all are a batch that is in the store before the one before it."""
        self.settle(*range(401, 901))
        self.assertEqual((self.flush(10.0), self.written), (10.0 + PATIENCE, []))
        self.settle(*range(1, 401))
        self.assertEqual((self.flush(10.01), self.written), (None, [(900, True)]))

    def test_not_for_long(self) -> None:
        self.settle(1, *range(3, 203))
        singles = [(tag, False) for tag in range(3, 203)]
        self.assertEqual((self.flush(10.0), self.written), (10.0 + PATIENCE, [(1, True)]))
        self.assertEqual((self.flush(10.0 + PATIENCE), self.written), (None, singles))
        self.assertEqual(self.ledger.unacked, 799)

    def test_beside_a_gap_that_stays_they_wait_for_each_other_only(self) -> None:
        self.settle(2)
        self.flush(10.0)
        self.flush(10.0 + HOLD)
        self.flush(10.0 + HOLD + PATIENCE)
        self.assertEqual(self.written, [(2, False)])
        self.settle(3)
        now = 11.0
        self.assertEqual((self.flush(now), self.written), (now + HOLD, []))
        self.assertEqual((self.flush(now + HOLD), self.written), (now + HOLD_SINGLES, []))
        self.settle(4)
        self.assertEqual((self.flush(now + HOLD_SINGLES), self.written), (None, [(3, False), (4, False)]))
        self.settle(*range(5, 205))
        self.flush(12.0)
        self.assertEqual(len(self.written), 200)  # at once, for they are many

    def test_the_next_gap_is_waited_for_anew(self) -> None:
        self.settle(2)
        self.flush(10.0)
        self.flush(10.0 + HOLD)
        self.settle(1, 4)
        now = 10.0 + HOLD + PATIENCE
        self.assertEqual((self.flush(now), self.written), (now + PATIENCE, [(2, True)]))

    def test_not_where_nearly_all_that_is_out_waits_for_its_ack(self) -> None:
        most = int(1000 * MOST_HELD)
        self.settle(*range(2, most + 1))
        self.assertEqual((self.flush(10.0), self.written), (10.0 + PATIENCE, []))
        self.settle(most + 1)
        self.assertIsNone(self.flush(10.0))
        self.assertEqual(len(self.written), most)

    def test_not_where_a_consumer_may_have_few_out(self) -> None:
        """Its queue would stand still meanwhile."""
        self.ledger.window = FEW
        self.settle(*range(2, 202))
        self.assertIsNone(self.flush(10.0))
        self.assertEqual(len(self.written), 200)
        self.settle(202)
        self.flush(11.0)
        self.assertEqual((self.flush(11.0 + HOLD_SINGLES), self.written), (None, [(202, False)]))

    def test_without_a_time_nothing_waits(self) -> None:
        self.settle(1, 3)
        self.assertEqual((self.ledger.flush(), self.written), (None, [(1, True), (3, False)]))

    def test_nothing_settled(self) -> None:
        self.assertEqual((self.flush(10.0), self.written), (None, []))

    def test_not_for_one_gap_after_the_other(self) -> None:
        """The first half waits for a rate, and the second is all that another queue may have out."""
        self.settle(*range(501, 1001))
        now, at = 10.0, dict[int, float]()
        for slow in range(1, 100):
            self.settle(slow)
            for _ in range(4):
                self.flush(now)
                at |= {tag: now for tag, multiple in self.written if not multiple and tag not in at}
                now += PATIENCE / 5
        self.assertEqual(sorted(at), list(range(501, 1001)))
        self.assertLessEqual(max(at.values()) - 10.0, LONGEST + PATIENCE / 5)

    def test_what_comes_later_waits_as_long_again(self) -> None:
        now = 10.0
        for slow, first in ((1, 501), (2, 701)):
            self.settle(slow, *range(first, first + 200))
            self.assertEqual((self.flush(now), self.written), (now + PATIENCE, [(slow, True)]))
            self.assertIsNone(self.flush(now + PATIENCE))
            self.assertEqual(len(self.written), 200)
            now += 1.0


class SettlementTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.finished: list[Settlement] = []
        message = Message("d", "t", b"", Properties())
        self.settlement = Settlement(message, 1, AckLedger(), self.finished.append)

    def test_it_finishes_with_the_last_answer(self) -> None:
        self.settlement.expect(3)
        self.settlement.delivered()
        self.settlement.refused("full")
        self.assertEqual(self.finished, [])
        self.settlement.delivered()
        self.assertEqual(self.finished, [self.settlement])
        self.assertEqual(self.settlement.refusals, ("full",))


class TogetherTests(SynchronousTestCase):
    """What a target answers for at once finishes at once, where the pipeline can take it so."""

    def setUp(self) -> None:
        self.alone: list[int] = []
        self.ours: list[list[int]] = []
        self.others: list[list[int]] = []

    def finish(self, settlement: Settlement) -> None:
        self.alone.append(settlement.tag)

    def finish_ours(self, settlements: list[Settlement]) -> None:
        self.ours.append([settlement.tag for settlement in settlements])

    def finish_others(self, settlements: list[Settlement]) -> None:
        self.others.append([settlement.tag for settlement in settlements])

    def settlements(self, finish_all: Callable[[list[Settlement]], None] | None, *tags: int) -> list[Settlement]:
        message = Message("d", "t", b"", Properties())
        return [Settlement(message, tag, AckLedger(), self.finish, finish_all) for tag in tags]

    def test_in_order(self) -> None:
        ours, others = self.finish_ours, self.finish_others
        batch = [
            *self.settlements(ours, 1, 2),
            *self.settlements(None, 3),
            *self.settlements(others, 4),
            *self.settlements(ours, 5, 6),
        ]
        deliver_all(batch)
        self.assertEqual((self.alone, self.ours, self.others), ([3], [[1, 2], [5, 6]], [[4]]))

    def test_who_waits_for_another_target_does_not_finish(self) -> None:
        batch = self.settlements(self.finish_ours, 1, 2, 3)
        batch[1].expect(2)
        deliver_all(batch)
        deliver_all(batch[1:2])
        self.assertEqual(self.ours, [[1, 3], [2]])

    def test_none(self) -> None:
        deliver_all([])
        self.assertEqual((self.alone, self.ours), ([], []))
