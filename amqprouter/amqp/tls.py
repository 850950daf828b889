"""TLS with one host of the broker: whom we trust, who we are, and why it failed, in the operator's words.

House rules. What cannot be verified is not used: there is no option that turns that off. Files are read for each
attempt to connect, so that renewed ones count from the next connection on; a running connection keeps what it began
with.

Theory of operation. OpenSSL calls back for each certificate of the chain that the broker shows, with its own verdict;
the last call without an error is for the broker's own certificate, and there its names are compared with the host's.
Twisted's `optionsForClientTLS` does the same, but keeps to itself why OpenSSL says no: "certificate verify failed" is
all that is left of an expired certificate, an unknown authority or a certificate that is not for servers. So the
callback here is our own, and remembers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import idna
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL, crypto
from service_identity import VerificationError
from service_identity.cryptography import verify_certificate_hostname, verify_certificate_ip_address
from twisted.internet import ssl
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from zope.interface import implementer

from amqprouter.settings import BrokerSettings

_REASONS = {
    9: "is not valid yet: compare the clocks",
    10: "has expired: renew it",
    18: "is signed by itself and not among {trusted}",
    19: "is not among {trusted}",
    20: "comes from an authority that is not among {trusted}",
    21: "comes from an authority that is not among {trusted}",
    23: "is revoked",
    26: "is not for servers (its extended key usage)",
}
"""What operators meet among the X509_V_ERR_… of OpenSSL's x509_vfy.h."""


def _certificates(path: str, option: str) -> list[crypto.X509]:
    """:raises ValueError: there is none in the file, or a broken one."""
    try:
        return [crypto.X509.from_cryptography(one) for one in x509.load_pem_x509_certificates(Path(path).read_bytes())]
    except ValueError:
        raise ValueError(f"[broker] {option}: no PEM certificate in {path}, or a broken one") from None


class TlsFiles:
    """What the files of ``[broker] tls_…`` held when they were read.

    :raises OSError: a file cannot be read.
    :raises ValueError: a file holds no PEM of its kind, or certificate and key are no pair.
    """

    def __init__(self, settings: BrokerSettings) -> None:
        self.trusted = f"those in {settings.tls_ca}" if settings.tls_ca else "the system's authorities (see tls_ca)"
        trust: Any = ssl.platformTrust()
        if settings.tls_ca:
            trust = ssl.trustRootFromCertificates(
                [ssl.Certificate(one) for one in _certificates(settings.tls_ca, "tls_ca")]
            )
        self.options: dict[str, Any] = {"trustRoot": trust}
        if settings.tls_certificate:
            own, *chain = _certificates(settings.tls_certificate, "tls_certificate")
            try:
                key = load_pem_private_key(Path(settings.tls_key).read_bytes(), None)
            except (ValueError, TypeError):
                raise ValueError(f"[broker] tls_key: no PEM key without a passphrase in {settings.tls_key}") from None
            if key.public_key() != own.to_cryptography().public_key():
                # For a moment of a renewal this is as it must be; the next attempt will find both.
                raise ValueError(f"[broker] tls_key: {settings.tls_key} is not the key of {settings.tls_certificate}")
            private: Any = crypto.PKey.from_cryptography_key(key)  # type: ignore[arg-type]  # its kind is OpenSSL's word
            self.options |= {"certificate": own, "privateKey": private, "extraCertChain": chain}


@implementer(IOpenSSLClientConnectionCreator)
class BrokerTls:
    """Opens TLS to a host that must prove to be `name`.

    :raises ValueError: that can be no host's name.
    """

    def __init__(self, files: TlsFiles, name: str) -> None:
        self._files = files
        self._name = name
        self._is_address = isIPAddress(name) or isIPv6Address(name)
        self._encoded = name.encode() if name.isascii() else idna.encode(name)  # as it is: networks do use rabbit_1
        self.distrust = ""
        """What was wrong with the broker's certificate, once something was."""

    def clientConnectionForTLS(self, protocol: Any) -> SSL.Connection:
        """Called by Twisted for each connection."""
        options: Any = ssl.CertificateOptions(**self._files.options)
        connection: SSL.Connection = options.clientConnectionForTLS(protocol)
        if not self._is_address:  # RFC 6066, section 3: no addresses in server_name
            connection.set_tlsext_host_name(self._encoded)
        connection.set_verify(SSL.VERIFY_PEER, self._verify)
        return connection

    def _verify(self, connection: SSL.Connection, certificate: crypto.X509, error: int, depth: int, fine: int) -> bool:
        """Called by OpenSSL; False ends the handshake."""
        try:
            shown = certificate.to_cryptography()
            if not fine:
                above = shown.subject.rfc4514_string()
                whose = f"the authority {above!r} of its certificate" if depth else "its certificate"
                reason = _REASONS.get(error, f"does not verify (OpenSSL's X509 error {error})")
                self.distrust = f"{whose} {reason.format(trusted=self._files.trusted)}"
            elif depth == 0:
                self._check_name(shown)
        except Exception as trouble:
            self.distrust = f"its certificate cannot be checked: {trouble}"
        return not self.distrust

    def _check_name(self, certificate: x509.Certificate) -> None:
        check: Any = verify_certificate_ip_address if self._is_address else verify_certificate_hostname
        try:
            check(certificate, self._name)
        except VerificationError:
            names = ", ".join(_names(certificate)) or "no host"
            self.distrust = f"its certificate is for {names}, not for {self._name!r}; see tls_server_name"


def _names(certificate: x509.Certificate) -> list[str]:
    try:
        alternatives = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [str(one.value) for one in alternatives]


def told(error: SSL.Error) -> str:
    """OpenSSL's words for what ended a connection, with what to do about it."""
    details = error.args[0] if error.args and isinstance(error.args[0], list) else ()
    words = ", ".join(str(part[-1]) for part in details if part[-1]) or "no reason given"
    if "alert" in words:
        return f"the broker refused: {words}; see tls_certificate, and the broker's log"
    if "wrong version" in words or "packet length" in words or "record layer failure" in words:
        return f"it does not speak TLS at this port ({words}); amqps is usually at 5671, amqp:// at 5672"
    return words
