"""Who asks for events: as everywhere, or else by a signed token or a ticket."""

from __future__ import annotations

from typing import Any

from amqprouter.errors import BadToken
from amqprouter.interfaces import Identity
from amqprouter.web.bearer import Bearers, Grant
from amqprouter.web.login import Login
from amqprouter.web.tickets import Tickets


class EventsLogin(Login):
    """`login`, and before that tickets, and tokens where `bearers` has the keys for them.

    :param take_tickets: False where nobody is let in by a ticket: who gets another would stay in for good.
    """

    def __init__(self, login: Login, bearers: Bearers | None, tickets: Tickets, *, take_tickets: bool = True) -> None:
        self._login = login
        self._bearers = bearers
        self._tickets = tickets
        self._take_tickets = take_tickets

    async def user(self, request: Any) -> Identity | None:
        """The user, as `Login.user` has it; `request.grant` is by what, if that can end."""
        shown = request.args.get(b"ticket")
        if shown is not None:
            good = self._take_tickets and len(shown) == 1
            ticket = self._tickets.redeem(shown[0].decode("ascii", "replace")) if good else None
            if ticket is None or not await self._still_good(ticket.grant):
                return None
            request.grant = ticket.grant
            return ticket.user
        scheme, _, token = (request.getHeader(b"Authorization") or b"").partition(b" ")
        if self._bearers is None or scheme.lower() != b"bearer":
            user = await self._login.user(request)
            if user is not None and user.valid_for is not None:
                request.grant = Grant(b"", ends=self._tickets.now() + user.valid_for)
            return user
        try:
            verified = await self._bearers.verify(token.strip())
        except BadToken:
            return None
        request.grant = Grant(token.strip(), verified.good_until)
        return self._bearers.user(verified)

    async def _still_good(self, grant: Grant | None) -> bool:
        """Whether the token that a ticket was given for is as good as it was then."""
        if grant is None or not grant.token:
            return True
        if self._bearers is None:
            return False
        try:
            await self._bearers.verify(grant.token)
        except BadToken:
            return False
        return True
