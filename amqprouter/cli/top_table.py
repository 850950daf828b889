"""The busiest devices as a table for a terminal; `amqprouter.cli.top` fetches what it shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from amqprouter.text import printable

COLUMNS = {
    "rate": ("rate/s", "r"),
    "allowed": ("allowed/s", "a"),
    "waiting": ("waiting", "w"),
    "parked": ("parked", "p"),
    "refused": ("over", "f"),
    "oldest": ("oldest", "o"),
    "device": ("device", "d"),
}
"""What one can sort by: the heading and the key. Names ascend, figures descend."""
_HEAD = 5
"""Lines around the rows: two of totals, the heading, its line, the keys."""
_TOTALS = {"received": "in", "settled": "settled", "throttled": "throttled", "dropped": "dropped"}


def ordered(devices: Sequence[Mapping[str, Any]], by: str) -> list[Mapping[str, Any]]:
    """The devices in the order of a column; those that are equal in it stay as they were, the busiest first."""
    return sorted(devices, key=lambda device: device[by], reverse=by != "device")


def render(
    status: Mapping[str, Any], before: Mapping[str, Any] | None, by: str, height: int | None, note: str = ""
) -> RenderableType:
    """The screen: totals, as rates since the status `before`, and as many devices as `height` lines hold."""
    devices = ordered(status["devices"], by)
    shown = devices if height is None else devices[: max(1, height - _HEAD)]
    table = Table(box=None, expand=True, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold", show_edge=False)
    table.add_column(_heading("device", by), ratio=3, no_wrap=True, overflow="ellipsis", min_width=12)
    for name in ("rate", "allowed", "waiting", "parked", "refused", "oldest"):
        table.add_column(_heading(name, by), justify="right", no_wrap=True)
    table.add_column("state", ratio=4, no_wrap=True, overflow="ellipsis")
    for device in shown:
        held = device["limit"] or ("" if device["state"] == "running" else device["state"])
        table.add_row(
            Text(printable(device["device"] + (f" by {device['publisher']}" if device.get("publisher") else ""))),
            _figure(device["rate"]),
            _figure(device["allowed"]),
            _noticed(device["waiting"], "yellow"),
            _noticed(device["parked"], "yellow"),
            _noticed(device["refused"], "red"),
            f"{device['oldest']:.1f} s" if device["waiting"] else "",
            Text(printable(held), style="yellow" if held else ""),
        )
    lines: list[RenderableType] = [_totals(status, before), _state(status, note), table]
    if height is not None:
        keys = "  ".join(f"{key} {heading.removesuffix('/s')}" for heading, key in COLUMNS.values())
        more = f"{len(shown)} of {len(devices)}   " if len(shown) < len(devices) else ""
        lines.append(Text(f"{more}q quit   sort: {keys}", style="dim", no_wrap=True, overflow="ellipsis"))
    return Group(*lines)


def _heading(name: str, by: str) -> Text:
    return Text(COLUMNS[name][0], style="reverse" if name == by else "")


def _figure(rate: float) -> str:
    return f"{rate:.1f}" if rate < 100 else f"{rate:,.0f}"


def _noticed(count: int, style: str) -> Text:
    return Text(f"{count:,}", style=style if count else "dim")


def _totals(status: Mapping[str, Any], before: Mapping[str, Any] | None) -> Text:
    """What the whole gateway does, as differences of its counters."""
    counters = status["counters"]
    words = []
    for name, word in _TOTALS.items():
        words.append(f"{word} {_rate(counters[name], before and before['counters'][name], status, before)}/s")
    gone = sum(counters["rejected"].values())
    words.append(f"rejected {_rate(gone, before and sum(before['counters']['rejected'].values()), status, before)}/s")
    return Text("   ".join(words), style="bold", no_wrap=True, overflow="ellipsis")


def _rate(
    now: int, then: int | Mapping[str, Any] | None, status: Mapping[str, Any], before: Mapping[str, Any] | None
) -> str:
    seconds = status["now"] - before["now"] if before else 0.0
    if not isinstance(then, int) or seconds <= 0:
        return "–"
    return _figure(max(0, now - then) / seconds)  # fewer than before: the daemon was started again


def _state(status: Mapping[str, Any], note: str) -> Text:
    gauges = status["gauges"]
    text = Text(no_wrap=True, overflow="ellipsis")
    text.append(
        f"under way {gauges.get('in_flight', 0):g}   waiting {gauges.get('waiting', 0):g}   "
        f"devices known {gauges.get('known_devices', 0):g}   ",
        style="dim",
    )
    problems = [f"{part}: {problem}" for part, problem in status["parts"].items() if problem]
    text.append(printable(note or "; ".join(problems)), style="red")
    return text
