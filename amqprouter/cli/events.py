"""``amqprouter events``: who is subscribed at the running daemon, and the end of one user's streams."""

from __future__ import annotations

import argparse
import json
from typing import Any

from amqprouter.cli.control import add_control_options, ask, socket_from
from amqprouter.cli.outcome import DONE, complain, run_in_reactor
from amqprouter.text import printable

DESCRIPTION = """\
Look at the subscriptions to events at the running daemon, and end one user's.

`ls` lists who is subscribed, by which topics, patterns or selectors: everybody, one user (--user), or those who asked
for exactly one of these (--topic). `kick` ends all streams of a user at once. The client may come back, and is then
asked for its password or token, and the access lists, as always: take away first what it is not to have any more. With
several gateways, ask each.

examples:
  amqprouter events ls
  amqprouter events ls --user ann --json
  amqprouter events ls --topic 'meter-1.#'
  amqprouter events kick ann"""


def configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    ls = actions.add_parser(
        "ls", help="list subscriptions", description=DESCRIPTION, formatter_class=parser.formatter_class
    )
    add_control_options(ls)
    ls.add_argument("--user", default="", help="only this user's")
    ls.add_argument("--topic", default="", help="only those who asked for this topic, pattern or selector, as written")
    ls.add_argument("--most", type=int, default=1000, metavar="COUNT", help="list no more than these (%(default)s)")
    ls.add_argument("--json", action="store_true", help="print JSON")
    kick = actions.add_parser(
        "kick", help="end a user's streams", description=DESCRIPTION, formatter_class=parser.formatter_class
    )
    add_control_options(kick)
    kick.add_argument("user", metavar="USER", help="a user name")


def run(options: argparse.Namespace) -> int:
    socket = socket_from(options)
    if options.action == "kick":
        return run_in_reactor(lambda reactor: _kick(reactor, socket, options.user))
    arguments = {"user": options.user, "topic": options.topic, "most": str(options.most)}
    return run_in_reactor(lambda reactor: _list(reactor, socket, arguments, options.json))


async def _list(reactor: Any, socket: str, arguments: dict[str, str], as_json: bool) -> int:
    answer = await ask(reactor, socket, "GET", "/events", {name: value for name, value in arguments.items() if value})
    if as_json:
        print(json.dumps(answer, indent=2))
        return DONE
    for one in answer["subscriptions"]:
        print(_line(one))
    left = answer["count"] - len(answer["subscriptions"])
    if left:
        complain(f"{left} more; --most, --user and --topic say which")
    return DONE


def _line(one: dict[str, Any]) -> str:
    more = one["topics_count"] - len(one["topics"])
    topics = " ".join(map(printable, one["topics"])) + (f" and {more} more" if more else "")
    state = "" if one["live"] else "  (catching up)"
    return f"{printable(one['user']) or '-'}  {one['address'] or '-'}  {topics}{state}"


async def _kick(reactor: Any, socket: str, user: str) -> int:
    answer = await ask(reactor, socket, "POST", "/events/kick", {"user": user})
    count = answer["ended"]
    print(f"{count} stream{'' if count == 1 else 's'} ended")
    return DONE
