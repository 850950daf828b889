"""What ``benchmarks.store`` measures beyond `benchmarks.figures`: batches, acks, the store's share, latencies. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.figures import Goal, Run, ratios, summarise, table

BUSY = 0.5
"""Of a core: a sink that is busier than that may be what limits a contender."""
GOALS = (
    Goal("rate", "pika", 1.6),
    Goal("rate", "amqplib", 1.0),
    Goal("cpu", "pika", 0.5, at_most=True),
    Goal("broker_cpu", "pika", 1.1, at_most=True),
    Goal("rate", "before", 3.0),
)
P99 = 25.0
"""Milliseconds from publish to stored that the 99th percentile may be at a tenth of the full rate."""


@dataclass(frozen=True)
class StoreRun(Run):
    """One contender storing one filling of the queues; `mode` is the queues' type, the size and the store."""

    store_cpu: float = 0.0
    """Of the store's process, in seconds."""
    inserts: int | None = None
    """Commands that wrote; None where the store does not count them."""
    largest: int | None = None
    """Documents in the largest."""
    acks: int = 0
    """That the broker received; each may answer for many messages."""

    @property
    def busy(self) -> float:
        """Of a core, what the store took."""
        return self.store_cpu / self.seconds


@dataclass(frozen=True)
class Latency:
    """How long one contender's messages took from publish to stored, in milliseconds, at `rate` messages a second."""

    name: str
    mode: str
    rate: float
    messages: int
    p50: float
    p99: float
    worst: float


def latency(name: str, mode: str, rate: float, waits: Iterable[float]) -> Latency:
    """From waits in seconds, one at least."""
    ordered = sorted(wait * 1000 for wait in waits)
    p50, p99 = (ordered[min(len(ordered) - 1, int(len(ordered) * share))] for share in (0.5, 0.99))
    return Latency(name, mode, rate, len(ordered), p50, p99, ordered[-1])


def grouped(runs: Iterable[StoreRun]) -> dict[tuple[str, str], list[StoreRun]]:
    """Runs by mode and contender, in the order in which they first occur, as `summarise` has them."""
    groups: dict[tuple[str, str], list[StoreRun]] = {}
    for run in runs:
        groups.setdefault((run.mode, run.name), []).append(run)
    return groups


def _medians(group: Sequence[StoreRun]) -> dict[str, Any]:
    """What `Figures` does not have of one contender's runs in one mode."""
    batches = [run.messages / run.inserts for run in group if run.inserts]
    return {
        "store_cpu": median(run.store_cpu / run.messages * 1e6 for run in group),
        "store_busy": max(run.busy for run in group),
        "batch": median(batches) if batches else None,
        "largest": max((run.largest for run in group if run.largest is not None), default=None),
        "each_ack": median(run.messages / max(1, run.acks) for run in group),
    }


def summary(runs: Sequence[StoreRun]) -> list[dict[str, Any]]:
    """Medians, in the order in which contenders and modes first occur."""
    beyond = map(_medians, grouped(runs).values())
    return [asdict(figures) | more for figures, more in zip(summarise(runs), beyond, strict=True)]


def store_table(runs: Sequence[StoreRun]) -> str:
    """What was measured, one contender a line."""

    def shown(value: float | None, digits: int = 0) -> str:
        return "–" if value is None else f"{value:,.{digits}f}"

    rows = [
        (
            f["name"],
            f["mode"],
            shown(f["rate"]),
            f"{f['slowest']:,.0f} – {f['fastest']:,.0f}",
            shown(f["cpu"], 1),
            shown(f["broker_cpu"], 1),
            shown(f["store_cpu"], 1),
            shown(f["batch"]),
            shown(f["largest"]),
            shown(f["each_ack"]),
            shown(f["peak_megabytes"]),
        )
        for f in summary(runs)
    ]
    heads = ("per second", "range", "CPU µs", "broker µs", "store µs", "batch", "largest", "per ack", "peak MB")
    return table(rows, ("contender", "messages", *heads))


def latency_table(latencies: Iterable[Latency]) -> str:
    """Latencies, one contender a line."""
    rows = [(m.name, m.mode, f"{m.rate:,.0f}", f"{m.p50:.1f}", f"{m.p99:.1f}", f"{m.worst:.1f}") for m in latencies]
    return table(rows, ("contender", "messages", "per second", "p50 ms", "p99 ms", "worst ms"))


def limits(runs: Iterable[StoreRun], sink: str) -> str:
    """Whether the sink may have been the limit, in a sentence; `sink` is how its modes end."""
    on_sink = [run for run in runs if run.mode.endswith(sink)]
    if not on_sink:
        return ""
    most = max(on_sink, key=lambda run: run.busy)
    said = f"The sink was busy for {most.busy:.0%} of a core at most ({most.name}, {most.mode})"
    return (
        f"{said}: TOO MUCH, it may have been the limit." if most.busy > BUSY else f"{said}, so it was never the limit."
    )


def store_json(
    runs: Sequence[StoreRun], latencies: Iterable[Latency], settings: dict[str, Any], ours: Iterable[str]
) -> dict[str, Any]:
    """Everything, for other programs; `ours` are the contenders with goals."""
    figures = summarise(runs)
    return {
        "settings": settings,
        "runs": [asdict(run) for run in runs],
        "medians": summary(runs),
        "ratios": [compared for name in ours for compared in ratios(figures, name, GOALS)],
        "latencies": [asdict(one) for one in latencies],
    }


def plot(runs: Sequence[StoreRun], output: Path) -> None:
    """Rates, and the CPU time of contender and broker, by mode, a bar for each contender."""
    import matplotlib as mpl  # noqa: PLC0415  # only for those who want a picture

    mpl.use("Agg")
    from matplotlib import pyplot  # noqa: PLC0415

    figures = {(f.mode, f.name): f for f in summarise(runs)}
    modes, names = (list(dict.fromkeys(key[part] for key in figures)) for part in (0, 1))
    width = 0.8 / len(names)
    figure, (rates, costs) = pyplot.subplots(2, 1, sharex=True, figsize=(max(7, 2 * len(modes)), 7))
    for number, name in enumerate(names):
        mine = [(place, figures[mode, name]) for place, mode in enumerate(modes) if (mode, name) in figures]
        places = [place + (number - (len(names) - 1) / 2) * width for place, _ in mine]
        bars = rates.bar(places, [f.rate for _, f in mine], width, label=name)
        colour, own = bars[0].get_facecolor(), [f.cpu or 0 for _, f in mine]
        costs.bar(places, own, width, color=colour)
        costs.bar(places, [f.broker_cpu for _, f in mine], width, bottom=own, color=colour, alpha=0.4)
    rates.set_ylabel("messages a second")
    costs.set_ylabel("CPU µs a message (broker's pale)")
    costs.set_xticks(range(len(modes)), labels=[mode.replace(", ", "\n") for mode in modes])
    rates.legend()
    for axes in (rates, costs):
        axes.grid(axis="y", alpha=0.3)
    figure.tight_layout()
    figure.savefig(output, dpi=110)
