"""What several processes say, as one answer."""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from twisted.trial.unittest import SynchronousTestCase

from amqprouter.web.merged import (
    MOST_DEVICES,
    as_json,
    merged_devices,
    merged_latency,
    merged_metrics,
    merged_parts,
    merged_status,
)


def device(name: str, rate: float, **fields: Any) -> dict[str, Any]:
    figures = dict.fromkeys(("allowed", "refusing", "passed", "waiting", "parked", "refused", "oldest"), 0)
    return {"device": name, "rate": rate, **figures, "state": "running", "limit": "", **fields}


class PartTests(SynchronousTestCase):
    def test_what_all_say_is_said_once(self) -> None:
        down = {"broker": "no answer", "ingress": ""}
        self.assertEqual(merged_parts({"1": down, "2": down}), down)

    def test_what_some_say(self) -> None:
        said = {"1": {"broker": ""}, "2": {"broker": "away"}, "3": {"broker": "away"}, "4": {"broker": "slow", "x": ""}}
        told = merged_parts(said)
        self.assertEqual(told, {"broker": "processes 2, 3: away; process 4: slow", "x": ""})


class StatusTests(SynchronousTestCase):
    def report(self, now: float, **figures: Any) -> dict[str, Any]:
        devices = [device("a", now)]
        return {"version": "1", "now": now, "uptime": now, "parts": {}, "devices": devices, "gauges": {}, **figures}

    def test_sums(self) -> None:
        first = self.report(
            5.0,
            counters={"settled": 3, "rejected": {"bad": 1}},
            gauges={"waiting": 2, "oldest_unacked_seconds": 7.0},
            since={"broker": 4.0, "store": 2.0},
            backlog={"parked": 3},
        )
        second = self.report(
            6.0,
            counters={"settled": 4, "rejected": {"bad": 2, "worse": 1}, "new": 1},
            gauges={"waiting": 1, "oldest_unacked_seconds": 1.0},
            since={"broker": 3.0},
            backlog={"parked": 4},
        )
        status = merged_status({"1": first, "2": second})
        self.assertEqual(status["counters"], {"settled": 7, "rejected": {"bad": 3, "worse": 1}, "new": 1})
        self.assertEqual(status["gauges"], {"waiting": 3, "oldest_unacked_seconds": 7.0})
        self.assertEqual((status["since"], status["backlog"]), ({"broker": 3.0, "store": 2.0}, {"parked": 7}))
        self.assertEqual((status["now"], status["uptime"]), (6.0, 6.0))
        self.assertEqual([(one["device"], one["rate"]) for one in status["devices"]], [("a", 11.0)])

    def test_devices(self) -> None:
        first = [device("a", 5, waiting=1, oldest=1.0, state="waiting", limit="its rate"), device("b", 3)]
        second = [device("b", 4, waiting=2, oldest=9.0, state="parked"), device("c", 0)]
        told = merged_devices([first, second])
        self.assertEqual(
            [(one["device"], one["rate"], one["waiting"]) for one in told], [("b", 7, 2), ("a", 5, 1), ("c", 0, 0)]
        )
        self.assertEqual([one["state"] for one in told], ["parked", "waiting", "running"])
        many = [device(f"d{number}", number) for number in range(2 * MOST_DEVICES)]
        self.assertEqual(len(merged_devices([many])), MOST_DEVICES)

    def test_of_latencies_the_slowest_counts(self) -> None:
        row = {"step": "confirmed", "target": "store:x", "class": "a", "samples": 2, "p50": 1.0, "p99": 5.0}
        first = [{**row, "longest": 6.0}]
        second = [{**row, "p50": 2.0, "p99": 3.0, "longest": 3.0}, {**row, "class": "b", "longest": 5.0}]
        told = merged_latency([first, second])
        self.assertEqual(told[0], {**row, "samples": 4, "p50": 2.0, "longest": 6.0})
        self.assertEqual(told[1:], [{**row, "class": "b", "longest": 5.0}])


class MetricTests(SynchronousTestCase):
    def families(self, settled: int, oldest: float, seconds: float) -> list[list[Any]]:
        by_reason = CounterMetricFamily("amqprouter_rejected", "Refused.", labels=["reason"])
        by_reason.add_metric(["bad"], settled)
        return as_json(
            [
                CounterMetricFamily("amqprouter_settled", "Settled.", settled),
                by_reason,
                GaugeMetricFamily("amqprouter_oldest_unacked_seconds", "Age.", oldest),
                CounterMetricFamily("process_cpu_seconds", "CPU.", seconds),
            ]
        )

    def test_histograms_are_added_up(self) -> None:
        family = HistogramMetricFamily("amqprouter_x_latency_seconds", "How long.", labels=["class"])
        family.add_metric(["a"], [("1.0", 2), ("+Inf", 3)], 4.5)
        ready = GaugeMetricFamily("amqprouter_part_ready", "Ready.", 1.0)
        away = GaugeMetricFamily("amqprouter_part_ready", "Ready.", 0.0)
        told = merged_metrics({"1": as_json([family, ready]), "2": as_json([family, away])})
        merged = {one.name: [sample.value for sample in one.samples] for one in told}
        self.assertEqual(merged["amqprouter_x_latency_seconds"], [4, 6, 6, 9])
        self.assertEqual(merged["amqprouter_part_ready"], [0.0])

    def test_sums_and_single_figures(self) -> None:
        merged = list(merged_metrics({"1": self.families(3, 2.0, 0.5), "2": self.families(4, 1.0, 0.25)}))

        class Fixed(Collector):
            def collect(self) -> list[Metric]:
                return merged

        registry = CollectorRegistry()
        registry.register(Fixed())
        lines = {line for line in generate_latest(registry).decode().splitlines() if not line.startswith("#")}
        self.assertEqual(
            lines,
            {
                "amqprouter_settled_total 7.0",
                'amqprouter_rejected_total{reason="bad"} 7.0',
                "amqprouter_oldest_unacked_seconds 2.0",
                'amqprouter_process_settled_total{process="1"} 3.0',
                'amqprouter_process_settled_total{process="2"} 4.0',
                'amqprouter_process_rejected_total{process="1",reason="bad"} 3.0',
                'amqprouter_process_rejected_total{process="2",reason="bad"} 4.0',
                'amqprouter_process_oldest_unacked_seconds{process="1"} 2.0',
                'amqprouter_process_oldest_unacked_seconds{process="2"} 1.0',
                'process_cpu_seconds_total{process="1"} 0.5',
                'process_cpu_seconds_total{process="2"} 0.25',
            },
        )
