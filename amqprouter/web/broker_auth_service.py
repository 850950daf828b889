"""The endpoint for RabbitMQ's questions as a service: its files, its TLS, its port."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from OpenSSL.crypto import FILETYPE_PEM, load_privatekey
from twisted.application.service import Service
from twisted.internet import ssl
from twisted.internet.interfaces import IProtocolFactory
from twisted.protocols.tls import TLSMemoryBIOFactory

from amqprouter.amqp.uri import parse_amqp_uri
from amqprouter.auth.broker_access import BrokerAccess
from amqprouter.counters import Counters
from amqprouter.errors import ConfigError
from amqprouter.layouts.layout_set import layouts_of
from amqprouter.settings import BrokerAuthSettings, Settings
from amqprouter.web.broker_auth import AskSecret, BrokerAuthLeaf, BrokerAuthSite


def broker_auth_service(
    settings: Settings,
    ask_secret: AskSecret,
    may_use: Callable[[str, str], bool],
    may_speak: Callable[[str, str], bool],
    *,
    takes_reasons: Callable[[], bool],
    counters: Counters,
    reactor: Any,
    listen: Callable[[str, str, IProtocolFactory], Service | None],
) -> Service | None:
    """The endpoint, or None where it is turned off. Secret and certificates are read here, once.

    :param may_use: whether a device may use ``<device id>.<topic words>``.
    :param may_speak: whether somebody may use it who is another than the device.
    :param takes_reasons: whether the broker that we are connected to can read a reason behind ``deny``.
    :param listen: (section, endpoint string, what answers) → a service that listens there.
    :raises ConfigError: a file cannot be read any more.
    """
    ours = settings.broker_auth
    if not ours.endpoint:
        return None
    try:
        secret = _first_line(ours.secret_file) if ours.secret_file else b""
        tls = _tls(ours) if ours.tls_certificate else None
    except (OSError, ValueError) as error:
        raise ConfigError([f"[broker_auth]: {error}"]) from error
    access = access_of(settings, may_use, may_speak)
    leaf = BrokerAuthLeaf(
        secret,
        access,
        ask_secret,
        external=ours.external,
        takes_reasons=takes_reasons,
        counters=counters,
        reactor=reactor,
    )
    site: IProtocolFactory = BrokerAuthSite(leaf, reactor)
    if tls is not None:
        site = TLSMemoryBIOFactory(tls, False, site)
    return listen("broker_auth", ours.endpoint, site)


def access_of(
    settings: Settings, may_use: Callable[[str, str], bool], may_speak: Callable[[str, str], bool]
) -> BrokerAccess:
    """The rules of this configuration, for which `broker_auth_service` has the other parameters."""
    ours, broker, devices = settings.broker_auth, settings.broker, settings.topology.devices_exchange
    uri = parse_amqp_uri(broker.uri)
    return BrokerAccess(
        vhost=broker.vhost or uri.vhost,
        devices_exchange=devices,
        by_id_exchange=f"{devices}.by-id",
        mqtt_exchanges=frozenset((devices, *settings.ingress.exchanges)),
        services=frozenset((*ours.services, broker.username or uri.username)),
        subscribe=ours.subscribe,
        may_use=may_use,
        may_speak=may_speak,
        layouts=layouts_of(settings),
        command_queue=settings.commands.queue if settings.commands.enabled else "",
    )


def _first_line(path: str) -> bytes:
    return Path(path).read_bytes().split(b"\n", 1)[0].rstrip(b"\r")


def _tls(settings: BrokerAuthSettings) -> ssl.CertificateOptions:
    """TLS with the endpoint's certificate, and with the demand for a client's where authorities are named for it."""
    first, *others = _certificates(settings.tls_certificate)
    trusted = _certificates(settings.tls_client_ca) if settings.tls_client_ca else []
    options: ssl.CertificateOptions = ssl.CertificateOptions(
        privateKey=load_privatekey(FILETYPE_PEM, Path(settings.tls_key).read_bytes()),
        certificate=first.original,
        extraCertChain=[certificate.original for certificate in others],
        trustRoot=ssl.trustRootFromCertificates(trusted) if trusted else None,
    )
    return options


def _certificates(path: str) -> list[ssl.Certificate]:
    """All certificates of a PEM file, in order."""
    end = b"-----END CERTIFICATE-----"
    blocks = Path(path).read_bytes().split(end)[:-1]
    return [ssl.Certificate.loadPEM(block[block.index(b"-----BEGIN CERTIFICATE-----") :] + end) for block in blocks]
