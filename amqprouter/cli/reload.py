"""``amqprouter reload``: have the running daemon read its configuration again, and say what became of it."""

from __future__ import annotations

import argparse
from typing import Any

from amqprouter.cli.control import add_control_options, ask, socket_from
from amqprouter.cli.outcome import DONE, FAILED, complain, run_in_reactor

DESCRIPTION = """\
Have the running daemon read its configuration, access lists and password files again, as SIGHUP does, and print what
became of it: every problem, and what has changed but needs a restart.

The exit status is 1 when there was a problem: the old configuration then stays in force.

examples:
  amqprouter reload -c amqprouter.ini
  amqprouter reload --socket /run/amqprouter/control.sock"""


def configure(parser: argparse.ArgumentParser) -> None:
    add_control_options(parser)


def run(options: argparse.Namespace) -> int:
    socket = socket_from(options)
    return run_in_reactor(lambda reactor: _reload(reactor, socket))


async def _reload(reactor: Any, socket: str) -> int:
    answer = await ask(reactor, socket, "POST", "/reload")
    for problem in answer["problems"]:
        complain(problem)
    for section in answer["restart"]:
        print(f"[{section}] has changed; that needs a restart")
    if answer["problems"]:
        complain("not reloaded: what has a problem stays as it was")
        return FAILED
    print("the configuration was read again and is in force")
    return DONE
