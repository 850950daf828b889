"""Where a command finds the broker: ``-c CONFIG``, or ``--uri URI`` with the defaults for everything else."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from amqprouter.errors import ConfigError

if TYPE_CHECKING:
    from amqprouter.amqp.connection import Connection
    from amqprouter.settings import BrokerSettings, Settings


def add_broker_options(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """Declare the two options, of which at most one may be given."""
    where = parser.add_mutually_exclusive_group(required=required)
    where.add_argument("-c", "--config", metavar="FILE", help="the daemon's configuration: its broker and its names")
    where.add_argument("--uri", metavar="URI", help="the broker's amqp:// or amqps:// URI; names are the defaults")


def settings_from(options: argparse.Namespace) -> Settings:
    """The settings that the options lead to.

    :raises ConfigError: the configuration or the URI is bad.
    """
    from amqprouter import config  # noqa: PLC0415
    from amqprouter.amqp.uri import parse_amqp_uri  # noqa: PLC0415
    from amqprouter.settings import BrokerSettings, Settings  # noqa: PLC0415

    if options.config:
        return config.load(options.config)
    try:
        parse_amqp_uri(options.uri)
    except ValueError as error:
        raise ConfigError([f"--uri: {error}"]) from None
    return Settings(broker=BrokerSettings(uri=options.uri))


def as_user(settings: BrokerSettings, username: str, password: str) -> BrokerSettings:
    """The same broker, with another login."""
    scheme, _, rest = settings.uri.partition("://")
    authority, slash, path = rest.partition("/")
    authority, question, query = authority.partition("?") if not slash else (authority, "", "")
    host = authority.rpartition("@")[2]
    login = f"{quote(username, safe='')}:{quote(password, safe='')}"
    uri = f"{scheme}://{login}@{host}{question}{query}{slash}{path}"
    return replace(settings, uri=uri, username="", password_file="")


async def connect(reactor: Any, settings: BrokerSettings, purpose: str) -> Connection:
    """A connection that is ready for use; each host has ``connect_timeout`` for it.

    :raises BrokerUnavailable: it cannot be had. :raises BrokerRefused: the broker does not let us in.
    """
    from amqprouter.amqp.link import connect_once  # noqa: PLC0415
    from amqprouter.amqp.uri import masked  # noqa: PLC0415
    from amqprouter.errors import BrokerUnavailable  # noqa: PLC0415

    hosts = f" ({', '.join(settings.hosts)})" if settings.hosts else ""
    try:
        return await connect_once(reactor, settings, purpose)
    except BrokerUnavailable as error:
        where = settings.endpoint or masked(settings.uri)
        raise BrokerUnavailable(f"the broker at {where}{hosts}: {error}") from error
