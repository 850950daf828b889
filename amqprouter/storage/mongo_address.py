"""Where MongoDB is and how to enter: ``[store]`` settings, read so that nothing in them is silently ignored.

txmongo sends no credentials when the URI names no database, takes no notice of ``tls=true``, and skips options that
it does not know. So the URI is taken apart here, what txmongo would skip is refused by name, and what remains goes to
it piece by piece: hosts and replica set in a URI without credentials, TLS as a context, credentials in a call.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from OpenSSL.crypto import Error as CryptoError
from pymongo.errors import ConfigurationError, InvalidURI
from pymongo.uri_parser import parse_uri
from twisted.internet import ssl

from amqprouter.errors import StoreMisconfigured
from amqprouter.settings import StoreSettings

_HONOURED = {"tls", "ssl", "authsource", "authmechanism", "replicaset"}
_HARMLESS = {"retrywrites", "retryreads", "appname", "directconnection", "maxpoolsize", "minpoolsize"}
"""Options that change nothing here, and that vendors' ready-made URIs carry."""
_MECHANISMS = ("DEFAULT", "SCRAM-SHA-1")
"""What txmongo can do with a user name and password."""
_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


@dataclass(frozen=True)
class Credentials:
    """Who to log in as."""

    database: str
    """The one that knows the user (``authSource``)."""
    username: str
    password: str = field(repr=False)


@dataclass(frozen=True)
class MongoAddress:
    """What the settings say about reaching the server."""

    hosts: tuple[tuple[str, int], ...]
    replica_set: str
    credentials: Credentials | None
    trust: Any
    """The authorities that may vouch for the server; None for a connection without TLS."""

    @property
    def uri(self) -> str:
        """The hosts and the replica set, without anything secret: for txmongo, and for people."""
        hosts = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.hosts)
        return f"mongodb://{hosts}/" + (f"?replicaSet={self.replica_set}" if self.replica_set else "")


def read_address(settings: StoreSettings) -> MongoAddress:
    """Read the address, the password file and the authorities' file.

    :raises StoreMisconfigured: something in them is wrong or cannot be honoured; the text repeats no secret.
    """
    if settings.uri.startswith("mongodb+srv://"):
        raise StoreMisconfigured("[store] uri: mongodb+srv:// is not supported; name the hosts: mongodb://HOST,HOST/")
    try:
        parsed = parse_uri(settings.uri)
    except (InvalidURI, ConfigurationError, ValueError, OSError) as error:
        raise StoreMisconfigured(f"[store] uri: {error}") from None
    options = {name.lower(): value for name, value in parsed["options"].items()}
    for name in options.keys() - _HONOURED - _HARMLESS:
        raise StoreMisconfigured(
            f"[store] uri: the option {name} would have no effect; write concern and time limits are options of "
            "[store] itself, and so is tls_ca; legal in the URI: tls, authSource, authMechanism, replicaSet"
        )
    hosts = tuple((host, port or 0) for host, port in parsed["nodelist"])
    if not all(port for _, port in hosts):
        raise StoreMisconfigured("[store] uri: UNIX sockets are not supported; name a host")
    tls = bool(options.get("tls", options.get("ssl", False)))
    if settings.tls_ca and not tls:
        raise StoreMisconfigured("[store] tls_ca is set, but uri does not say tls=true: nothing would be encrypted")
    return MongoAddress(
        hosts=hosts,
        replica_set=options.get("replicaset", ""),
        credentials=_credentials(settings, parsed, options),
        trust=_trust(settings.tls_ca) if tls else None,
    )


def _credentials(settings: StoreSettings, parsed: dict[str, Any], options: dict[str, Any]) -> Credentials | None:
    mechanism = options.get("authmechanism", "DEFAULT")
    if mechanism not in _MECHANISMS:
        raise StoreMisconfigured(f"[store] uri: authMechanism {mechanism} is not supported; legal: SCRAM-SHA-1")
    username = settings.username or parsed["username"] or ""
    password = parsed["password"] or ""
    if settings.password_file:
        try:
            password = Path(settings.password_file).read_text("utf-8").partition("\n")[0].rstrip("\r")
        except (OSError, UnicodeDecodeError) as error:
            raise StoreMisconfigured(f"[store] password_file: {error}") from None
    if bool(username) != bool(password):
        missing = "a user name" if password else "a password"
        raise StoreMisconfigured(f"[store] {missing} is missing: set uri, username or password_file")
    if not username:
        return None
    # The default for authSource is the URI's own database, then admin (connection string specification, "authSource").
    return Credentials(options.get("authsource") or parsed["database"] or "admin", username, password)


def _trust(path: str) -> Any:
    if not path:
        return ssl.platformTrust()
    try:
        blocks = _CERTIFICATE.findall(Path(path).read_bytes())
        certificates = [ssl.Certificate.loadPEM(block) for block in blocks]
    except OSError as error:
        raise StoreMisconfigured(f"[store] tls_ca: {error}") from None
    except CryptoError:
        raise StoreMisconfigured(f"[store] tls_ca: {path} holds a certificate that cannot be read") from None
    if not certificates:
        raise StoreMisconfigured(f"[store] tls_ca: {path} holds no PEM certificate")
    return ssl.trustRootFromCertificates(certificates)
