"""``amqprouter restart``: have the running service exchange its processes for the code that is on disk."""

from __future__ import annotations

import argparse
from typing import Any

from amqprouter.cli.control import add_control_options, ask, socket_from
from amqprouter.cli.outcome import DONE, FAILED, complain, run_in_reactor

DESCRIPTION = """\
Have the running service exchange its gateway processes, one after the other, for such of the code and with the
configuration that are on disk now. Each finishes what is under way while the others go on, and the next one follows
when the new one is ready for work. SIGUSR2 does the same. It takes a service of several processes ([daemon] processes).

The new code checks the configuration first, and nothing is stopped if that has a problem. The exit status is 1 when not
all processes were exchanged. The ports and the supervisor stay as they are until the service itself is restarted.

examples:
  amqprouter restart --rolling
  amqprouter restart --rolling -c amqprouter.ini"""

INTERVAL = 0.5
"""Seconds between two questions how it goes."""


def configure(parser: argparse.ArgumentParser) -> None:
    add_control_options(parser)
    parser.add_argument(
        "--rolling", action="store_true", required=True, help="one process after the other; there is no other way"
    )


def run(options: argparse.Namespace) -> int:
    socket = socket_from(options)
    return run_in_reactor(lambda reactor: _restart(reactor, socket))


async def _restart(reactor: Any, socket: str) -> int:
    from twisted.internet.task import deferLater  # noqa: PLC0415

    told, shown = await ask(reactor, socket, "POST", "/restart"), 0
    while True:
        for number in told["done"][shown:]:
            print(f"process {number} is exchanged", flush=True)
        shown = len(told["done"])
        if not told["under_way"]:
            break
        await deferLater(reactor, INTERVAL)
        told = await ask(reactor, socket, "GET", "/restart")
    if told["problem"]:
        complain(told["problem"])
        return FAILED
    print("all processes are exchanged")
    return DONE
