"""The demonstration's figures: a table that is kept up to date, or plain lines where there is no terminal."""

from __future__ import annotations

from types import TracebackType
from typing import Any, TextIO

from rich.console import Console
from rich.live import Live
from rich.table import Table

ROWS = 16
"""Devices shown, the busiest first."""
COLUMNS = ("passed", "waiting", "parked")
"""What is shown of each."""


class Screen:
    """Shows what the daemon's ``/status`` says."""

    def __init__(self, stream: TextIO) -> None:
        self._console = Console(file=stream)
        self._live = Live(console=self._console, auto_refresh=False) if self._console.is_terminal else None
        self.pause = 0.5 if self._live else 2.0
        """Seconds between two calls of `show`."""

    def __enter__(self) -> Screen:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def show(self, status: dict[str, Any]) -> None:
        """The figures as of now."""
        if self._live:
            self._live.update(_table(status), refresh=True)
        else:
            self._console.print(_line(status), soft_wrap=True, markup=False, highlight=False)


def _line(status: dict[str, Any]) -> str:
    counters = status["counters"]
    names = ("received", "stored", "throttled", "events_delivered")
    figures = [f"{name.replace('_', ' ')} {counters[name]}" for name in names]
    figures += [f"{name.replace('_', ' ')} {sum(counters[name].values())}" for name in ("rejected", "dead_lettered")]
    figures.append(f"parked {status['gauges']['parked_messages']:g}")
    busiest = " ".join(f"{device['device']}={device['passed']}" for device in status["devices"][:4])
    return f"{status['uptime']:6.1f} s  {', '.join(figures)}; busiest: {busiest}"


def _table(status: dict[str, Any]) -> Table:
    counters, gauges = status["counters"], status["gauges"]
    reasons = counters["rejected"] | counters["dead_lettered"]
    table = Table(
        min_width=96,
        title=f"received {counters['received']}   stored {counters['stored']}   "
        f"events delivered {counters['events_delivered']}   throttled {counters['throttled']}   "
        f"parked {gauges['parked_messages']:g}   in flight {gauges['in_flight']:g}",
        caption="refused: " + (", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items())) or "none"),
    )
    table.add_column("device")
    for name in COLUMNS:
        table.add_column(name, justify="right")
    devices = status["devices"]
    for device in devices[:ROWS]:
        style = "yellow" if device["waiting"] or device["parked"] else ""
        figures = (str(device[name]) for name in COLUMNS)
        table.add_row(device["device"], *figures, style=style)
    if len(devices) > ROWS:
        table.add_row(f"and {len(devices) - ROWS} more", style="dim")
    return table
