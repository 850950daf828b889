"""What counts as one source of requests: an IPv4 address, or the network that an IPv6 host has for itself."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv6Address, IPv6Network, ip_address

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
