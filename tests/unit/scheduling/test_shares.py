"""Turns within turns."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from amqprouter.scheduling.shares import Shares


class SharesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.shares: Shares[str] = Shares()

    def all(self) -> str:
        return "".join(self.shares.pop() for _ in range(len(self.shares)))

    def test_first_come_first_served_within_a_group(self) -> None:
        for item in "abc":
            self.shares.push(("users", "a", "n"), item)
        self.assertEqual(self.all(), "abc")
        with self.assertRaises(IndexError):
            self.shares.pop()

    def test_groups_take_turns_at_each_step(self) -> None:
        for number in range(6):
            self.shares.push(("users", "crowd", str(number)), "c")
        for item in "xy":
            self.shares.push(("users", "alone", "n"), item)
        for item in "DE":
            self.shares.push(("devices", "", "dev1"), item)
        self.assertEqual(self.all(), "cDxEcycccc")

    def test_who_comes_anew_waits_for_one_turn_of_each(self) -> None:
        for number in range(100):
            self.shares.push(("users", "crowd", str(number)), "c")
        self.shares.push(("users", "another", "n"), "a")
        for _ in range(10):
            self.shares.pop()
        self.shares.push(("users", "late", "n"), "L")
        self.shares.push(("devices", "", "dev1"), "D")
        self.assertIn("D", self.all()[:2])

    @given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xyz"), st.sampled_from("mn")), max_size=60))
    def test_nobody_is_lost_or_kept_waiting(self, paths: list[tuple[str, str, str]]) -> None:
        shares: Shares[tuple[str, str, str]] = Shares()
        for path in paths:
            shares.push(path, path)
        order = [shares.pop() for _ in paths]
        self.assertEqual(Counter(order), Counter(paths))
        self.assertEqual((len(shares), len(shares._root)), (0, 0))
        audiences = [path[0] for path in order]
        both = 2 * min(audiences.count("a"), audiences.count("b"))
        self.assertEqual(audiences[:both].count("a"), both // 2)
