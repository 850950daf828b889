"""The ``amqprouter`` command: finds the subcommand, and imports nothing that belongs to another.

Each subcommand is a module of this package with three things: `DESCRIPTION` (its first line is also the help's),
``configure(parser)``, which declares its arguments, and ``run(options)``, which returns the exit status. Libraries are
imported inside ``run``, so that ``--help`` answers at once.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

from amqprouter import version_line
from amqprouter.cli.outcome import FAILED, INTERRUPTED, complain
from amqprouter.errors import AmqprouterError

COMMANDS = {
    "check": "validate a configuration, and try what it names",
    "send": "publish a message as a device",
    "command": "send a command to a device",
    "tail": "follow events in a terminal",
    "events": "list who follows events, and end a user's streams",
    "simulate": "publish as a whole fleet of devices, good and bad",
    "passwd": "add, change and remove names in a password file",
    "token": "make keys and signed tokens, and explain tokens",
    "hmac-key": "give devices keys to sign their messages with",
    "rejected": "look into quarantine, replay or drop what is in it",
    "status": "show how the running daemon is",
    "reload": "have the running daemon read its configuration again",
    "restart": "exchange a service's processes one by one",
    "limits": "change and explain how much single devices may send",
    "top": "watch the busiest devices",
    "auth": "show or forget what the running daemon remembers of checkers' answers",
    "worker": "have a function done for every message of a queue, in processes of its own",
    "topic": "explain what becomes of a routing key or an MQTT topic",
    "acl": "explain what the access lists allow",
}
"""Subcommands with their lines in the help; each is the module of that name, with ``_`` for ``-``."""

_EPILOG = """\
commands:
{commands}

exit status:
  0    done
  1    what was asked for did not work; standard error says why
  2    the command line makes no sense
  130  interrupted (Ctrl-C)

`amqprouter COMMAND --help` has examples. The daemon itself is started with `twistd amqprouter -c CONFIG`."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; `argv` is without the program's name. Returns the exit status."""
    parser = argparse.ArgumentParser(
        "amqprouter",
        description="Companion of the amqprouter daemon.",
        epilog=_EPILOG.format(commands="\n".join(f"  {name:<10}{text}" for name, text in COMMANDS.items())),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=version_line())
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help="one of the commands below")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="…", help="the command's own arguments")
    chosen = parser.parse_args(argv)

    command = import_module(f"amqprouter.cli.{chosen.command.replace('-', '_')}")
    parser = argparse.ArgumentParser(
        f"amqprouter {chosen.command}",
        description=command.DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.configure(parser)
    options = parser.parse_args(chosen.arguments)
    try:
        return int(command.run(options))
    except (AmqprouterError, OSError, UnicodeError) as error:
        complain(str(error))
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
