"""Latencies from the load client's buckets."""

from __future__ import annotations

from math import isnan

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.events_load import quantile


def bucket(value: int) -> int:
    """As `bucket` of sse_load.c has it."""
    if value < 32:
        return value
    exponent = value.bit_length() - 1
    return (exponent - 4) * 32 + (value >> (exponent - 5) & 31)


class QuantileTests(SynchronousTestCase):
    def test_within_three_percent(self) -> None:
        for microseconds in (0, 5, 31, 32, 63, 64, 100, 1000, 12_345, 999_999, 10_000_000):
            buckets = [0] * 2048
            buckets[bucket(microseconds)] = 7
            for share in (0.5, 0.99):
                found = quantile(buckets, share) * 1000
                self.assertGreaterEqual(round(found), microseconds)
                self.assertLessEqual(found, microseconds * 1.04)

    def test_shares(self) -> None:
        buckets = [1] * 20
        self.assertEqual((quantile(buckets, 0.5), quantile(buckets, 0.99)), (0.009, 0.019))

    def test_nothing_came(self) -> None:
        self.assertTrue(isnan(quantile([0] * 2048, 0.5)))
