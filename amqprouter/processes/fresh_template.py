"""A template of the code that is on disk: a program of its own, which the supervisor starts to exchange processes."""

from __future__ import annotations

from amqprouter.daemon import hangup

hangup.catch()  # before what takes long to import

import json
import socket
import sys

from amqprouter.daemon.preflight import load_settings
from amqprouter.errors import ConfigError
from amqprouter.processes.gateway import run_gateway, tidy
from amqprouter.processes.template import serve

MOST_PROBLEMS = 4000
"""Characters of what is wrong with a configuration; the check of it by hand has all of it."""


def main() -> None:
    """``main CONFIG DESCRIPTOR``: serve orders that come at the descriptor. Never returns.

    :raises SystemExit: the configuration is no good for this code, which is told there.
    """
    from twisted.internet import reactor  # noqa: PLC0415  # the default one, as imports have made it

    config, descriptor = sys.argv[-2:]
    orders = socket.socket(fileno=int(descriptor))
    try:
        load_settings(config)
    except ConfigError as error:
        orders.send(json.dumps({"template": "\n".join(error.problems)[:MOST_PROBLEMS]}).encode())
        raise SystemExit(1) from None
    tidy()  # what is there now is shared: no collection in a child is to write to it
    serve(orders, lambda order, descriptors: run_gateway(reactor, config, order, descriptors, was_logging=None))
