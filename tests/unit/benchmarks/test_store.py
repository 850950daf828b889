"""What the benchmark of storing sends, what it makes of its runs, and what it refuses."""

from __future__ import annotations

import json
import shutil
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from benchmarks import store, store_contenders
from benchmarks.figures import ratios, summarise
from benchmarks.layout import DEVICES
from benchmarks.store_figures import (
    GOALS,
    StoreRun,
    latency,
    latency_table,
    limits,
    store_json,
    store_table,
    summary,
)
from benchmarks.store_traffic import SIZES, Readings, reading


def run(name: str, seconds: float, **more: Any) -> StoreRun:
    fields = {"store_cpu": 0.01, "inserts": 4, "largest": 500, "acks": 5}
    return StoreRun(name, "classic, 256 B, sink", 0, 1000, seconds, 0.1, 0.05, 50.0, **(fields | more))


class TrafficTests(SynchronousTestCase):
    def test_sizes_are_exact_whatever_the_number(self) -> None:
        for size in (*SIZES, 101, 1000):
            self.assertEqual({len(reading(size, number)) for number in (0, 7, 19_999, 1_000_000)}, {size})

    def test_objects_in_objects(self) -> None:
        for size in SIZES:
            body = json.loads(reading(size, 42))
            self.assertEqual(body["seq"] % 1_000_000, 42)
            self.assertIsInstance(body["air"]["celsius"], float)
        self.assertGreater(len(json.loads(reading(4096, 0))["sensors"]), 20)

    def test_publishes_differ_in_their_number_alone(self) -> None:
        readings = Readings(256, "feed", dict.fromkeys(DEVICES, "secret"))
        for number in (0, 123_456):
            self.assertIn(reading(256, number), readings.one(1, 131_072, number))
            self.assertIn(b"%010d" % number, readings.one(1, 131_072, number))

    def test_blocks_have_every_number(self) -> None:
        readings = Readings(100, "feed", dict.fromkeys(DEVICES, "secret"))
        blocks = list(readings.encoder(10, 1001)(1, 131_072))
        self.assertEqual(len(blocks), 3)
        self.assertEqual(b"".join(blocks), b"".join(readings.one(1, 131_072, number) for number in range(10, 1011)))


class FiguresTests(SynchronousTestCase):
    def test_batches_and_acks(self) -> None:
        (told,) = summary([run("pika", 1.0), run("pika", 2.0, acks=10, inserts=10, largest=100)])
        self.assertEqual((told["batch"], told["largest"], told["each_ack"]), (175.0, 500, 150.0))
        self.assertAlmostEqual(told["store_cpu"], 10.0)
        self.assertEqual(told["store_busy"], 0.01)

    def test_a_store_that_does_not_count(self) -> None:
        runs = [run("pika", 1.0, inserts=None, largest=None)]
        self.assertIsNone(summary(runs)[0]["batch"])
        self.assertRegex(store_table(runs), r"10\.0 +– +– +200 +50")

    def test_no_acks_at_all(self) -> None:
        """A short run may need one only, which came late."""
        self.assertEqual(summary([run("pika", 1.0, acks=0)])[0]["each_ack"], 1000)

    def test_goals(self) -> None:
        runs = [run("amqprouter", 1.0), run("pika", 1.6), run("amqplib", 0.9), run("before", 4.0)]
        told = {each["goal"]: each["met"] for each in ratios(summarise(runs), "amqprouter", GOALS)}
        self.assertEqual(
            told,
            {
                "rate ≥ 1.6 × pika": True,
                "rate ≥ 1 × amqplib": False,
                "cpu ≤ 0.5 × pika": False,
                "broker_cpu ≤ 1.1 × pika": True,
                "rate ≥ 3 × before": True,
            },
        )

    def test_a_sink_that_may_have_been_the_limit_stands_out(self) -> None:
        self.assertIn("so it was never the limit", limits([run("pika", 1.0), run("C", 1.0, store_cpu=0.4)], "sink"))
        self.assertIn("TOO MUCH", limits([run("pika", 1.0), run("C", 1.0, store_cpu=0.6)], "sink"))
        self.assertEqual(limits([], "sink"), "")

    def test_latencies(self) -> None:
        told = latency("pika", "m", 100.0, [number / 1000 for number in range(100, 0, -1)])
        self.assertEqual((told.messages, told.p50, told.p99, told.worst), (100, 51.0, 100.0, 100.0))
        self.assertIn("51.0", latency_table([told]))

    def test_json_is_json(self) -> None:
        runs = [run("amqprouter", 1.0), run("pika", 2.0)]
        told = json.loads(json.dumps(store_json(runs, [latency("pika", "m", 1, [1])], {"rounds": 1}, ("amqprouter",))))
        self.assertEqual((len(told["runs"]), len(told["medians"]), len(told["latencies"])), (2, 2, 1))
        self.assertEqual(told["ratios"][0]["ratio"], 2.0)


class ArgumentTests(SynchronousTestCase):
    def refused(self, *argv: str) -> str:
        told = StringIO()
        with redirect_stderr(told), self.assertRaises(SystemExit):
            store.arguments([*argv])
        return told.getvalue()

    def test_what_cannot_be_measured_is_refused_at_once(self) -> None:
        self.assertIn("100 messages at least", self.refused("--messages", "99"))
        self.assertIn("100 bytes at least", self.refused("--sizes", "50"))
        self.assertIn("no checkout", self.refused("--against", "/nowhere"))

    def test_a_checkout_to_compare_with(self) -> None:
        checkout = Path("checkout")
        (checkout / "amqprouter").mkdir(parents=True)
        self.assertEqual(store.arguments(["--against", str(checkout)]).against, checkout)


class MissingTests(SynchronousTestCase):
    def left_out(self, *names: str) -> list[str]:
        told: list[str] = []
        self.patch(store_contenders, "find_spec", lambda name: None)
        self.patch(shutil, "which", lambda name: None)
        coroutine = store_contenders.prepare([*names], None, Path("nothing"), told.append)
        with self.assertRaises(StopIteration) as ended:
            coroutine.send(None)
        self.assertEqual(ended.exception.value, [])
        return told

    def test_what_to_install_is_said(self) -> None:
        for name, word in {
            "librabbitmq": "libmongoc-dev",
            "amqplib": "Node.js",
            "pika": "pip install",
            "aio-pika": "pip install",
        }.items():
            (told,) = self.left_out(name)
            self.assertTrue(told.startswith(f"{name} is left out: "), told)
            self.assertIn(word, told)
