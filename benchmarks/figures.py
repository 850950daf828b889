"""From measured runs to medians, ratios and the tables that people read. Pure."""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any


@dataclass(frozen=True)
class Run:
    """One contender forwarding one filling of the queues. CPU times are seconds, memory is megabytes."""

    name: str
    mode: str
    """``persistent`` or ``transient``."""
    round: int
    messages: int
    seconds: float
    cpu: float | None
    """Of the forwarding process; None where there is none but the broker."""
    broker_cpu: float
    peak_megabytes: float | None = None


@dataclass(frozen=True)
class Figures:
    """Medians of one contender's runs in one mode. Rates are messages a second, CPU is microseconds a message."""

    name: str
    mode: str
    runs: int
    rate: float
    slowest: float
    fastest: float
    cpu: float | None
    broker_cpu: float
    peak_megabytes: float | None


@dataclass(frozen=True)
class Goal:
    """What the ratio of our figure to another's should be: at least, or with `at_most` at most, `bound`."""

    figure: str
    other: str
    bound: float
    at_most: bool = False

    def met(self, ratio: float) -> bool:
        return ratio <= self.bound if self.at_most else ratio >= self.bound

    def __str__(self) -> str:
        return f"{self.figure} {'≤' if self.at_most else '≥'} {self.bound:g} × {self.other}"


GOALS = (
    Goal("rate", "librabbitmq", 0.95),
    Goal("rate", "Shovel", 1.0),
    Goal("rate", "pika", 1.2),
    Goal("rate", "aio-pika", 4.0),
    Goal("cpu", "pika", 0.3, at_most=True),
    Goal("broker_cpu", "pika", 1.0, at_most=True),
)


def summarise(runs: Iterable[Run]) -> list[Figures]:
    """Medians, in the order in which contenders and modes first occur."""
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.mode, run.name), []).append(run)
    return [_figures(group) for group in groups.values()]


def _figures(group: Sequence[Run]) -> Figures:
    rates = [run.messages / run.seconds for run in group]
    cpus = [run.cpu / run.messages * 1e6 for run in group if run.cpu is not None]
    peaks = [run.peak_megabytes for run in group if run.peak_megabytes is not None]
    return Figures(
        name=group[0].name,
        mode=group[0].mode,
        runs=len(group),
        rate=median(rates),
        slowest=min(rates),
        fastest=max(rates),
        cpu=median(cpus) if cpus else None,
        broker_cpu=median(run.broker_cpu / run.messages * 1e6 for run in group),
        peak_megabytes=max(peaks) if peaks else None,
    )


def ratios(figures: Iterable[Figures], ours: str, goals: Iterable[Goal] = GOALS) -> list[dict[str, Any]]:
    """How our figures compare with the goals, for every mode in which both sides were measured."""
    by_mode: dict[str, dict[str, Figures]] = {}
    for figure in figures:
        by_mode.setdefault(figure.mode, {})[figure.name] = figure
    compared = []
    for mode, named in by_mode.items():
        for goal in goals:
            mine, other = named.get(ours), named.get(goal.other)
            if mine is None or other is None:
                continue
            ours_is, theirs_is = getattr(mine, goal.figure), getattr(other, goal.figure)
            if not ours_is or not theirs_is:  # none of its own, or too little for the clock
                continue
            ratio = ours_is / theirs_is
            compared.append(
                {"contender": ours, "mode": mode, "goal": str(goal), "ratio": round(ratio, 3), "met": goal.met(ratio)}
            )
    return compared


def table(rows: Sequence[Sequence[str]], heads: Sequence[str]) -> str:
    """A simple reStructuredText table: the first column to the left, the others to the right."""
    widths = [max(len(row[column]) for row in (heads, *rows)) for column in range(len(heads))]

    def line(row: Sequence[str]) -> str:
        cells = [row[0].ljust(widths[0])] + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        return "  ".join(cells).rstrip()

    rule = "  ".join("=" * width for width in widths)
    return "\n".join([rule, line(heads), rule, *(line(row) for row in rows), rule])


def figures_table(figures: Iterable[Figures]) -> str:
    """What was measured, one contender a line."""
    rows = [
        (
            f.name,
            f.mode,
            f"{f.rate:,.0f}",
            f"{f.slowest:,.0f} – {f.fastest:,.0f}",
            "–" if f.cpu is None else f"{f.cpu:.1f}",
            f"{f.broker_cpu:.1f}",
            "–" if f.peak_megabytes is None else f"{f.peak_megabytes:.0f}",
        )
        for f in figures
    ]
    return table(rows, ("contender", "messages", "per second", "range", "CPU µs", "broker µs", "peak MB"))


def ratios_table(compared: Iterable[dict[str, Any]]) -> str:
    """Goals, and what came out."""
    rows = [(c["goal"], c["mode"], f"{c['ratio']:.2f}", "yes" if c["met"] else "NO") for c in compared]
    return table(rows, ("goal", "messages", "ratio", "met"))


def as_json(
    runs: Sequence[Run], settings: dict[str, Any], ours: Iterable[str], goals: Sequence[Goal] = GOALS
) -> dict[str, Any]:
    """Everything, for other programs; `ours` are the contenders with goals."""
    figures = summarise(runs)
    return {
        "settings": settings,
        "runs": [asdict(run) for run in runs],
        "medians": [asdict(figure) for figure in figures],
        "ratios": [compared for name in ours for compared in ratios(figures, name, goals)],
    }


def picture(path: str) -> Path:
    """The type of an option that names a file for a plot: refused at once where nothing draws it, not after the run."""
    if find_spec("matplotlib") is None:
        raise ArgumentTypeError("a plot needs matplotlib: pip install -e .[benchmark]")
    return Path(path)
