"""AMQP URIs are read by RabbitMQ's specification, and never give a password away."""

from __future__ import annotations

import contextlib

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from amqprouter.amqp.uri import AmqpUri, masked, parse_amqp_uri, parse_host

GOOD = {
    # The examples of https://www.rabbitmq.com/docs/uri-spec, appendix A, with the defaults filled in.
    "amqp://user:pass@host:10000/vhost": AmqpUri("host", 10000, "user", "pass", "vhost"),
    "amqp://user%61:%61pass@ho%61st:10000/v%2fhost": AmqpUri("hoast", 10000, "usera", "apass", "v/host"),
    "amqp://": AmqpUri("localhost", 5672, "guest", "guest", "/"),
    "amqp://:@/": AmqpUri("localhost", 5672, "", "", ""),
    "amqp://user@": AmqpUri("localhost", 5672, "user", "", "/"),
    "amqp://user:pass@": AmqpUri("localhost", 5672, "user", "pass", "/"),
    "amqp://host": AmqpUri("host"),
    "amqp://:10000": AmqpUri(port=10000),
    "amqp:///vhost": AmqpUri(vhost="vhost"),
    "amqp://host/": AmqpUri("host", vhost=""),
    "amqp://host/%2f": AmqpUri("host", vhost="/"),
    "amqp://[::1]": AmqpUri("::1"),
    # What people write.
    "AMQPS://host": AmqpUri("host", 5671, tls=True),
    "amqps://[2001:db8::1]:5673/%2F": AmqpUri("2001:db8::1", 5673, tls=True),
    "amqp://gateway:p%40ss%2Fw%25rd@10.0.0.1/plant": AmqpUri("10.0.0.1", 5672, "gateway", "p@ss/w%rd", "plant"),
    "amqp://user:a:b@host": AmqpUri("host", username="user", password="a:b"),
    "amqp://j%C3%BCrgen:%E2%82%AC@host": AmqpUri("host", username="jürgen", password="€"),
    "amqp://host?heartbeat=10&connection_timeout=1500": AmqpUri("host", heartbeat=10, connect_timeout=1.5),
    "amqp://host/%2F?heartbeat=0": AmqpUri("host", heartbeat=0),
    "amqp://host?channel_max=64": AmqpUri("host", channel_max=64),
    "amqps://host?auth_mechanism=external&verify=verify_peer": AmqpUri("host", 5671, tls=True, external=True),
    "amqp://host?auth_mechanism=PLAIN": AmqpUri("host"),
}

BAD = {
    "": "must begin with amqp://",
    "host:5672": "must begin with amqp://",
    "http://host": "must begin with amqp://",
    "amqp:/host": "must begin with amqp://",
    "amqp://host/a/b": "percent-encoded (%2F)",
    "amqp://u:hunter2/x@host": "percent-encoded",
    "amqp://u:hun?ter2@host": "percent-encoded",
    "amqp://u:hun@ter2@host": "percent-encoded",
    "amqp://u:hunter2#x@host": "'#' is %23",
    "amqp://u:hunter2 @host": "spaces",
    "amqp://u:hunter2\0@host": "control characters",
    "amqp://u:hunter2%0@host": "the password has a '%'",
    "amqp://u:hunter2%ff@host": "the password is not UTF-8",
    "amqp://u:hunter2%00@host": "NUL",
    "amqp://u:hunter2": "'@' missing",
    "amqp://host:0": "from 1 to 65535",
    "amqp://host:65536": "from 1 to 65535",
    "amqp://host:٤٢": "from 1 to 65535",
    "amqp://one,two": "only one",
    "amqp://::1": "from 1 to 65535",
    "amqp://[::1": "[address]",
    "amqp://[::1]5672": "[address]",
    "amqp://[nonsense]": "not an IPv6 address",
    "amqp://host/" + "v" * 256: "255 bytes",
    "amqp://host?heartbeat=soon": "whole number",
    "amqp://host?heartbeat=65536": "65535",
    "amqp://host?heartbeat=5&heartbeat=6": "twice",
    "amqp://host?connection_timeout=0": "from 1 to",
    "amqp://host?channel_max=65536": "from 0 to 65535",
    "amqp://host?channel_max=": "whole number",
    "amqp://host?auth_mechanism=amqplain": "plain or external",
    "amqp://host?verify=verify_none": "must be verify_peer",
    "amqp://host?cacertfile=/etc/ca.pem": "[broker] tls_ca",
    "amqp://host?server_name_indication=other": "[broker] tls_server_name",
    "amqp://host?frame_max=4096": "unknown option 'frame_max'",
}


class ParseAmqpUriTests(SynchronousTestCase):
    def test_good_ones(self) -> None:
        for text, expected in GOOD.items():
            self.assertEqual(parse_amqp_uri(text), expected, text)

    def test_bad_ones_are_refused_without_their_password(self) -> None:
        for text, reason in BAD.items():
            with self.assertRaises(ValueError, msg=text) as caught:
                parse_amqp_uri(text)
            self.assertIn(reason, str(caught.exception), text)
            self.assertNotIn("hun", str(caught.exception), text)
            self.assertNotIn("ter2", str(caught.exception), text)

    @given(st.text())
    def test_any_text_is_read_or_refused(self, text: str) -> None:
        with contextlib.suppress(ValueError):
            parse_amqp_uri("amqp://" + text)

    def test_shown_without_the_password(self) -> None:
        uri = parse_amqp_uri("amqps://jürgen:hunter2@[::1]/%2F")
        self.assertNotIn("hunter2", repr(uri))
        self.assertEqual(str(uri), "amqps://j%C3%BCrgen:***@[::1]:5671/%2F")


class ParseHostTests(SynchronousTestCase):
    def test_good_ones(self) -> None:
        for text, expected in {
            "rabbit.example": ("rabbit.example", 5671),
            "rabbit.example:5673": ("rabbit.example", 5673),
            "10.0.0.1:1": ("10.0.0.1", 1),
            "[::1]": ("::1", 5671),
            "[::1]:65535": ("::1", 65535),
        }.items():
            self.assertEqual(parse_host(text, 5671), expected)

    def test_bad_ones(self) -> None:
        for text in (
            "",
            ":1",
            "::1",
            "a b",
            "a:0",
            "a:65536",
            "a:x",
            "[x]",
            "[::1",
            "a%41",
            "a?b",
            "a#b",
            "a,b",
            "a/b",
        ):
            self.assertRaises(ValueError, parse_host, text, 5671)
        with self.assertRaises(ValueError) as caught:
            parse_host("me:hunter2@host", 5671)
        self.assertNotIn("hunter2", str(caught.exception))

    @given(st.text())
    def test_any_text_is_read_or_refused(self, text: str) -> None:
        with contextlib.suppress(ValueError):
            host, port = parse_host(text, 5671)
            self.assertTrue(host)
            self.assertTrue(1 <= port <= 65535)


class MaskedTests(SynchronousTestCase):
    def test_hides_what_may_be_secret(self) -> None:
        for uri, shown in {
            "amqp://user:hunter2@host:5672/%2F": "amqp://user:***@host:5672/%2F",
            "amqp://user:hun@ter2@host": "amqp://user:***@host",
            "amqp://user:hun/ter2@host": "amqp://user:***@host",
            "amqp://user:hun?ter2@host": "amqp://user:***@host",
            "amqp://user:hun://ter2@host": "amqp://user:***@host",
            "mongodb://user:hunter2": "mongodb://user:***",
            "user:hunter2@host": "user:***@host",
            "user:hunter2": "user:***",
            "mongodb://host/?tlsCertificateKeyFilePassword=hunter2": "mongodb://host/?***",
            "amqp://:hunter2@host": "amqp://:***@host",
        }.items():
            self.assertEqual(masked(uri), shown)

    def test_leaves_the_rest(self) -> None:
        for uri in ("amqp://host", "amqp://user@host:5672/%2F", "mongodb://one:1,two:2/db", "amqp://[::1]:5672", ""):
            self.assertEqual(masked(uri), uri)
