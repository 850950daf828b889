"""``amqprouter hmac-key``: give devices keys to sign their messages with."""

from __future__ import annotations

import argparse

from amqprouter.cli.outcome import DONE, FAILED, complain

DESCRIPTION = """\
Give a device a new random key to sign its messages with, and print it in Base64; or remove its key.

The file is the one that [auth] hmac_keys names. The daemon takes the change into force when it gets SIGHUP; from then
on the device's old key counts for nothing.

examples:
  amqprouter hmac-key /etc/amqprouter/devices.keys meter-17
  amqprouter hmac-key /etc/amqprouter/devices.keys meter-17 --remove"""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="the file of keys; made when it is not there")
    parser.add_argument("device", metavar="DEVICE", help="a device id")
    parser.add_argument("--remove", action="store_true", help="remove the device's key")


def run(options: argparse.Namespace) -> int:
    from amqprouter.auth import hmac_file  # noqa: PLC0415

    try:
        if not options.remove:
            print(hmac_file.set_random_key(options.file, options.device))
        elif not hmac_file.remove_key(options.file, options.device):
            complain(f"{options.file} has no key for {options.device!r}")
            return FAILED
    except ValueError as error:
        complain(str(error))
        return FAILED
    return DONE
