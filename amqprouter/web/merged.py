"""What several processes say of themselves, put together as if one had said it.

Totals are sums. So are the figures that go up and down, but for those of which the worst counts. What is wrong with a
part is told once where all say the same, and with the process's number otherwise. Shapes stay those of one process.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from prometheus_client.core import Metric

WORST = {"oldest_unacked_seconds", "repartitions", "target_down"}
"""Gauges of which the highest counts, not the sum."""
LOWEST = {"part_ready"}
"""Likewise the lowest."""
MOST_DEVICES = 50
"""In one listing, as of one process."""
_PREFIX = "amqprouter_"


def merged_parts(by_process: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """What is wrong with each part by name; empty where nothing is."""
    told: dict[str, dict[str, list[str]]] = {}
    for number, parts in by_process.items():
        for name, problem in parts.items():
            told.setdefault(name, {}).setdefault(problem, []).append(number)
    return {name: _told_of(problems) for name, problems in told.items()}


def _told_of(problems: Mapping[str, Sequence[str]]) -> str:
    if len(problems) == 1:
        return next(iter(problems))
    return "; ".join(
        f"process{'es' if len(numbers) > 1 else ''} {', '.join(numbers)}: {problem}"
        for problem, numbers in problems.items()
        if problem
    )


def merged_status(by_process: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The reports of all as one; at least one is there."""
    reports = list(by_process.values())
    latest = max(reports, key=lambda report: float(report["now"]))
    return {
        **latest,
        "uptime": max(report["uptime"] for report in reports),
        "parts": merged_parts({number: report["parts"] for number, report in by_process.items()}),
        "since": _earliest(report.get("since", {}) for report in reports),
        "backlog": _summed(report.get("backlog", {}) for report in reports),
        "counters": _summed([report["counters"] for report in reports]),
        "gauges": _summed([report["gauges"] for report in reports], WORST),
        "latency": merged_latency([report.get("latency", ()) for report in reports]),
        "devices": merged_devices([report["devices"] for report in reports]),
    }


def _earliest(moments: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """By part: since when something is wrong with it in any process."""
    found: dict[str, float] = {}
    for one in moments:
        for name, moment in one.items():
            found[name] = min(moment, found.get(name, moment))
    return found


def _summed(figures: Iterable[Mapping[str, Any]], worst: Iterable[str] = ()) -> dict[str, Any]:
    """Sums by name; of figures by name, again."""
    found: dict[str, Any] = {}
    for one in figures:
        for name, value in one.items():
            before = found.get(name)
            if isinstance(value, Mapping):
                found[name] = _summed([before or {}, value])
            elif before is None:
                found[name] = value
            else:
                found[name] = max(before, value) if name in worst else before + value
    return found


def merged_latency(listings: Iterable[Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """How long each step took of late; of several processes the slowest counts, for quantiles cannot be added up."""
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    for row in (row for listing in listings for row in listing):
        key = row["step"], row.get("target", ""), row.get("class", "")
        before = found.get(key)
        if before is None:
            found[key] = dict(row)
            continue
        worst = {name: max(before[name], row[name]) for name in ("p50", "p99", "longest")}
        found[key] = {**before, "samples": before["samples"] + row["samples"], **worst}
    return list(found.values())


_RATES = ("rate", "allowed", "refusing", "passed", "waiting", "parked", "refused")


def merged_devices(listings: Iterable[Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """The busiest of all; what a device has in several processes is added up, and how it is tells the one that holds it
    up the longest."""
    found: dict[str, dict[str, Any]] = {}
    for listing in listings:
        for device in listing:
            before = found.get(device["device"])
            if before is None:
                found[device["device"]] = dict(device)
                continue
            sums = {name: before[name] + device[name] for name in _RATES}
            state = device if device["oldest"] > before["oldest"] else before
            found[device["device"]] = {**state, **sums}
    return sorted(found.values(), key=lambda device: -device["rate"])[:MOST_DEVICES]


# Metrics.


def as_json(families: Iterable[Metric]) -> list[list[Any]]:
    """Metrics as JSON: name, text, type, and the samples with name, labels and value."""
    return [
        [family.name, family.documentation, family.type, [[one.name, one.labels, one.value] for one in family.samples]]
        for family in families
    ]


def merged_metrics(by_process: Mapping[str, Sequence[Sequence[Any]]]) -> Iterable[Metric]:
    """The metrics of all: ours as sums under the names that they have, and of each process under
    ``amqprouter_process_…``; those of the process itself (CPU time, memory) with its number.

    The sums have no label of the process, so that rules and boards that know of one process go on. The single figures
    have a name of their own: one that had both would be counted twice by whoever adds up.
    """
    sums: dict[str, Metric] = {}
    totals: dict[tuple[str, str, tuple[tuple[str, str], ...]], float] = {}
    single: dict[str, Metric] = {}
    for number, families in by_process.items():
        for name, text, kind, samples in families:
            is_ours = name.startswith(_PREFIX)
            own = f"{_PREFIX}process_{name.removeprefix(_PREFIX)}" if is_ours else name
            one = single.setdefault(own, Metric(own, text, kind))
            if is_ours:
                sums.setdefault(name, Metric(name, text, kind))
            for sample, labels, value in samples:
                own_name = own + sample.removeprefix(name)
                one.add_sample(own_name, {"process": number, **labels}, value)
                if is_ours:
                    key = name, sample, tuple(labels.items())
                    if key not in totals:
                        totals[key] = value
                    elif name.removeprefix(_PREFIX) in WORST:
                        totals[key] = max(totals[key], value)
                    elif name.removeprefix(_PREFIX) in LOWEST:
                        totals[key] = min(totals[key], value)
                    else:
                        totals[key] += value
    for (name, sample, labels), value in totals.items():
        sums[name].add_sample(sample, dict(labels), value)
    yield from sums.values()
    yield from single.values()
