"""Whose word about a client's address counts."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from amqprouter.net import MOST_HOPS, TrustedProxies

EDGE, INNER = "192.0.2.1", "10.1.2.3"
CLIENT, FORGED = "203.0.113.9", "198.51.100.7"


class ClientTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.proxies = TrustedProxies([EDGE, "10.0.0.0/8", "2001:db8::/32"])

    def check(self, expected: str, peer: str, *forwarded_for: str) -> None:
        self.assertEqual(self.proxies.client(peer, forwarded_for), expected)

    def test_a_proxy_says_whom_it_stands_for(self) -> None:
        self.check(CLIENT, EDGE, CLIENT)

    def test_a_chain_of_proxies(self) -> None:
        self.check(CLIENT, INNER, f"{CLIENT}, {EDGE}")
        self.check(CLIENT, INNER, CLIENT, EDGE)  # the header sent twice is one list (RFC 9110, section 5.3)

    def test_what_a_client_makes_up_does_not_count(self) -> None:
        self.check(CLIENT, CLIENT, FORGED)  # past the proxy
        self.check(CLIENT, EDGE, f"{FORGED}, {CLIENT}")
        self.check(CLIENT, EDGE, FORGED, CLIENT)
        self.check(CLIENT, EDGE, f"{FORGED}, {EDGE}, {CLIENT}")  # behind a proxy of ours that it claims to have passed
        self.check(CLIENT, EDGE, f",,,{FORGED}\t, {CLIENT} ")

    def test_no_word_or_one_that_is_no_address(self) -> None:
        self.check(EDGE, EDGE)
        for text in ("", " ", "unknown", "_hidden", f"{CLIENT}:4711", "1.2.3", f"{CLIENT},", "::1::"):
            self.check(EDGE, EDGE, text)
        self.check(EDGE, INNER, f"rubbish, {EDGE}")

    def test_only_proxies(self) -> None:
        self.check("10.0.0.1", EDGE, ",".join(["10.0.0.1"] * 5000))
        self.check(EDGE, EDGE, ",".join([CLIENT] + [EDGE] * MOST_HOPS))  # so far nobody looks
        self.check(CLIENT, EDGE, ",".join([CLIENT] + [EDGE] * (MOST_HOPS - 1)))
        self.check(EDGE, INNER, f"{EDGE}, {INNER}")

    def test_ipv6_and_its_spellings(self) -> None:
        self.check("2001:470::1", "2001:db8:0:0::7", "2001:0470:0:0::1")
        self.check(CLIENT, f"::ffff:{EDGE}", f"::ffff:{CLIENT}")  # a socket for both

    def test_unix_sockets_are_trusted_by_name_only(self) -> None:
        self.check("", "", CLIENT)
        self.assertEqual(TrustedProxies(["unix:"]).client("", [CLIENT]), CLIENT)
        self.assertEqual(TrustedProxies(["unix:"]).client("127.0.0.1", [CLIENT]), "127.0.0.1")

    def test_nobody_is_trusted_unless_named(self) -> None:
        self.assertEqual(TrustedProxies().client("127.0.0.1", [CLIENT]), "127.0.0.1")

    def test_what_is_no_network(self) -> None:
        for text in ("proxy.example", "10.0.0.1/8", "10.0.0.0/33", "0.0.0.0/0", "::/0", ""):
            self.assertRaises(ValueError, TrustedProxies, [text])
