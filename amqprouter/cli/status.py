"""``amqprouter status``: the running daemon at a glance."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator
from typing import Any

from amqprouter.cli.control import add_control_options, ask, socket_from
from amqprouter.cli.outcome import DONE, FAILED, run_in_reactor
from amqprouter.text import printable, span

DESCRIPTION = """\
Show how the running daemon is: its parts, its counters since the start, and the busiest devices.

The exit status is 1 when a part has a problem (as /readyz with 503). --json prints everything, for programs.

examples:
  amqprouter status --json
  amqprouter status -c amqprouter.ini"""

_DEVICES = 10
"""Devices that the text shows; --json has more."""

_COLUMNS = {"passed": "passed", "waiting": "waiting", "parked": "parked", "refused": "over"}
"""What is shown of a device, and the headings, as `amqprouter top` has them."""


def configure(parser: argparse.ArgumentParser) -> None:
    add_control_options(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(options: argparse.Namespace) -> int:
    socket = socket_from(options)
    return run_in_reactor(lambda reactor: _status(reactor, socket, options.json))


async def _status(reactor: Any, socket: str, as_json: bool) -> int:
    answer = await ask(reactor, socket, "GET", "/status")
    print(json.dumps(answer, indent=2) if as_json else "\n".join(status_lines(answer)))
    return FAILED if any(answer["parts"].values()) else DONE


def status_lines(status: dict[str, Any]) -> Iterator[str]:
    """The status as text."""
    build = f" ({status['build']})" if "build" in status else ""  # daemons of before do not say
    yield f"amqprouter {status['version']}{build}, up {span(int(status['uptime']))}"
    for part, problem in status["parts"].items():
        note = status.get("notes", {}).get(part, "")
        yield f"  {part:<18} {printable(problem) or (f'ok; {printable(note)}' if note else 'ok')}"
    for one in status.get("processes", ()):
        was = f", {one['starts'] - 1} restarts" if one["starts"] > 1 else ""
        state = one["problem"] or f"pid {one['pid']}, version {one['version']}, settled {one['settled']}{was}"
        yield f"  process {one['process']:<10} {printable(state)}"
    figures = {**status["counters"], **status["gauges"]}
    for name, value in figures.items():
        if isinstance(value, dict):  # by reason
            parts = "".join(f", {reason} {_figure(part)}" for reason, part in sorted(value.items()))
            yield f"  {name:<18} {_figure(sum(value.values()))}{parts}"
        elif value:
            yield f"  {name:<18} {_figure(value)}"
    yield from _latency_lines(status.get("latency") or ())  # a daemon of an earlier version tells of none
    if status["devices"]:
        yield f"  {'device':<32} " + " ".join(f"{heading:>10}" for heading in _COLUMNS.values())
    for device in status["devices"][:_DEVICES]:
        columns = (device.get(name, "") for name in _COLUMNS)
        yield f"  {printable(device['device']):<32} " + " ".join(f"{column:>10}" for column in columns)


def _latency_lines(rows: Iterable[dict[str, Any]]) -> Iterator[str]:
    heading = f"  {'latency, of late':<32} {'class':<12} {'samples':>9} {'p50':>11} {'p99':>11} {'longest':>11}"
    for row in rows:
        if heading:
            yield heading
            heading = ""
        step = " at ".join(printable(row[key]) for key in ("step", "target") if key in row)
        seconds = " ".join(f"{_seconds(row[key]):>11}" for key in ("p50", "p99", "longest"))
        yield f"  {step:<32} {printable(row.get('class', '')):<12} {row['samples']:>9} {seconds}"


def _seconds(value: float) -> str:
    return f"{value * 1000:.3g} ms" if value < 0.9995 else span(value)


def _figure(value: float) -> str:
    return f"{value:.3g}" if isinstance(value, float) and not value.is_integer() else f"{value:.0f}"
