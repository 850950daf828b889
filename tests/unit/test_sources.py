"""Which addresses are one source."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from amqprouter.net import source_of


class SourceTests(SynchronousTestCase):
    def test_sources(self) -> None:
        for address, source in (
            ("192.0.2.7", "192.0.2.7"),
            ("2001:db8:0:1::7", "2001:db8:0:1::/64"),
            ("2001:db8:0:1:ffff:ffff:ffff:ffff", "2001:db8:0:1::/64"),
            ("2001:db8:0:2::7", "2001:db8:0:2::/64"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("::1", "::/64"),
            ("fe80::1%eth0", "fe80::/64"),
            ("", ""),
            ("nonsense", "nonsense"),
        ):
            self.assertEqual(source_of(address), source, address)
