"""A progress bar for a fleet's run, where standard error is a terminal."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    from amqprouter.cli.fleet_run import FleetRun


class FleetProgress:
    """Shows how far a run is; `expected` is how many messages it will be, None when nobody knows."""

    def __init__(self, run: FleetRun, expected: float | None) -> None:
        self._run = run
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(show_speed=True),
            TextColumn("{task.fields[figures]}"),
            TimeElapsedColumn(),
            console=Console(file=sys.stderr),
            disable=not sys.stderr.isatty(),
            auto_refresh=False,
            transient=True,
        )
        self._task = self._progress.add_task("publishing", total=expected, figures="")

    def update(self) -> None:
        """Draw it as it is now."""
        tally = self._run.tally
        confirmed, refused = tally.confirmed.total(), tally.refused.total()
        figures = f"{confirmed} confirmed, {refused} nacked, {self._run.outstanding} under way"
        self._progress.update(self._task, completed=confirmed + refused, figures=figures, refresh=True)

    def __enter__(self) -> None:
        self._progress.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()
