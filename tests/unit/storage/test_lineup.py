"""Which documents may be written: one batch of a device at a time, several of different ones."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from amqprouter.amqp.ack_ledger import AckLedger
from amqprouter.amqp.properties import Properties
from amqprouter.pipeline.message import Message
from amqprouter.pipeline.settlement import Settlement
from amqprouter.storage.lineup import Lineup


def settlement() -> Settlement:
    return Settlement(Message("d", "t", b"", Properties()), 1, AckLedger(), lambda settlement: None)


class LineupTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.lineup: Lineup[int] = Lineup(most=3, most_bytes=100)
        self.number = 0

    def add(self, *devices: str, size: int = 1) -> None:
        for device in devices:
            self.number += 1
            self.lineup.add(device, self.number, settlement(), size)

    def take(self) -> tuple[list[int], list[str]]:
        taken, devices = self.lineup.take()
        return [entry[0] for entry in taken], devices

    def test_nothing(self) -> None:
        self.assertEqual(self.take(), ([], []))
        self.assertFalse(self.lineup.is_full)

    def test_what_is_behind_does_not_count(self) -> None:
        self.add("a")
        self.take()
        self.add("a", "a", "a", "a")
        self.assertEqual((self.lineup.free, self.lineup.is_full, self.take()), (0, False, ([], [])))
        self.lineup.release(["a"])
        self.assertEqual((self.lineup.free, self.lineup.is_full), (4, True))
        self.assertEqual(self.take(), ([2, 3, 4], ["a"]))
        self.lineup.release(["a"])
        self.assertEqual(self.take(), ([5], ["a"]))

    def test_few_busy_devices_share_batches(self) -> None:
        self.add("a", "b", "a", "b", "a", "b")
        self.assertEqual(self.take(), ([1, 3, 5], ["a"]))
        self.assertEqual(self.take(), ([2, 4, 6], ["b"]))

    def test_a_list_that_does_not_go_in_waits_for_the_next_batch(self) -> None:
        """Cut, its rest would wait for this one to be written, and come into the one after the next."""
        self.add("a", "a", "b", "b")
        self.assertEqual(self.take(), ([1, 2], ["a"]))
        self.assertEqual((self.lineup.free, self.lineup.behind, self.take()), (2, 0, ([3, 4], ["b"])))

    def test_unless_the_batch_is_small_without_it(self) -> None:
        self.add("a", "b", "b", "b")
        self.assertEqual(self.take(), ([1, 2, 3], ["a", "b"]))
        self.assertEqual((self.lineup.free, self.lineup.behind), (0, 1))

    def test_who_came_first_is_first(self) -> None:
        """Whether it waited for a write of its device or for room in a batch."""
        self.add("a")
        self.take()
        self.add("b", "b", "a", "c", "c")
        self.assertEqual((self.lineup.free, self.lineup.behind), (4, 1))
        self.lineup.release(["a"])
        self.add("d", "a")
        self.assertEqual((self.lineup.free, self.lineup.behind), (7, 0))
        self.assertEqual([self.take(), self.take()], [([2, 3, 4], ["b", "a"]), ([5, 6, 7], ["c", "d"])])
        self.lineup.release(["a"])
        self.assertEqual(self.take(), ([8], ["a"]))

    def test_what_came_much_later_waits(self) -> None:
        """Written now, it would be acknowledged alone, before what came between."""
        self.add("a", "b", "c", "c", "c", "c", "a", "b")
        self.assertEqual(self.take(), ([1, 2], ["a", "b"]))
        self.assertEqual((self.lineup.free, self.lineup.behind), (4, 2))
        self.assertEqual(self.take(), ([3, 4, 5], ["c"]))
        self.lineup.release(["a", "b", "c"])
        self.assertEqual(self.take(), ([6, 7, 8], ["c", "a", "b"]))

    def test_bytes(self) -> None:
        self.add("a", "b", size=60)
        self.assertTrue(self.lineup.is_full)
        self.assertEqual(self.take(), ([1], ["a"]))
        self.assertFalse(self.lineup.is_full)
        self.add("c", "c", size=40)
        self.assertEqual(self.take(), ([2, 3], ["b", "c"]))
        self.lineup.release(["c"])
        self.assertEqual(self.take(), ([4], ["c"]))
        self.assertEqual(self.lineup.free, 0)

    def test_a_document_over_the_bound_goes_alone(self) -> None:
        self.add("a", "b", size=1000)
        self.assertEqual([self.take()[0], self.take()[0]], [[1], [2]])

    def test_clear(self) -> None:
        self.add("a", "a", "a", "a", "b")
        self.take()
        self.assertEqual([entry[0] for entry in self.lineup.clear()], [4, 5])
        self.add("a")
        self.assertEqual(self.take(), ([6], ["a"]))

    @given(
        st.lists(st.one_of(st.tuples(st.sampled_from("abcd"), st.integers(0, 60)), st.none(), st.integers(0, 9))),
        st.integers(1, 4),
    )
    def test_each_once_and_in_order(self, steps: list[tuple[str, int] | int | None], most: int) -> None:
        """A pair adds a document; None takes a batch; a number releases one of those that are out."""
        lineup: Lineup[tuple[str, int]] = Lineup(most, 100)
        added: dict[str, list[int]] = {}
        written: dict[str, list[int]] = {}
        out: list[list[str]] = []
        waiting = 0

        def take() -> int:
            taken, devices = lineup.take()
            assert set(devices) == {entry[0][0] for entry in taken}
            assert not set(devices) & {device for others in out for device in others}
            assert len(taken) <= most
            assert len(taken) <= 1 or sum(entry[2] for entry in taken) <= 100
            for (device, number), *_ in taken:
                written.setdefault(device, []).append(number)
            if taken:
                out.append(devices)
            return len(taken)

        for number, step in enumerate(steps):
            if isinstance(step, tuple):
                added.setdefault(step[0], []).append(number)
                lineup.add(step[0], (step[0], number), settlement(), step[1])
                waiting += 1
            elif step is None:
                waiting -= take()
            elif out:
                lineup.release(out.pop(step % len(out)))
            assert lineup.free + lineup.behind == waiting
        while waiting:
            while out:
                lineup.release(out.pop())
            assert lineup.free == waiting
            waiting -= take()
        self.assertEqual(written, added)
