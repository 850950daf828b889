"""What ``amqprouter send`` publishes, and as whom."""

from __future__ import annotations

import argparse
import io
import sys
from types import SimpleNamespace

from amqprouter.amqp.properties import Properties
from amqprouter.amqp.uri import parse_amqp_uri
from amqprouter.cli.broker import as_user
from amqprouter.cli.send import Publishing, configure, make_publishing
from amqprouter.settings import AuthSettings, BrokerSettings
from tests.unit.cli.harness import CommandTestCase


class SendTests(CommandTestCase):
    def publishing(self, *arguments: str, secret: str | None = None) -> Publishing:
        parser = argparse.ArgumentParser()
        configure(parser)
        options = parser.parse_args(["--uri", "amqp://h", "--device", "dev1", "--topic", "up.t", *arguments])
        return make_publishing(options, "devices", AuthSettings(), secret)

    def test_a_plain_message(self) -> None:
        publishing = self.publishing("{}")
        properties = Properties(publishing.properties)
        self.assertEqual((publishing.exchange, publishing.routing_key), ("devices", "dev1.up.t"))
        self.assertEqual(publishing.body, b"{}")
        self.assertEqual(properties.content_type, "application/json")
        self.assertEqual(properties.message_id, publishing.message_id)
        self.assertEqual(properties.headers, {})
        self.assertIsNone(properties.text("user_id"))
        self.assertNotEqual(self.publishing("{}").message_id, publishing.message_id)

    def test_headers_and_secret(self) -> None:
        publishing = self.publishing("--header", "a=b=c", "--header", "e=", "--message-id", "m", "x", secret="s")
        properties = Properties(publishing.properties)
        self.assertEqual(properties.headers, {"a": "b=c", "e": "", "x-device-secret": "s"})
        self.assertEqual(properties.message_id, "m")

    def test_as_a_user_the_secret_is_the_password_and_no_header(self) -> None:
        properties = Properties(self.publishing("--as-user", "x", secret="s").properties)
        self.assertEqual((properties.text("user_id"), properties.headers), ("dev1", {}))

    def test_a_publisher_speaks_for_the_device(self) -> None:
        """The key is the device's; what proves it is the publisher's."""
        publishing = self.publishing("--publisher", "bridge-7", "x", secret="s")
        headers = Properties(publishing.properties).headers
        self.assertEqual(publishing.routing_key, "dev1.up.t")
        self.assertEqual(headers, {"x-device-secret": "s", "x-publisher": "bridge-7"})
        publishing = self.publishing("--publisher", "bridge-7", "--as-user", "x", secret="s")
        properties = Properties(publishing.properties)
        self.assertEqual((properties.text("user_id"), properties.headers), ("bridge-7", {}))
        self.assertEqual(publishing.routing_key, "dev1.up.t")

    def test_the_body_may_come_from_standard_input_and_be_anything(self) -> None:
        self.patch(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"\0\xff\n")))
        self.assertEqual(self.publishing("-").body, b"\0\xff\n")

    def test_what_cannot_be_published(self) -> None:
        command = ("send", "--uri", "amqp://127.0.0.1:1", "--device", "d")
        self.assertIn("--header x", self.fails(*command, "--topic", "t", "--header", "x", "b"))
        self.assertIn("255 bytes", self.fails(*command, "--topic", "t" * 300, "b"))
        self.assertIn("message_id of 300", self.fails(*command, "--topic", "t", "--message-id", "m" * 300, "b"))
        self.assertIn("--as-user needs", self.fails(*command, "--topic", "t", "--as-user", "b"))
        bad_uri = ("send", "--uri", "http://u:hidden@h", "--device", "d", "--topic", "t", "b")
        complaint = self.fails(*bad_uri)
        self.assertIn("--uri: it must begin with amqp://", complaint)
        self.assertNotIn("hidden", complaint)


class AsUserTests(CommandTestCase):
    def test_only_the_login_changes(self) -> None:
        for uri in ("amqps://u:p@[::1]:5/v%2Fh?heartbeat=9", "amqp://h", "amqp://h?heartbeat=9", "amqp://u@h/"):
            before = parse_amqp_uri(uri)
            settings = as_user(BrokerSettings(uri=uri, username="x", password_file="y"), "de@v:1", "p/w?")
            after = parse_amqp_uri(settings.uri)
            self.assertEqual((after.username, after.password), ("de@v:1", "p/w?"))
            self.assertEqual((settings.username, settings.password_file), ("", ""))
            for name in ("host", "port", "vhost", "tls", "heartbeat"):
                self.assertEqual(getattr(after, name), getattr(before, name), uri)
