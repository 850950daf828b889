"""Limits: what the text means, and that no more passes than it says."""

from __future__ import annotations

from hypothesis import given, settings, strategies
from twisted.trial.unittest import SynchronousTestCase

from amqprouter.scheduling.limit import UNLIMITED, Limit

BAD = {
    "": "a limit is missing",
    "1/s,": "a limit is missing",
    "100": "'100' is not AMOUNT/PERIOD",
    "1/s/s": "'1/s/s' is not AMOUNT/PERIOD",
    "1/s 5": "not AMOUNT/PERIOD",
    "1/s burst": "not AMOUNT/PERIOD",
    "0/s": "with 0 nothing would ever pass",
    "-1/s": "less than 0",
    "nan/s": "must be a finite number",
    "-inf/s": "must be a finite number",
    "1e400/s": "not an amount",
    "1e13/s": "more than 1e+12",
    "٣/s": "not an amount",
    "1_0/s": "not an amount",
    "x/s": "not an amount",
    "1/fortnight": "unknown period 'fortnight'",
    "1XB/s": "unknown unit 'XB'",
    "1/s burst 0": "with 0 nothing would ever pass",
    "1/s burst 0.5": "with a burst of less than 1 nothing would ever pass",
    "1/s burst 2MB": "the limit is in messages, its burst in bytes",
    "1MB/s burst 2": "the limit is in bytes, its burst in messages",
    "1/min, 2/minute": "'1/min' and '2/minute' are for the same unit and period",
    "1/s, none": "not AMOUNT/PERIOD",
    ",".join(["1/s"] * 9): "9 windows; at most 8",
}


class TextTests(SynchronousTestCase):
    def test_windows(self) -> None:
        limit = Limit.parse("100/s burst 200, 2000/min,1.5 MB / s burst 2 MiB, 5e4/day, 0.5/h")
        self.assertEqual(
            [(w.rate, w.burst, w.in_bytes) for w in limit.windows],
            [
                (100.0, 200.0, False),
                (2000 / 60, 2000.0, False),
                (1.5e6, 2.0 * 2**20, True),
                (5e4 / 86_400, 5e4, False),
                (0.5 / 3600, 1.0, False),
            ],
        )
        self.assertEqual(limit.text, "100/s burst 200, 2000/min, 1.5 MB / s burst 2 MiB, 5e4/day, 0.5/h")

    def test_none(self) -> None:
        self.assertIs(Limit.parse(" none "), UNLIMITED)
        self.assertEqual((UNLIMITED.text, UNLIMITED.wait(UNLIMITED.start, 10**9, 0.0)), ("none", 0.0))

    def test_bad_ones_are_told(self) -> None:
        for text, reason in BAD.items():
            with self.assertRaises(ValueError) as caught:
                Limit.parse(text)
            self.assertIn(reason, str(caught.exception))

    @settings(deadline=None)
    @given(strategies.text("0123456789.eE+-nafi/ smhdBkMGi,burst", max_size=20))
    def test_anything_else_raises_nothing_else(self, text: str) -> None:
        try:
            limit = Limit.parse(text)
        except ValueError:
            return
        for window in limit.windows:
            self.assertGreater(window.rate, 0)
            self.assertGreaterEqual(window.burst, 1)


class BoundTests(SynchronousTestCase):
    @settings(deadline=None)
    @given(
        strategies.sampled_from(
            ["10/s", "7/s burst 3, 20/min", "1kB/s", "5/s, 600B/s burst 900B, 100/h", "1/s burst 1"]
        ),
        strategies.lists(
            strategies.tuples(strategies.floats(0, 1) | strategies.floats(0, 90), strategies.integers(0, 400)),
            max_size=80,
        ),
        strategies.sampled_from([0.0, 1e4, 1e7]),
    )
    def test_never_more_in_any_span(self, text: str, steps: list[tuple[float, int]], start: float) -> None:
        limit, now = Limit.parse(text), start
        state = limit.start
        passed: list[tuple[float, int]] = []
        for elapsed, size in steps:
            now += elapsed
            wait = limit.wait(state, size, now)
            if not wait:
                state = limit.taken(state, size, now)
                passed.append((now, size))
            else:  # told, not guessed
                self.assertEqual(limit.wait(state, size, now + wait), 0.0)
                self.assertGreater(limit.wait(state, size, now + wait * 0.99 - 1e-6), 0.0)
        for window in limit.windows:
            for first in range(len(passed)):
                total = 0.0
                for moment, size in passed[first:]:
                    total += size if window.in_bytes else 1
                    self.assertLessEqual(total, window.burst + window.rate * (moment - passed[first][0] + 1e-6))

    def test_one_larger_than_the_burst_passes_when_nothing_else_did(self) -> None:
        limit = Limit.parse("100B/s")
        state = limit.taken(limit.start, 1000, 50.0)
        self.assertAlmostEqual(limit.wait(state, 1, 50.0), 9.01, places=6)
        self.assertAlmostEqual(limit.wait(state, 1000, 50.0), 10.0, places=6)

    def test_another_limit_for_what_was_used(self) -> None:
        before = Limit.parse("10/s")
        state = before.start
        for _ in range(6):
            state = before.taken(state, 1, 100.0)
        for text, left in {
            "10/s": [4],
            "1000/s": [994],
            "2/s": [0],
            "10/s, 60/min": [4, 54],
            "1MB/s": [1e6],
            "none": [],
        }.items():
            to = Limit.parse(text)
            pairs = to.paired(before.converted(state, 100.0, to))
            self.assertEqual([round(window.left(moment, 100.0), 6) for window, moment in pairs], left)
