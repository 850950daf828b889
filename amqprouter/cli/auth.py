"""``amqprouter auth``: what the running daemon remembers of checkers' answers."""

from __future__ import annotations

import argparse
from typing import Any

from amqprouter.cli.control import add_control_options, ask, socket_from
from amqprouter.cli.outcome import DONE, run_in_reactor

DESCRIPTION = """\
Look at, and have forgotten, what the running daemon remembers of its checkers' answers.

The daemon asks a checker about a credential once and remembers the answer for a while ([auth] cache_seconds). After
`flush` it asks anew at the next message or login: of the named device or user, or without a name of all. `explain`
shows what it remembers of one name; it knows no credential and shows none. The exit status of `explain` is 0 also
when it remembers nothing.

examples:
  amqprouter auth flush meter-17
  amqprouter auth flush -c amqprouter.ini
  amqprouter auth explain meter-17"""


def configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    flush = actions.add_parser(
        "flush", help="forget answers", description=DESCRIPTION, formatter_class=parser.formatter_class
    )
    add_control_options(flush)
    flush.add_argument("name", metavar="NAME", nargs="?", default="", help="a device id or user name; all without one")
    explain = actions.add_parser(
        "explain", help="show answers", description=DESCRIPTION, formatter_class=parser.formatter_class
    )
    add_control_options(explain)
    explain.add_argument("name", metavar="NAME", help="a device id or user name")


def run(options: argparse.Namespace) -> int:
    socket = socket_from(options)
    work = _flush if options.action == "flush" else _explain
    return run_in_reactor(lambda reactor: work(reactor, socket, options.name))


async def _flush(reactor: Any, socket: str, name: str) -> int:
    answer = await ask(reactor, socket, "POST", "/auth/flush", {"name": name} if name else {})
    count = answer["forgotten"]
    print(f"{count} answer{'' if count == 1 else 's'} forgotten")
    return DONE


async def _explain(reactor: Any, socket: str, name: str) -> int:
    answer = await ask(reactor, socket, "GET", "/auth/explain", {"name": name})
    for kind in ("device", "user"):
        for said in answer[kind]:
            print(_line(kind, name, said))
        if not answer[kind]:
            print(f"{kind} {name}: nothing is remembered; the checker is asked at the next occasion")
    return DONE


def _line(kind: str, name: str, said: dict[str, Any]) -> str:
    verdict = "yes" if said["allowed"] else f"no, {said.get('reason', '')}"
    told = "".join(f", {key} {value}" for key, value in said.get("identity", {}).items() if key != "name")
    age, left = said["age"], said["asked_again_in"]
    return f"{kind} {name}: {verdict} (by {said['proof']}, {age:g} s ago; asked again in {left:g} s{told})"
