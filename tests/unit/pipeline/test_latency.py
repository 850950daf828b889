"""Histograms of how long messages take: what is counted where, and what is said to be recent."""

from __future__ import annotations

from bisect import bisect_left

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from amqprouter.amqp.ack_ledger import AckLedger
from amqprouter.amqp.field_table import FieldValue
from amqprouter.amqp.properties import Front, Properties, encode_properties
from amqprouter.identity import Verdict
from amqprouter.pipeline.gate import TargetGate
from amqprouter.pipeline.latency import (
    AHEAD,
    BOUNDS,
    OLDEST_SENT,
    SPAN,
    UNKNOWN,
    Latencies,
    LatencyHistogram,
    quantile,
    sent_at,
)
from amqprouter.pipeline.message import Message
from amqprouter.pipeline.sender import Senders
from amqprouter.pipeline.settlement import Settlement
from amqprouter.scheduling.scheduler import Scheduler
from amqprouter.settings import ClassSettings, SchedulerSettings
from tests.unit.pipeline.test_gate import Target

START = 1_700_000_000.0


class HistogramTests(SynchronousTestCase):
    def test_a_bound_is_in_its_bucket(self) -> None:
        histogram = LatencyHistogram()
        for seconds in (0.0, 0.001, 0.0011, 3600.0, 3600.1):
            histogram.add(seconds, 2, START)
        self.assertEqual(histogram.counts, [4, 2, *[0] * (len(BOUNDS) - 3), 2, 2])
        self.assertEqual(list(histogram.cumulative())[-2:], [(3600.0, 8), (float("inf"), 10)])
        self.assertAlmostEqual(histogram.total, 2 * 7200.1021)

    def test_a_clock_that_was_set_back_does_not_count_below_nothing(self) -> None:
        histogram = LatencyHistogram()
        histogram.add(-5.0, 1, START)
        self.assertEqual((histogram.counts[0], histogram.total), (1, 0.0))

    def test_only_the_last_minutes_are_recent(self) -> None:
        histogram = LatencyHistogram()
        histogram.add(50.0, 100, START)
        histogram.add(0.002, 1, START + SPAN)
        recent = histogram.recent(START + 2 * SPAN - 1)
        assert recent is not None
        self.assertEqual((recent.samples, recent.longest), (101, 50.0))
        recent = histogram.recent(START + 2 * SPAN)
        assert recent is not None
        self.assertEqual((recent.samples, recent.longest), (1, 0.002))
        self.assertIsNone(histogram.recent(START + 3 * SPAN))
        self.assertEqual(sum(histogram.counts), 101)

    def test_nothing_is_recent_after_a_long_silence(self) -> None:
        histogram = LatencyHistogram()
        histogram.add(1.0, 1, START)
        self.assertIsNone(histogram.recent(START + 5 * SPAN))
        histogram.add(2.0, 1, START + 9 * SPAN)
        recent = histogram.recent(START + 9 * SPAN)
        assert recent is not None
        self.assertEqual((recent.samples, recent.longest), (1, 2.0))

    def test_it_goes_on_when_the_clock_is_set_back(self) -> None:
        histogram = LatencyHistogram()
        histogram.add(1.0, 1, START)
        histogram.add(2.0, 3, START - 1e6)
        recent = histogram.recent(START - 1e6)
        assert recent is not None
        self.assertEqual(recent.samples, 3)

    @given(st.lists(st.floats(0.0, 5000.0), min_size=1), st.floats(0.01, 1.0))
    def test_a_quantile_is_in_the_right_bucket(self, values: list[float], part: float) -> None:
        histogram = LatencyHistogram()
        for value in values:
            histogram.add(value, 1, START)
        found = quantile(histogram.counts, part, max(values))
        exact = next(
            value for place, value in enumerate(sorted(values), 1) if place >= part * len(values) * (1 - 1e-12)
        )
        self.assertLessEqual(found, max(values))
        place = bisect_left(BOUNDS, exact)
        self.assertGreaterEqual(found, min(max(values), BOUNDS[place - 1] if place else 0.0))
        if place < len(BOUNDS):
            self.assertLessEqual(found, BOUNDS[place])


class LatenciesTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(START)
        self.latencies = Latencies(self.clock.seconds)
        self.ledger = AckLedger()

    def message(self, device: str = "dev1", raw: bytes = b"\0\0", redelivered: bool = False) -> Message:
        message = Message(device, "up", b"", Properties(raw), redelivered=redelivered, received_at=self.clock.seconds())
        message.verdict = Verdict(True, "", "scripted", None)
        return message

    def settlement(self, device: str = "dev1") -> Settlement:
        return Settlement(self.message(device), 1, self.ledger, lambda settlement: None)

    def use_classes(self, *devices: str) -> None:
        scheduler: Scheduler[Message] = Scheduler(SchedulerSettings(), [ClassSettings("fast", devices=("f*",))])
        for device in devices:
            scheduler.offer(device, self.message(device), 0.0)
        self.latencies.classes = scheduler


class TargetTests(LatenciesTestCase):
    def test_what_a_target_answers_for_together(self) -> None:
        early = [self.settlement() for _ in range(3)]
        self.clock.advance(2)
        late = [self.settlement() for _ in range(2)]
        self.clock.advance(0.02)
        self.latencies.target("store:x").answered([*early, *late])
        self.latencies.target("exchange:y").answered(late)
        store, exchange = (self.latencies.targets[name, "default"] for name in ("store:x", "exchange:y"))
        self.assertEqual((store.counts[BOUNDS.index(2.5)], store.counts[BOUNDS.index(0.025)]), (3, 2))
        self.assertEqual(sum(exchange.counts), 2)
        self.assertAlmostEqual(store.total, 3 * 2.02 + 2 * 0.02, places=5)

    def test_nothing(self) -> None:
        self.latencies.target("store:x").answered([])
        self.assertEqual(self.latencies.recent(), [])

    def test_by_class(self) -> None:
        self.use_classes("f1", "dev1")
        settlements = [self.settlement(device) for device in ("f1", "dev1", "f1", "gone")]
        self.clock.advance(1)
        self.latencies.target("store:x").answered(settlements)
        counts = {name: sum(histogram.counts) for (_, name), histogram in self.latencies.targets.items()}
        self.assertEqual(counts, {"fast": 2, "default": 1, UNKNOWN: 1})

    def test_a_gate_tells_while_the_device_is_known(self) -> None:
        """That is before the settlements are finished, whether the gate is careful or not."""
        seen: list[int] = []
        known = {"f1"}

        class Classes:
            only_class = ""

            def class_of(self, name: str) -> str:
                return "fast" if name in known else ""

        self.latencies.classes = Classes()
        target = Target()
        gate = TargetGate(
            *("store:x", target, self.clock),
            window=10,
            patience=1.0,
            random=lambda: 1.0,
            wake=lambda: None,
            latency=self.latencies.target("store:x"),
        )
        for careful in (False, True):
            known.add("f1")
            message = self.message("f1")
            settlement = Settlement(message, 1, self.ledger, lambda settlement: known.discard("f1"))
            gate.deliver(message, settlement)
            if careful:
                gate.stumbled("away")
            gate.delivered_all([settlement])
            seen.append(sum(self.latencies.targets["store:x", "fast"].counts))
        self.assertEqual((seen, known), ([1, 2], set()))
        gate.stop()


class PublishingTests(LatenciesTestCase):
    def seen(self) -> int:
        return sum(sum(histogram.counts) for histogram in self.latencies.publishing.values())

    def test_by_the_time_that_the_message_tells(self) -> None:
        self.use_classes("f1")
        raw = encode_properties(timestamp=int(START) - 4)
        self.latencies.received([self.message("f1", raw), self.message("f1")])
        histogram = self.latencies.publishing["fast"]
        self.assertEqual((sum(histogram.counts), histogram.total), (1, 4.0))

    def test_senders_who_are_not_who_they_claim_to_be_do_not_count(self) -> None:
        raw = encode_properties(timestamp=int(START) - 4)
        denied, unknown = self.message(raw=raw), self.message(raw=raw)
        denied.verdict, unknown.verdict = Verdict(False, "no", "scripted", None), None
        self.latencies.received([denied, unknown])
        self.assertEqual(self.seen(), 0)

    def test_nor_does_what_comes_again(self) -> None:
        raw = encode_properties(timestamp=int(START) - 4)
        replayed = self.message(raw=raw)
        replayed.is_replayed = True
        self.latencies.received([replayed, self.message(raw=raw, redelivered=True)])
        self.assertEqual(self.seen(), 0)

    def test_clocks_that_are_wrong(self) -> None:
        for wrong in (0, START - OLDEST_SENT - 1, START + AHEAD + 1, 2**64 - 1):
            self.latencies.received([self.message(raw=encode_properties(timestamp=int(wrong)))])
        self.assertEqual(self.seen(), 0)
        for right in (START - OLDEST_SENT, START + AHEAD):
            self.latencies.received([self.message(raw=encode_properties(timestamp=int(right)))])
        self.assertEqual(self.seen(), 2)


class SentAtTests(SynchronousTestCase):
    def test_milliseconds_count_before_seconds(self) -> None:
        raw = encode_properties(headers={"timestamp_in_ms": 1_700_000_000_123}, timestamp=1_700_000_000)
        self.assertEqual(sent_at(Properties(raw)), 1_700_000_000.123)

    def test_what_else_the_header_may_hold(self) -> None:
        others: list[FieldValue] = ["1700000000123", True, None, [1], {"timestamp_in_ms": 1}]
        for value in others:
            raw = encode_properties(headers={"timestamp_in_ms": value}, timestamp=7)
            self.assertEqual(sent_at(Properties(raw)), 7)
        raw = encode_properties(headers={"x": "timestamp_in_ms"}, timestamp=7)
        self.assertEqual(sent_at(Properties(raw)), 7)

    def test_of_a_known_front(self) -> None:
        for timestamp in (None, 7):
            properties = Properties(encode_properties(headers={"x": 1}, message_id="m", timestamp=timestamp))
            properties.front = Front(properties, Senders(b"", b"k" * 32).digest)
            self.assertEqual(sent_at(properties), timestamp)

    @given(st.binary(max_size=60))
    def test_malformed(self, raw: bytes) -> None:
        for some in (raw, raw + b"\x0ftimestamp_in_ms"):
            sent_at(Properties(some))


class ReportTests(LatenciesTestCase):
    def test_in_the_order_of_the_way(self) -> None:
        settlement = self.settlement()
        self.latencies.received([self.message(raw=encode_properties(timestamp=int(START) - 1))])
        self.clock.advance(4)
        self.latencies.target("store:x").answered([settlement])
        self.latencies.written(START)
        rows = self.latencies.recent()
        self.assertEqual(
            [{name: row[name] for name in ("step", "target", "class", "samples") if name in row} for row in rows],
            [
                {"step": "published", "class": "default", "samples": 1},
                {"step": "confirmed", "target": "store:x", "class": "default", "samples": 1},
                {"step": "written", "samples": 1},
            ],
        )
        self.assertEqual((rows[1]["p50"], rows[1]["p99"], rows[1]["longest"]), (3.75, 4.0, 4.0))
        self.clock.advance(3 * SPAN)
        self.assertEqual(self.latencies.recent(), [])
