"""Kinds of option values that are addresses: URIs, Twisted endpoint strings and web origins."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from pymongo.errors import PyMongoError
from pymongo.uri_parser import parse_uri
from twisted.internet.endpoints import clientFromString, serverFromString
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactorClock
from twisted.python.filepath import UnlistableError

from amqprouter.amqp.uri import masked, parse_amqp_uri, parse_host
from amqprouter.config.values import Kind, Surroundings
from amqprouter.net import UNIX, read_network

_OURS = {"w", "j", "journal", "wtimeout", "wtimeoutms"}
"""Options of a MongoDB URI that ``[store]`` has options for: only there is w=0 refused."""


@dataclass(frozen=True)
class BrokerUri:
    """An AMQP URI, taken as it stands; see `parse_amqp_uri`."""

    legal: str = "amqp[s]://USER:PASSWORD@HOST:PORT/VHOST, the virtual host '/' written %2F"

    def read(self, text: str, surroundings: Surroundings) -> str:
        parse_amqp_uri(text)
        return text

    def shown(self, text: str) -> str:
        return masked(text)


@dataclass(frozen=True)
class BrokerHost(Kind):
    """A node of the broker's cluster, taken as it stands."""

    legal: str = "HOST or HOST:PORT, an IPv6 address as [ADDRESS]:PORT; the port is the URI's when absent"

    def read(self, text: str, surroundings: Surroundings) -> str:
        parse_host(text, 5672)
        return text

    def shown(self, text: str) -> str:
        return masked(text)


@dataclass(frozen=True)
class StoreUri:
    """A MongoDB URI, taken as it stands."""

    legal: str = "mongodb://USER:PASSWORD@HOST:PORT,…/DATABASE?OPTIONS"

    def read(self, text: str, surroundings: Surroundings) -> str:
        if text.startswith("mongodb+srv://"):
            # Looking it up would block, and txmongo cannot.
            raise ValueError("mongodb+srv:// is not supported; name the hosts in a mongodb:// URI")
        _, _, behind = text.removeprefix("mongodb://").partition("/")
        if "@" in behind:
            raise ValueError("a user name or password with '@', '/' or '?' must be percent-encoded (%40, %2F, %3F)")
        if any(character.isspace() for character in text):
            raise ValueError("there is white space in it")
        try:
            options: dict[str, object] = parse_uri(text, warn=False)["options"]
        except (PyMongoError, ValueError, OSError) as error:
            raise ValueError(str(error).rstrip(".")) from None
        for name in options:
            if name.lower() in _OURS:
                raise ValueError(f"the option {name!r} is set by write_concern, journal and timeout instead")
        return text

    def shown(self, text: str) -> str:
        return masked(text)


@dataclass(frozen=True)
class ServerEndpoint(Kind):
    """A Twisted server endpoint string. It is tried on a reactor that opens nothing; files that it names are read."""

    legal: str = "a Twisted server endpoint string, such as tcp:8080:interface=127.0.0.1 or ssl:443:privateKey=…"

    def read(self, text: str, surroundings: Surroundings) -> str:
        reactor = MemoryReactorClock()
        try:
            endpoint = serverFromString(reactor, text)
            if text.startswith("tcp:"):
                endpoint.listen(Factory())
        except Exception as error:  # endpoints are plugins: anything may come out of one
            raise ValueError(_endpoint_problem(text, error)) from None
        for port, *_ in reactor.tcpServers:
            if not 0 <= port <= 65535:
                raise ValueError("the port must be a number from 0 to 65535")
        return text


@dataclass(frozen=True)
class ClientEndpoint(Kind):
    """A Twisted client endpoint string, tried likewise."""

    legal: str = "a Twisted client endpoint string, such as tcp:rabbit.example:5672 or unix:/run/broker.sock"

    def read(self, text: str, surroundings: Surroundings) -> str:
        if text.startswith("ssl:") and not re.search(r"(?<!\\):hostname=.", text):
            raise ValueError("without hostname= nobody would check whose certificate it is; better: tls:HOST:PORT")
        try:
            clientFromString(MemoryReactorClock(), text)
        except Exception as error:  # endpoints are plugins: anything may come out of one
            raise ValueError(_endpoint_problem(text, error)) from None
        return text


def is_local(endpoint: str) -> bool:
    """Whether only this machine can reach a legal server endpoint: TCP on a loopback address, or a UNIX socket."""
    reactor = MemoryReactorClock()
    if not endpoint.startswith(("tcp:", "unix:")):
        return False
    serverFromString(reactor, endpoint).listen(Factory())
    return all(_is_loopback(interface) for _, _, _, interface in reactor.tcpServers)


def _is_loopback(interface: str) -> bool:
    try:
        return ipaddress.ip_address(interface).is_loopback
    except ValueError:
        return interface == "localhost"


def _endpoint_problem(text: str, error: Exception) -> str:
    if isinstance(error, UnlistableError):
        error = error.originalException
    if isinstance(error, TypeError):  # "_parseTCP() got an unexpected…": the function says nothing to an operator
        return str(error).rpartition("() ")[2].replace("keyword argument", "option").replace("positional ", "")
    if isinstance(error, IndexError) and text.startswith("systemd:"):
        return "the service manager passed no such socket; systemd: works only with a .socket unit"
    return str(error) or type(error).__name__


@dataclass(frozen=True)
class Origin(Kind):
    """A web origin as browsers send it (RFC 6454, section 7), to be compared character by character."""

    legal: str = "SCHEME://HOST or SCHEME://HOST:PORT in lower case, http or https, no wildcards and no path"

    def read(self, text: str, surroundings: Surroundings) -> str:
        parts = urlsplit(text)
        if parts.scheme not in ("http", "https") or not parts.hostname or "*" in text:
            raise ValueError("not the origin of a web site")
        if text != f"{parts.scheme}://{parts.netloc}" or "@" in text or text != text.lower() or not text.isascii():
            raise ValueError("browsers send an origin in lower case, without path, user or a slash at the end")
        if parts.port == {"http": 80, "https": 443}[parts.scheme]:
            raise ValueError("browsers leave the scheme's own port out")
        return text


@dataclass(frozen=True)
class ProxyAddress(Kind):
    """Where a trusted proxy connects from."""

    legal: str = f"an IP address, a network such as 10.1.0.0/16, or {UNIX} for whoever reaches a UNIX socket"

    def read(self, text: str, surroundings: Surroundings) -> str:
        if text != UNIX:
            read_network(text)
        return text
