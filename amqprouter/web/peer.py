"""The address that a request comes from, also through proxies that are trusted to tell it.

Each proxy appends whom it got a request from to ``X-Forwarded-For``; what stands there further to the left anybody may
have written. So it is read from its end, past the trusted proxies and no further.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address, ip_network

from twisted.web.iweb import IRequest

MOST_HOPS = 16
"""Addresses that are looked at: more proxies than that are not in a row, and the header is a stranger's."""


class Peers:
    """Tells requests' peers; `trusted` are the proxies' addresses or networks."""

    def __init__(self, trusted: Iterable[str] = ()) -> None:
        self._trusted = tuple(ip_network(text) for text in trusted)

    def of(self, request: IRequest) -> str:
        """The address; empty where there is none, as over a UNIX socket."""
        peer: str = getattr(request.getClientAddress(), "host", "")
        if not self._trusted or not self._is_trusted(peer):
            return peer
        told = ",".join(request.requestHeaders.getRawHeaders("X-Forwarded-For") or ())
        for text in reversed(told.rsplit(",", MOST_HOPS)[-MOST_HOPS:]):
            try:
                address = str(ip_address(text.strip()))
            except ValueError:  # nobody's address: the one who told it is as far as we know
                break
            peer = address
            if not self._is_trusted(address):
                break
        return peer

    def _is_trusted(self, text: str) -> bool:
        try:
            address = ip_address(text)
        except ValueError:
            return False
        return any(address in network for network in self._trusted)
