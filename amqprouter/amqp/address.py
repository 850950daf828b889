"""How to reach the broker: from ``[broker]`` settings to addresses to try and what the handshake needs."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from OpenSSL import SSL
from twisted.internet.endpoints import HostnameEndpoint, clientFromString, wrapClientTLS
from twisted.internet.interfaces import IStreamClientEndpoint

from amqprouter.amqp.connection import Connection, Handshake
from amqprouter.amqp.tls import BrokerTls, TlsFiles, told
from amqprouter.amqp.uri import parse_amqp_uri, parse_host
from amqprouter.errors import BrokerUnavailable, ProtocolError
from amqprouter.settings import BrokerSettings


@dataclass(frozen=True)
class Address:
    """One place where the broker may be reached, for one attempt."""

    where: str
    """In the operator's words."""
    endpoint: IStreamClientEndpoint
    tls: BrokerTls | None = None
    """None without TLS, and where an endpoint string takes care of it."""

    def explained(self, connection: Connection, problem: Exception) -> Exception:
        """What to tell about a connection that ended: the problem, in better words where TLS or its lack explains."""
        if connection.greeted or not isinstance(problem, (BrokerUnavailable, ProtocolError)):
            return problem
        if self.tls is not None and self.tls.distrust:
            return BrokerUnavailable(f"TLS failed with {self.where}: {self.tls.distrust}")
        if isinstance(connection.lost, SSL.Error):
            return BrokerUnavailable(f"TLS failed with {self.where}: {told(connection.lost)}")
        third = "a port that is not AMQP's" if self.tls else "a port that takes TLS (then use amqps://)"
        hint = f"a hung broker, a network that swallows packets, or {third}"
        return BrokerUnavailable(f"{self.where} takes connections but does not answer in AMQP ({hint}): {problem}")


def addresses_for(reactor: Any, settings: BrokerSettings, random: Callable[[], float]) -> list[Address]:
    """The addresses to try, in random order: ``endpoint`` as it stands, or the hosts, with TLS for ``amqps``.

    Certificates are read anew each time, so that renewed ones count from the next connection on.

    :param random: a number from 0 up to 1.
    :raises OSError: a TLS file cannot be read.
    :raises ValueError: a TLS file holds no PEM of its kind, or certificate and key are no pair.
    """
    if settings.endpoint:
        return [Address(settings.endpoint, clientFromString(reactor, settings.endpoint))]
    uri = parse_amqp_uri(settings.uri)
    hosts = [parse_host(text, uri.port) for text in settings.hosts] or [(uri.host, uri.port)]
    hosts.sort(key=lambda _: random())  # a fleet spreads over the cluster, and so do the connections of one gateway
    files = TlsFiles(settings) if uri.tls else None
    addresses = []
    for host, port in hosts:
        where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        endpoint = HostnameEndpoint(reactor, host, port, timeout=settings.connect_timeout)
        if files is None:
            addresses.append(Address(where, endpoint))
        else:
            tls = BrokerTls(files, settings.tls_server_name or host)
            addresses.append(Address(where, wrapClientTLS(tls, endpoint), tls))
    return addresses


def account_of(settings: BrokerSettings) -> str:
    """The name of the account that these settings log in with, as a ``user_id`` has it; empty where a client
    certificate names it and ``username`` does not say it too."""
    uri = parse_amqp_uri(settings.uri)
    name = settings.username or ("" if uri.external else uri.username)
    return name if len(name.encode()) <= 255 else ""  # too long for the property


def handshake_for(settings: BrokerSettings, purpose: str) -> Handshake:
    """Credentials, virtual host and the connection's name. The password file is read anew each time.

    Whoever has a client certificate and no password, or a URI with ``auth_mechanism=external``, logs in by the
    certificate (EXTERNAL), which names the user.

    :raises OSError: the password file cannot be read.
    """
    uri = parse_amqp_uri(settings.uri)
    password = uri.password
    if settings.password_file:
        password = Path(settings.password_file).read_text(encoding="utf-8").split("\n", 1)[0].rstrip("\r")
    by_certificate = uri.external or (bool(settings.tls_certificate) and not password)
    return Handshake(
        username="" if by_certificate else settings.username or uri.username,
        password="" if by_certificate else password,
        vhost=settings.vhost or uri.vhost,
        channel_max=uri.channel_max or 0,
        heartbeat=uri.heartbeat if uri.heartbeat is not None else settings.heartbeat,
        name=f"amqprouter {purpose} @ {socket.gethostname()} ({os.getpid()})",
    )
