"""``amqprouter acl explain``: which line of an access list decides."""

from __future__ import annotations

import argparse

from amqprouter.cli.outcome import DONE, FAILED

DESCRIPTION = """\
Say whether a device may use a topic, or a user see one, and which line of the access list decides.

The topic is the whole one, <device id>.<topic words>, as the access list has it. The exit status is 0 when it is
allowed and 1 when it is denied.

examples:
  amqprouter acl explain -c amqprouter.ini meter-17 meter-17.reading
  amqprouter acl explain -c amqprouter.ini --user alice meter-17.reading"""


def configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    explain = actions.add_parser(
        "explain", help="which line decides", description=DESCRIPTION, formatter_class=parser.formatter_class
    )
    explain.add_argument("-c", "--config", metavar="FILE", required=True, help="the daemon's configuration")
    explain.add_argument("--user", action="store_true", help="by the users' list rather than the devices'")
    explain.add_argument("who", metavar="WHO", help="the device id, or with --user the user's name")
    explain.add_argument("topic", metavar="TOPIC", help="the topic, device id first")


def run(options: argparse.Namespace) -> int:
    from amqprouter import config  # noqa: PLC0415
    from amqprouter.auth.acl_file import device_acl, user_acl  # noqa: PLC0415

    settings = config.load(options.config).acl
    acl = user_acl(settings.users) if options.user else device_acl(settings.devices)
    print(acl.explain(options.who, options.topic))
    return DONE if acl.allows(options.who, options.topic) else FAILED
