"""``amqprouter acl explain``: which line of an access list decides."""

from __future__ import annotations

import argparse

from amqprouter.cli.outcome import DONE, FAILED, USAGE, complain
from amqprouter.errors import AmqprouterError

DESCRIPTION = """\
Say whether a device may use a topic, a user see one, or a publisher speak for its device, and which line of the access
list decides.

The topic is the whole one, <device id>.<topic words>, as the access list has it. No checker is asked: what one would
tell of groups, a tenant and lines for this one alone is for --group, --tenant and --line to say (`amqprouter auth
explain` shows what the running daemon was told). The exit status is 0 when it is allowed, 1 when it is denied, and 2
when the configuration or the list is bad.

examples:
  amqprouter acl explain -c amqprouter.ini meter-17 meter-17.reading
  amqprouter acl explain -c amqprouter.ini meter-17 meter-17.reading --tenant acme --group lab
  amqprouter acl explain -c amqprouter.ini meter-17 meter-17.reading --line 'deny %d.firmware.#' --line '%d.#'
  amqprouter acl explain -c amqprouter.ini --user alice meter-17.reading
  amqprouter acl explain -c amqprouter.ini --command amqp:backend meter-17.down.reboot
  amqprouter acl explain -c amqprouter.ini --publisher bridge-7 lamp-3.state
  amqprouter acl explain -c amqprouter.ini --operator alice bob.events.kick"""


def configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    explain = actions.add_parser(
        "explain", help="which line decides", description=DESCRIPTION, formatter_class=parser.formatter_class
    )
    explain.add_argument("-c", "--config", metavar="FILE", required=True, help="the daemon's configuration")
    which = explain.add_mutually_exclusive_group()
    which.add_argument("--user", action="store_true", help="by the users' list rather than the devices'")
    which.add_argument("--command", action="store_true", help="by the list of those who may send commands")
    which.add_argument("--publisher", action="store_true", help="by the list of those who may publish for devices")
    which.add_argument(
        "--operator", action="store_true", help="by the list of those who may do over HTTP what operators do"
    )
    explain.add_argument(
        "--group", metavar="NAME", action="append", default=[], help="a group that the checker tells; may be repeated"
    )
    explain.add_argument(
        "--line", metavar="LINE", action="append", help="a line of its own that the checker tells; may be repeated"
    )
    explain.add_argument("--tenant", metavar="NAME", default="", help="the tenant that the checker tells")
    explain.add_argument("who", metavar="WHO", help="the device id, or with one of the options above a name")
    explain.add_argument("topic", metavar="TOPIC", help="the topic, device id first")


def run(options: argparse.Namespace) -> int:
    from amqprouter import config  # noqa: PLC0415
    from amqprouter.auth.acl_file import command_acl, device_acl, operator_acl, publisher_acl, user_acl  # noqa: PLC0415

    try:
        settings = config.load(options.config).acl
        if options.publisher:
            publishers = publisher_acl(settings.publishers)
            if publishers is None:
                print("denied: there is no [acl] publishers, so each device publishes for itself alone")
                return FAILED
            file = publishers
        elif options.command:
            file = command_acl(settings.commands)
        elif options.operator:
            file = operator_acl(settings.operators)
        else:
            file = user_acl(settings.users) if options.user else device_acl(settings.devices)
    except (AmqprouterError, OSError) as error:
        complain(str(error))
        return USAGE
    asked = options.who, options.topic, options.group, options.tenant, options.line and tuple(options.line)
    try:
        print(file.explain(*asked))
    except ValueError as error:
        complain(f"--line: {error}")
        return USAGE
    if file.acl.needs_telling and not (options.group or options.tenant or options.line):
        print("  no checker was asked for what it tells, on which lines of the list depend: --group, --tenant, --line")
    return DONE if file.allows(*asked) else FAILED
