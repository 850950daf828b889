"""What the broker says it is."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from amqprouter.amqp.server import ServerProperties
from tests.unit.amqp.harness import BrokerTestCase


class ServerPropertiesTests(SynchronousTestCase):
    def test_versions(self) -> None:
        for text, version in (
            ("3.10.8", (3, 10, 8)),
            ("4.3.0-rc.1", (4, 3, 0)),
            ("4.0.5+17.gdeadbee", (4, 0, 5)),
            ("", ()),
            ("unknown", ()),
        ):
            server = ServerProperties.of({"product": "RabbitMQ", "version": text})
            self.assertEqual(server.version, version, text)
        self.assertTrue(ServerProperties.of({"product": "RabbitMQ", "version": "4.3.6"}).at_least(4, 3))
        self.assertFalse(ServerProperties.of({"product": "RabbitMQ", "version": "3.13.7"}).at_least(4))
        self.assertFalse(ServerProperties.of({"product": "RabbitMQ", "version": "4.0.5"}).at_least(4, 3))

    def test_others(self) -> None:
        """What is no RabbitMQ, or says odd things, has nothing that is looked for by version."""
        other = ServerProperties.of({"product": "LavinMQ", "version": "9.9"})
        self.assertFalse(other.at_least(3))
        self.assertEqual(str(other), "LavinMQ 9.9")
        odd = ServerProperties.of({"product": 7, "version": b"4.0", "capabilities": "all"})
        self.assertEqual((odd.version, odd.capabilities), ((), frozenset()))
        self.assertEqual(str(odd), "a broker without a name 4.0")

    def test_capabilities(self) -> None:
        server = ServerProperties.of({"capabilities": {"basic.nack": True, "exchange_exchange_bindings": False}})
        self.assertEqual(server.capabilities, {"basic.nack"})


class ConnectionTests(BrokerTestCase):
    def test_known_from_the_handshake(self) -> None:
        self.broker.version = "4.3.6"
        connection = self.connected()
        self.assertEqual(connection.server.version, (4, 3, 6))
        self.assertIn("publisher_confirms", connection.server.capabilities)
