"""From settings to addresses and a handshake."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.trial.unittest import SynchronousTestCase

from amqprouter.amqp.address import Address, account_of, addresses_for, handshake_for
from amqprouter.amqp.connection import Connection
from amqprouter.amqp.tls import TlsFiles
from amqprouter.errors import BrokerRefused, BrokerUnavailable
from amqprouter.settings import BrokerSettings
from amqprouter.testing.amqp import HANDSHAKE
from tests.support.certificates import Authority


class HandshakeTests(SynchronousTestCase):
    def test_from_the_uri(self) -> None:
        settings = BrokerSettings(uri="amqp://me:p%40ss@host/v%2Fh?heartbeat=7")
        handshake = handshake_for(settings, "consume")
        self.assertEqual((handshake.username, handshake.password, handshake.vhost), ("me", "p@ss", "v/h"))
        self.assertEqual((handshake.heartbeat, handshake.channel_max), (7, 0))
        self.assertEqual(handshake_for(BrokerSettings(uri="amqp://host?channel_max=9"), "x").channel_max, 9)
        self.assertRegex(handshake.name, r"^amqprouter consume @ \S+ \(\d+\)$")
        self.assertNotIn("p@ss", repr(handshake))

    def test_settings_win(self) -> None:
        password = Path(self.mktemp())
        password.write_bytes("gehäim\r\nsecond line\n".encode())
        settings = BrokerSettings(
            uri="amqp://me:pass@host/v", vhost="w", username="you", password_file=str(password), heartbeat=5
        )
        handshake = handshake_for(settings, "publish")
        self.assertEqual((handshake.username, handshake.password, handshake.vhost), ("you", "gehäim", "w"))
        self.assertEqual(handshake.heartbeat, 5)

    def test_a_changed_password_counts(self) -> None:
        password = Path(self.mktemp())
        settings = BrokerSettings(password_file=str(password))
        for text in ("one", "two"):
            password.write_text(text)
            self.assertEqual(handshake_for(settings, "x").password, text)
        password.unlink()
        self.assertRaises(OSError, handshake_for, settings, "x")

    def test_login_by_certificate(self) -> None:
        """Without a password, the client certificate says who we are."""
        for uri, certificate, expected in (
            ("amqps://@host", "own.pem", ("", "")),
            ("amqps://me@host", "own.pem", ("", "")),
            ("amqps://me:pass@host", "own.pem", ("me", "pass")),
            ("amqps://me@host", "", ("me", "")),
            ("amqps://me:pass@host?auth_mechanism=external", "own.pem", ("", "")),
        ):
            handshake = handshake_for(BrokerSettings(uri=uri, tls_certificate=certificate), "x")
            self.assertEqual((handshake.username, handshake.password), expected, uri)

    def test_the_account(self) -> None:
        """Nobody's name is taken for it where only the certificate says it: messages of its owner are believed."""
        for uri, username, expected in (
            ("amqp://me@host", "", "me"),
            ("amqp://host", "", "guest"),
            ("amqp://me@host", "you", "you"),
            ("amqps://host?auth_mechanism=external", "", ""),
            ("amqps://me:pass@host?auth_mechanism=external", "", ""),
            ("amqps://host?auth_mechanism=external", "you", "you"),
        ):
            self.assertEqual(account_of(BrokerSettings(uri=uri, username=username)), expected, uri)


class AddressTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor: Any = MemoryReactorClock()

    def addresses(self, settings: BrokerSettings, *chances: float) -> list[Address]:
        return addresses_for(self.reactor, settings, iter(chances or (0.5,)).__next__)

    def test_plain(self) -> None:
        (address,) = self.addresses(BrokerSettings(uri="amqp://host:1234"))
        self.assertIsInstance(address.endpoint, HostnameEndpoint)
        self.assertIn("host:1234", repr(address.endpoint))
        self.assertEqual((address.where, address.tls), ("host:1234", None))

    def test_an_endpoint_string_wins(self) -> None:
        (address,) = self.addresses(BrokerSettings(uri="amqp://host", endpoint="unix:/run/rabbit.sock"))
        self.assertIn("UNIX", type(address.endpoint).__name__)
        self.assertEqual(address.where, "unix:/run/rabbit.sock")

    def test_tls(self) -> None:
        (address,) = self.addresses(BrokerSettings(uri="amqps://host"))
        self.assertNotIsInstance(address.endpoint, HostnameEndpoint)
        self.assertIsNotNone(address.tls)

    def test_hosts(self) -> None:
        """They replace the URI's host, and its port where they have one of their own; chance puts them in order."""
        settings = BrokerSettings(uri="amqp://host:1234", hosts=("one", "two:5", "[::1]"))
        self.assertEqual(
            [a.where for a in self.addresses(settings, 0.1, 0.2, 0.3)], ["one:1234", "two:5", "[::1]:1234"]
        )
        self.assertEqual(
            [a.where for a in self.addresses(settings, 0.3, 0.1, 0.2)], ["two:5", "[::1]:1234", "one:1234"]
        )
        (address,) = self.addresses(BrokerSettings(uri="amqps://host", hosts=("one",)))
        self.assertEqual(address.where, "one:5671")

    def test_names_that_are_not_plain(self) -> None:
        """Underscores are wrong and common; other alphabets are right and rare."""
        for host in ("rabbit_1", "käfig.example"):
            (address,) = self.addresses(BrokerSettings(uri=f"amqps://{host}"))
            assert address.tls is not None
            protocol = TLSMemoryBIOFactory(address.tls, True, Factory.forProtocol(Protocol)).buildProtocol(None)
            connection = address.tls.clientConnectionForTLS(protocol)
            self.assertEqual(connection.get_servername(), host.encode("idna"))
        self.assertRaises(ValueError, self.addresses, BrokerSettings(uri="amqps://a..ä"))

    def test_explained(self) -> None:
        """Only what happens before the broker's first word is explained by TLS or its lack."""
        connection = Connection(HANDSHAKE, self.reactor)
        (plain,) = self.addresses(BrokerSettings(uri="amqp://host"))
        told = plain.explained(connection, BrokerUnavailable("closed"))
        self.assertEqual(
            str(told),
            "host:5672 takes connections but does not answer in AMQP (a hung broker, a network that swallows packets, "
            "or a port that takes TLS (then use amqps://)): closed",
        )
        refused = BrokerRefused(403, "no")
        self.assertIs(plain.explained(connection, refused), refused)
        connection.greeted = True
        lost = BrokerUnavailable("closed")
        self.assertIs(plain.explained(connection, lost), lost)


class TlsFileTests(SynchronousTestCase):
    """The link tells of bad files, and tries again."""

    def setUp(self) -> None:
        self.authority = Authority()
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        certificate, key = self.authority.issue("me")
        _, other_key = self.authority.issue("me")
        for name, content in {
            "ca.pem": self.authority.pem,
            "own.pem": certificate + self.authority.pem,
            "own.key": key,
            "other.key": other_key,
            "empty.pem": b"",
            "broken.pem": self.authority.pem[:-40],
        }.items():
            (self.folder / name).write_bytes(content)

    def files(self, **names: str) -> TlsFiles:
        return TlsFiles(BrokerSettings(**{option: str(self.folder / name) for option, name in names.items()}))  # type: ignore[arg-type]

    def test_good(self) -> None:
        files = self.files(tls_ca="ca.pem", tls_certificate="own.pem", tls_key="own.key")
        self.assertEqual(len(files.options["extraCertChain"]), 1)
        self.assertIn(f"those in {self.folder}", files.trusted)
        self.assertIn("the system's", self.files().trusted)

    def test_bad(self) -> None:
        for names, text in (
            ({"tls_ca": "empty.pem"}, "tls_ca: no PEM certificate in"),
            ({"tls_ca": "broken.pem"}, "tls_ca: no PEM certificate in"),
            ({"tls_ca": "own.key"}, "tls_ca: no PEM certificate in"),
            ({"tls_certificate": "empty.pem", "tls_key": "own.key"}, "tls_certificate: no PEM certificate in"),
            ({"tls_certificate": "own.pem", "tls_key": "ca.pem"}, "tls_key: no PEM key"),
            ({"tls_certificate": "own.pem", "tls_key": "other.key"}, "is not the key of"),
        ):
            error = self.assertRaises(ValueError, self.files, **names)
            self.assertIn(text, str(error))
            self.assertIn(str(self.folder), str(error))
        self.assertRaises(OSError, self.files, tls_ca="missing.pem")
