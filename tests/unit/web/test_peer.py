"""Whom a request comes from, with and without proxies."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers

from amqprouter.web.peer import Peers


class FakeRequest:
    def __init__(self, address: Any, *told: str) -> None:
        self._address = address
        self.requestHeaders = Headers({"X-Forwarded-For": list(told)} if told else {})

    def getClientAddress(self) -> Any:
        return self._address


def peer(trusted: tuple[str, ...], host: str, *told: str) -> str:
    address = (IPv6Address if ":" in host else IPv4Address)("TCP", host, 5)
    request: Any = FakeRequest(address, *told)
    return Peers(trusted).of(request)


class PeersTests(SynchronousTestCase):
    def test_nobody_is_trusted_unless_said_so(self) -> None:
        self.assertEqual(peer((), "127.0.0.1", "192.0.2.7"), "127.0.0.1")
        self.assertEqual(peer(("10.0.0.1",), "127.0.0.1", "192.0.2.7"), "127.0.0.1")

    def test_what_a_trusted_proxy_tells(self) -> None:
        trusted = ("127.0.0.1", "10.0.0.0/8", "::1")
        for host, told, expected in (
            ("127.0.0.1", ("192.0.2.7",), "192.0.2.7"),
            ("::1", ("2001:DB8::7",), "2001:db8::7"),
            ("127.0.0.1", ("192.0.2.7, 10.1.1.1",), "192.0.2.7"),
            ("127.0.0.1", ("192.0.2.7", "10.1.1.1"), "192.0.2.7"),  # two headers are one list
            # What is left of the first address that is not trusted, anybody may have written.
            ("127.0.0.1", ("192.0.2.66, 192.0.2.7",), "192.0.2.7"),
            ("127.0.0.1", ("127.0.0.1, 192.0.2.7, 10.1.1.1",), "192.0.2.7"),
            ("192.0.2.7", ("10.0.0.5",), "192.0.2.7"),
            ("127.0.0.1", (), "127.0.0.1"),
            ("127.0.0.1", ("10.1.1.1",), "10.1.1.1"),
            ("127.0.0.1", ("unknown",), "127.0.0.1"),
            ("127.0.0.1", ("192.0.2.7, x, 10.1.1.1",), "10.1.1.1"),
            ("127.0.0.1", ("",), "127.0.0.1"),
            ("127.0.0.1", (",".join(["10.0.0.1"] * 5000),), "10.0.0.1"),
        ):
            self.assertEqual(peer(trusted, host, *told), expected, told)

    def test_a_socket_without_addresses(self) -> None:
        request: Any = FakeRequest(UNIXAddress("/run/x"), "192.0.2.7")
        self.assertEqual(Peers(("127.0.0.1",)).of(request), "")
