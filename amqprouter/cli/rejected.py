"""``amqprouter rejected``: look into quarantine, replay what is in it, or drop it."""

from __future__ import annotations

import argparse
import sys

from amqprouter.cli.broker import add_broker_options, settings_from
from amqprouter.cli.outcome import FAILED, complain, run_in_reactor

DESCRIPTION = """\
Look at the messages that the daemon rejected or could not deliver, have it try them again, or drop them.

Messages that are only looked at go back to their place. `replay` hands messages back to the daemon, which takes them
through everything but the proof of identity: access list, rates, routes. What it refuses again is in quarantine again.
Each message is taken out of quarantine only after the broker has confirmed the copy, so nothing is lost whenever this
is interrupted; what was replayed twice is stored once, if it has a message id. See docs/rejected.rst.

examples:
  amqprouter rejected ls -c amqprouter.ini
  amqprouter rejected ls -c amqprouter.ini --queue dead-letters --reason no-route --json
  amqprouter rejected show -c amqprouter.ini 3
  amqprouter rejected replay -c amqprouter.ini --reason not-authorised --device 'meter-*'
  amqprouter rejected drop -c amqprouter.ini --reason bad-secret --yes"""

QUEUES = ("rejected", "dead-letters", "unrouted")
DEFAULT_SCAN = 10_000
"""Messages that may be held while others behind them are looked at: the broker remembers each."""


def configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    def action(name: str, text: str) -> argparse.ArgumentParser:
        one = actions.add_parser(name, help=text, description=DESCRIPTION, formatter_class=parser.formatter_class)
        add_broker_options(one)
        one.add_argument("--queue", choices=QUEUES, default=QUEUES[0], help="which quarantine (%(default)s)")
        one.add_argument(
            "--scan",
            metavar="N",
            type=_positive,
            default=DEFAULT_SCAN,
            help="messages to look at, or with replay and drop to pass over, at most (%(default)s)",
        )
        one.set_defaults(usage_error=one.error)
        return one

    listing = action("ls", "list messages")
    _add_filters(listing)
    listing.add_argument("--limit", metavar="N", type=_positive, default=50, help="lines to print (%(default)s)")
    listing.add_argument("--json", action="store_true", help="print JSON lines, without the counts at the end")
    show = action("show", "print one message in full")
    show.add_argument("which", metavar="N|ID", help="its number in ls without filters, or its message id")
    show.add_argument("--id", action="store_true", help="take a number for a message id")
    show.add_argument("--raw", action="store_true", help="write the body and nothing else")
    for one in (action("replay", "have messages tried again"), action("drop", "throw messages away")):
        _add_filters(one)
        one.add_argument("--all", action="store_true", help="all messages; without it some filter is needed")
        one.add_argument("--yes", action="store_true", help="do not ask")
    replay = actions.choices["replay"]
    replay.add_argument("--rate", metavar="N", type=float, default=0.0, help="messages a second (as fast as it goes)")
    replay.add_argument(
        "--vouch",
        action="store_true",
        help="replay also for devices that had not proven who they are: you answer for it",
    )


def _add_filters(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--reason", metavar="R", action="append", default=[], help="this reason; may be repeated")
    parser.add_argument("--device", metavar="GLOB", default="", help="devices that match: *, ?, [abc]")
    parser.add_argument("--id", metavar="ID", action="append", default=[], help="this message id; may be repeated")


def _positive(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 10_000_000:
        raise ValueError
    return number


def run(options: argparse.Namespace) -> int:
    if options.action in ("replay", "drop"):
        if not (options.all or options.reason or options.device or options.id):
            options.usage_error("say which: --reason, --device, --id, or --all")
        if not options.yes and not sys.stdin.isatty():
            options.usage_error("there is nobody to ask: --yes is needed")
    if options.action == "replay" and not options.config:
        options.usage_error("replay needs -c: the daemon believes nobody but its own account")
    if options.action == "replay" and not 0 <= options.rate < 1e6:
        options.usage_error("--rate must be a number of messages a second")
    settings = settings_from(options)

    from amqprouter.cli.quarantine_work import QuarantineWork  # noqa: PLC0415
    from amqprouter.cli.quarantined import Wanted  # noqa: PLC0415

    try:
        wanted = None if options.action == "show" else Wanted(options.reason, options.device, options.id)
    except ValueError as error:
        complain(f"--device: {error}")
        return FAILED
    return run_in_reactor(lambda reactor: QuarantineWork(reactor, settings, options, wanted).run())
