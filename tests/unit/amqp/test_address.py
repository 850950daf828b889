"""From settings to an endpoint and a handshake."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from amqprouter.amqp.address import endpoint_for, handshake_for
from amqprouter.settings import BrokerSettings


class HandshakeTests(SynchronousTestCase):
    def test_from_the_uri(self) -> None:
        settings = BrokerSettings(uri="amqp://me:p%40ss@host/v%2Fh?heartbeat=7")
        handshake = handshake_for(settings, "consume")
        self.assertEqual((handshake.username, handshake.password, handshake.vhost), ("me", "p@ss", "v/h"))
        self.assertEqual(handshake.heartbeat, 7)
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


class EndpointTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor: Any = MemoryReactorClock()

    def test_plain(self) -> None:
        endpoint = endpoint_for(self.reactor, BrokerSettings(uri="amqp://host:1234"))
        assert isinstance(endpoint, HostnameEndpoint)
        self.assertIn("host:1234", repr(endpoint))

    def test_an_endpoint_string_wins(self) -> None:
        endpoint = endpoint_for(self.reactor, BrokerSettings(uri="amqp://host", endpoint="unix:/run/rabbit.sock"))
        self.assertIn("UNIX", type(endpoint).__name__)

    def test_tls(self) -> None:
        endpoint = endpoint_for(self.reactor, BrokerSettings(uri="amqps://host"))
        self.assertNotIsInstance(endpoint, HostnameEndpoint)

    def test_bad_files(self) -> None:
        """The link tells of them, and tries again."""
        missing = BrokerSettings(uri="amqps://host", tls_ca="/nonexistent")
        self.assertRaises(OSError, endpoint_for, self.reactor, missing)
