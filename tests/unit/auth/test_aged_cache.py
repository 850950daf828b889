"""The cache forgets by count and by age."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from amqprouter.auth.aged_cache import AgedCache


class AgedCacheTests(SynchronousTestCase):
    def test_remembers_until_the_age(self) -> None:
        cache: AgedCache[str, int] = AgedCache(10, 5.0)
        cache.put("a", 1, 100.0)
        self.assertEqual(cache.get("a", 100.0), 1)
        self.assertEqual(cache.get("a", 104.9), 1)
        self.assertIsNone(cache.get("a", 105.0))
        self.assertEqual(len(cache), 0)

    def test_one_value_may_have_less_time_but_not_more(self) -> None:
        cache: AgedCache[str, int] = AgedCache(10, 5.0)
        for at_most, age in ((2.0, 2.0), (50.0, 5.0), (None, 5.0)):
            cache.put("a", 1, 100.0, at_most)
            self.assertEqual(cache.get("a", 99.9 + age), 1)
            self.assertIsNone(cache.get("a", 100.0 + age))

    def test_a_value_without_time_is_not_kept(self) -> None:
        cache: AgedCache[str, int] = AgedCache(10, 5.0)
        for at_most in (0.0, -1.0, float("nan"), float("-inf")):
            cache.put("a", 1, 100.0, at_most)
            self.assertEqual(len(cache), 0)

    def test_reading_does_not_make_younger_and_putting_does(self) -> None:
        cache: AgedCache[str, int] = AgedCache(10, 5.0)
        cache.put("a", 1, 0.0)
        cache.get("a", 4.0)
        self.assertIsNone(cache.get("a", 6.0))
        cache.put("a", 1, 6.0)
        self.assertEqual(cache.get("a", 10.0), 1)

    def test_a_clock_that_goes_back_forgets(self) -> None:
        cache: AgedCache[str, int] = AgedCache(10, 5.0)
        cache.put("a", 1, 1000.0)
        self.assertIsNone(cache.get("a", 10.0))

    def test_the_one_unused_for_longest_makes_room(self) -> None:
        cache: AgedCache[str, int] = AgedCache(2, 5.0)
        cache.put("a", 1, 0.0)
        cache.put("b", 2, 0.0)
        cache.get("a", 1.0)
        cache.put("c", 3, 1.0)
        self.assertEqual([cache.get(key, 1.0) for key in "abc"], [1, None, 3])
        self.assertEqual(len(cache), 2)

    def test_nothing_is_kept_without_size_or_age(self) -> None:
        for size, seconds in ((0, 5.0), (5, 0.0)):
            cache: AgedCache[str, int] = AgedCache(size, seconds)
            cache.put("a", 1, 0.0)
            self.assertEqual(len(cache), 0)

    def test_forgets_the_chosen_and_all(self) -> None:
        cache: AgedCache[str, int] = AgedCache(10, 5.0)
        for key in "abc":
            cache.put(key, 1, 0.0)
        cache.forget(lambda key: key == "b")
        self.assertEqual([cache.get(key, 0.0) for key in "abc"], [1, None, 1])
        cache.clear()
        self.assertEqual(len(cache), 0)
