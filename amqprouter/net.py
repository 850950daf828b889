"""Which address a request comes from, where proxies stand in front.

A proxy appends to ``X-Forwarded-For`` the address that it was connected to from. So the list is read from the right:
the last entry is the word of the proxy that we are connected to, the one before it the word of the proxy in the last
entry, and so on, for as long as these are trusted ones. What is further left anybody may have sent, and does not count.
Neither does what somebody sends who connects without a trusted proxy.

And what counts as one source of requests: an IPv4 address, or the network that an IPv6 host has for itself.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv6Address, IPv6Network, ip_address

UNIX = "unix:"
"""Stands for whoever connects to a UNIX socket; the name is nginx's (``set_real_ip_from``)."""

MOST_HOPS = 16
"""Entries that are looked at, from the right: no chain of proxies is that long, and each look takes time."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class TrustedProxies:
    """The addresses and networks whose ``X-Forwarded-For`` counts.

    :raises ValueError: one of them is none; the text says which, and why.
    """

    def __init__(self, trusted: Iterable[str] = ()) -> None:
        names = tuple(trusted)
        self._unix = UNIX in names
        self._networks = tuple(read_network(name) for name in names if name != UNIX)

    def client(self, peer: str, forwarded_for: Iterable[str]) -> str:
        """The client's address: `peer`, or what trusted proxies say. `peer` is empty on a UNIX socket; `forwarded_for`
        are the header's values in their order. An entry that is no address ends the search: its proxy's own counts."""
        if not self._trusts(peer):
            return peer
        found = peer
        for entry in reversed(",".join(forwarded_for).rsplit(",", MOST_HOPS)[-MOST_HOPS:]):
            address = _read_address(entry.strip())
            if address is None:
                break
            found = str(address)
            if not self._holds(address):
                break
        return found

    def _trusts(self, peer: str) -> bool:
        if not peer:
            return self._unix
        address = _read_address(peer) if self._networks else None
        return address is not None and self._holds(address)

    def _holds(self, address: Address) -> bool:
        return any(address in network for network in self._networks)


def read_network(text: str) -> Network:
    """A network, or a single address as one.

    :raises ValueError: it is neither, or is everybody.
    """
    network = ipaddress.ip_network(text)
    if network.prefixlen == 0:
        raise ValueError("with everybody trusted, every client could choose its own address")
    return network


def _read_address(text: str) -> Address | None:
    """The address in one of its spellings, so that a limit by address cannot be escaped by another; IPv4 as IPv4,
    though a socket for both has it in IPv6's clothes (RFC 4291, section 2.5.5.2)."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


IPV6_BITS = 64
"""What a subscriber's link has at least (RFC 4291, section 2.5.1): whoever has one address has 2^64 to choose from."""


@lru_cache(maxsize=4096)
def source_of(address: str) -> str:
    """The source that an address belongs to: ``192.0.2.7``, ``2001:db8:0:1::/64``; what is no address is its own."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if not isinstance(parsed, IPv6Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(IPv6Network((int(parsed), IPV6_BITS), strict=False))
