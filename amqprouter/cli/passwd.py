"""``amqprouter passwd``: add, change and remove names in a password file."""

from __future__ import annotations

import argparse
import sys

from amqprouter.cli.outcome import DONE, FAILED, complain

DESCRIPTION = """\
Add a name to a password file, change its secret, or remove it.

Without an option the password is asked for twice, or is the first line of standard input when that is no terminal.
The daemon takes the change into force when it gets SIGHUP.

examples:
  amqprouter passwd /etc/amqprouter/users.passwd alice
  amqprouter passwd /etc/amqprouter/devices.passwd meter-17 --generate
  amqprouter passwd /etc/amqprouter/devices.passwd meter-17 --remove"""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="the password file; made when it is not there")
    parser.add_argument("name", metavar="NAME", help="a device id or user name")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--secret-file", metavar="F", help="take the secret from this file's first line")
    how.add_argument("--generate", action="store_true", help="make a random secret, and print it (this once)")
    how.add_argument("--remove", action="store_true", help="remove the name")


def run(options: argparse.Namespace) -> int:
    from amqprouter.auth import passwd_file  # noqa: PLC0415
    from amqprouter.cli.secret_file import read_secret  # noqa: PLC0415

    if options.remove:
        if passwd_file.remove(options.file, options.name):
            return DONE
        complain(f"{options.file} has no name {options.name!r}")
        return FAILED
    try:
        if options.generate:
            print(passwd_file.set_random_secret(options.file, options.name))
        else:
            secret = read_secret(options.secret_file) if options.secret_file else _asked(options.name)
            passwd_file.set_password(options.file, options.name, secret.encode())
    except ValueError as error:
        complain(str(error))
        return FAILED
    return DONE


def _asked(name: str) -> str:
    """A password from the terminal, typed twice, or from standard input.

    :raises ValueError: the two differ, or there is none.
    """
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    from getpass import getpass  # noqa: PLC0415

    try:
        password = getpass(f"Password for {name}: ")
        again = getpass("Again: ")
    except EOFError:
        raise ValueError("no password was given; nothing is changed") from None
    if again != password:
        raise ValueError("the two passwords differ; nothing is changed")
    return password
