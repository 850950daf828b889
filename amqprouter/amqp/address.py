"""How to reach the broker: from ``[broker]`` settings to an endpoint and what the handshake needs."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

from OpenSSL import crypto
from twisted.internet import ssl
from twisted.internet.endpoints import HostnameEndpoint, clientFromString, wrapClientTLS
from twisted.internet.interfaces import IStreamClientEndpoint

from amqprouter.amqp.connection import Handshake
from amqprouter.core.uri import parse_amqp_uri
from amqprouter.settings import BrokerSettings


def endpoint_for(reactor: Any, settings: BrokerSettings) -> IStreamClientEndpoint:
    """The endpoint to connect to: ``endpoint`` as it stands, or the URI's host and port, with TLS for ``amqps``.

    Certificates are read anew each time, so that renewed ones count from the next connection on.

    :raises OSError: a TLS file cannot be read.
    :raises OpenSSL.crypto.Error: a TLS file holds no PEM of its kind.
    """
    if settings.endpoint:
        endpoint: IStreamClientEndpoint = clientFromString(reactor, settings.endpoint)
        return endpoint
    uri = parse_amqp_uri(settings.uri)
    plain = HostnameEndpoint(reactor, uri.host, uri.port, timeout=settings.connect_timeout)
    if not uri.tls:
        return plain
    trust: Any = ssl.platformTrust()
    if settings.tls_ca:
        blocks = Path(settings.tls_ca).read_bytes().split(b"-----END CERTIFICATE-----")
        certificates = [
            block + b"-----END CERTIFICATE-----" for block in blocks if b"-----BEGIN CERTIFICATE-----" in block
        ]
        trust = ssl.trustRootFromCertificates([ssl.Certificate.loadPEM(pem) for pem in certificates])
    own = None
    if settings.tls_certificate:
        key = Path(settings.tls_key).read_bytes()
        certificate = crypto.load_certificate(crypto.FILETYPE_PEM, Path(settings.tls_certificate).read_bytes())
        own = ssl.PrivateCertificate.fromCertificateAndKeyPair(
            ssl.Certificate(certificate), ssl.KeyPair.load(key, crypto.FILETYPE_PEM)
        )
    options = ssl.optionsForClientTLS(settings.tls_server_name or uri.host, trustRoot=trust, clientCertificate=own)
    return wrapClientTLS(options, plain)


def handshake_for(settings: BrokerSettings, purpose: str) -> Handshake:
    """Credentials, virtual host and the connection's name. The password file is read anew each time.

    :raises OSError: the password file cannot be read.
    """
    uri = parse_amqp_uri(settings.uri)
    password = uri.password
    if settings.password_file:
        password = Path(settings.password_file).read_text(encoding="utf-8").split("\n", 1)[0].rstrip("\r")
    return Handshake(
        username=settings.username or uri.username,
        password=password,
        vhost=settings.vhost or uri.vhost,
        heartbeat=uri.heartbeat if uri.heartbeat is not None else settings.heartbeat,
        name=f"amqprouter {purpose} @ {socket.gethostname()} ({os.getpid()})",
    )
