"""Who asks for events: as everywhere, or else by a signed token or a ticket."""

from __future__ import annotations

from typing import Any

from amqprouter.errors import BadToken
from amqprouter.interfaces import Identity
from amqprouter.web.bearer import Bearers, Grant
from amqprouter.web.login import Login
from amqprouter.web.tickets import Tickets


class EventsLogin(Login):
    """`login`, and before that tickets, and tokens where `bearers` has the keys for them."""

    def __init__(self, login: Login, bearers: Bearers | None, tickets: Tickets) -> None:
        self._login = login
        self._bearers = bearers
        self._tickets = tickets

    async def user(self, request: Any) -> Identity | None:
        """The user, as `Login.user` has it; `request.grant` is the token by which, if by one."""
        shown = request.args.get(b"ticket")
        if shown is not None:
            ticket = self._tickets.redeem(shown[0].decode("ascii", "replace")) if len(shown) == 1 else None
            if ticket is None:
                return None
            request.grant = ticket.grant
            return ticket.user
        scheme, _, token = (request.getHeader(b"Authorization") or b"").partition(b" ")
        if self._bearers is None or scheme.lower() != b"bearer":
            return await self._login.user(request)
        try:
            verified = await self._bearers.verify(token.strip())
        except BadToken:
            return None
        request.grant = Grant(token.strip(), verified.good_until)
        return self._bearers.user(verified)
