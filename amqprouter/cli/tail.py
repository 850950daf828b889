"""``amqprouter tail``: follow events in a terminal."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from amqprouter.cli.outcome import DONE, FAILED, complain, run_in_reactor

if TYPE_CHECKING:
    from amqprouter.cli.sse_reader import ServerSentEvent

DESCRIPTION = """\
Follow the daemon's events, one on a line: time, device, topic and body. After a loss of the connection it comes back
and goes on behind the last event seen. You see what the users' access list lets you see.

With --json each line is the event as the daemon sent it, with its id: for programs.

examples:
  amqprouter tail --user alice --password-file alice.password
  amqprouter tail --user alice --password-file alice.password --topic 'meter-17.#' --topic '*.alarm.#' --json
  amqprouter tail --url https://gateway.example/events --user alice --password-file alice.password --last-id 1234"""


def configure(parser: argparse.ArgumentParser) -> None:
    default = "http://127.0.0.1:8080/events"
    parser.add_argument("--url", metavar="URL", default=default, help="of the events (%(default)s)")
    parser.add_argument("--user", metavar="NAME", help="log in as this user; needs --password-file")
    parser.add_argument("--password-file", metavar="F", help="the file whose first line is the user's password")
    parser.add_argument(
        "--topic",
        metavar="PATTERN",
        action="append",
        default=[],
        help="topic pattern, device id first; may be repeated",
    )
    parser.add_argument("--last-id", metavar="N", default="", help="begin behind the event with this id")
    parser.add_argument("--count", metavar="N", type=int, help="end after so many events")
    parser.add_argument("--json", action="store_true", help="print JSON lines")
    parser.set_defaults(usage_error=parser.error)


def run(options: argparse.Namespace) -> int:
    from amqprouter.cli.secret_file import read_secret  # noqa: PLC0415

    if bool(options.user) != bool(options.password_file):
        options.usage_error("--user and --password-file go together")
    if options.count is not None and options.count < 1:
        options.usage_error("--count must be at least 1")
    try:
        login = (options.user, read_secret(options.password_file)) if options.user else None
    except ValueError as error:
        complain(str(error))
        return FAILED
    return run_in_reactor(lambda reactor: _tail(reactor, options, login))


async def _tail(reactor: Any, options: argparse.Namespace, login: tuple[str, str] | None) -> int:
    import random  # noqa: PLC0415

    from amqprouter.cli.event_follower import EventFollower  # noqa: PLC0415

    printer = Printer(as_json=options.json, colour=sys.stdout.isatty(), count=options.count)
    follower = EventFollower(
        reactor, options.url, options.topic, login, take=printer.take, say=complain, random=random.random
    )
    await follower.follow(options.last_id)
    return DONE


class Printer:
    """Prints events, `count` of them or without end (None)."""

    def __init__(self, *, as_json: bool, colour: bool, count: int | None) -> None:
        self._as_json = as_json
        self._colour = colour
        self._left = count

    def take(self, event: ServerSentEvent) -> bool:
        """Print one; whether more are wanted."""
        from amqprouter.cli.event_line import event_line  # noqa: PLC0415
        from amqprouter.text import printable  # noqa: PLC0415

        if event.type == "gap":  # what the daemon no longer has of the time since the last id
            complain(f"gap: events are missing here: {printable(event.data)}")
            return True
        try:
            print(_json_line(event) if self._as_json else event_line(event.data, colour=self._colour), flush=True)
        except BrokenPipeError:  # such as `| head`
            sys.stdout = None  # else Python complains of the pipe at its end
            return False
        if self._left is not None:
            self._left -= 1
        return self._left != 0


def _json_line(event: ServerSentEvent) -> str:
    import json  # noqa: PLC0415

    try:
        data = json.loads(event.data)
    except ValueError:
        data = event.data
    return json.dumps({"id": event.id, "event": data}, separators=(",", ":"))
