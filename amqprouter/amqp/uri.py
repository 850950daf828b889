"""AMQP URIs, by RabbitMQ's specification (https://www.rabbitmq.com/docs/uri-spec).

House rule: a URI carries a password, so no error text repeats any part of it that could be one — nor the port, which
is where a password ends up when its ``@`` is missing.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, unquote_to_bytes

_PORTS = {"amqp": 5672, "amqps": 5671}
_BAD_ESCAPE = re.compile("%(?![0-9A-Fa-f]{2})")
_UNWRITABLE = re.compile(r"[\s\x00-\x1f\x7f#]")
_NOT_IN_HOSTS = re.compile(r"[\s\x00-\x1f\x7f/,:@\[\]]")
_NUMBER = re.compile("[0-9]{1,9}")
_OPTIONS = ("heartbeat", "connection_timeout", "channel_max", "auth_mechanism", "verify")
_ELSEWHERE = {
    "cacertfile": "tls_ca",
    "certfile": "tls_certificate",
    "keyfile": "tls_key",
    "server_name_indication": "tls_server_name",
}
"""Options that name files and the like: what has a setting of its own is checked when the configuration is read."""
_LONGEST_VHOST = 255
"""Bytes: ``connection.open`` carries the virtual host as a short string (AMQP 0-9-1, section 4.2.5.3)."""


@dataclass(frozen=True)
class AmqpUri:
    """What an AMQP URI says; `str` and `repr` leave the password out."""

    host: str = "localhost"
    port: int = 5672
    username: str = "guest"
    password: str = field(default="guest", repr=False)
    vhost: str = "/"
    tls: bool = False
    heartbeat: int | None = None
    """Seconds; None when the URI does not say."""
    connect_timeout: float | None = None
    """Seconds; None when the URI does not say."""
    channel_max: int | None = None
    """Channels of a connection; 0 for any number, None when the URI does not say."""
    external: bool = False
    """Whether the client certificate is to say who logs in (the mechanism EXTERNAL)."""

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        user, vhost = quote(self.username, safe=""), quote(self.vhost, safe="")
        return f"amqp{'s' if self.tls else ''}://{user}:***@{host}:{self.port}/{vhost}"


def parse_amqp_uri(text: str) -> AmqpUri:
    """Read ``amqp[s]://[user[:password]@][host][:port][/vhost][?option=value&…]``.

    What is absent gets the specification's default (``guest``, ``localhost``, 5672 or 5671, ``/``), but a user without
    a password has the empty one. ``amqp://host/`` names the virtual host with the empty name, as the specification
    says; ``/`` itself is written ``%2F``. The options are RabbitMQ's (https://www.rabbitmq.com/docs/uri-query-parameters):
    ``heartbeat`` is in seconds, ``connection_timeout`` in milliseconds.

    :raises ValueError: the URI is not one; the text says what is wrong and repeats no secret.
    """
    scheme, separator, rest = text.partition("://")
    scheme = scheme.lower()
    if not separator or scheme not in _PORTS:
        raise ValueError("it must begin with amqp:// or amqps://")
    if _UNWRITABLE.search(rest):
        raise ValueError("spaces, control characters and '#' must be percent-encoded ('#' is %23)")
    address, _, query = rest.partition("?")
    authority, slash, path = address.partition("/")
    userinfo, at, address = authority.rpartition("@")
    if "@" in userinfo + path + query:
        raise ValueError("a user name or password with '@', '/' or '?' must be percent-encoded (%40, %2F, %3F)")
    if "/" in path:
        raise ValueError("the virtual host has a '/' that must be percent-encoded (%2F)")
    host, port = _host_and_port(address, _PORTS[scheme])
    username, password = _credentials(userinfo) if at else ("guest", "guest")
    vhost = _decoded(path, "virtual host") if slash else "/"
    if len(vhost.encode()) > _LONGEST_VHOST:
        raise ValueError(f"the virtual host is over {_LONGEST_VHOST} bytes")
    return AmqpUri(host, port, username, password, vhost, scheme == "amqps", **_options(query))


def _decoded(text: str, what: str) -> str:
    if _BAD_ESCAPE.search(text):
        raise ValueError(f"the {what} has a '%' that is not followed by two hexadecimal digits ('%' itself is %25)")
    try:
        return unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        raise ValueError(f"the {what} is not UTF-8 once percent-decoded") from None


def _credentials(userinfo: str) -> tuple[str, str]:
    encoded_name, _, encoded_password = userinfo.partition(":")
    username, password = _decoded(encoded_name, "user name"), _decoded(encoded_password, "password")
    if "\0" in username + password:
        # SASL PLAIN (RFC 4616) separates its parts by NUL: one inside would shift them.
        raise ValueError("a user name or password cannot hold NUL (%00)")
    return username, password


def _host_and_port(address: str, default_port: int) -> tuple[str, int]:
    if address.startswith("["):
        encoded_host, bracket, rest = address[1:].partition("]")
        host = _decoded(encoded_host, "host")
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            raise ValueError("what stands in brackets is not an IPv6 address") from None
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError("an IPv6 address is written [address] or [address]:port")
        port = rest[1:]
    else:
        encoded_host, _, port = address.partition(":")
        host = _decoded(encoded_host, "host") or "localhost"
        if _NOT_IN_HOSTS.search(host):
            raise ValueError(
                "the host is not a name or address; there is only one (a cluster's nodes are for "
                "[broker] hosts), and IPv6 stands in brackets"
            )
    if not port:
        return host, default_port
    if not _NUMBER.fullmatch(port) or not 1 <= int(port) <= 65535:
        raise ValueError("the port must be a number from 1 to 65535 (is there an '@' missing behind a password?)")
    return host, int(port)


def parse_host(text: str, default_port: int) -> tuple[str, int]:
    """Read ``HOST`` or ``HOST:PORT``, an IPv6 address in brackets, as it would stand in a URI.

    :raises ValueError: it is neither.
    """
    if "/" in text or "@" in text:
        raise ValueError("only host and port stand here; scheme, user, password and virtual host are the URI's")
    if not text or text.startswith(":") or re.search(r"[\s\x00-\x1f\x7f#?%]", text):
        raise ValueError("it is neither HOST nor HOST:PORT")
    return _host_and_port(text, default_port)


def _options(query: str) -> dict[str, Any]:
    """What the query says, as arguments for `AmqpUri`."""
    values: dict[str, str] = {}
    for option in query.split("&") if query else ():
        name, _, value = option.partition("=")
        if name in _ELSEWHERE:
            raise ValueError(f"option {name!r} is [broker] {_ELSEWHERE[name]} here")
        if name not in _OPTIONS:
            raise ValueError(f"unknown option {name!r}; legal: {', '.join(_OPTIONS)}")
        if name in values:
            raise ValueError(f"option {name!r} is there twice")
        values[name] = value
    if values.get("verify", "verify_peer") != "verify_peer":
        raise ValueError("option 'verify' must be verify_peer: a broker that cannot be verified is not used")
    if values.get("auth_mechanism", "plain").lower() not in ("plain", "external"):
        raise ValueError("option 'auth_mechanism' must be plain or external")
    said: dict[str, Any] = {}
    if "auth_mechanism" in values:
        said["external"] = values["auth_mechanism"].lower() == "external"
    if "heartbeat" in values:
        said["heartbeat"] = _number("heartbeat", values, 0)
    if "channel_max" in values:
        said["channel_max"] = _number("channel_max", values, 0)
    if "connection_timeout" in values:
        said["connect_timeout"] = _number("connection_timeout", values, 1, 999_999_999) / 1000
    return said


def _number(name: str, values: dict[str, str], least: int, most: int = 65_535) -> int:
    """The number that an option is; those of connection.tune are short integers."""
    if not _NUMBER.fullmatch(values[name]) or not least <= int(values[name]) <= most:
        raise ValueError(f"option {name!r} must be a whole number from {least} to {most}")
    return int(values[name])


def masked(uri: str) -> str:
    """A URI, perhaps a broken one, fit to be shown: without password and without options.

    Where it is not clear what is a password, too much is hidden rather than too little.
    """
    scheme, separator, rest = uri.partition("://") if "://" in uri else ("", "", uri)
    credentials, at, address = rest.rpartition("@")
    if at:
        rest = f"{credentials.partition(':')[0]}:***@{address}" if ":" in credentials else rest
    elif not re.match(r"(\[[^\]]*\]|[^:]*)(:[0-9]*)?([/?,]|$)", rest):
        rest = f"{rest.partition(':')[0]}:***"  # a password without the '@' behind it
    address, question_mark, _ = rest.partition("?")
    return f"{scheme}{separator}{address}{question_mark and '?***'}"
