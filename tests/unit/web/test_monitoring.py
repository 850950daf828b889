"""The dashboard and the alerts ask for metrics and labels that exist, and each alert says what to do."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import fields
from functools import cache
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any
from unittest import SkipTest

import yaml  # type: ignore[import-untyped]
from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector
from prometheus_client.registry import Collector
from twisted.trial.unittest import SynchronousTestCase

from amqprouter.counters import Counters
from amqprouter.pipeline.latency import Latencies, LatencyHistogram
from amqprouter.settings import IngressSettings, LimitsSettings
from amqprouter.web.metrics import LABELS, RouterCollector

ROOT = Path(__file__).parents[3]
ALERTS = ROOT / "etc/prometheus/alerts.yml"
DASHBOARD = ROOT / "etc/grafana/amqprouter.json"
SCRAPED = frozenset(("job", "instance"))
"""Labels that Prometheus adds."""
WORDS = frozenset(
    (
        *("and", "or", "unless", "by", "without", "on", "ignoring", "group_left", "offset"),
        *("sum", "rate", "increase", "histogram_quantile", "up", "le"),
    )
)
"""Of PromQL, as far as it is used; and the metric that Prometheus makes of each scrape."""
_TOKEN = re.compile(r'(?P<text>"(?:[^"\\]|\\.)*")|(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)|(?P<range>\[[^\]]*\])|\d\w*|\s+|.')
_GAUGE = re.compile(r'\bGauge\(\s*"(\w+)"')


@cache
def metrics() -> Mapping[str, frozenset[str]]:
    """Every series that there may be, with its labels."""
    counters, latencies = Counters(), Latencies(lambda: 0.0)
    for field in fields(counters):
        value = getattr(counters, field.name)
        if isinstance(value, dict):
            value[" ".join("x" for _ in LABELS.get(field.name, ("reason",)))] = 1
    latencies.publishing["x"] = latencies.targets["x", "x"] = LatencyHistogram()
    gate: Any = SimpleNamespace(name="x", outstanding=0, waiting=0, parked=0, is_down=False, troubles=Counter(x=1))
    part: Any = SimpleNamespace(name="x", problem=lambda: "")
    registry = CollectorRegistry(auto_describe=False)
    collectors: list[Collector] = [RouterCollector(counters, (), (gate,), latencies, (part,))]
    collectors += [ProcessCollector(registry=registry), GCCollector(registry=registry)]
    found = {
        sample.name: frozenset(sample.labels) | SCRAPED
        for collector in collectors
        for family in collector.collect()
        for sample in family.samples
    }
    for path in (ROOT / "amqprouter").rglob("*.py"):
        for name in _GAUGE.findall(path.read_text()):
            found[f"amqprouter_{name}"] = SCRAPED
    return {**found, "up": SCRAPED}


def problems(expression: str) -> Iterator[str]:
    """What is wrong with an expression: metrics that there are not, and labels that these have not."""
    tokens = [token for token in _TOKEN.finditer(expression) if not token[0].isspace()]
    named: set[str] = set()
    asked: set[str] = set()
    place, metric = 0, ""
    while place < len(tokens):
        token = tokens[place][0]
        if token in ("by", "without", "on", "ignoring") or token == "{":
            end = next(n for n in range(place, len(tokens)) if tokens[n][0] == (")" if token != "{" else "}"))
            labels = {part[0] for part in tokens[place + 1 : end] if part["name"]}
            if token == "{":
                yield from (f"{metric} has no label {label}" for label in labels - metrics().get(metric, labels))
            else:
                asked |= labels
            place = end
        elif tokens[place]["name"] and token not in WORDS - {"up"}:
            metric = token
            named.add(metric)
            if metric not in metrics():
                yield f"there is no {metric}"
        place += 1
    if not named:
        yield f"no metric in {expression}"
    for metric in named & metrics().keys():
        # Both sides of a division are summed by the same labels.
        yield from (f"{metric} has no label {label}" for label in asked - metrics()[metric])


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


class ReaderTests(SynchronousTestCase):
    """What `problems` finds, so that nothing passes for the want of looking."""

    def test_what_is_wrong(self) -> None:
        for wrong, told in (
            ("amqprouter_recieved_total > 0", "there is no amqprouter_recieved_total"),
            ('up == 0 or rate(amqprouter_x{job="y"}[5m]) > 1', "there is no amqprouter_x"),
            ('amqprouter_received_total{reason="x"}', "amqprouter_received_total has no label reason"),
            ("sum by (queue) (rate(amqprouter_rejected_total[5m]))", "amqprouter_rejected_total has no label queue"),
            ("amqprouter_rejected_total{reason!~\"a\", b='c'}", "amqprouter_rejected_total has no label b"),
            ("amqprouter_target_latency_seconds", "there is no amqprouter_target_latency_seconds"),
            ("vector(1)", "there is no vector"),
            ("1 > 0", "no metric in 1 > 0"),
        ):
            self.assertIn(told, list(problems(wrong)))

    def test_what_is_right(self) -> None:
        for right in (
            'sum by (job, reason) (rate(amqprouter_rejected_total{reason="amqprouter_x{y}"}[5m]))',
            "histogram_quantile(0.5, sum by (le, class) (rate(amqprouter_publish_latency_seconds_bucket[1h])))",
        ):
            self.assertEqual(list(problems(right)), [])


class AlertTests(SynchronousTestCase):
    def test_they_ask_for_what_there_is(self) -> None:
        for rule in rules():
            self.assertEqual(list(problems(rule["expr"])), [], rule["alert"])

    def test_each_says_what_to_do_and_where_more_is_said(self) -> None:
        lines = (ROOT / "docs/operations.rst").read_text().splitlines()
        headings = {text for text, under in pairwise(lines) if under == "-" * len(text) and text}
        names = [rule["alert"] for rule in rules()]
        self.assertEqual(len(names), len(set(names)))
        for rule in rules():
            notes = rule["annotations"]
            self.assertEqual(set(notes), {"summary", "description", "action", "runbook"}, rule["alert"])
            self.assertIn(rule["labels"]["severity"], ("page", "ticket"))
            page, _, heading = notes["runbook"].partition(", ")
            self.assertEqual(page, "docs/operations.rst")
            self.assertIn(heading.strip('"'), headings, rule["alert"])

    def test_labels_in_the_words(self) -> None:
        """Those that the expression leaves are there, and no others."""
        for rule in rules():
            by = re.search(r"\bby \(([^)]*)\)", rule["expr"])
            name = next(name for name in metrics() if re.search(rf"\b{name}\b", rule["expr"]))
            kept = set(re.findall(r"\w+", by[1])) - {"le"} if by else metrics()[name]
            used = set(re.findall(r"\$labels\.(\w+)", " ".join(rule["annotations"].values())))
            self.assertEqual(used - kept, set(), rule["alert"])

    def test_numbers_that_go_with_options(self) -> None:
        by_name = {rule["alert"]: rule["expr"] for rule in rules()}
        self.assertTrue(by_name["AmqprouterParkingFillsUp"].endswith(f"> {LimitsSettings().max_parked * 4 // 5}"))
        self.assertTrue(
            by_name["AmqprouterOldUnacked"].endswith(f"> {IngressSettings().consumer_timeout / 2:.0f}"),
        )


class PromtoolTests(SynchronousTestCase):
    def promtool(self, *arguments: str) -> None:
        program = shutil.which("promtool")
        if program is None:
            raise SkipTest("there is no promtool (Debian's package prometheus has it)")
        done = subprocess.run((program, *arguments), capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_rules(self) -> None:
        self.promtool("check", "rules", str(ALERTS))

    def test_they_go_off(self) -> None:
        """Also for the first message that is dead-lettered, and not for one of long ago."""
        gateway = 'job="amqprouter", instance="a:1"'
        series = {
            f"up{{{gateway}}}": "1x20 0x40",
            f'amqprouter_dead_lettered_total{{{gateway}, reason="bad-queue"}}': "_x30 1x100",
            f'amqprouter_target_down{{{gateway}, target="store:x"}}': "0x10 1x10 0x100",
            f"amqprouter_received_total{{{gateway}}}": "0+60x100",
            f"amqprouter_settled_total{{{gateway}}}": "0+60x40 2400x60",
        }
        whose = {"job": "amqprouter", "instance": "a:1"}
        cases = [
            ("AmqprouterAbsent", "20m", []),
            ("AmqprouterAbsent", "24m", [{"severity": "page", **whose}]),
            ("AmqprouterDeadLetters", "29m", []),
            ("AmqprouterDeadLetters", "32m", [{"severity": "ticket", **whose, "reason": "bad-queue"}]),
            ("AmqprouterDeadLetters", "60m", []),
            ("AmqprouterTargetDown", "14m", []),
            ("AmqprouterTargetDown", "17m", [{"severity": "page", **whose, "target": "store:x"}]),
            ("AmqprouterTargetDown", "22m", []),
            ("AmqprouterStandsStill", "40m", []),
            ("AmqprouterStandsStill", "65m", [{"severity": "page", **whose}]),
        ]
        queries = [
            {
                "expr": f'ALERTS{{alertname="{name}", alertstate="firing"}}',
                "eval_time": when,
                "exp_samples": [
                    {"labels": _series("ALERTS", alertname=name, alertstate="firing", **labels), "value": 1}
                    for labels in found
                ],
            }
            for name, when, found in cases
        ]
        test = {
            "rule_files": [str(ALERTS)],
            "evaluation_interval": "1m",
            "tests": [
                {
                    "interval": "1m",
                    "input_series": [{"series": name, "values": values} for name, values in series.items()],
                    "promql_expr_test": queries,
                }
            ],
        }
        with TemporaryDirectory() as folder:
            path = Path(folder, "test.yml")
            path.write_text(yaml.safe_dump(test))
            self.promtool("test", "rules", str(path))


def _series(name: str, **labels: str) -> str:
    return f"{name}{{{', '.join(f'{key}={json.dumps(value)}' for key, value in labels.items())}}}"


class DashboardTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.board: dict[str, Any] = json.loads(DASHBOARD.read_text())
        self.panels = [panel for panel in self.board["panels"] if panel["type"] != "row"]

    def test_it_asks_for_what_there_is(self) -> None:
        for panel in self.panels:
            for target in panel["targets"]:
                expression = target["expr"].replace("$__rate_interval", "5m")
                self.assertEqual(list(problems(expression)), [], panel["title"])
                self.assertIn('job="$job", instance=~"$instance"', expression)

    def test_legends(self) -> None:
        for panel in self.panels:
            for target in panel["targets"]:
                by = re.search(r"\bby \(([^)]*)\)", target["expr"])
                used = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
                name = next(name for name in metrics() if re.search(rf"\b{name}\b", target["expr"]))
                kept = set(re.findall(r"\w+", by[1])) if by else metrics()[name]
                self.assertEqual(used - kept, set(), panel["title"])

    def test_its_variables(self) -> None:
        variables = {variable["name"]: variable for variable in self.board["templating"]["list"]}
        self.assertEqual(set(variables), {"datasource", "job", "instance"})
        for name in ("job", "instance"):
            call = re.fullmatch(r"label_values\((.*), (\w+)\)", variables[name]["definition"])
            assert call is not None
            self.assertEqual((list(problems(call[1])), call[2]), ([], name))
        self.assertEqual({panel["datasource"]["uid"] for panel in self.panels}, {"${datasource}"})

    def test_panels_have_places_of_their_own(self) -> None:
        taken: Counter[tuple[int, int]] = Counter()
        for panel in self.board["panels"]:
            place = panel["gridPos"]
            self.assertLessEqual(place["x"] + place["w"], 24)
            for x in range(place["x"], place["x"] + place["w"]):
                taken.update((x, y) for y in range(place["y"], place["y"] + place["h"]))
        self.assertEqual({place for place, count in taken.items() if count > 1}, set())
        ids = [panel["id"] for panel in self.board["panels"]]
        self.assertEqual(len(ids), len(set(ids)))
        self.assertTrue(all(panel["description"] for panel in self.panels))
