"""Names that others choose: bounded, shared, and forgotten when nobody uses them."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from amqprouter.broker.chosen_names import PAUSE, ChosenNames


class ChosenNamesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.gone: list[str] = []

    def names(self, most: int, most_of_one: int = 0, lasting: float = 60.0) -> ChosenNames[str]:
        return ChosenNames(most, most_of_one, lasting, self.gone.append)

    def fill(self, names: ChosenNames[str], owner: str, now: float = 0.0) -> int:
        """As many names of this owner's as there may be; how many."""
        count = 0
        while names.admits(f"{owner}{count}", owner, now):
            names.use(f"{owner}{count}", owner, now)
            count += 1
        return count

    def test_the_last_tenth_is_for_others(self) -> None:
        """However many there are of these, each has something; a name that is there is everybody's."""
        names = self.names(100)
        self.assertEqual([self.fill(names, owner) for owner in "abc"], [90, 10, 0])
        self.assertTrue(names.admits("a5", "c", 0.0))
        names.forget("a5")
        self.assertTrue(names.admits("c", "c", 0.0))
        self.assertFalse(names.admits("new", "a", 0.0))
        self.assertEqual(len(names), 99)

    def test_few(self) -> None:
        """Less than ten names have no tenth."""
        self.assertEqual(self.fill(self.names(5), "a"), 5)

    def test_a_limit_for_each(self) -> None:
        names = self.names(100, 3)
        self.assertEqual([self.fill(names, owner) for owner in "abc"], [3, 3, 3])

    def test_unused_ones_are_forgotten(self) -> None:
        names = self.names(2, lasting=60.0)
        self.assertEqual(self.fill(names, "a"), 2)
        names.touch("a1", 30.0)
        names.touch("nobody's", 30.0)
        self.assertFalse(names.admits("b", "b", 59.0))
        self.assertTrue(names.admits("b", "b", 60.0))
        self.assertEqual((self.gone, "a1" in names, len(names)), (["a0"], True, 1))

    def test_a_search_now_and_then(self) -> None:
        """Whoever asks for names again and again does not have all looked at each time."""
        names = self.names(1, lasting=1.0)
        names.use("a", "a", 0.0)
        self.assertFalse(names.admits("b", "b", 0.9))
        self.assertFalse(names.admits("b", "b", 1.0))
        self.assertTrue(names.admits("b", "b", 1.0 + PAUSE))

    def test_those_unused_for_the_longest_time(self) -> None:
        names = self.names(10)
        for moment, name in enumerate("abcd"):
            names.use(name, "x", moment)
        names.use("a", "x", 9.0)
        self.assertEqual((names.least_used(2, 3.0), names.least_used(9, 2.0)), (["b", "c"], ["b", "c"]))
