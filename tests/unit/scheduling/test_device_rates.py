"""Limits of devices, kept for as long as they matter."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from amqprouter.scheduling.limit import UNLIMITED, DeviceRates, Limit


class DeviceRatesTests(SynchronousTestCase):
    def test_each_device_has_its_own(self) -> None:
        rates = DeviceRates(Limit.parse("1/s burst 2, 100B/s burst 1kB"))
        self.assertEqual([rates.take("a", 10, 5.0) for _ in range(3)], [0.0, 0.0, 1.0])
        self.assertEqual(rates.take("b", 10, 5.0), 0.0)
        self.assertEqual([rates.take("a", 10, 6.0) for _ in range(2)], [0.0, 1.0])
        self.assertEqual(rates.take("c", 1000, 5.0), 0.0)
        self.assertEqual(rates.take("c", 500, 5.0), 5.0, "bytes count too")

    def test_those_with_full_buckets_are_forgotten(self) -> None:
        rates = DeviceRates(Limit.parse("1/s"), most=2)
        self.assertEqual([rates.take(name, 1, 5.0) for name in "abc"], [0.0, 0.0, 1.0], "none may have its burst again")
        self.assertEqual((rates.take("c", 1, 6.0), len(rates)), (0.0, 1))

    def test_without_a_limit_nothing_is_remembered(self) -> None:
        rates = DeviceRates(UNLIMITED)
        self.assertEqual([rates.take("a", 1, 0.0) for _ in range(100)], [0.0] * 100)
        self.assertEqual(len(rates), 0)
