"""``amqprouter top``: the busiest devices of the running daemon, live."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from amqprouter.cli.control import add_control_options, ask, socket_from
from amqprouter.cli.outcome import DONE, run_in_reactor
from amqprouter.errors import ControlUnavailable

DESCRIPTION = """\
Show which devices send most, each second anew: how much comes, how much passes, what waits in memory and for how long,
what is parked in the broker, how much was over a limit since the start (and so parked, dropped or rejected), and what
holds a device up.

The keys r, a, w, p, f, o and d sort by a column, q and Ctrl-C end. Rates are of the last second. Of the gateway's
devices these are the 50 of which most came. Where standard output is no terminal, the table is printed once.

examples:
  amqprouter top --sort waiting
  amqprouter top -c amqprouter.ini
  amqprouter top --once --json"""

SORTS = ("rate", "allowed", "waiting", "parked", "refused", "oldest", "device")
INTERVAL = 1.0
"""Seconds between two looks."""
_PATIENCE = 5.0
"""Seconds for an answer: whoever watches wants to know soon that the daemon hangs."""


def configure(parser: argparse.ArgumentParser) -> None:
    add_control_options(parser)
    parser.add_argument("--sort", choices=SORTS, default="rate", help="the column to sort by, at first (rate)")
    parser.add_argument("--once", action="store_true", help="print the table once, after a second for the rates")
    parser.add_argument("--json", action="store_true", help="print JSON, a line for each look")


def run(options: argparse.Namespace) -> int:
    socket = socket_from(options)
    is_live = sys.stdout.isatty() and not options.once and not options.json

    async def fetch(reactor: Any) -> Any:
        return await ask(reactor, socket, "GET", "/status", timeout=_PATIENCE)

    if is_live:
        return run_in_reactor(lambda reactor: _live(reactor, fetch, options.sort))
    is_once = options.once or not options.json
    return run_in_reactor(lambda reactor: _printed(reactor, fetch, options.sort, options.json, is_once))


async def _printed(reactor: Any, fetch: Callable[[Any], Any], by: str, as_json: bool, is_once: bool) -> int:
    from rich.console import Console  # noqa: PLC0415
    from twisted.internet.task import deferLater  # noqa: PLC0415

    from amqprouter.cli.top_table import ordered, render  # noqa: PLC0415

    before = await fetch(reactor)
    while True:
        await deferLater(reactor, INTERVAL)
        status = await fetch(reactor)
        if as_json:
            shown = {"now": status["now"], "devices": ordered(status["devices"], by)}
            print(json.dumps(shown, separators=(",", ":")), flush=True)
        else:
            Console().print(render(status, before, by, None))
        if is_once:
            return DONE
        before = status


async def _live(reactor: Any, fetch: Callable[[Any], Any], by: str) -> int:
    from rich.console import Console  # noqa: PLC0415
    from rich.live import Live  # noqa: PLC0415
    from twisted.internet.defer import Deferred  # noqa: PLC0415

    from amqprouter.cli.top_table import COLUMNS, render  # noqa: PLC0415

    status, before = await fetch(reactor), None
    note, pressed = "", ""
    woken: Deferred[None] = Deferred()

    def press(keys: str) -> None:
        nonlocal pressed
        pressed += keys
        if not woken.called:
            woken.callback(None)

    console = Console()
    # Nothing below writes from another thread, and whatever happens the terminal becomes what it was.
    with Live(console=console, screen=True, auto_refresh=False) as live, _keys(reactor, press):
        while True:
            live.update(render(status, before, by, console.size.height, note), refresh=True)
            timer = reactor.callLater(INTERVAL, press, "")
            await woken
            woken = Deferred()
            is_key, keys, pressed = bool(pressed), pressed, ""
            if timer.active():
                timer.cancel()
            if "q" in keys:
                return DONE
            by = next((name for name, (_, key) in COLUMNS.items() if key in keys), by)
            if is_key:
                continue
            try:
                fresh = await fetch(reactor)
                status, before, note = fresh, status, ""
            except ControlUnavailable as error:  # it may be restarting: what is shown is what was
                note = str(error)


@contextmanager
def _keys(reactor: Any, press: Callable[[str], None]) -> Iterator[None]:
    """Have single keys told, if standard input is a terminal; it is as it was afterwards."""
    if not sys.stdin.isatty():
        yield
        return
    import os  # noqa: PLC0415
    import termios  # noqa: PLC0415
    import tty  # noqa: PLC0415

    from twisted.internet.interfaces import IReadDescriptor  # noqa: PLC0415
    from zope.interface import implementer  # noqa: PLC0415

    descriptor = sys.stdin.fileno()

    @implementer(IReadDescriptor)
    class Keys:
        def fileno(self) -> int:
            return descriptor

        def logPrefix(self) -> str:
            return "keys"

        def doRead(self) -> None:
            typed = os.read(descriptor, 64)
            if not typed:
                reactor.removeReader(self)  # the terminal is gone
            press(typed.decode("ascii", "ignore"))

        def connectionLost(self, reason: object) -> None:
            reactor.removeReader(self)

    before, keys = termios.tcgetattr(descriptor), Keys()
    tty.setcbreak(descriptor)
    reactor.addReader(keys)
    try:
        yield
    finally:
        reactor.removeReader(keys)
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
